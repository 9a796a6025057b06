/* Parts of values: attributes, items, slices. Where Python would look on an object and then in it, so does this, and
 * the other way round for v[key]. Owns nothing; one thread a run. */
#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/unicode.h"

static struct value method_of(struct run *r, struct value v, const struct string *name)
{
    const struct builtin *b = jinja_find_method(v.kind, name->bytes, name->n_bytes);
    struct method *m = b ? jinja_alloc(r, 1, sizeof *m) : NULL;
    if (!m)
        return jinja_undefined(name, v.kind);
    *m = (struct method){v, b};
    return (struct value){.kind = KIND_METHOD, .method = m};
}

static struct value loop_attribute(struct run *r, struct value v, const struct string *name)
{
    const struct loop *l = v.loop;
    int64_t left = l->length > l->index0 ? (int64_t)(l->length - l->index0) : 0;
    struct value n = jinja_text(name);
    if (jinja_is(n, "index"))
        return jinja_int((int64_t)l->index0 + 1);
    if (jinja_is(n, "index0"))
        return jinja_int((int64_t)l->index0);
    if (jinja_is(n, "revindex"))
        return jinja_int(left);
    if (jinja_is(n, "revindex0"))
        return jinja_int(left - 1);
    if (jinja_is(n, "first"))
        return jinja_bool(l->index0 == 0);
    if (jinja_is(n, "last"))
        return jinja_bool(left <= 1);
    if (jinja_is(n, "length"))
        return jinja_int((int64_t)l->length);
    if (jinja_is(n, "depth"))
        return jinja_int((int64_t)l->depth0 + 1);
    if (jinja_is(n, "depth0"))
        return jinja_int((int64_t)l->depth0);
    if (jinja_is(n, "previtem"))
        return l->index0 > 0 && l->index0 <= l->items->n ? l->items->items[l->index0 - 1]
                                                         : jinja_undefined(name, KIND_LOOP);
    if (jinja_is(n, "nextitem"))
        return left > 1 && l->index0 + 1 < l->items->n ? l->items->items[l->index0 + 1]
                                                       : jinja_undefined(name, KIND_LOOP);
    return method_of(r, v, name);
}

static struct value macro_attribute(struct run *r, struct value v, const struct string *name)
{
    const struct node *n = v.macro->node;
    if (jinja_is(jinja_text(name), "name") && n->name && n->kind == NODE_MACRO)
        return jinja_text(n->name);
    if (!jinja_is(jinja_text(name), "arguments"))
        return jinja_undefined(name, v.kind);
    struct value names = jinja_list(r, KIND_TUPLE, 0);
    for (const struct node *p = n->items; p && !r->failed; p = p->next)
        jinja_push(r, names.list, jinja_text(p->name));
    return names;
}

struct value jinja_attribute(struct run *r, struct value v, const struct string *name)
{
    struct value *found;
    switch (v.kind) {
    case KIND_UNDEFINED:
        return jinja_fail_undefined(r, v);
    case KIND_DICT: {
        struct value method = method_of(r, v, name);
        if (method.kind == KIND_METHOD)
            return method;
        found = jinja_get(r, v.dict, jinja_text(name));
        return found ? *found : method;
    }
    case KIND_NAMESPACE:
        found = jinja_get(r, v.dict, jinja_text(name));
        return found ? *found : jinja_undefined(name, v.kind);
    case KIND_LOOP:
        return loop_attribute(r, v, name);
    case KIND_MACRO:
        return macro_attribute(r, v, name);
    case KIND_TUPLE:
        if (v.detail && jinja_is(jinja_text(name), "grouper"))
            return v.list->items[0];
        if (v.detail && jinja_is(jinja_text(name), "list"))
            return v.list->items[1];
        return method_of(r, v, name);
    default:
        return method_of(r, v, name);
    }
}

static struct value nth(struct run *r, struct value v, int64_t at)
{
    int64_t n = (int64_t)jinja_length(r, v);
    if (at < 0)
        at += n;
    if (at < 0 || at >= n)
        return jinja_undefined(NULL, v.kind);
    if (v.kind == KIND_RANGE)
        return jinja_int(v.range->start + at * v.range->step);
    if (v.kind != KIND_STRING)
        return v.list->items[at];
    struct value part = jinja_slice(r, v, jinja_int(at), jinja_int(at + 1), jinja_none());
    return part;
}

struct value jinja_item(struct run *r, struct value v, struct value key)
{
    if (v.kind == KIND_UNDEFINED)
        return jinja_fail_undefined(r, v);
    if (v.kind == KIND_DICT && key.kind != KIND_LIST && key.kind != KIND_DICT) {
        struct value *found = jinja_get(r, v.dict, key);
        if (found)
            return *found;
        return key.kind == KIND_STRING ? method_of(r, v, key.text) : jinja_undefined(NULL, v.kind);
    }
    bool sequence = v.kind == KIND_STRING || v.kind == KIND_LIST || v.kind == KIND_TUPLE || v.kind == KIND_RANGE;
    if (sequence && jinja_is_integer(key))
        return nth(r, v, key.integer);
    if (key.kind == KIND_STRING)
        return jinja_attribute(r, v, key.text);
    return jinja_undefined(NULL, v.kind);
}

