/* Values: making them, asking them, failing. Owns nothing outside the run's arena; one thread a run. */
#include "engine/template/value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/template/unicode.h"

struct value jinja_fail(struct run *r, int code, const char *format, ...)
{
    if (!r->failed) {
        char text[420];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        size_t n = strlen(text);
        if (n == sizeof text - 1) { /* cut between characters */
            while (n && ((unsigned char)text[n - 1] & 0xC0) == 0x80)
                n--;
            if (n && (unsigned char)text[n - 1] >= 0xC0)
                n--;
            text[n] = 0;
        }
        for (char *c = text; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7F)
                *c = ' ';
        r->failed = error_set(r->error, code, "chat template, line %d: %s", r->line, text);
    }
    return jinja_undefined(NULL, KIND_ABSENT);
}

void *jinja_alloc(struct run *r, size_t count, size_t bytes_each)
{
    size_t bytes;
    if (r->failed)
        return NULL;
    void *p = __builtin_mul_overflow(count, bytes_each, &bytes) ? NULL : jinja_arena_alloc(&r->arena, bytes);
    if (!p && r->arena.failed == ERR_NOMEM)
        jinja_fail(r, ERR_NOMEM, "out of memory");
    else if (!p)
        jinja_fail(r, ERR_BOUND, "needs more than %zu MiB of memory", r->arena.limit_bytes >> 20);
    return p;
}

bool jinja_spend(struct run *r, size_t steps)
{
    if (r->failed)
        return false;
    if (steps > r->steps_left) {
        r->steps_left = 0;
        jinja_fail(r, ERR_BOUND, "takes too many steps");
        return false;
    }
    r->steps_left -= steps;
    return true;
}

bool jinja_enter(struct run *r)
{
    if (r->failed)
        return false;
    if (r->depth >= r->depth_limit) {
        jinja_fail(r, ERR_BOUND, "nested too deeply (more than %u levels)", r->depth_limit);
        return false;
    }
    if (!jinja_spend(r, 1))
        return false;
    r->depth++;
    return true;
}

void jinja_leave(struct run *r)
{
    r->depth--;
}

struct value jinja_undefined(const struct string *name, enum kind owner)
{
    return (struct value){.kind = KIND_UNDEFINED, .detail = (uint8_t)owner, .text = name};
}

struct value jinja_none(void)
{
    return (struct value){.kind = KIND_NONE};
}

struct value jinja_bool(bool truth)
{
    return (struct value){.kind = KIND_BOOL, .integer = truth};
}

struct value jinja_int(int64_t integer)
{
    return (struct value){.kind = KIND_INT, .integer = integer};
}

struct value jinja_float(double number)
{
    return (struct value){.kind = KIND_FLOAT, .number = number};
}

struct value jinja_text(const struct string *text)
{
    return (struct value){.kind = KIND_STRING, .text = text};
}

struct value jinja_borrow(struct run *r, const char *bytes, size_t n)
{
    struct string *s = jinja_alloc(r, 1, sizeof *s);
    if (!s)
        return jinja_undefined(NULL, KIND_ABSENT);
    *s = (struct string){bytes, n, jinja_utf8_points(bytes, n)};
    return jinja_text(s);
}

struct value jinja_string(struct run *r, const char *bytes, size_t n)
{
    char *copy = jinja_alloc(r, n, 1);
    if (!copy)
        return jinja_undefined(NULL, KIND_ABSENT);
    if (n)
        memcpy(copy, bytes, n);
    return jinja_borrow(r, copy, n);
}

struct value jinja_literal(struct run *r, const char *text)
{
    return jinja_borrow(r, text, strlen(text));
}

struct value jinja_take(struct run *r, struct buffer *b)
{
    struct value v = jinja_undefined(NULL, KIND_ABSENT);
    if (b->failed == ERR_BOUND)
        jinja_fail(r, ERR_BOUND, "makes a text of more than %zu MiB", r->output_limit >> 20);
    else if (b->failed)
        jinja_fail(r, b->failed, "out of memory");
    else if (jinja_spend(r, b->size / 4)) /* it was made a few bytes at a time */
        v = jinja_string(r, b->data, b->size);
    buffer_free(b);
    return v;
}

struct value jinja_character(struct run *r, const char *bytes, size_t n)
{
    return jinja_borrow(r, bytes, n);
}

struct value jinja_list(struct run *r, enum kind kind, size_t capacity)
{
    static struct list none; /* stands in after a failure; never written, jinja_push checks first */
    struct list *list = jinja_alloc(r, 1, sizeof *list);
    struct value *items = list && capacity ? jinja_alloc(r, capacity, sizeof *items) : NULL;
    if (list)
        *list = (struct list){.items = items, .capacity = items ? capacity : 0};
    return (struct value){.kind = (uint8_t)kind, .list = list ? list : &none};
}

void jinja_push(struct run *r, struct list *list, struct value item)
{
    if (r->failed)
        return;
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        struct value *items = jinja_alloc(r, capacity, sizeof *items);
        if (!items)
            return;
        if (list->n)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = item;
}

