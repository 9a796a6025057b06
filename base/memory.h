/* Allocation: every allocation of brigade's own goes through here, so that tests can make the k-th one fail
 * (BRIGADE_FAIL_ALLOC=k, counted from 1 over the process; a line on stderr says when it does) and large arrays can ask
 * for alignment and huge pages. */
#ifndef BRIGADE_BASE_MEMORY_H
#define BRIGADE_BASE_MEMORY_H

#include <stddef.h>

/* As malloc, calloc, realloc, strdup and strndup; NULL when it fails. Sizes of 0 give a non-NULL pointer. */
void *mem_alloc(size_t bytes);
void *mem_zalloc(size_t count, size_t bytes_each);
void *mem_realloc(void *old, size_t bytes);
/* Grows an array to count elements; NULL (and `old` intact) on overflow or failure. */
void *mem_resize(void *old, size_t count, size_t bytes_each);
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t bytes);
/* Formatted string, caller frees; NULL on failure. */
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mem_free(void *p);

/* For tests: the k-th allocation from now on fails, counted over the process; 0: none. Overrides the environment. */
void mem_fail_at(long k);

/* Large arrays: 64-byte aligned, zeroed, in huge pages where the system gives them. Free with mem_unmap. Any thread. */
void *mem_map(size_t bytes);
void mem_unmap(void *p, size_t bytes);

#endif
