/* Filters that work on texts and single values. Owns nothing; one thread a run. */
#include "engine/template/filter.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/print.h"
#include "engine/template/text.h"
#include "engine/template/unicode.h"

#define FILTER(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

static struct value in_case(struct run *r, struct value self, enum letter_case to)
{
    struct value text = jinja_to_string(r, self);
    return r->failed ? text : jinja_change_case(r, text, to);
}

FILTER(do_upper)
{
    return in_case(r, self, CASE_UPPER);
}

FILTER(do_lower)
{
    return in_case(r, self, CASE_LOWER);
}

FILTER(do_capitalize)
{
    return in_case(r, self, CASE_CAPITAL);
}

/* A capital at the start and behind each - ( { [ < and white space. */
FILTER(do_title)
{
    struct value text = in_case(r, self, CASE_LOWER);
    if (r->failed)
        return text;
    struct buffer b = {.limit = r->output_limit};
    bool begins = true;
    for (size_t i = 0; i < text.text->n_bytes && !b.failed;) {
        uint32_t c;
        char bytes[4];
        i += jinja_utf8_decode(text.text->bytes + i, text.text->n_bytes - i, &c);
        buffer_append(&b, bytes, jinja_utf8_encode(begins ? jinja_to_upper(c) : c, bytes));
        begins = jinja_is_space(c) || (c < 0x80 && c && strchr("-({[<", (char)c));
    }
    return jinja_take(r, &b);
}

FILTER(do_trim)
{
    struct value text = jinja_to_string(r, self);
    return r->failed ? text : jinja_strip(r, text, args[0], SIDE_BOTH);
}

FILTER(do_replace)
{
    struct value text = jinja_to_string(r, self), old = jinja_to_string(r, args[0]), new = jinja_to_string(r, args[1]);
    int64_t most = args[2].kind == KIND_NONE ? -1 : jinja_int_argument(r, args[2], -1);
    if (r->failed)
        return text;
    text.detail = 0;
    return jinja_replace(r, text, old.text, new.text, most);
}

FILTER(do_string)
{
    return jinja_to_string(r, self);
}

FILTER(do_safe)
{
    struct value text = jinja_to_string(r, self);
    if (!r->failed)
        text.detail = 1;
    return text;
}

FILTER(do_escape)
{
    return jinja_escape(r, self);
}

FILTER(do_forceescape)
{
    struct value text = jinja_to_string(r, self);
    if (!r->failed)
        text.detail = 0;
    return r->failed ? text : jinja_escape(r, text);
}

FILTER(do_center)
{
    static const struct string space = {" ", 1, 1};
    struct value text = jinja_to_string(r, self);
    int64_t width = jinja_int_argument(r, args[0], 80);
    return r->failed ? text : jinja_pad(r, text, width, &space, SIDE_BOTH);
}

/* A level of indentation: a text, or that many spaces. */
static struct value indentation(struct run *r, struct value width, int64_t otherwise)
{
    static const struct string space = {" ", 1, 1};
    if (width.kind == KIND_STRING)
        return width;
    int64_t n = jinja_int_argument(r, width, otherwise);
    return r->failed ? width : jinja_pad(r, jinja_literal(r, ""), n, &space, SIDE_RIGHT);
}

FILTER(do_indent)
{
    jinja_text_argument(r, self, NULL);
    struct value indent = indentation(r, args[0], 4);
    if (r->failed)
        return self;
    struct list *lines = jinja_split_lines(r, self, false).list;
    const struct string *s = self.text;
    /* Jinja adds a line end first, so that one at the end of the text makes an empty last line. */
    uint32_t last = 0;
    if (s->n_bytes) {
        size_t start = jinja_utf8_back(s->bytes, s->n_bytes);
        jinja_utf8_decode(s->bytes + start, s->n_bytes - start, &last);
    }
    if (!s->n_bytes || (jinja_is_line_end(last) && last != '\r'))
        jinja_push(r, lines, jinja_literal(r, ""));
    bool first = jinja_truth(args[1]), blank = jinja_truth(args[2]);
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0; i < lines->n && !r->failed && !b.failed; i++) {
        const struct string *line = lines->items[i].text;
        if (i)
            buffer_putc(&b, '\n');
        if (i ? blank || line->n_bytes : first)
            buffer_append(&b, indent.text->bytes, indent.text->n_bytes);
        buffer_append(&b, line->bytes, line->n_bytes);
    }
    struct value v = jinja_take(r, &b);
    if (!r->failed)
        v.detail = self.detail;
    return v;
}

