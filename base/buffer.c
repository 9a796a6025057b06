/* Doubling growth with a bound. One owner. */
#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

char *buffer_reserve(struct buffer *b, size_t n)
{
    size_t need;
    if (b->failed)
        return NULL;
    if (__builtin_add_overflow(b->size, n, &need) || need == SIZE_MAX || (b->limit && need > b->limit)) {
        b->failed = ERR_BOUND;
        return NULL;
    }
    if (need + 1 > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < need + 1)
            capacity = capacity > SIZE_MAX / 2 ? need + 1 : capacity * 2;
        char *data = mem_realloc(b->data, capacity);
        if (!data) {
            b->failed = ERR_NOMEM;
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    b->data[need] = 0;
    return b->data + b->size;
}

int buffer_append(struct buffer *b, const void *bytes, size_t n)
{
    char *at = buffer_reserve(b, n);
    if (!at)
        return b->failed;
    if (n)
        memcpy(at, bytes, n);
    b->size += n;
    return 0;
}

int buffer_puts(struct buffer *b, const char *text)
{
    return buffer_append(b, text, strlen(text));
}

int buffer_putc(struct buffer *b, char c)
{
    return buffer_append(b, &c, 1);
}

int buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *at = n < 0 ? NULL : buffer_reserve(b, (size_t)n);
    if (!at)
        return b->failed ? b->failed : ERR_INTERNAL;
    va_start(args, format);
    vsnprintf(at, (size_t)n + 1, format, args);
    va_end(args);
    b->size += (size_t)n;
    return 0;
}

void buffer_clear(struct buffer *b)
{
    b->size = 0;
    b->failed = 0;
    if (b->data)
        b->data[0] = 0;
}

void buffer_free(struct buffer *b)
{
    mem_free(b->data);
    *b = (struct buffer){.limit = b->limit};
}

char *buffer_steal(struct buffer *b)
{
    char *data = NULL;
    if (!b->failed && buffer_reserve(b, 0))
        data = b->data;
    else
        mem_free(b->data);
    *b = (struct buffer){.limit = b->limit};
    return data;
}
