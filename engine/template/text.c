/* String operations on whole strings, as Python defines them. Owns nothing; one thread a run. */
#include "engine/template/text.h"

#include <string.h>

#include "engine/template/unicode.h"

static struct value take_marked(struct run *r, struct buffer *b, struct value like)
{
    struct value v = jinja_take(r, b);
    if (v.kind == KIND_STRING)
        v.detail = like.detail;
    return v;
}

struct value jinja_part(struct run *r, struct value v, size_t from, size_t to)
{
    struct value part = jinja_borrow(r, v.text->bytes + from, to - from);
    if (part.kind == KIND_STRING)
        part.detail = v.detail;
    return part;
}

static void put_point(struct buffer *b, uint32_t c, bool upper, bool lower)
{
    char bytes[4];
    if (upper && c == 0xDF) {
        buffer_puts(b, "SS"); /* the one common letter whose capital is two */
        return;
    }
    c = upper ? jinja_to_upper(c) : lower ? jinja_to_lower(c) : c;
    buffer_append(b, bytes, jinja_utf8_encode(c, bytes));
}

struct value jinja_change_case(struct run *r, struct value v, enum letter_case to)
{
    const struct string *s = v.text;
    struct buffer b = {.limit = r->output_limit};
    bool in_word = false;
    for (size_t i = 0; i < s->n_bytes && !b.failed && jinja_spend(r, 1);) {
        uint32_t c;
        size_t n = jinja_utf8_decode(s->bytes + i, s->n_bytes - i, &c);
        bool cased = jinja_to_upper(c) != c || jinja_to_lower(c) != c || jinja_is_lower(c);
        bool upper = to == CASE_UPPER || (to == CASE_SWAP && !jinja_is_upper(c)) || (to == CASE_TITLE && !in_word) ||
                     (to == CASE_CAPITAL && i == 0);
        put_point(&b, c, upper, !upper);
        in_word = cased;
        i += n;
    }
    return take_marked(r, &b, v);
}

static bool is_among(const struct string *chars, uint32_t c)
{
    if (!chars)
        return jinja_is_space(c);
    for (size_t i = 0; i < chars->n_bytes;) {
        uint32_t other;
        i += jinja_utf8_decode(chars->bytes + i, chars->n_bytes - i, &other);
        if (other == c)
            return true;
    }
    return false;
}

struct value jinja_strip(struct run *r, struct value v, struct value chars, enum side sides)
{
    const struct string *set = chars.kind == KIND_STRING ? chars.text : NULL, *s = v.text;
    size_t from = 0, to = s->n_bytes;
    uint32_t c;
    if (!set && chars.kind != KIND_ABSENT && chars.kind != KIND_NONE)
        return jinja_fail(r, ERR_FORMAT, "strip needs a text, not a %s", jinja_type_name(chars));
    size_t cost = 1 + (set ? set->n_bytes / 16 : 0);
    while ((sides & SIDE_LEFT) && from < to && jinja_spend(r, cost)) {
        size_t n = jinja_utf8_decode(s->bytes + from, to - from, &c);
        if (!is_among(set, c))
            break;
        from += n;
    }
    while ((sides & SIDE_RIGHT) && from < to && jinja_spend(r, cost)) {
        size_t start = jinja_utf8_back(s->bytes, to);
        jinja_utf8_decode(s->bytes + start, to - start, &c);
        if (!is_among(set, c))
            break;
        to = start;
    }
    return from == 0 && to == s->n_bytes ? v : jinja_part(r, v, from, to);
}

struct value jinja_replace(struct run *r, struct value v, const struct string *old, const struct string *new,
                           int64_t most)
{
    const char *at = v.text->bytes, *end = at + v.text->n_bytes;
    struct buffer b = {.limit = r->output_limit};
    if (!jinja_spend(r, v.text->n_bytes / 64))
        return v;
    for (; most != 0 && !b.failed && jinja_spend(r, 1); most -= most > 0) {
        const char *found = at;
        size_t step = 0;
        if (old->n_bytes) {
            found = memmem(at, (size_t)(end - at), old->bytes, old->n_bytes);
        } else if (at < end) {
            uint32_t c;
            step = jinja_utf8_decode(at, (size_t)(end - at), &c);
        }
        if (!found)
            break;
        buffer_append(&b, at, (size_t)(found - at));
        buffer_append(&b, new->bytes, new->n_bytes);
        buffer_append(&b, found, step);
        at = found + old->n_bytes + step;
        if (!old->n_bytes && !step)
            break;
    }
    buffer_append(&b, at, (size_t)(end - at));
    return take_marked(r, &b, v);
}

struct value jinja_pad(struct run *r, struct value v, int64_t width, const struct string *fill, enum side sides)
{
    struct buffer b = {.limit = r->output_limit};
    int64_t pad = width - (int64_t)v.text->n_points;
    if (fill->n_points != 1)
        return jinja_fail(r, ERR_FORMAT, "the fill character must be one character");
    if (pad <= 0)
        return v;
    int64_t left = sides == SIDE_BOTH ? pad / 2 + (pad & width & 1) : sides == SIDE_LEFT ? pad : 0;
    for (int64_t i = 0; i < left && !b.failed; i++)
        buffer_append(&b, fill->bytes, fill->n_bytes);
    buffer_append(&b, v.text->bytes, v.text->n_bytes);
    for (int64_t i = left; i < pad && !b.failed; i++)
        buffer_append(&b, fill->bytes, fill->n_bytes);
    return take_marked(r, &b, v);
}

