/* The arena: a chain of growing blocks. Owns its blocks; one thread an arena. */
#include "engine/template/arena.h"

#include <stdalign.h>
#include <stdint.h>

#include "base/error.h"
#include "base/memory.h"

enum { FIRST_BLOCK_BYTES = 16 << 10, LAST_BLOCK_BYTES = 1 << 20 };

struct arena_block {
    struct arena_block *next;
    size_t size, used; /* of bytes[] */
    alignas(max_align_t) char bytes[];
};

void *jinja_arena_alloc(struct arena *a, size_t bytes)
{
    const size_t align = alignof(max_align_t);
    if (bytes > SIZE_MAX / 2) {
        a->failed = ERR_BOUND;
        return NULL;
    }
    bytes = (bytes + align - 1) / align * align;
    struct arena_block *b = a->blocks;
    if (!b || b->size - b->used < bytes) {
        size_t size = !b ? FIRST_BLOCK_BYTES : b->size * 2;
        if (size > LAST_BLOCK_BYTES)
            size = LAST_BLOCK_BYTES;
        if (size < bytes)
            size = bytes;
        if (size > a->limit_bytes || a->used_bytes > a->limit_bytes - size) {
            a->failed = ERR_BOUND;
            return NULL;
        }
        struct arena_block *fresh = mem_alloc(sizeof *fresh + size);
        if (!fresh) {
            a->failed = ERR_NOMEM;
            return NULL;
        }
        fresh->size = size;
        fresh->used = 0;
        a->used_bytes += size;
        /* A piece too large to share its block goes behind the present one, which stays open. */
        if (b && size == bytes) {
            fresh->next = b->next;
            b->next = fresh;
        } else {
            fresh->next = b;
            a->blocks = fresh;
        }
        b = fresh;
    }
    void *p = b->bytes + b->used;
    b->used += bytes;
    return p;
}

void jinja_arena_free(struct arena *a)
{
    while (a->blocks) {
        struct arena_block *next = a->blocks->next;
        mem_free(a->blocks);
        a->blocks = next;
    }
    a->used_bytes = 0;
}
