/* The allocator's door and its failure injection. Any thread. */
#include "base/memory.h"

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

void *mem_map(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    if (must_fail() || bytes > SIZE_MAX - huge)
        return NULL;
    size_t align = bytes >= huge ? huge : 64;
    void *p;
    if (align == huge) {
        /* Over-map by one huge page, then trim to an aligned window. */
        char *raw = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (raw == MAP_FAILED)
            return NULL;
        size_t page = 4096, skip = (huge - (uintptr_t)raw % huge) % huge;
        size_t used = (bytes + page - 1) / page * page;
        if (skip)
            munmap(raw, skip);
        if (bytes + huge > skip + used)
            munmap(raw + skip + used, (bytes + huge - skip - used) / page * page);
        p = raw + skip;
#ifdef MADV_HUGEPAGE
        madvise(p, used, MADV_HUGEPAGE);
#endif
        return p;
    }
    size_t rounded = (bytes + 63) / 64 * 64;
    p = aligned_alloc(64, rounded ? rounded : 64);
    if (p)
        memset(p, 0, rounded ? rounded : 64);
    return p;
}

void mem_unmap(void *p, size_t bytes)
{
    const size_t huge = (size_t)2 << 20, page = 4096;
    if (!p)
        return;
    if (bytes >= huge)
        munmap(p, (bytes + page - 1) / page * page);
    else
        free(p);
}
