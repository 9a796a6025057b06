/* A growable run of bytes with a bound, kept NUL-terminated so that text can be read in place. */
#ifndef BRIGADE_BASE_BUFFER_H
#define BRIGADE_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *data;       /* NULL while empty, else size bytes and a NUL */
    size_t size;
    size_t capacity;
    size_t limit;     /* 0: none; growing past it fails with ERR_BOUND */
    int failed;       /* sticky: the first error of an append; later appends do nothing */
};

/* Start from {0}, or {.limit = N}. All appends return 0, ERR_NOMEM or ERR_BOUND, and the sticky error after one. */
int buffer_append(struct buffer *b, const void *bytes, size_t n);
int buffer_puts(struct buffer *b, const char *text);
int buffer_putc(struct buffer *b, char c);
int buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes and returns where they go; the caller then adds to size. NULL on failure. */
char *buffer_reserve(struct buffer *b, size_t n);
void buffer_clear(struct buffer *b); /* empty, capacity kept */
void buffer_free(struct buffer *b);
/* Hands the bytes to the caller (mem_free) and empties b; an empty string for an empty buffer; NULL on failure. */
char *buffer_steal(struct buffer *b);

#endif
