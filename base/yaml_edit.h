/* Changing a YAML text without touching the rest of it: an item is added to a sequence of the top mapping, or taken out
 * of one, and every other byte (comments, order, blank lines, quotes) stays as a person wrote it. Works on text that
 * yaml_read_text accepts; the caller reads the result again before trusting it. Pure; any thread. */
#ifndef BRIGADE_BASE_YAML_EDIT_H
#define BRIGADE_BASE_YAML_EDIT_H

#include "base/buffer.h"
#include "base/error.h"

struct yaml_pair {
    const char *key;   /* NULL: the item is this text alone, no mapping */
    const char *value; /* quoted as needed */
};

/* Appends text to out with an item added at the end of the sequence `key` of the top mapping. A missing key is put at
 * the end of the text, an empty sequence becomes one of a line an entry, a single scalar becomes a sequence. ERR_FORMAT
 * when text or value cannot take it, ERR_NOMEM. `name` (a file name) starts errors. */
int yaml_add_item(const char *name, const char *text, size_t bytes, const char *key, const struct yaml_pair *pairs,
                  size_t pair_count, struct buffer *out, struct error *err);
/* Appends text to out without item `index` of that sequence; the comment on its own lines goes with it. ERR_NOTFOUND,
 * ERR_FORMAT, ERR_NOMEM. */
int yaml_remove_item(const char *name, const char *text, size_t bytes, const char *key, size_t index,
                     struct buffer *out, struct error *err);

#endif