FILTER(do_truncate)
{
    struct value text = self;
    int64_t length = jinja_int_argument(r, args[0], 255), leeway = jinja_int_argument(r, args[3], 5);
    bool cut_words = jinja_truth(args[1]);
    struct value end = args[2].kind == KIND_ABSENT ? jinja_literal(r, "...") : args[2];
    jinja_text_argument(r, end, NULL);
    if (r->failed)
        return text;
    int64_t n_end = (int64_t)end.text->n_points;
    if (length < n_end || leeway < 0)
        return jinja_fail(r, ERR_FORMAT, "truncate: a length below that of its end, or a leeway below 0");
    int64_t n = (int64_t)jinja_length(r, text);
    if (n <= length || n - length <= leeway)
        return text;
    jinja_text_argument(r, text, NULL);
    if (r->failed)
        return text;
    struct value part = jinja_slice(r, text, jinja_none(), jinja_int(length - n_end), jinja_none());
    if (!cut_words && !r->failed) {
        struct value words = jinja_split(r, part, &(struct string){" ", 1, 1}, 1, true);
        part = r->failed ? part : words.list->items[0];
    }
    return r->failed ? part : jinja_operate(r, OP_ADD, part, end);
}

FILTER(do_wordcount)
{
    struct value text = jinja_to_string(r, self);
    int64_t words = 0;
    bool in_word = false;
    for (size_t i = 0; !r->failed && i < text.text->n_bytes && jinja_spend(r, 1);) {
        uint32_t c;
        i += jinja_utf8_decode(text.text->bytes + i, text.text->n_bytes - i, &c);
        bool part = jinja_is_alphabetic(c) || jinja_is_numeric(c) || c == '_';
        words += part && !in_word;
        in_word = part;
    }
    return jinja_int(words);
}

