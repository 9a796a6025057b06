/* The map is a double array of 32-bit units after its own byte count, then the replacement strings. Every index that it
 * yields is checked, for it comes from a file. Source: the unit layout of Darts-clone (S. Yata), used by SentencePiece.
 */
#include "engine/text/unigram_normalizer.h"

#include <stdint.h>
#include <string.h>

#include "base/memory.h"

struct character_map {
    uint32_t *units;
    size_t unit_count;
    char *strings; /* terminated by a NUL of our own */
    size_t string_bytes;
};

int character_map_open(const struct gguf *g, struct character_map **out, struct error *err)
{
    static const char name[] = "tokenizer.ggml.precompiled_charsmap";
    const struct gguf_key *key = gguf_find(g, name);
    if (!key || (key->type == GGUF_ARRAY && !key->count)) {
        *out = NULL;
        return 0;
    }
    if (key->type != GGUF_ARRAY || (key->element != GGUF_U8 && key->element != GGUF_I8))
        return error_set(err, ERR_FORMAT, "%s: %s is not an array of bytes", gguf_path(g), name);
    uint32_t unit_bytes = 0;
    if (key->count >= 4)
        memcpy(&unit_bytes, key->data, 4);
    if (key->count < 8 || unit_bytes % 4 || unit_bytes < 4 || unit_bytes > key->count - 4)
        return error_set(err, ERR_FORMAT, "%s: %s does not hold the %u bytes of units it announces", gguf_path(g), name,
                         unit_bytes);
    struct character_map *map = mem_zalloc(1, sizeof *map);
    if (map) {
        map->unit_count = unit_bytes / 4;
        map->string_bytes = (size_t)key->count - 4 - unit_bytes;
        map->units = mem_alloc(unit_bytes);
        map->strings = mem_alloc(map->string_bytes + 1);
    }
    if (!map || !map->units || !map->strings) {
        character_map_close(map);
        return error_set(err, ERR_NOMEM, "out of memory for %s", name);
    }
    memcpy(map->units, (const char *)key->data + 4, unit_bytes);
    if (map->string_bytes)
        memcpy(map->strings, (const char *)key->data + 4 + unit_bytes, map->string_bytes);
    map->strings[map->string_bytes] = 0;
    *out = map;
    return 0;
}

void character_map_close(struct character_map *map)
{
    if (!map)
        return;
    mem_free(map->units);
    mem_free(map->strings);
    mem_free(map);
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

size_t character_map_find(const struct character_map *map, const char *text, size_t bytes, const char **to)
{
    size_t found = 0;
    uint32_t at = offset_of(map->units[0]);
    for (size_t k = 0; k < bytes; k++) {
        unsigned char c = (unsigned char)text[k];
        at ^= c;
        if (!c || at >= map->unit_count)
            break;
        uint32_t unit = map->units[at];
        if ((unit & (1u << 31 | 0xFF)) != c)
            break;
        at ^= offset_of(unit);
        if (at >= map->unit_count)
            break;
        if (unit >> 8 & 1) { /* a text ends here; its string's place stands in the next unit */
            uint32_t string = map->units[at] & ~(1u << 31);
            if (string < map->string_bytes) {
                *to = map->strings + string;
                found = k + 1;
            }
        }
    }
    return found;
}
