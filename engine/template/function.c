/* The functions that every template sees: range, namespace, dict, joiner, raise_exception, strftime_now. Owns nothing;
 * one thread a run. */
#include <string.h>

#include "engine/template/call.h"
#include "engine/template/filter.h"
#include "engine/template/print.h"

enum { RANGE_MAX = 100000, DATE_FORMAT_BYTES = 256, DATE_TEXT_BYTES = 4096 };

#define FUNCTION(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

FUNCTION(do_range)
{
    bool only_stop = args[1].kind == KIND_ABSENT;
    int64_t start = only_stop ? 0 : jinja_int_argument(r, args[0], 0);
    int64_t stop = jinja_int_argument(r, args[only_stop ? 0 : 1], 0), step = jinja_int_argument(r, args[2], 1);
    if (step == 0)
        return jinja_fail(r, ERR_FORMAT, "range: the step cannot be zero");
    uint64_t span = step > 0 ? (stop > start ? (uint64_t)stop - (uint64_t)start : 0)
                             : (start > stop ? (uint64_t)start - (uint64_t)stop : 0);
    uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step, n = span ? (span - 1) / stride + 1 : 0;
    if (n > RANGE_MAX)
        return jinja_fail(r, ERR_BOUND, "range: more than %d elements", RANGE_MAX);
    struct range *range = jinja_alloc(r, 1, sizeof *range);
    if (!range)
        return self;
    *range = (struct range){start, stop, step, n};
    return (struct value){.kind = KIND_RANGE, .range = range};
}

void jinja_fill(struct run *r, struct dict *dict, const struct arguments *all)
{
    if (all->n_plain > 1)
        jinja_fail(r, ERR_FORMAT, "a dict is made of one value at most");
    if (all->n_plain && all->plain[0].kind == KIND_UNDEFINED)
        jinja_fail_undefined(r, all->plain[0]);
    if (all->n_plain && all->plain[0].kind == KIND_DICT) {
        const struct dict *from = all->plain[0].dict;
        for (size_t i = 0, n = from->n; i < n && jinja_spend(r, 1); i++)
            jinja_set(r, dict, from->entries[i].key, from->entries[i].value);
    } else if (all->n_plain) {
        struct list *pairs = jinja_elements(r, all->plain[0]);
        for (size_t i = 0; i < pairs->n && jinja_spend(r, 1); i++) {
            struct list *pair = jinja_elements(r, pairs->items[i]);
            if (pair->n != 2)
                jinja_fail(r, ERR_FORMAT, "a dict is made of pairs, not of %zu values", pair->n);
            else
                jinja_set(r, dict, pair->items[0], pair->items[1]);
        }
    }
    for (size_t i = 0; i < all->n_keywords && !r->failed; i++)
        jinja_set(r, dict, jinja_text(all->keywords[i].name), all->keywords[i].value);
}

FUNCTION(do_dict)
{
    struct value v = jinja_dict(r, KIND_DICT, 0);
    jinja_fill(r, v.dict, all);
    return v;
}

FUNCTION(do_namespace)
{
    struct value v = jinja_dict(r, KIND_NAMESPACE, 0);
    jinja_fill(r, v.dict, all);
    return v;
}

FUNCTION(do_joiner)
{
    struct joiner *joiner = jinja_alloc(r, 1, sizeof *joiner);
    if (!joiner)
        return self;
    *joiner = (struct joiner){args[0].kind == KIND_ABSENT ? jinja_literal(r, ", ") : args[0], false};
    return (struct value){.kind = KIND_JOINER, .joiner = joiner};
}

FUNCTION(do_raise_exception)
{
    struct value message = jinja_to_string(r, args[0]);
    if (r->failed)
        return message;
    size_t n = message.text->n_bytes;
    return jinja_fail(r, ERR_USAGE, "%.*s", (int)(n < 400 ? n : 400), message.text->bytes);
}

FUNCTION(do_strftime_now)
{
    char format[DATE_FORMAT_BYTES], text[DATE_TEXT_BYTES];
    const struct string *asked = jinja_text_argument(r, args[0], NULL);
    if (r->failed || !r->now)
        return self;
    if (asked->n_bytes > sizeof format - 2 || memchr(asked->bytes, 0, asked->n_bytes))
        return jinja_fail(r, ERR_BOUND, "strftime_now: a format of more than %zu bytes", sizeof format - 2);
    /* One byte ahead of the format tells an empty result from one that does not fit. */
    format[0] = '|';
    memcpy(format + 1, asked->bytes, asked->n_bytes);
    format[asked->n_bytes + 1] = 0;
    size_t n = strftime(text, sizeof text, format, r->now);
    if (!n)
        return jinja_fail(r, ERR_BOUND, "strftime_now: more than %zu bytes", sizeof text - 2);
    return jinja_string(r, text + 1, n - 1);
}

static const struct builtin functions[] = {
    {"range", "start,stop?,step?", do_range},
    {"namespace", "*", do_namespace},
    {"dict", "*", do_dict},
    {"joiner", "sep?", do_joiner},
    {"raise_exception", "message", do_raise_exception},
    {"strftime_now", "format", do_strftime_now},
};

const struct builtin *jinja_find_function(const char *name, size_t n)
{
    return jinja_lookup(functions, sizeof functions / sizeof *functions, name, n);
}
