/* Formats: the % operator of strings and str.format(), both over one description of a field. Owns nothing; one thread
 * a run. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/print.h"
#include "engine/template/text.h"
#include "engine/template/unicode.h"

enum { WIDTH_MAX = 10000, PRECISION_MAX = 100 };

struct field {
    char fill[4];
    size_t fill_bytes; /* 0: a space */
    char align;        /* < > ^ = or 0 */
    char sign;         /* + or space or 0 */
    bool alternate, comma;
    int width, precision; /* -1: none */
    char type;            /* 0: none */
};

static int read_size(const char **at, const char *end, int most)
{
    int n = 0;
    while (*at < end && isdigit((unsigned char)**at) && n <= most)
        n = n * 10 + (*(*at)++ - '0');
    return n;
}

/* Digits in groups of three. */
static void put_grouped(struct buffer *b, const char *digits, bool comma)
{
    size_t whole = strspn(digits, "0123456789");
    for (size_t i = 0; digits[i]; i++) {
        if (comma && i && i < whole && (whole - i) % 3 == 0)
            buffer_putc(b, ',');
        buffer_putc(b, digits[i]);
    }
}

static void put_repeated(struct buffer *b, const struct field *f, int64_t n)
{
    for (; n > 0 && !b->failed; n--) {
        if (f->fill_bytes)
            buffer_append(b, f->fill, f->fill_bytes);
        else
            buffer_putc(b, ' ');
    }
}

/* `sign` and `body` within the field's width; numbers go to the right by themselves, texts to the left. */
static void put_aligned(struct buffer *b, const struct field *f, const char *sign, const char *body, size_t n_bytes,
                        char align)
{
    int64_t pad = f->width - (int64_t)(strlen(sign) + jinja_utf8_points(body, n_bytes));
    align = f->align ? f->align : align;
    int64_t left = pad <= 0 ? 0 : align == '^' ? pad / 2 : align == '<' ? 0 : pad;
    if (align != '=')
        put_repeated(b, f, left);
    buffer_puts(b, sign);
    if (align == '=')
        put_repeated(b, f, left);
    buffer_append(b, body, n_bytes);
    put_repeated(b, f, pad - left);
}

