/* str() and repr(). Owns nothing; one thread a run. */
#include "engine/template/print.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/template/call.h"
#include "engine/template/unicode.h"

const char *jinja_float_text(double number, char text[static JINJA_FLOAT_TEXT])
{
    if (isnan(number))
        return "nan";
    if (isinf(number))
        return number > 0 ? "inf" : "-inf";
    char digits[JINJA_FLOAT_TEXT - 12]; /* 17 digits, sign, point, exponent: 24 bytes */
    for (int precision = 0; precision < 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1);
    *e = 0;
    if (exponent < -4 || exponent >= 16) {
        snprintf(text, JINJA_FLOAT_TEXT, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
        return text;
    }
    /* The digits without their point, put again where the exponent says. */
    char *to = text;
    const char *from = digits;
    if (*from == '-')
        *to++ = *from++;
    char plain[JINJA_FLOAT_TEXT];
    int n = 0;
    for (; *from; from++)
        if (*from >= '0' && *from <= '9')
            plain[n++] = *from;
    if (exponent < 0) {
        *to++ = '0';
        *to++ = '.';
        for (int i = -1; i > exponent; i--)
            *to++ = '0';
        for (int i = 0; i < n; i++)
            *to++ = plain[i];
    } else {
        for (int i = 0; i <= exponent || i < n || i < exponent + 2; i++) {
            if (i == exponent + 1)
                *to++ = '.';
            *to++ = i < n ? plain[i] : '0';
        }
    }
    *to = 0;
    return text;
}

static void repr_string(struct buffer *b, const struct string *s)
{
    bool has_single = memchr(s->bytes, '\'', s->n_bytes), has_double = memchr(s->bytes, '"', s->n_bytes);
    char quote = has_single && !has_double ? '"' : '\'';
    buffer_putc(b, quote);
    for (size_t i = 0; i < s->n_bytes && !b->failed;) {
        uint32_t c;
        size_t n = jinja_utf8_decode(s->bytes + i, s->n_bytes - i, &c);
        if (c == (uint32_t)quote || c == '\\')
            buffer_printf(b, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            buffer_puts(b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (jinja_is_printable(c))
            buffer_append(b, s->bytes + i, n);
        else
            buffer_printf(b, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        i += n;
    }
    buffer_putc(b, quote);
}

static void repr_items(struct run *r, struct buffer *b, const struct list *list)
{
    for (size_t i = 0; i < list->n && !r->failed && !b->failed; i++) {
        if (i)
            buffer_puts(b, ", ");
        jinja_print_repr(r, b, list->items[i]);
    }
}

static void repr_dict(struct run *r, struct buffer *b, const struct dict *dict)
{
    buffer_putc(b, '{');
    for (size_t i = 0; i < dict->n && !r->failed && !b->failed; i++) {
        if (i)
            buffer_puts(b, ", ");
        jinja_print_repr(r, b, dict->entries[i].key);
        buffer_puts(b, ": ");
        jinja_print_repr(r, b, dict->entries[i].value);
    }
    buffer_putc(b, '}');
}

static void repr_view(struct run *r, struct buffer *b, struct value v)
{
    static const char *const names[] = {"dict_keys([", "dict_values([", "dict_items(["};
    buffer_puts(b, names[v.detail]);
    repr_items(r, b, jinja_elements(r, v));
    buffer_puts(b, "])");
}

static void repr_range(struct buffer *b, const struct range *range)
{
    buffer_printf(b, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1)
        buffer_printf(b, ", %lld", (long long)range->step);
    buffer_putc(b, ')');
}

void jinja_print_repr(struct run *r, struct buffer *b, struct value v)
{
    char number[JINJA_FLOAT_TEXT];
    if (b->failed || !jinja_enter(r))
        return;
    switch (v.kind) {
    case KIND_ABSENT:
    case KIND_UNDEFINED:
        buffer_puts(b, "Undefined");
        break;
    case KIND_NONE:
        buffer_puts(b, "None");
        break;
    case KIND_BOOL:
        buffer_puts(b, v.integer ? "True" : "False");
        break;
    case KIND_INT:
        buffer_printf(b, "%lld", (long long)v.integer);
        break;
    case KIND_FLOAT:
        buffer_puts(b, jinja_float_text(v.number, number));
        break;
    case KIND_STRING:
        buffer_puts(b, v.detail ? "Markup(" : "");
        repr_string(b, v.text);
        buffer_puts(b, v.detail ? ")" : "");
        break;
    case KIND_LIST:
    case KIND_TUPLE:
        buffer_putc(b, v.kind == KIND_LIST ? '[' : '(');
        repr_items(r, b, v.list);
        buffer_puts(b, v.kind == KIND_LIST ? "]" : v.list->n == 1 ? ",)" : ")");
        break;
    case KIND_DICT:
        repr_dict(r, b, v.dict);
        break;
    case KIND_NAMESPACE:
        buffer_puts(b, "<Namespace ");
        repr_dict(r, b, v.dict);
        buffer_putc(b, '>');
        break;
    case KIND_VIEW:
        repr_view(r, b, v);
        break;
    case KIND_RANGE:
        repr_range(b, v.range);
        break;
    case KIND_LOOP:
        buffer_printf(b, "<LoopContext %zu/%zu>", v.loop->index0 + 1, v.loop->length);
        break;
    case KIND_METHOD:
        buffer_printf(b, "<built-in method %s of %s object>", v.method->builtin->name, jinja_type_name(v.method->self));
        break;
    default:
        buffer_printf(b, "<%s>", jinja_type_name(v));
    }
    jinja_leave(r);
}

void jinja_print(struct run *r, struct buffer *b, struct value v)
{
    if (v.kind == KIND_STRING)
        buffer_append(b, v.text->bytes, v.text->n_bytes);
    else if (v.kind != KIND_UNDEFINED && v.kind != KIND_ABSENT)
        jinja_print_repr(r, b, v);
}

struct value jinja_to_string(struct run *r, struct value v)
{
    if (v.kind == KIND_STRING)
        return v;
    struct buffer b = {.limit = r->output_limit};
    jinja_print(r, &b, v);
    return jinja_take(r, &b);
}

struct value jinja_escape(struct run *r, struct value v)
{
    if (v.kind == KIND_STRING && v.detail)
        return v;
    v = jinja_to_string(r, v);
    if (r->failed)
        return v;
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0; i < v.text->n_bytes && !b.failed; i++) {
        char c = v.text->bytes[i];
        if (c == '&' || c == '<' || c == '>' || c == '\'' || c == '"')
            buffer_puts(&b, c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&#34;" : "&#39;");
        else
            buffer_putc(&b, c);
    }
    v = jinja_take(r, &b);
    if (v.kind == KIND_STRING)
        v.detail = 1;
    return v;
}
