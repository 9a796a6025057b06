/* JSON in (from jansson's tree) and out (as Python's json.dumps writes it). Owns nothing; one thread a run. */
#include "engine/template/print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/template/unicode.h"

struct value jinja_from_json(struct run *r, const json_t *json)
{
    struct value v = jinja_none();
    if (!jinja_enter(r))
        return v;
    switch (json_typeof(json)) {
    case JSON_OBJECT: {
        v = jinja_dict(r, KIND_DICT, json_object_size(json));
        const char *key;
        json_t *member;
        /* jansson keeps the order of insertion and has each key once, so there is no need to look for it */
        json_object_foreach((json_t *)(uintptr_t)json, key, member)
        {
            struct value name = jinja_string(r, key, strlen(key)), value = jinja_from_json(r, member);
            if (r->failed || v.dict->n == v.dict->capacity)
                break;
            v.dict->entries[v.dict->n++] = (struct dict_entry){name, value};
        }
        break;
    }
    case JSON_ARRAY:
        v = jinja_list(r, KIND_LIST, json_array_size(json));
        for (size_t i = 0; i < json_array_size(json) && !r->failed; i++)
            jinja_push(r, v.list, jinja_from_json(r, json_array_get(json, i)));
        break;
    case JSON_STRING:
        v = jinja_string(r, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        v = jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = jinja_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jinja_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    jinja_leave(r);
    return v;
}

struct writer {
    struct run *r;
    struct buffer b;
    const struct json_style *style;
    size_t level;
};

static void put_string(struct writer *w, const char *bytes, size_t n_bytes)
{
    buffer_putc(&w->b, '"');
    for (size_t i = 0; i < n_bytes && !w->b.failed;) {
        uint32_t c;
        size_t n = jinja_utf8_decode(bytes + i, n_bytes - i, &c);
        static const char named[] = "\"\"\\\\\nn\rr\tt\bb\ff";
        const char *name = NULL;
        for (const char *p = named; *p && !name; p += 2)
            if (c == (unsigned char)*p)
                name = p + 1;
        if (name)
            buffer_printf(&w->b, "\\%c", *name);
        else if (c < 0x20 || (w->style->ascii && c > 0x7E && c < 0x10000))
            buffer_printf(&w->b, "\\u%04x", (unsigned)c);
        else if (w->style->ascii && c >= 0x10000)
            buffer_printf(&w->b, "\\u%04x\\u%04x", (unsigned)(0xD7C0 + (c >> 10)), (unsigned)(0xDC00 | (c & 0x3FF)));
        else
            buffer_append(&w->b, bytes + i, n);
        i += n;
    }
    buffer_putc(&w->b, '"');
}

static void put_break(struct writer *w)
{
    if (!w->style->indent)
        return;
    buffer_putc(&w->b, '\n');
    for (size_t i = 0; i < w->level && !w->b.failed; i++)
        buffer_append(&w->b, w->style->indent, w->style->indent_bytes);
}

static void put_between(struct writer *w)
{
    if (w->style->between)
        buffer_append(&w->b, w->style->between->bytes, w->style->between->n_bytes);
    else
        buffer_puts(&w->b, w->style->indent ? "," : ", ");
}

static void put_number(struct writer *w, double number)
{
    char text[JINJA_FLOAT_TEXT];
    if (isnan(number) || isinf(number))
        buffer_puts(&w->b, isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity");
    else
        buffer_puts(&w->b, jinja_float_text(number, text));
}

static void put_value(struct writer *w, struct value v);

static void put_key(struct writer *w, struct value key)
{
    if (key.kind == KIND_STRING) {
        put_string(w, key.text->bytes, key.text->n_bytes);
    } else if (jinja_is_number(key) || key.kind == KIND_NONE) {
        buffer_putc(&w->b, '"');
        put_value(w, key);
        buffer_putc(&w->b, '"');
    } else {
        jinja_fail(w->r, ERR_FORMAT, "tojson: a %s cannot be a key", jinja_type_name(key));
    }
    if (w->style->colon)
        buffer_append(&w->b, w->style->colon->bytes, w->style->colon->n_bytes);
    else
        buffer_puts(&w->b, ": ");
}

static const struct dict *sorted(struct run *r, const struct dict *dict)
{
    struct value copy = jinja_dict(r, KIND_DICT, dict->n);
    if (r->failed)
        return dict;
    for (size_t i = 0; i < dict->n && !r->failed; i++) {
        size_t at = i;
        for (; at > 0 && jinja_spend(r, 1); at--) {
            if (jinja_order(r, copy.dict->entries[at - 1].key, dict->entries[i].key) <= 0)
                break;
            copy.dict->entries[at] = copy.dict->entries[at - 1];
        }
        copy.dict->entries[at] = dict->entries[i];
        copy.dict->n = i + 1;
    }
    return copy.dict;
}

static void put_dict(struct writer *w, const struct dict *dict)
{
    if (w->style->sort_keys)
        dict = sorted(w->r, dict);
    buffer_putc(&w->b, '{');
    w->level++;
    for (size_t i = 0; i < dict->n && !w->r->failed && !w->b.failed; i++) {
        if (i)
            put_between(w);
        put_break(w);
        put_key(w, dict->entries[i].key);
        put_value(w, dict->entries[i].value);
    }
    w->level--;
    if (dict->n)
        put_break(w);
    buffer_putc(&w->b, '}');
}

static void put_list(struct writer *w, const struct list *list)
{
    buffer_putc(&w->b, '[');
    w->level++;
    for (size_t i = 0; i < list->n && !w->r->failed && !w->b.failed; i++) {
        if (i)
            put_between(w);
        put_break(w);
        put_value(w, list->items[i]);
    }
    w->level--;
    if (list->n)
        put_break(w);
    buffer_putc(&w->b, ']');
}

static void put_value(struct writer *w, struct value v)
{
    if (!jinja_enter(w->r))
        return;
    switch (v.kind) {
    case KIND_NONE:
        buffer_puts(&w->b, "null");
        break;
    case KIND_BOOL:
        buffer_puts(&w->b, v.integer ? "true" : "false");
        break;
    case KIND_INT:
        buffer_printf(&w->b, "%lld", (long long)v.integer);
        break;
    case KIND_FLOAT:
        put_number(w, v.number);
        break;
    case KIND_STRING:
        put_string(w, v.text->bytes, v.text->n_bytes);
        break;
    case KIND_LIST:
    case KIND_TUPLE:
        put_list(w, v.list);
        break;
    case KIND_DICT:
        put_dict(w, v.dict);
        break;
    case KIND_UNDEFINED:
        jinja_fail_undefined(w->r, v);
        break;
    default:
        jinja_fail(w->r, ERR_FORMAT, "tojson cannot write a %s", jinja_type_name(v));
    }
    jinja_leave(w->r);
}

struct value jinja_to_json(struct run *r, struct value v, const struct json_style *style)
{
    struct writer w = {.r = r, .b = {.limit = r->output_limit}, .style = style};
    put_value(&w, v);
    return jinja_take(r, &w.b);
}
