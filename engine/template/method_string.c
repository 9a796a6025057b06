/* The methods of strings. Owns nothing; one thread a run. */
#include "engine/template/method.h"

#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/print.h"
#include "engine/template/text.h"
#include "engine/template/unicode.h"

#define METHOD(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

METHOD(do_upper)
{
    return jinja_change_case(r, self, CASE_UPPER);
}

METHOD(do_lower)
{
    return jinja_change_case(r, self, CASE_LOWER);
}

METHOD(do_title)
{
    return jinja_change_case(r, self, CASE_TITLE);
}

METHOD(do_capitalize)
{
    return jinja_change_case(r, self, CASE_CAPITAL);
}

METHOD(do_swapcase)
{
    return jinja_change_case(r, self, CASE_SWAP);
}

METHOD(do_strip)
{
    return jinja_strip(r, self, args[0], SIDE_BOTH);
}

METHOD(do_lstrip)
{
    return jinja_strip(r, self, args[0], SIDE_LEFT);
}

METHOD(do_rstrip)
{
    return jinja_strip(r, self, args[0], SIDE_RIGHT);
}

static struct value split(struct run *r, struct value self, const struct value *args, bool from_right)
{
    bool at_space = args[0].kind == KIND_ABSENT || args[0].kind == KIND_NONE;
    const struct string *separator = at_space ? NULL : jinja_text_argument(r, args[0], NULL);
    int64_t most = jinja_int_argument(r, args[1], -1);
    return r->failed ? self : jinja_split(r, self, separator, most < 0 ? -1 : most, from_right);
}

METHOD(do_split)
{
    return split(r, self, args, false);
}

METHOD(do_rsplit)
{
    return split(r, self, args, true);
}

METHOD(do_splitlines)
{
    return jinja_split_lines(r, self, jinja_truth(args[0]));
}

METHOD(do_replace)
{
    const struct string *old = jinja_text_argument(r, args[0], NULL), *new = jinja_text_argument(r, args[1], NULL);
    int64_t most = jinja_int_argument(r, args[2], -1);
    return r->failed ? self : jinja_replace(r, self, old, new, most);
}

/* The part of self between the code points args[0] and args[1]; *from is where it starts. */
static struct value between(struct run *r, struct value self, const struct value *args, int64_t *from)
{
    struct value start = args[0].kind == KIND_ABSENT ? jinja_none() : args[0];
    struct value stop = args[1].kind == KIND_ABSENT ? jinja_none() : args[1];
    int64_t n = (int64_t)self.text->n_points;
    *from = jinja_is_integer(start) ? start.integer : 0;
    *from = *from < -n ? 0 : *from < 0 ? *from + n : *from > n ? n : *from;
    struct value part = jinja_slice(r, self, start, stop, jinja_none());
    if (part.kind != KIND_STRING)
        jinja_fail(r, ERR_FORMAT, "the bounds of a search must be whole numbers");
    return part;
}

/* Where args[0] stands first or last, as an index of code points; -1 when nowhere. */
static int64_t find(struct run *r, struct value self, const struct value *args, bool last)
{
    int64_t from;
    const struct string *what = jinja_text_argument(r, args[0], NULL);
    struct value part = between(r, self, args + 1, &from);
    if (r->failed || !jinja_spend(r, part.text->n_bytes / 64))
        return -1;
    const char *bytes = part.text->bytes, *found;
    size_t n = part.text->n_bytes;
    found = last ? jinja_find_last(r, bytes, n, what) : memmem(bytes, n, what->bytes, what->n_bytes);
    return found ? from + (int64_t)jinja_utf8_points(bytes, (size_t)(found - bytes)) : -1;
}

METHOD(do_find)
{
    return jinja_int(find(r, self, args, false));
}

METHOD(do_rfind)
{
    return jinja_int(find(r, self, args, true));
}

METHOD(do_index)
{
    int64_t at = find(r, self, args, false);
    return at < 0 ? jinja_fail(r, ERR_FORMAT, "index: the text is not there") : jinja_int(at);
}

METHOD(do_rindex)
{
    int64_t at = find(r, self, args, true);
    return at < 0 ? jinja_fail(r, ERR_FORMAT, "rindex: the text is not there") : jinja_int(at);
}

METHOD(do_count)
{
    int64_t from, n = 0;
    const struct string *what = jinja_text_argument(r, args[0], NULL);
    struct value part = between(r, self, args + 1, &from);
    if (r->failed || !jinja_spend(r, part.text->n_bytes / 64))
        return self;
    if (!what->n_bytes)
        return jinja_int((int64_t)part.text->n_points + 1);
    const char *at = part.text->bytes, *end = at + part.text->n_bytes;
    while ((at = memmem(at, (size_t)(end - at), what->bytes, what->n_bytes))) {
        at += what->n_bytes;
        n++;
    }
    return jinja_int(n);
}