/* A slice's bound within [low, high], counted from the end when negative. */
static int64_t bound(struct value v, int64_t n, int64_t low, int64_t high, int64_t otherwise)
{
    if (v.kind == KIND_NONE)
        return otherwise;
    int64_t at = v.integer < 0 ? (v.integer < -n ? low : v.integer + n) : v.integer;
    return at < low ? low : at > high ? high : at;
}

static struct value slice_text(struct run *r, struct value v, int64_t start, int64_t step, size_t count)
{
    const struct string *s = v.text;
    bool ascii = s->n_points == s->n_bytes;
    if (!jinja_spend(r, (ascii ? count : s->n_bytes) / 64))
        return v;
    if (step == 1 || count == 0) {
        size_t from = ascii ? (size_t)start : jinja_utf8_offset(s->bytes, s->n_bytes, (size_t)start);
        size_t n = ascii ? count : jinja_utf8_offset(s->bytes + from, s->n_bytes - from, count);
        v = count ? jinja_borrow(r, s->bytes + from, n) : jinja_literal(r, "");
        return v;
    }
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0, at = 0, point = 0; i < count && jinja_spend(r, 1); i++, start += step) {
        while (point < (size_t)start)
            at += jinja_utf8_offset(s->bytes + at, s->n_bytes - at, 1), point++;
        while (point > (size_t)start)
            at = jinja_utf8_back(s->bytes, at), point--;
        buffer_append(&b, s->bytes + at, jinja_utf8_offset(s->bytes + at, s->n_bytes - at, 1));
    }
    return jinja_take(r, &b);
}

struct value jinja_slice(struct run *r, struct value v, struct value start, struct value stop, struct value step)
{
    if (v.kind == KIND_UNDEFINED)
        return jinja_fail_undefined(r, v);
    if (v.kind != KIND_STRING && v.kind != KIND_LIST && v.kind != KIND_TUPLE && v.kind != KIND_RANGE)
        return jinja_fail(r, ERR_FORMAT, "a %s cannot be sliced", jinja_type_name(v));
    const struct value parts[] = {start, stop, step};
    for (int i = 0; i < 3; i++)
        if (parts[i].kind != KIND_NONE && !jinja_is_integer(parts[i]))
            return jinja_fail(r, ERR_FORMAT, "a slice needs whole numbers, not a %s", jinja_type_name(parts[i]));
    int64_t n = (int64_t)jinja_length(r, v), by = step.kind == KIND_NONE ? 1 : step.integer;
    if (by == 0)
        return jinja_fail(r, ERR_FORMAT, "a slice's step cannot be zero");
    if (by > n + 1 || by < -n - 1)
        by = by > 0 ? n + 1 : -n - 1;
    int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
    int64_t from = bound(start, n, low, high, by > 0 ? low : high);
    int64_t to = bound(stop, n, low, high, by > 0 ? high : low);
    size_t count = by > 0 ? (to > from ? (size_t)((to - from - 1) / by + 1) : 0)
                          : (from > to ? (size_t)((from - to - 1) / -by + 1) : 0);
    if (v.kind == KIND_STRING) {
        struct value text = slice_text(r, v, from, by, count);
        if (text.kind == KIND_STRING)
            text.detail = v.detail;
        return text;
    }
    if (v.kind == KIND_RANGE) {
        struct range *range = jinja_alloc(r, 1, sizeof *range);
        if (!range)
            return v;
        /* with two elements or more, every product stays within the old range */
        *range = (struct range){.step = count > 1 ? v.range->step * by : 1, .n = count};
        range->start = count ? v.range->start + from * v.range->step : 0;
        range->stop = count ? range->start + (int64_t)(count - 1) * range->step + (range->step > 0 ? 1 : -1) : 0;
        v.range = range;
        return v;
    }
    struct value part = jinja_list(r, v.kind, jinja_spend(r, count / 16) ? count : 0);
    for (size_t i = 0; i < count && !r->failed; i++)
        jinja_push(r, part.list, v.list->items[from + (int64_t)i * by]);
    return part;
}

struct value jinja_path(struct run *r, struct value v, struct value path, struct value otherwise)
{
    bool has_default = otherwise.kind != KIND_ABSENT && otherwise.kind != KIND_NONE;
    if (path.kind != KIND_STRING) {
        v = jinja_item(r, v, path);
        return v.kind == KIND_UNDEFINED && has_default ? otherwise : v;
    }
    const char *bytes = path.text->bytes, *end = bytes + path.text->n_bytes;
    while (!r->failed) {
        const char *dot = memchr(bytes, '.', (size_t)(end - bytes));
        size_t n = (size_t)((dot ? dot : end) - bytes);
        int64_t index = 0;
        bool digits = n > 0 && n < 18;
        for (size_t i = 0; i < n && digits; i++) {
            digits = bytes[i] >= '0' && bytes[i] <= '9';
            index = index * 10 + (bytes[i] - '0');
        }
        v = jinja_item(r, v, digits ? jinja_int(index) : jinja_borrow(r, bytes, n));
        if (v.kind == KIND_UNDEFINED && has_default)
            v = otherwise;
        if (!dot)
            break;
        bytes = dot + 1;
    }
    return v;
}