struct value jinja_pair(struct run *r, struct value first, struct value second)
{
    struct value pair = jinja_list(r, KIND_TUPLE, 2);
    jinja_push(r, pair.list, first);
    jinja_push(r, pair.list, second);
    return pair;
}

struct value jinja_dict(struct run *r, enum kind kind, size_t capacity)
{
    static struct dict none; /* as above */
    struct dict *dict = jinja_alloc(r, 1, sizeof *dict);
    struct dict_entry *entries = dict && capacity ? jinja_alloc(r, capacity, sizeof *entries) : NULL;
    if (dict)
        *dict = (struct dict){.entries = entries, .capacity = entries ? capacity : 0};
    return (struct value){.kind = (uint8_t)kind, .dict = dict ? dict : &none};
}

struct value jinja_iterator(struct run *r, struct list *items)
{
    struct iterator *i = jinja_alloc(r, 1, sizeof *i);
    if (!i)
        return jinja_undefined(NULL, KIND_ABSENT);
    *i = (struct iterator){.items = items};
    return (struct value){.kind = KIND_ITERATOR, .iterator = i};
}

bool jinja_can_hash(struct value v)
{
    if (v.kind == KIND_TUPLE) {
        for (size_t i = 0; i < v.list->n; i++)
            if (v.list->items[i].kind == KIND_TUPLE || !jinja_can_hash(v.list->items[i]))
                return false; /* tuples of tuples serve no template; refusing them bounds the recursion */
        return true;
    }
    return v.kind != KIND_LIST && v.kind != KIND_DICT && v.kind != KIND_VIEW;
}

struct value *jinja_get_text(const struct dict *dict, const char *bytes, size_t n)
{
    for (size_t i = 0; i < dict->n; i++) {
        struct value key = dict->entries[i].key;
        if (key.kind == KIND_STRING && key.text->n_bytes == n && !memcmp(key.text->bytes, bytes, n))
            return &dict->entries[i].value;
    }
    return NULL;
}

struct value *jinja_get(struct run *r, const struct dict *dict, struct value key)
{
    if (!jinja_spend(r, dict->n / (key.kind == KIND_STRING ? 8 : 2)))
        return NULL;
    if (key.kind == KIND_STRING)
        return jinja_get_text(dict, key.text->bytes, key.text->n_bytes);
    for (size_t i = 0; i < dict->n && !r->failed; i++)
        if (jinja_equal(r, dict->entries[i].key, key))
            return &dict->entries[i].value;
    return NULL;
}

void jinja_set(struct run *r, struct dict *dict, struct value key, struct value value)
{
    if (!jinja_can_hash(key)) {
        jinja_fail(r, ERR_FORMAT, "a %s cannot be a dictionary's key", jinja_type_name(key));
        return;
    }
    struct value *present = jinja_get(r, dict, key);
    if (r->failed)
        return;
    if (present) {
        *present = value;
        return;
    }
    if (dict->n == dict->capacity) {
        size_t capacity = dict->capacity ? dict->capacity * 2 : 4;
        struct dict_entry *entries = jinja_alloc(r, capacity, sizeof *entries);
        if (!entries)
            return;
        if (dict->n)
            memcpy(entries, dict->entries, dict->n * sizeof *entries);
        dict->entries = entries;
        dict->capacity = capacity;
    }
    dict->entries[dict->n++] = (struct dict_entry){key, value};
}

bool jinja_remove(struct run *r, struct dict *dict, struct value key, struct value *removed)
{
    struct value *present = jinja_get(r, dict, key);
    if (!present || !jinja_spend(r, dict->n / 16))
        return false;
    struct dict_entry *entry = (struct dict_entry *)(void *)((char *)present - offsetof(struct dict_entry, value));
    *removed = *present;
    size_t at = (size_t)(entry - dict->entries);
    memmove(entry, entry + 1, (dict->n - at - 1) * sizeof *entry);
    dict->n--;
    return true;
}

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
    order = i < n ? jinja_order(r, a.list->items[i], b.list->items[i])
                  : (a.list->n > b.list->n) - (a.list->n < b.list->n);
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
        [KIND_ABSENT] = "missing value", [KIND_UNDEFINED] = "undefined", [KIND_NONE] = "None",
        [KIND_BOOL] = "bool", [KIND_INT] = "int", [KIND_FLOAT] = "float", [KIND_STRING] = "str", [KIND_LIST] = "list",
        [KIND_TUPLE] = "tuple", [KIND_DICT] = "dict", [KIND_NAMESPACE] = "namespace", [KIND_VIEW] = "dict view",
        [KIND_ITERATOR] = "generator", [KIND_RANGE] = "range", [KIND_LOOP] = "loop", [KIND_MACRO] = "macro",
        [KIND_FUNCTION] = "function", [KIND_METHOD] = "method", [KIND_JOINER] = "joiner",
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