struct value jinja_split_lines(struct run *r, struct value v, bool keep_ends)
{
    const struct string *s = v.text;
    struct value lines = jinja_list(r, KIND_LIST, 0);
    size_t start = 0, at = 0;
    while (at < s->n_bytes && !r->failed) {
        uint32_t c;
        size_t n = jinja_utf8_decode(s->bytes + at, s->n_bytes - at, &c);
        if (!jinja_is_line_end(c)) {
            at += n;
            continue;
        }
        if (c == '\r' && at + 1 < s->n_bytes && s->bytes[at + 1] == '\n')
            n = 2;
        jinja_push(r, lines.list, jinja_part(r, v, start, keep_ends ? at + n : at));
        start = at += n;
    }
    if (start < s->n_bytes)
        jinja_push(r, lines.list, jinja_part(r, v, start, s->n_bytes));
    jinja_spend(r, s->n_bytes / 8);
    return lines;
}

static void reverse(struct list *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        struct value v = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = v;
    }
}

static void split_at_space(struct run *r, struct value v, int64_t most, struct list *parts)
{
    const struct string *s = v.text;
    size_t at = jinja_lstrip(s->bytes, s->n_bytes);
    while (at < s->n_bytes && !r->failed) {
        size_t end = at;
        uint32_t c;
        if (most == 0) {
            jinja_push(r, parts, jinja_part(r, v, at, s->n_bytes));
            return;
        }
        while (end < s->n_bytes) {
            size_t n = jinja_utf8_decode(s->bytes + end, s->n_bytes - end, &c);
            if (jinja_is_space(c))
                break;
            end += n;
        }
        jinja_push(r, parts, jinja_part(r, v, at, end));
        at = end + jinja_lstrip(s->bytes + end, s->n_bytes - end);
        most--;
    }
}

static void rsplit_at_space(struct run *r, struct value v, int64_t most, struct list *parts)
{
    const struct string *s = v.text;
    size_t end = jinja_rstrip(s->bytes, s->n_bytes);
    while (end > 0 && !r->failed) {
        size_t at = end;
        uint32_t c;
        if (most == 0) {
            jinja_push(r, parts, jinja_part(r, v, 0, end));
            return;
        }
        while (at > 0) {
            size_t start = jinja_utf8_back(s->bytes, at);
            jinja_utf8_decode(s->bytes + start, at - start, &c);
            if (jinja_is_space(c))
                break;
            at = start;
        }
        jinja_push(r, parts, jinja_part(r, v, at, end));
        end = jinja_rstrip(s->bytes, at);
        most--;
    }
}

const char *jinja_find_last(struct run *r, const char *bytes, size_t n, const struct string *what)
{
    for (size_t i = n < what->n_bytes ? 0 : n - what->n_bytes + 1; i-- > 0;) {
        if (i % 64 == 0 && !jinja_spend(r, 1 + what->n_bytes / 64))
            break;
        if (!memcmp(bytes + i, what->bytes, what->n_bytes))
            return bytes + i;
    }
    return NULL;
}

struct value jinja_split(struct run *r, struct value v, const struct string *separator, int64_t most, bool from_right)
{
    struct value parts = jinja_list(r, KIND_LIST, 0);
    const struct string *s = v.text;
    if (!jinja_spend(r, s->n_bytes / (separator ? 64 : 8)))
        return parts;
    if (separator && !separator->n_bytes)
        return jinja_fail(r, ERR_FORMAT, "split needs a separator that is not empty");
    if (!separator) {
        (from_right ? rsplit_at_space : split_at_space)(r, v, most, parts.list);
    } else if (from_right) {
        size_t end = s->n_bytes;
        const char *found;
        for (; most != 0 && !r->failed && (found = jinja_find_last(r, s->bytes, end, separator)); most--) {
            size_t at = (size_t)(found - s->bytes);
            jinja_push(r, parts.list, jinja_part(r, v, at + separator->n_bytes, end));
            end = at;
        }
        jinja_push(r, parts.list, jinja_part(r, v, 0, end));
    } else {
        size_t at = 0;
        const char *found;
        for (; most != 0 && !r->failed; most--) {
            found = memmem(s->bytes + at, s->n_bytes - at, separator->bytes, separator->n_bytes);
            if (!found)
                break;
            jinja_push(r, parts.list, jinja_part(r, v, at, (size_t)(found - s->bytes)));
            at = (size_t)(found - s->bytes) + separator->n_bytes;
        }
        jinja_push(r, parts.list, jinja_part(r, v, at, s->n_bytes));
    }
    if (from_right && !r->failed)
        reverse(parts.list);
    return parts;
}
