/* Values: making them and keeping them in dictionaries; failing and spending. Owns nothing outside the run's arena; one
 * thread a run. */
#include "engine/template/value.h"

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
