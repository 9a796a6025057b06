/* What filters and methods do to strings alike. All take a KIND_STRING and keep its mark. One thread a run. */
#ifndef BRIGADE_ENGINE_TEMPLATE_TEXT_H
#define BRIGADE_ENGINE_TEMPLATE_TEXT_H

#include "engine/template/value.h"

enum letter_case { CASE_UPPER, CASE_LOWER, CASE_CAPITAL, CASE_TITLE, CASE_SWAP };
enum side { SIDE_LEFT = 1, SIDE_RIGHT = 2, SIDE_BOTH = 3 };

struct value jinja_change_case(struct run *r, struct value v, enum letter_case to);
/* Without the characters of `chars` (white space when absent or none) at its sides. */
struct value jinja_strip(struct run *r, struct value v, struct value chars, enum side sides);
/* The first `most` occurrences replaced (all when negative); an empty `old` stands between all characters. */
struct value jinja_replace(struct run *r, struct value v, const struct string *old, const struct string *new,
                           int64_t most);
/* Padded to `width` characters with `fill` on the named sides. */
struct value jinja_pad(struct run *r, struct value v, int64_t width, const struct string *fill, enum side sides);
/* Cut at every line end, which is kept or not; nothing behind the last one. */
struct value jinja_split_lines(struct run *r, struct value v, bool keep_ends);
/* Cut at `separator`, or at white space when NULL, at most `most` times (negative: always), from the right or left. */
struct value jinja_split(struct run *r, struct value v, const struct string *separator, int64_t most, bool from_right);
/* Where `what` stands last in n bytes; NULL when nowhere. */
const char *jinja_find_last(struct run *r, const char *bytes, size_t n, const struct string *what);
/* A part of v's bytes, shared. */
struct value jinja_part(struct run *r, struct value v, size_t from, size_t to);

#endif
