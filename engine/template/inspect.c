/* Values: asking them what they are, comparing them, taking their elements, as Python does. Owns nothing; one thread a
 * run. */
#include <math.h>
#include <string.h>

#include "engine/template/unicode.h"
#include "engine/template/value.h"

bool jinja_is(struct value v, const char *text)
{
    return v.kind == KIND_STRING && v.text->n_bytes == strlen(text) && !memcmp(v.text->bytes, text, v.text->n_bytes);
}

bool jinja_is_integer(struct value v)
{
    return v.kind == KIND_INT || v.kind == KIND_BOOL;
}

bool jinja_is_number(struct value v)
{
    return jinja_is_integer(v) || v.kind == KIND_FLOAT;
}

double jinja_number(struct value v)
{
    return v.kind == KIND_FLOAT ? v.number : (double)v.integer;
}

bool jinja_has_length(struct value v)
{
    return v.kind == KIND_STRING || v.kind == KIND_LIST || v.kind == KIND_TUPLE || v.kind == KIND_DICT ||
           v.kind == KIND_VIEW || v.kind == KIND_RANGE || v.kind == KIND_LOOP || v.kind == KIND_UNDEFINED;
}

size_t jinja_length(struct run *r, struct value v)
{
    switch (v.kind) {
    case KIND_UNDEFINED:
        return 0;
    case KIND_STRING:
        return v.text->n_points;
    case KIND_LIST:
    case KIND_TUPLE:
        return v.list->n;
    case KIND_DICT:
    case KIND_VIEW:
        return v.dict->n;
    case KIND_RANGE:
        return v.range->n;
    case KIND_LOOP:
        return v.loop->length;
    default:
        jinja_fail(r, ERR_FORMAT, "a %s has no length", jinja_type_name(v));
        return 0;
    }
}

bool jinja_truth(struct value v)
{
    switch (v.kind) {
    case KIND_ABSENT:
    case KIND_UNDEFINED:
    case KIND_NONE:
        return false;
    case KIND_BOOL:
    case KIND_INT:
        return v.integer != 0;
    case KIND_FLOAT:
        return v.number != 0;
    default:
        return !jinja_has_length(v) || jinja_length(NULL, v) > 0;
    }
}

/* -1, 0, 1 for a number below, equal to or above another; 2 when one is not a number. Exact for large integers. */
static int number_order(struct value a, struct value b)
{
    if (jinja_is_integer(a) && jinja_is_integer(b))
        return (a.integer > b.integer) - (a.integer < b.integer);
    double x = jinja_number(a), y = jinja_number(b);
    if (isnan(x) || isnan(y))
        return 2;
    if (x == y && jinja_is_integer(a) != jinja_is_integer(b) && fabs(x) >= 0x1p53 && fabs(x) < 0x1p63) {
        int64_t left = a.kind == KIND_FLOAT ? (int64_t)x : a.integer;
        int64_t right = b.kind == KIND_FLOAT ? (int64_t)y : b.integer;
        return (left > right) - (left < right);
    }
    return (x > y) - (x < y);
}

static int text_order(const struct string *a, const struct string *b)
{
    size_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    int order = memcmp(a->bytes, b->bytes, n);
    return order ? (order > 0) - (order < 0) : (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
}

static bool equal_dicts(struct run *r, const struct dict *a, const struct dict *b)
{
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n && !r->failed; i++) {
        struct value *other = jinja_get(r, b, a->entries[i].key);
        equal = other && jinja_equal(r, a->entries[i].value, *other);
    }
    return equal;
}

bool jinja_equal(struct run *r, struct value a, struct value b)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return number_order(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    if (a.kind == KIND_STRING)
        return a.text == b.text || (a.text->n_bytes == b.text->n_bytes && jinja_spend(r, a.text->n_bytes / 64) &&
                                    !memcmp(a.text->bytes, b.text->bytes, a.text->n_bytes));
    if (a.kind <= KIND_NONE)
        return true;
    if (!jinja_enter(r))
        return false;
    bool equal = false;
    switch (a.kind) {
    case KIND_LIST:
    case KIND_TUPLE:
        equal = a.list->n == b.list->n;
        for (size_t i = 0; equal && i < a.list->n && !r->failed; i++)
            equal = jinja_equal(r, a.list->items[i], b.list->items[i]);
        break;
    case KIND_DICT:
        equal = a.dict == b.dict || equal_dicts(r, a.dict, b.dict);
        break;
    case KIND_RANGE:
        equal = a.range->n == b.range->n && (!a.range->n || a.range->start == b.range->start) &&
                (a.range->n < 2 || a.range->step == b.range->step);
        break;
    case KIND_METHOD:
        equal = a.method->builtin == b.method->builtin && jinja_equal(r, a.method->self, b.method->self);
        break;
    default:
        equal = a.list == b.list; /* the same object */
    }
    jinja_leave(r);
    return equal;
}

int jinja_order(struct run *r, struct value a, struct value b)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return number_order(a, b);
    if (a.kind == KIND_STRING && b.kind == KIND_STRING)
        return jinja_spend(r, a.text->n_bytes / 64) ? text_order(a.text, b.text) : 0;
    if (a.kind == KIND_UNDEFINED || b.kind == KIND_UNDEFINED) {
        jinja_fail_undefined(r, a.kind == KIND_UNDEFINED ? a : b);
        return 0;
    }
    if (a.kind != b.kind || (a.kind != KIND_LIST && a.kind != KIND_TUPLE)) {
        jinja_fail(r, ERR_FORMAT, "a %s and a %s have no order", jinja_type_name(a), jinja_type_name(b));
        return 0;
    }
    if (!jinja_enter(r))
        return 0;
    int order = 0;
    size_t n = a.list->n < b.list->n ? a.list->n : b.list->n, i = 0;
    while (i < n && jinja_equal(r, a.list->items[i], b.list->items[i]))
        i++;
    order =
        i < n ? jinja_order(r, a.list->items[i], b.list->items[i]) : (a.list->n > b.list->n) - (a.list->n < b.list->n);
    jinja_leave(r);
    return order;
}