static bool has_affix(struct value text, struct value affix, bool at_end)
{
    const struct string *s = text.text, *a = affix.text;
    return a->n_bytes <= s->n_bytes && !memcmp(s->bytes + (at_end ? s->n_bytes - a->n_bytes : 0), a->bytes, a->n_bytes);
}

static struct value affixed(struct run *r, struct value self, const struct value *args, bool at_end)
{
    int64_t from;
    struct value part = between(r, self, args + 1, &from), affix = args[0];
    size_t n = affix.kind == KIND_TUPLE ? affix.list->n : 1;
    for (size_t i = 0; i < n && jinja_spend(r, 1); i++) {
        struct value one = affix.kind == KIND_TUPLE ? affix.list->items[i] : affix;
        jinja_text_argument(r, one, NULL);
        if (!r->failed && has_affix(part, one, at_end))
            return jinja_bool(true);
    }
    return jinja_bool(false);
}

METHOD(do_startswith)
{
    return affixed(r, self, args, false);
}

METHOD(do_endswith)
{
    return affixed(r, self, args, true);
}

METHOD(do_removeprefix)
{
    jinja_text_argument(r, args[0], NULL);
    return !r->failed && has_affix(self, args[0], false)
               ? jinja_part(r, self, args[0].text->n_bytes, self.text->n_bytes)
               : self;
}

METHOD(do_removesuffix)
{
    jinja_text_argument(r, args[0], NULL);
    return !r->failed && has_affix(self, args[0], true)
               ? jinja_part(r, self, 0, self.text->n_bytes - args[0].text->n_bytes)
               : self;
}

static struct value partition(struct run *r, struct value self, struct value what, bool from_right)
{
    const struct string *separator = jinja_text_argument(r, what, NULL);
    if (r->failed)
        return self;
    struct value parts = jinja_split(r, self, separator, 1, from_right), v = jinja_list(r, KIND_TUPLE, 3);
    if (r->failed)
        return self;
    bool found = parts.list->n == 2;
    struct value empty = jinja_literal(r, "");
    jinja_push(r, v.list, found || !from_right ? parts.list->items[0] : empty);
    jinja_push(r, v.list, found ? what : empty);
    jinja_push(r, v.list, found ? parts.list->items[1] : from_right ? parts.list->items[0] : empty);
    return v;
}

METHOD(do_partition)
{
    return partition(r, self, args[0], false);
}

METHOD(do_rpartition)
{
    return partition(r, self, args[0], true);
}

METHOD(do_join)
{
    struct list *items = jinja_elements(r, args[0]);
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0; i < items->n && !r->failed && !b.failed; i++) {
        const struct string *item = jinja_text_argument(r, items->items[i], NULL);
        if (i)
            buffer_append(&b, self.text->bytes, self.text->n_bytes);
        buffer_append(&b, item->bytes, item->n_bytes);
    }
    return jinja_take(r, &b);
}

static struct value pad(struct run *r, struct value self, const struct value *args, enum side sides)
{
    const struct string *fill = jinja_text_argument(r, args[1], " ");
    int64_t width = jinja_int_argument(r, args[0], 0);
    return r->failed ? self : jinja_pad(r, self, width, fill, sides);
}

METHOD(do_ljust)
{
    return pad(r, self, args, SIDE_RIGHT);
}

METHOD(do_rjust)
{
    return pad(r, self, args, SIDE_LEFT);
}

METHOD(do_center)
{
    return pad(r, self, args, SIDE_BOTH);
}

METHOD(do_zfill)
{
    static const struct string zero = {"0", 1, 1};
    int64_t width = jinja_int_argument(r, args[0], 0);
    bool sign = self.text->n_bytes && strchr("+-", self.text->bytes[0]) && self.text->bytes[0];
    if (r->failed || !sign)
        return r->failed ? self : jinja_pad(r, self, width, &zero, SIDE_LEFT);
    struct value digits = jinja_part(r, self, 1, self.text->n_bytes);
    digits = r->failed ? self : jinja_pad(r, digits, width - 1, &zero, SIDE_LEFT);
    return r->failed ? self : jinja_operate(r, OP_ADD, jinja_part(r, self, 0, 1), digits);
}

METHOD(do_expandtabs)
{
    int64_t size = jinja_int_argument(r, args[0], 8), column = 0;
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0; i < self.text->n_bytes && !b.failed && jinja_spend(r, 1); i++) {
        char c = self.text->bytes[i];
        int64_t spaces = c == '\t' && size > 0 ? size - column % size : 0;
        for (int64_t k = 0; k < spaces && !b.failed; k++)
            buffer_putc(&b, ' ');
        if (c != '\t')
            buffer_putc(&b, c);
        column = c == '\n' || c == '\r' ? 0
                 : c == '\t'            ? column + spaces
                                        : column + (((unsigned char)c & 0xC0) != 0x80);
    }
    return jinja_take(r, &b);
}

