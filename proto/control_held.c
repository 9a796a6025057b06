/* Held pages there and back. Pure. */
#include "proto/control_held.h"

#include <string.h>

#include "base/memory.h"

struct control_held *control_held_room(uint32_t entries, uint32_t pages)
{
    size_t heads = entries * sizeof(struct control_held);
    char *memory = mem_alloc(heads + (size_t)pages * (sizeof(uint64_t) + sizeof(uint32_t)) + 1);
    struct control_held *list = (struct control_held *)(void *)memory;
    if (!list)
        return NULL;
    memset(list, 0, heads);
    if (entries) {
        list[0].hashes = (uint64_t *)(void *)(memory + heads);
        list[0].pages = (uint32_t *)(void *)(memory + heads + pages * sizeof(uint64_t));
    }
    return list;
}

static int check(size_t count, uint64_t pages, struct error *err)
{
    if (count > FRAME_HELD_MAX || pages > FRAME_HELD_PAGES_MAX)
        return error_set(err, ERR_BOUND, "pages: %zu lists of %llu held pages; the limits are %u and %u", count,
                         (unsigned long long)pages, FRAME_HELD_MAX, FRAME_HELD_PAGES_MAX);
    return 0;
}

int held_encode(struct wire_arena *a, const struct control_held *list, uint32_t count, Brigade__HeldPages ***out,
                struct error *err)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < count; i++)
        pages += list[i].page_count;
    int rc = check(count, pages, err);
    if (rc)
        return rc;
    Brigade__HeldPages **pointers = wire_arena_take(a, count, sizeof *pointers);
    Brigade__HeldPages *messages = wire_arena_take(a, count, sizeof *messages);
    if (!pointers || !messages)
        return error_set(err, ERR_NOMEM, "pages: no memory to encode it");
    for (uint32_t i = 0; i < count; i++) {
        brigade__held_pages__init(pointers[i] = &messages[i]);
        messages[i].first_block = list[i].first_block;
        messages[i].last_block = list[i].last_block;
        messages[i].n_pages = messages[i].n_hashes = list[i].page_count;
        messages[i].pages = list[i].pages;
        messages[i].hashes = list[i].hashes;
    }
    *out = pointers;
    return 0;
}

int held_decode(Brigade__HeldPages *const *list, size_t count, struct control_held **out, struct error *err)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < count; i++) {
        const Brigade__HeldPages *m = list[i];
        if (m->first_block > m->last_block || m->n_pages != m->n_hashes)
            return error_set(err, ERR_FORMAT, "pages: %zu held pages of blocks %u to %u, %zu hashes", m->n_pages,
                             m->first_block, m->last_block, m->n_hashes);
        pages += m->n_pages;
    }
    int rc = check(count, pages, err);
    if (rc || !count)
        return rc;
    struct control_held *held = control_held_room((uint32_t)count, (uint32_t)pages);
    if (!held)
        return error_set(err, ERR_NOMEM, "pages: no memory for %llu held pages", (unsigned long long)pages);
    uint32_t *numbers = held[0].pages;
    uint64_t *hashes = held[0].hashes;
    for (size_t i = 0; i < count; i++) {
        const Brigade__HeldPages *m = list[i];
        held[i] = (struct control_held){m->first_block, m->last_block, (uint32_t)m->n_pages, numbers, hashes};
        if (m->n_pages) {
            memcpy(numbers, m->pages, m->n_pages * sizeof *numbers);
            memcpy(hashes, m->hashes, m->n_pages * sizeof *hashes);
        }
        numbers += m->n_pages;
        hashes += m->n_pages;
    }
    *out = held;
    return 0;
}
