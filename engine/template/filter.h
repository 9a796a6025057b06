/* The tables of filters, and what they share with methods and functions. One thread a run. */
#ifndef BRIGADE_ENGINE_TEMPLATE_FILTER_H
#define BRIGADE_ENGINE_TEMPLATE_FILTER_H

#include "engine/template/call.h"

extern const struct builtin jinja_text_filters[], jinja_sequence_filters[], jinja_choice_filters[];
extern const size_t jinja_text_filter_count, jinja_sequence_filter_count, jinja_choice_filter_count;

/* A new list of the items in the order of their keys (as many), stable; from last to first when `reverse`. */
struct value jinja_sort(struct run *r, const struct list *items, const struct list *keys, bool reverse);
/* What filters compare an item by: its part at `path` (absent or none: itself), texts in lower case unless
 * `case_sensitive`. */
struct value jinja_sort_key(struct run *r, struct value item, struct value path, bool case_sensitive);
/* Fills a dictionary as Python's dict(...) does: from a dict or pairs, then from the keywords. */
void jinja_fill(struct run *r, struct dict *dict, const struct arguments *all);

#endif
