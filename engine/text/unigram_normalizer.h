/* SentencePiece's compiled character map: longest prefixes and what they become (NFKC and the like). Immutable; any
 * thread. Private to engine/text. */
#ifndef BRIGADE_ENGINE_TEXT_UNIGRAM_NORMALIZER_H
#define BRIGADE_ENGINE_TEXT_UNIGRAM_NORMALIZER_H

#include <stddef.h>

#include "base/error.h"
#include "engine/files/gguf.h"

struct character_map;

/* Reads tokenizer.ggml.precompiled_charsmap of g; *out becomes NULL when the file has none. */
int character_map_open(const struct gguf *g, struct character_map **out, struct error *err);
void character_map_close(struct character_map *map); /* NULL is fine */

/* The longest prefix of text that the map knows: its length, and in *to what it becomes (NUL-terminated, perhaps
 * empty); 0 when it knows none. */
size_t character_map_find(const struct character_map *map, const char *text, size_t bytes, const char **to);

#endif