bool jinja_contains(struct run *r, struct value container, struct value item)
{
    if (container.kind == KIND_STRING) {
        if (item.kind != KIND_STRING) {
            jinja_fail(r, ERR_FORMAT, "'in' a text needs a text on its left, not a %s", jinja_type_name(item));
            return false;
        }
        const struct string *s = container.text, *part = item.text;
        return jinja_spend(r, s->n_bytes / 64) && memmem(s->bytes, s->n_bytes, part->bytes, part->n_bytes);
    }
    if (container.kind == KIND_DICT || (container.kind == KIND_VIEW && container.detail == VIEW_KEYS)) {
        if (!jinja_can_hash(item))
            jinja_fail(r, ERR_FORMAT, "a %s cannot be a dictionary's key", jinja_type_name(item));
        return jinja_get(r, container.dict, item) != NULL;
    }
    struct list *list = jinja_elements(r, container);
    for (size_t i = 0; i < list->n && jinja_spend(r, 1); i++)
        if (jinja_equal(r, list->items[i], item))
            return true;
    return false;
}

bool jinja_is_iterable(struct value v)
{
    return jinja_has_length(v) || v.kind == KIND_ITERATOR;
}

static void push_characters(struct run *r, struct list *list, const struct string *s)
{
    for (size_t i = 0; i < s->n_bytes && !r->failed;) {
        uint32_t point;
        size_t n = jinja_utf8_decode(s->bytes + i, s->n_bytes - i, &point);
        jinja_push(r, list, jinja_character(r, s->bytes + i, n));
        i += n;
    }
}

struct list *jinja_elements(struct run *r, struct value v)
{
    if (v.kind == KIND_LIST || v.kind == KIND_TUPLE)
        return v.list;
    bool iterable = jinja_is_iterable(v);
    size_t n = v.kind == KIND_ITERATOR ? v.iterator->items->n - v.iterator->at : iterable ? jinja_length(r, v) : 0;
    if (!iterable)
        jinja_fail(r, ERR_FORMAT, "a %s cannot be iterated", jinja_type_name(v));
    struct list *list = jinja_list(r, KIND_LIST, jinja_spend(r, n / 8) ? n : 0).list;
    if (r->failed)
        return list;
    switch (v.kind) {
    case KIND_STRING:
        push_characters(r, list, v.text);
        break;
    case KIND_DICT:
    case KIND_VIEW:
        for (size_t i = 0; i < v.dict->n && !r->failed; i++) {
            struct dict_entry *entry = &v.dict->entries[i];
            if (v.kind == KIND_VIEW && v.detail == VIEW_ITEMS)
                jinja_push(r, list, jinja_pair(r, entry->key, entry->value));
            else
                jinja_push(r, list, v.kind == KIND_VIEW && v.detail == VIEW_VALUES ? entry->value : entry->key);
        }
        break;
    case KIND_RANGE:
        for (size_t i = 0; i < n && !r->failed; i++)
            jinja_push(r, list, jinja_int(v.range->start + (int64_t)i * v.range->step));
        break;
    case KIND_ITERATOR:
        for (size_t i = v.iterator->at; i < v.iterator->items->n && !r->failed; i++)
            jinja_push(r, list, v.iterator->items->items[i]);
        v.iterator->at = v.iterator->items->n;
        break;
    case KIND_LOOP: /* what is left of it */
        for (size_t i = v.loop->index0 + 1; i < v.loop->length && i < v.loop->items->n && !r->failed; i++)
            jinja_push(r, list, v.loop->items->items[i]);
        break;
    }
    return list;
}

const char *jinja_type_name(struct value v)
{
    static const char *const names[] = {
        [KIND_ABSENT] = "missing value",
        [KIND_UNDEFINED] = "undefined",
        [KIND_NONE] = "None",
        [KIND_BOOL] = "bool",
        [KIND_INT] = "int",
        [KIND_FLOAT] = "float",
        [KIND_STRING] = "str",
        [KIND_LIST] = "list",
        [KIND_TUPLE] = "tuple",
        [KIND_DICT] = "dict",
        [KIND_NAMESPACE] = "namespace",
        [KIND_VIEW] = "dict view",
        [KIND_ITERATOR] = "generator",
        [KIND_RANGE] = "range",
        [KIND_LOOP] = "loop",
        [KIND_MACRO] = "macro",
        [KIND_FUNCTION] = "function",
        [KIND_METHOD] = "method",
        [KIND_JOINER] = "joiner",
    };
    return names[v.kind];
}

struct value jinja_fail_undefined(struct run *r, struct value v)
{
    struct value owner = {.kind = v.detail};
    if (!v.text && v.detail == KIND_ABSENT)
        return jinja_fail(r, ERR_FORMAT, "uses a value that is undefined");
    if (!v.text)
        return jinja_fail(r, ERR_FORMAT, "uses an element that the %s does not have", jinja_type_name(owner));
    int n = v.text->n_bytes < 80 ? (int)v.text->n_bytes : 80;
    if (v.detail == KIND_ABSENT)
        return jinja_fail(r, ERR_FORMAT, "'%.*s' is undefined", n, v.text->bytes);
    return jinja_fail(r, ERR_FORMAT, "the %s has no '%.*s'", jinja_type_name(owner), n, v.text->bytes);
}