METHOD(do_format)
{
    return jinja_format_braces(r, self.text, all);
}

/* Whether all characters (and at least one) satisfy a predicate. */
static struct value every(struct run *r, struct value self, bool (*is)(uint32_t))
{
    const struct string *s = self.text;
    bool holds = s->n_bytes > 0;
    for (size_t i = 0; i < s->n_bytes && holds && jinja_spend(r, 1);) {
        uint32_t c;
        i += jinja_utf8_decode(s->bytes + i, s->n_bytes - i, &c);
        holds = is(c);
    }
    return jinja_bool(holds);
}

static bool is_alphanumeric(uint32_t c)
{
    return jinja_is_alphabetic(c) || jinja_is_numeric(c);
}

static bool is_ascii(uint32_t c)
{
    return c < 0x80;
}

METHOD(do_isalpha)
{
    return every(r, self, jinja_is_alphabetic);
}

METHOD(do_isalnum)
{
    return every(r, self, is_alphanumeric);
}

METHOD(do_isdigit)
{
    return every(r, self, jinja_is_decimal);
}

METHOD(do_isnumeric)
{
    return every(r, self, jinja_is_numeric);
}

METHOD(do_isspace)
{
    return every(r, self, jinja_is_space);
}

METHOD(do_isascii)
{
    return self.text->n_bytes ? every(r, self, is_ascii) : jinja_bool(true);
}

METHOD(do_isprintable)
{
    return self.text->n_bytes ? every(r, self, jinja_is_printable) : jinja_bool(true);
}

bool jinja_is_cased(struct run *r, const struct string *s, bool upper)
{
    bool some = false;
    for (size_t i = 0; i < s->n_bytes && jinja_spend(r, 1);) {
        uint32_t c;
        i += jinja_utf8_decode(s->bytes + i, s->n_bytes - i, &c);
        if (upper ? jinja_is_lower(c) : jinja_is_upper(c))
            return false;
        some = some || jinja_is_lower(c) || jinja_is_upper(c);
    }
    return some;
}

METHOD(do_isupper)
{
    return jinja_bool(jinja_is_cased(r, self.text, true));
}

METHOD(do_islower)
{
    return jinja_bool(jinja_is_cased(r, self.text, false));
}

const struct builtin jinja_string_methods[] = {
    {"strip", "chars?", do_strip},
    {"lstrip", "chars?", do_lstrip},
    {"rstrip", "chars?", do_rstrip},
    {"split", "sep?,maxsplit?", do_split},
    {"rsplit", "sep?,maxsplit?", do_rsplit},
    {"splitlines", "keepends?", do_splitlines},
    {"replace", "old,new,count?", do_replace},
    {"startswith", "prefix,start?,end?", do_startswith},
    {"endswith", "suffix,start?,end?", do_endswith},
    {"find", "sub,start?,end?", do_find},
    {"rfind", "sub,start?,end?", do_rfind},
    {"index", "sub,start?,end?", do_index},
    {"rindex", "sub,start?,end?", do_rindex},
    {"count", "sub,start?,end?", do_count},
    {"join", "iterable", do_join},
    {"upper", "", do_upper},
    {"lower", "", do_lower},
    {"casefold", "", do_lower},
    {"title", "", do_title},
    {"capitalize", "", do_capitalize},
    {"swapcase", "", do_swapcase},
    {"removeprefix", "prefix", do_removeprefix},
    {"removesuffix", "suffix", do_removesuffix},
    {"partition", "sep", do_partition},
    {"rpartition", "sep", do_rpartition},
    {"format", "*", do_format},
    {"ljust", "width,fillchar?", do_ljust},
    {"rjust", "width,fillchar?", do_rjust},
    {"center", "width,fillchar?", do_center},
    {"zfill", "width", do_zfill},
    {"expandtabs", "tabsize?", do_expandtabs},
    {"isalpha", "", do_isalpha},
    {"isalnum", "", do_isalnum},
    {"isdigit", "", do_isdigit},
    {"isdecimal", "", do_isdigit},
    {"isnumeric", "", do_isnumeric},
    {"isspace", "", do_isspace},
    {"isascii", "", do_isascii},
    {"isprintable", "", do_isprintable},
    {"isupper", "", do_isupper},
    {"islower", "", do_islower},
};
const size_t jinja_string_method_count = sizeof jinja_string_methods / sizeof *jinja_string_methods;
