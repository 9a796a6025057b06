/* The allocator's door and its failure injection. Any thread. */
#include "base/memory.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic long failing_at = -1; /* -1: the environment not read yet, 0: never */
static _Atomic long counted;
static _Atomic bool telling; /* a program that was asked by its environment says when it happens */

static long fail_at(void)
{
    long value = atomic_load_explicit(&failing_at, memory_order_relaxed);
    if (value < 0) {
        const char *text = getenv("BRIGADE_FAIL_ALLOC");
        value = text ? atol(text) : 0;
        if (value < 0)
            value = 0;
        atomic_store(&telling, value > 0);
        atomic_store_explicit(&failing_at, value, memory_order_relaxed);
    }
    return value;
}

void mem_fail_at(long k)
{
    atomic_store(&counted, 0);
    atomic_store(&telling, false);
    atomic_store(&failing_at, k);
}

static int must_fail(void)
{
    long at = fail_at();
    if (!at || atomic_fetch_add(&counted, 1) + 1 != at)
        return 0;
    if (atomic_load(&telling))
        dprintf(STDERR_FILENO, "BRIGADE_FAIL_ALLOC: allocation %ld fails\n", at);
    return 1;
}

void *mem_alloc(size_t bytes)
{
    return must_fail() ? NULL : malloc(bytes ? bytes : 1);
}

void *mem_zalloc(size_t count, size_t bytes_each)
{
    return must_fail() ? NULL : calloc(count ? count : 1, bytes_each ? bytes_each : 1);
}

void *mem_realloc(void *old, size_t bytes)
{
    return must_fail() ? NULL : realloc(old, bytes ? bytes : 1);
}

void *mem_resize(void *old, size_t count, size_t bytes_each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, bytes_each, &bytes))
        return NULL;
    return mem_realloc(old, bytes);
}

char *mem_strndup(const char *text, size_t bytes)
{
    size_t n = strnlen(text, bytes);
    char *copy = mem_alloc(n + 1);
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = 0;
    }
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

char *mem_printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : mem_alloc((size_t)n + 1);
    if (text) {
        va_start(args, format);
        vsnprintf(text, (size_t)n + 1, format, args);
        va_end(args);
    }
    return text;
}

void mem_free(void *p)
{
    free(p);
}

/* ---- Large arrays ------------------------------------------------------------------------------------------------ */

#define PAGE ((size_t)4096)
#define HUGE ((size_t)2 << 20)
#define LARGE ((size_t)128 << 10) /* below: the heap */
#define WINDOW ((size_t)64 << 20)

/* Large arrays follow each other in windows of address space whose pages may be huge, so that the end of one and the
 * start of the next share a huge page: alone, each array's end, and all of one below 2 MiB, would lie in small pages, and
 * reading those costs a page walk every few lines. Every array gives its own pages back. */
static pthread_mutex_t window_lock = PTHREAD_MUTEX_INITIALIZER;
static char *window;
static size_t window_left;

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* A new window with room for `bytes`; what was left of the old one goes back. Called with the lock held. */
static bool window_open(size_t bytes)
{
    size_t size = bytes > WINDOW ? (bytes + HUGE - 1) / HUGE * HUGE : WINDOW;
    char *raw = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED)
        return false;
    size_t skip = (HUGE - (uintptr_t)raw % HUGE) % HUGE;
    if (skip)
        munmap(raw, skip);
    munmap(raw + skip + size, HUGE - skip);
#ifdef MADV_HUGEPAGE
    madvise(raw + skip, size, MADV_HUGEPAGE);
#endif
    if (window_left)
        munmap(window, window_left);
    window = raw + skip;
    window_left = size;
    return true;
}

void *mem_map(size_t bytes)
{
    if (must_fail() || bytes > SIZE_MAX / 2)
        return NULL;
    if (bytes < LARGE) {
        size_t rounded = bytes ? (bytes + 63) / 64 * 64 : 64;
        void *p = aligned_alloc(64, rounded);
        return p ? memset(p, 0, rounded) : NULL;
    }
    size_t used = whole_pages(bytes);
    void *p = NULL;
    pthread_mutex_lock(&window_lock);
    if (used <= window_left || window_open(used)) {
        p = window;
        window += used;
        window_left -= used;
    }
    pthread_mutex_unlock(&window_lock);
    return p;
}

void mem_unmap(void *p, size_t bytes)
{
    if (!p)
        return;
    if (bytes < LARGE)
        free(p);
    else
        munmap(p, whole_pages(bytes));
}
