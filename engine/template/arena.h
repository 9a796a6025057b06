/* Memory that is given out piece by piece and given back all at once. Bounded; one thread. */
#ifndef BRIGADE_ENGINE_TEMPLATE_ARENA_H
#define BRIGADE_ENGINE_TEMPLATE_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *blocks;
    size_t used_bytes;  /* taken from the heap so far */
    size_t limit_bytes; /* bound on it */
    int failed;         /* 0, ERR_NOMEM or ERR_BOUND: why the last jinja_arena_alloc gave NULL */
};

/* Start from {.limit_bytes = N}. Memory for any object type, not zeroed; NULL on failure. */
void *jinja_arena_alloc(struct arena *a, size_t bytes);
void jinja_arena_free(struct arena *a);

#endif