FILTER(do_urlencode)
{
    if (self.kind >= KIND_LIST)
        return jinja_fail(r, ERR_UNSUPPORTED, "urlencode: a text is needed, not a %s", jinja_type_name(self));
    struct value text = jinja_to_string(r, self);
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0; !r->failed && i < text.text->n_bytes && !b.failed; i++) {
        unsigned char c = (unsigned char)text.text->bytes[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("-._~/", c));
        if (plain)
            buffer_putc(&b, (char)c);
        else
            buffer_append(&b, (const char[]){'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]}, 3);
    }
    return jinja_take(r, &b);
}

FILTER(do_format)
{
    struct value text = jinja_to_string(r, self), values = jinja_list(r, KIND_TUPLE, 0);
    if (all->n_keywords && all->n_plain)
        return jinja_fail(r, ERR_FORMAT, "format: either positional or keyword arguments");
    for (size_t i = 0; i < all->n_plain && !r->failed; i++)
        jinja_push(r, values.list, all->plain[i]);
    if (all->n_keywords) {
        values = jinja_dict(r, KIND_DICT, all->n_keywords);
        jinja_fill(r, values.dict, all);
    }
    return r->failed ? text : jinja_format_percent(r, text, values);
}

FILTER(do_tojson)
{
    struct json_style style = {
        .ascii = jinja_truth(args[0]),
        .sort_keys = jinja_truth(args[3]),
    };
    if (args[1].kind != KIND_ABSENT && args[1].kind != KIND_NONE) {
        struct value indent = indentation(r, args[1], 0);
        if (r->failed)
            return self;
        style.indent = indent.text->bytes;
        style.indent_bytes = indent.text->n_bytes;
    }
    if (args[2].kind != KIND_ABSENT && args[2].kind != KIND_NONE) {
        struct list *separators = jinja_elements(r, args[2]);
        if (r->failed || separators->n != 2)
            return jinja_fail(r, ERR_FORMAT, "tojson: two separators are needed");
        style.between = jinja_text_argument(r, separators->items[0], NULL);
        style.colon = jinja_text_argument(r, separators->items[1], NULL);
    }
    return r->failed ? self : jinja_to_json(r, self, &style);
}

FILTER(do_abs)
{
    if (!jinja_is_number(self))
        return self.kind == KIND_UNDEFINED ? jinja_fail_undefined(r, self)
                                           : jinja_fail(r, ERR_FORMAT, "abs: a %s", jinja_type_name(self));
    return jinja_negate(r, self, jinja_number(self) < 0);
}

/* Python's int(text, base) and float(text): the whole text but white space around it, underscores between digits. */
static bool read_number(const struct string *s, int base, bool whole, struct value *out)
{
    char text[128], *end;
    size_t from = jinja_lstrip(s->bytes, s->n_bytes), n = 0,
           to = from + jinja_rstrip(s->bytes + from, s->n_bytes - from);
    for (size_t i = from; i < to; i++) {
        if (n == sizeof text - 1 || (unsigned char)s->bytes[i] <= ' ' ||
            (s->bytes[i] == '_' && (i == from || i + 1 == to || s->bytes[i - 1] == '_')))
            return false;
        if (s->bytes[i] != '_')
            text[n++] = s->bytes[i];
    }
    text[n] = 0;
    bool sign = n && (text[0] == '-' || text[0] == '+');
    const char *digits = text + sign;
    errno = 0;
    if (!whole) {
        if (!*digits || digits[strspn(digits, "0123456789.eE+-infatyINFATY")])
            return false; /* no hexadecimal floats */
        *out = jinja_float(strtod(text, &end));
        return !*end;
    }
    char prefix = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0;
    if (prefix && digits[0] == '0' && (digits[1] | 0x20) == prefix)
        digits += 2;
    if (!*digits || base < 2 || base > 36)
        return false;
    if (strspn(digits, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(digits))
        return false;
    long long value = strtoll(digits, &end, base);
    *out = jinja_int(text[0] == '-' ? -value : value);
    return !*end && !errno;
}

static bool from_float(double number, struct value *out)
{
    if (!(fabs(number) < 0x1p63))
        return false;
    *out = jinja_int((int64_t)number);
    return true;
}

FILTER(do_int)
{
    struct value otherwise = args[0].kind == KIND_ABSENT ? jinja_int(0) : args[0], v;
    int64_t base = jinja_int_argument(r, args[1], 10);
    if (self.kind == KIND_UNDEFINED)
        return jinja_fail_undefined(r, self);
    if (jinja_is_integer(self))
        return jinja_int(self.integer);
    if (self.kind == KIND_FLOAT)
        return from_float(self.number, &v) ? v : otherwise;
    if (self.kind != KIND_STRING)
        return otherwise;
    if (read_number(self.text, base > 36 ? 0 : (int)base, true, &v))
        return v;
    return read_number(self.text, 10, false, &v) && from_float(v.number, &v) ? v : otherwise;
}

FILTER(do_float)
{
    struct value otherwise = args[0].kind == KIND_ABSENT ? jinja_float(0) : args[0], v;
    if (self.kind == KIND_UNDEFINED)
        return jinja_fail_undefined(r, self);
    if (jinja_is_number(self))
        return jinja_float(jinja_number(self));
    return self.kind == KIND_STRING && read_number(self.text, 10, false, &v) ? v : otherwise;
}

FILTER(do_round)
{
    int64_t precision = jinja_int_argument(r, args[0], 0);
    struct value method = args[1].kind == KIND_ABSENT ? jinja_literal(r, "common") : args[1];
    if (r->failed || !jinja_is_number(self))
        return self.kind == KIND_UNDEFINED ? jinja_fail_undefined(r, self)
                                           : jinja_fail(r, ERR_FORMAT, "round: a %s", jinja_type_name(self));
    precision = precision > 300 ? 300 : precision < -300 ? -300 : precision;
    double number = jinja_number(self), scale = pow(10, (double)precision);
    if (jinja_is(method, "ceil") || jinja_is(method, "floor"))
        return jinja_float((jinja_is(method, "ceil") ? ceil(number * scale) : floor(number * scale)) / scale);
    if (!jinja_is(method, "common"))
        return jinja_fail(r, ERR_FORMAT, "round: the method is common, ceil or floor");
    if (jinja_is_integer(self) && precision >= 0)
        return jinja_int(self.integer);
    double rounded;
    if (precision > 0 && fabs(number) < 0x1p53) {
        char text[400]; /* printf rounds the exact value, halves to even, as Python does */
        snprintf(text, sizeof text, "%.*f", (int)precision, number);
        rounded = strtod(text, NULL);
    } else {
        scale = pow(10, (double)-precision);
        rounded = precision > 0 || isinf(scale) ? (precision > 0 ? number : 0) : nearbyint(number / scale) * scale;
    }
    return jinja_is_integer(self) ? jinja_int((int64_t)rounded) : jinja_float(rounded);
}

FILTER(do_default)
{
    struct value otherwise = args[0].kind == KIND_ABSENT ? jinja_literal(r, "") : args[0];
    bool takes = self.kind == KIND_UNDEFINED || (jinja_truth(args[1]) && !jinja_truth(self));
    return takes ? otherwise : self;
}

FILTER(do_attr)
{
    const struct string *name = jinja_text_argument(r, args[0], NULL);
    if (r->failed)
        return self;
    if (self.kind == KIND_DICT) { /* attributes only, never keys */
        struct value empty = jinja_dict(r, KIND_DICT, 0), method = jinja_attribute(r, empty, name);
        if (method.kind == KIND_METHOD)
            method.method->self = self;
        return method;
    }
    return jinja_attribute(r, self, name);
}

const struct builtin jinja_text_filters[] = {
    {"trim", "chars?", do_trim},
    {"tojson", "ensure_ascii?,indent?,separators?,sort_keys?", do_tojson},
    {"default", "default_value?,boolean?", do_default},
    {"d", "default_value?,boolean?", do_default},
    {"string", "", do_string},
    {"upper", "", do_upper},
    {"lower", "", do_lower},
    {"title", "", do_title},
    {"capitalize", "", do_capitalize},
    {"replace", "old,new,count?", do_replace},
    {"indent", "width?,first?,blank?", do_indent},
    {"int", "default?,base?", do_int},
    {"float", "default?", do_float},
    {"round", "precision?,method?", do_round},
    {"abs", "", do_abs},
    {"safe", "", do_safe},
    {"escape", "", do_escape},
    {"e", "", do_escape},
    {"forceescape", "", do_forceescape},
    {"center", "width?", do_center},
    {"truncate", "length?,killwords?,end?,leeway?", do_truncate},
    {"wordcount", "", do_wordcount},
    {"urlencode", "", do_urlencode},
    {"format", "*", do_format},
    {"attr", "name", do_attr},
};
const size_t jinja_text_filter_count = sizeof jinja_text_filters / sizeof *jinja_text_filters;