static void put_integer(struct buffer *b, const struct field *f, int64_t number)
{
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    char digits[80], sign[8] = "";
    int n = 0;
    unsigned base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    do {
        digits[sizeof digits - 1 - (size_t)++n] =
            (f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[magnitude % base];
        magnitude /= base;
    } while (magnitude);
    digits[sizeof digits - 1] = 0;
    struct buffer body = {0};
    for (int i = n; i < f->precision; i++)
        buffer_putc(&body, '0');
    put_grouped(&body, digits + sizeof digits - 1 - n, f->comma);
    snprintf(sign, sizeof sign, "%s%s",
             number < 0       ? "-"
             : f->sign == '+' ? "+"
             : f->sign == ' ' ? " "
                              : "",
             !f->alternate || base == 10 ? ""
             : base == 8                 ? "0o"
             : base == 2                 ? "0b"
             : f->type == 'X'            ? "0X"
                                         : "0x");
    if (body.failed)
        b->failed = body.failed;
    else
        put_aligned(b, f, sign, body.data, body.size, '>');
    buffer_free(&body);
}

static void put_float(struct buffer *b, const struct field *f, double number)
{
    char text[512], format[] = {'%', '.', '*', 0, 0}, shortest[JINJA_FLOAT_TEXT];
    char type = f->type == '%' ? 'f' : f->type;
    double shown = fabs(f->type == '%' ? number * 100 : number);
    const char *sign = signbit(number) && !isnan(number) ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
    if (!type && f->precision < 0) {
        snprintf(text, sizeof text, "%s", jinja_float_text(shown, shortest));
    } else {
        format[3] = type ? type : 'g';
        snprintf(text, sizeof text, format, f->precision < 0 ? 6 : f->precision, shown);
    }
    size_t n = strlen(text);
    if (f->type == '%' && n < sizeof text - 1) {
        text[n] = '%';
        text[n + 1] = 0;
    }
    struct buffer body = {0};
    put_grouped(&body, text, f->comma);
    if (body.failed)
        b->failed = body.failed;
    else
        put_aligned(b, f, sign, body.data, body.size, '>');
    buffer_free(&body);
}

static void put_text(struct buffer *b, const struct field *f, struct value text)
{
    size_t n = text.text->n_bytes;
    if (f->precision >= 0)
        n = jinja_utf8_offset(text.text->bytes, n, (size_t)f->precision);
    put_aligned(b, f, "", text.text->bytes, n, '<');
}

/* --- "%..." % v --- */

struct percent {
    struct run *r;
    struct buffer b;
    struct value v;
    size_t used;  /* of a tuple's elements */
    bool escapes; /* the format is marked safe */
};

static struct value next_value(struct percent *p)
{
    struct value v = p->v;
    bool tuple = v.kind == KIND_TUPLE;
    if (p->used >= (tuple ? v.list->n : 1))
        return jinja_fail(p->r, ERR_FORMAT, "more %% in a format than values for them");
    return tuple ? v.list->items[p->used++] : (p->used++, v);
}

static void put_percent(struct percent *p, const struct field *f, struct value v)
{
    struct run *r = p->r;
    if (strchr("srac", f->type)) {
        struct buffer repr = {.limit = r->output_limit};
        if (f->type == 'c' && jinja_is_integer(v)) {
            char bytes[4];
            buffer_append(&repr, bytes, jinja_utf8_encode((uint32_t)v.integer, bytes));
        } else if (f->type == 'r' || f->type == 'a') {
            jinja_print_repr(r, &repr, v);
        } else {
            jinja_print(r, &repr, v);
        }
        bool safe = v.kind == KIND_STRING && v.detail && f->type == 's';
        v = jinja_take(r, &repr);
        if (p->escapes && !safe && !r->failed)
            v = jinja_escape(r, v);
        if (!r->failed)
            put_text(&p->b, f, v);
    } else if (!jinja_is_number(v)) {
        if (v.kind == KIND_UNDEFINED)
            jinja_fail_undefined(r, v);
        else
            jinja_fail(r, ERR_FORMAT, "%%%c needs a number, not a %s", f->type, jinja_type_name(v));
    } else if (strchr("eEfFgG", f->type)) {
        put_float(&p->b, f, jinja_number(v));
    } else if (v.kind == KIND_FLOAT && !(fabs(v.number) < 0x1p63)) {
        jinja_fail(r, ERR_BOUND, "a number beyond 64 bits");
    } else {
        struct field whole = *f;
        whole.type = f->type == 'i' || f->type == 'u' ? 'd' : f->type;
        put_integer(&p->b, &whole, v.kind == KIND_FLOAT ? (int64_t)v.number : v.integer);
    }
}

/* One field, from behind its %. Returns where it ends. */
static const char *percent_field(struct percent *p, const char *at, const char *end)
{
    struct field f = {.precision = -1};
    struct value v = {0};
    if (at < end && *at == '(') {
        const char *close = memchr(at, ')', (size_t)(end - at));
        if (!close || p->v.kind != KIND_DICT) {
            jinja_fail(p->r, ERR_FORMAT, "%%(name) in a format needs a dict");
            return end;
        }
        struct value *found = jinja_get_text(p->v.dict, at + 1, (size_t)(close - at - 1));
        v = found ? *found : jinja_fail(p->r, ERR_FORMAT, "the format names what its dict does not have");
        at = close + 1;
        p->used = 1;
    }
    for (; at < end && *at && strchr("-+ #0", *at); at++) {
        if (*at == '-')
            f.align = '<';
        else if (*at == '0' && !f.align)
            f.align = '=', f.fill[0] = '0', f.fill_bytes = 1;
        else if (*at == '#')
            f.alternate = true;
        else if (*at != '0')
            f.sign = f.sign == '+' ? '+' : *at;
    }
    if (f.align == '<')
        f.fill_bytes = 0;
    if (at < end && *at == '*') {
        int64_t width = jinja_int_argument(p->r, next_value(p), 0);
        f.width = width > WIDTH_MAX || width < 0 ? WIDTH_MAX + 1 : (int)width;
        at++;
    } else {
        f.width = read_size(&at, end, WIDTH_MAX);
    }
    if (at < end && *at == '.') {
        at++;
        f.precision = read_size(&at, end, PRECISION_MAX);
    }
    f.type = at < end ? *at++ : 0;
    if (f.type == '%') {
        buffer_putc(&p->b, '%');
        return at;
    }
    if (f.width > WIDTH_MAX || (f.precision > PRECISION_MAX && f.type != 's')) {
        jinja_fail(p->r, ERR_BOUND, "a format's width or precision is too large");
    } else if (!f.type || !strchr("diuoxXeEfFgGcrsa", f.type)) {
        jinja_fail(p->r, ERR_FORMAT, "an unknown kind of field in a %% format");
    } else {
        if (v.kind == KIND_ABSENT && !p->r->failed)
            v = next_value(p);
        if (strchr("srac", f.type) && f.align == '=')
            f.align = '>', f.fill_bytes = 0;
        else if (!f.align)
            f.align = '>';
        if (!p->r->failed)
            put_percent(p, &f, v);
    }
    return at;
}

struct value jinja_format_percent(struct run *r, struct value format, struct value v)
{
    struct percent p = {.r = r, .b = {.limit = r->output_limit}, .v = v, .escapes = format.detail};
    const char *at = format.text->bytes, *end = at + format.text->n_bytes;
    while (at < end && !p.b.failed && jinja_spend(r, 1)) {
        const char *sign = memchr(at, '%', (size_t)(end - at));
        buffer_append(&p.b, at, (size_t)((sign ? sign : end) - at));
        at = sign ? percent_field(&p, sign + 1, end) : end;
    }
    bool one = v.kind != KIND_DICT && v.kind != KIND_LIST && v.kind != KIND_UNDEFINED; /* what has no items to pick */
    bool surplus = v.kind == KIND_TUPLE ? p.used < v.list->n : one && !p.used;
    if (surplus)
        jinja_fail(r, ERR_FORMAT, "fewer %% in a format than values for them");
    struct value text = jinja_take(r, &p.b);
    if (!r->failed)
        text.detail = format.detail;
    return text;
}

/* --- "{}".format(...) --- */

struct braces {
    struct run *r;
    struct buffer b;
    const struct arguments *all;
    size_t next; /* of the fields that are numbered by their order */
    bool by_order, by_number;
};

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static struct field read_spec(struct run *r, const char *at, const char *end)
{
    struct field f = {.precision = -1};
    uint32_t c;
    size_t n = at < end ? jinja_utf8_decode(at, (size_t)(end - at), &c) : 0;
    if (n && at + n < end && at[n] && strchr("<>^=", at[n])) {
        memcpy(f.fill, at, n);
        f.fill_bytes = n;
        f.align = at[n];
        at += n + 1;
    } else if (at < end && *at && strchr("<>^=", *at)) {
        f.align = *at++;
    }
    if (at < end && *at && strchr("+- ", *at))
        f.sign = *at == '-' ? 0 : *at, at++;
    if (at < end && *at == '#')
        f.alternate = true, at++;
    if (at < end && *at == '0' && !f.align)
        f.align = '=', f.fill[0] = '0', f.fill_bytes = 1;
    f.width = read_size(&at, end, WIDTH_MAX);
    if (at < end && *at == ',')
        f.comma = true, at++;
    if (at < end && *at == '.') {
        at++;
        f.precision = read_size(&at, end, PRECISION_MAX);
    }
    if (at < end)
        f.type = *at++;
    if (f.width > WIDTH_MAX || f.precision > PRECISION_MAX)
        jinja_fail(r, ERR_BOUND, "a format's width or precision is too large");
    else if (at < end || (f.type && !strchr("sdxXobeEfFgGn%", f.type)))
        jinja_fail(r, ERR_FORMAT, "an unknown format specification");
    return f;
}

static void put_formatted(struct braces *p, struct value v, const char *spec, const char *end)
{
    struct run *r = p->r;
    struct field f = read_spec(r, spec, end);
    if (r->failed)
        return;
    bool as_number = jinja_is_number(v) && f.type != 's' && !(v.kind == KIND_BOOL && !f.type);
    if (f.type && f.type != 's' && !as_number) {
        jinja_fail(r, ERR_FORMAT, "the format '%c' does not work on a %s", f.type, jinja_type_name(v));
    } else if (!as_number) {
        v = jinja_to_string(r, v);
        if (f.align == '=')
            f.align = '<';
        if (!r->failed)
            put_text(&p->b, &f, v);
    } else if (v.kind == KIND_FLOAT || (f.type && strchr("eEfFgG%", f.type))) {
        f.type = f.type == 'n' ? 'g' : f.type;
        if (f.type && strchr("dxXob", f.type))
            jinja_fail(r, ERR_FORMAT, "the format '%c' does not work on a float", f.type);
        else
            put_float(&p->b, &f, jinja_number(v));
    } else if (f.precision >= 0) {
        jinja_fail(r, ERR_FORMAT, "a precision does not work on a whole number");
    } else {
        put_integer(&p->b, &f, v.integer);
    }
}

/* The value that a field's name stands for: "", "0", "name", then .attributes and [keys]. */
static struct value field_value(struct braces *p, const char *at, const char *end)
{
    struct run *r = p->r;
    size_t n = 0;
    while (at + n < end && at[n] != '.' && at[n] != '[')
        n++;
    bool digits = n > 0 && n < 9;
    for (size_t i = 0; i < n; i++)
        digits = digits && isdigit((unsigned char)at[i]);
    struct value v = jinja_undefined(NULL, KIND_ABSENT);
    p->by_order = p->by_order || n == 0;
    p->by_number = p->by_number || digits;
    if (p->by_order && p->by_number)
        return jinja_fail(r, ERR_FORMAT, "format: numbered and unnumbered fields do not mix");
    if (n == 0 || digits) {
        size_t index = n == 0 ? p->next++ : (size_t)read_size(&(const char *){at}, at + n, 100000000);
        if (index >= p->all->n_plain)
            return jinja_fail(r, ERR_FORMAT, "format: more fields than values");
        v = p->all->plain[index];
    } else {
        size_t k = 0;
        while (k < p->all->n_keywords &&
               (p->all->keywords[k].name->n_bytes != n || memcmp(p->all->keywords[k].name->bytes, at, n)))
            k++;
        if (k == p->all->n_keywords)
            return jinja_fail(r, ERR_FORMAT, "format: no value is named '%.*s'", (int)(n < 60 ? n : 60), at);
        v = p->all->keywords[k].value;
    }
    for (at += n; at < end && !r->failed;) {
        bool attribute = *at++ == '.';
        size_t length = 0;
        while (at + length < end && (attribute ? at[length] != '.' && at[length] != '[' : at[length] != ']'))
            length++;
        struct value part = jinja_borrow(r, at, length);
        bool index = !attribute && length && length < 9;
        for (size_t i = 0; i < length; i++)
            index = index && isdigit((unsigned char)at[i]);
        if (index)
            part = jinja_int(read_size(&(const char *){at}, at + length, 100000000));
        if (!r->failed)
            v = attribute ? jinja_attribute(r, v, part.text) : jinja_item(r, v, part);
        at += length;
        at += !attribute && at < end;
    }
    return v;
}

/* One field, between its braces. */
static void braces_field(struct braces *p, const char *at, const char *end)
{
    const char *name_end = at;
    while (name_end < end && *name_end != ':' && *name_end != '!')
        name_end++;
    struct value v = field_value(p, at, name_end);
    const char *spec = name_end;
    if (spec + 1 < end && *spec == '!') {
        struct buffer repr = {.limit = p->r->output_limit};
        if (spec[1] == 's')
            jinja_print(p->r, &repr, v);
        else
            jinja_print_repr(p->r, &repr, v);
        v = jinja_take(p->r, &repr);
        spec += 2;
    }
    if (spec < end && *spec++ != ':')
        jinja_fail(p->r, ERR_FORMAT, "format: a malformed field");
    if (!p->r->failed)
        put_formatted(p, v, spec, end);
}

struct value jinja_format_braces(struct run *r, const struct string *format, const struct arguments *all)
{
    struct braces p = {.r = r, .b = {.limit = r->output_limit}, .all = all};
    const char *at = format->bytes, *end = at + format->n_bytes;
    while (at < end && !p.b.failed && jinja_spend(r, 1)) {
        char c = *at++;
        if (c != '{' && c != '}') {
            buffer_putc(&p.b, c);
        } else if (at < end && *at == c) {
            buffer_putc(&p.b, c);
            at++;
        } else {
            const char *close = c == '{' ? memchr(at, '}', (size_t)(end - at)) : NULL;
            if (!close) {
                jinja_fail(r, ERR_FORMAT, "format: a single '%c'", c);
                break;
            }
            braces_field(&p, at, close);
            at = close + 1;
        }
    }
    return jinja_take(r, &p.b);
}
