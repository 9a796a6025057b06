/* Calls: arguments put in their places, and what can be called. Owns nothing; one thread a run. */
#include "engine/template/call.h"

#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/print.h"

const struct builtin *jinja_lookup(const struct builtin *table, size_t count, const char *name, size_t n)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == n && !memcmp(table[i].name, name, n))
            return &table[i];
    return NULL;
}

/* The parameter that `at` points to in a parameter list: its length; *optional, *next (NULL behind the last). */
static size_t read_parameter(const char *at, bool *optional, const char **next)
{
    size_t n = strcspn(at, ",");
    *next = at[n] ? at + n + 1 : NULL;
    *optional = n && at[n - 1] == '?';
    return n - *optional;
}

static const struct value *find_keyword(const struct arguments *all, const char *name, size_t n)
{
    for (size_t i = 0; i < all->n_keywords; i++)
        if (all->keywords[i].name->n_bytes == n && !memcmp(all->keywords[i].name->bytes, name, n))
            return &all->keywords[i].value;
    return NULL;
}

struct value jinja_call_builtin(struct run *r, const struct builtin *b, struct value self, const struct arguments *all)
{
    struct value args[PARAMETERS_MAX] = {{0}};
    size_t i = 0, used_keywords = 0;
    bool rest = false, optional;
    for (const char *at = *b->parameters ? b->parameters : NULL, *next; at && i < PARAMETERS_MAX; at = next) {
        size_t n = read_parameter(at, &optional, &next);
        if (n == 1 && *at == '*') {
            rest = true;
            break;
        }
        const struct value *by_name = find_keyword(all, at, n);
        if (by_name && i < all->n_plain)
            return jinja_fail(r, ERR_FORMAT, "%s: two values for '%.*s'", b->name, (int)n, at);
        used_keywords += by_name != NULL;
        if (by_name || i < all->n_plain)
            args[i] = by_name ? *by_name : all->plain[i];
        else if (!optional)
            return jinja_fail(r, ERR_FORMAT, "%s needs its argument '%.*s'", b->name, (int)n, at);
        i++;
    }
    if (!rest && (all->n_plain > i || used_keywords < all->n_keywords))
        return jinja_fail(r, ERR_FORMAT, "%s is given an argument it does not take", b->name);
    return b->call(r, self, args, all);
}

static struct value call_joiner(struct run *r, struct joiner *joiner)
{
    bool used = joiner->used;
    joiner->used = true;
    return used ? joiner->separator : jinja_literal(r, "");
}

struct value jinja_call(struct run *r, struct value callee, const struct arguments *all)
{
    if (!jinja_enter(r))
        return callee;
    struct value v = jinja_undefined(NULL, KIND_ABSENT);
    switch (callee.kind) {
    case KIND_FUNCTION:
        v = jinja_call_builtin(r, callee.builtin, callee, all);
        break;
    case KIND_METHOD:
        v = jinja_call_builtin(r, callee.method->builtin, callee.method->self, all);
        break;
    case KIND_MACRO:
        v = jinja_call_macro(r, callee.macro, all);
        break;
    case KIND_JOINER:
        v = call_joiner(r, callee.joiner);
        break;
    case KIND_LOOP:
        v = all->n_plain == 1 ? jinja_call_loop(r, callee.loop, all->plain[0])
                              : jinja_fail(r, ERR_FORMAT, "loop() needs one argument");
        break;
    case KIND_UNDEFINED:
        v = jinja_fail_undefined(r, callee);
        break;
    default:
        v = jinja_fail(r, ERR_FORMAT, "a %s cannot be called", jinja_type_name(callee));
    }
    jinja_leave(r);
    return v;
}

static const struct builtin *named(struct run *r, struct value name, const char *what,
                                   const struct builtin *(*find)(const char *, size_t))
{
    const struct builtin *b = name.kind == KIND_STRING ? find(name.text->bytes, name.text->n_bytes) : NULL;
    if (b)
        return b;
    if (name.kind == KIND_STRING)
        jinja_fail(r, ERR_UNSUPPORTED, "there is no %s named '%.*s'", what,
                   (int)(name.text->n_bytes < 60 ? name.text->n_bytes : 60), name.text->bytes);
    else
        jinja_fail(r, ERR_FORMAT, "expected the name of a %s", what);
    return NULL;
}

struct value jinja_apply_filter(struct run *r, struct value name, struct value self, const struct arguments *all)
{
    const struct builtin *b = named(r, name, "filter", jinja_find_filter);
    if (!b || !jinja_enter(r))
        return self;
    struct value v = jinja_call_builtin(r, b, self, all);
    jinja_leave(r);
    return v;
}

bool jinja_apply_test(struct run *r, struct value name, struct value self, const struct arguments *all)
{
    const struct builtin *b = named(r, name, "test", jinja_find_test);
    if (!b || !jinja_enter(r))
        return false;
    struct value v = jinja_call_builtin(r, b, self, all);
    jinja_leave(r);
    return jinja_truth(v);
}

int64_t jinja_int_argument(struct run *r, struct value v, int64_t otherwise)
{
    if (v.kind == KIND_ABSENT)
        return otherwise;
    if (jinja_is_integer(v))
        return v.integer;
    if (v.kind == KIND_UNDEFINED)
        jinja_fail_undefined(r, v);
    else
        jinja_fail(r, ERR_FORMAT, "needs a whole number, not a %s", jinja_type_name(v));
    return otherwise;
}

const struct string *jinja_text_argument(struct run *r, struct value v, const char *otherwise)
{
    static const struct string empty = {"", 0, 0};
    if (v.kind == KIND_STRING)
        return v.text;
    if (v.kind == KIND_UNDEFINED)
        jinja_fail_undefined(r, v);
    else if (v.kind != KIND_ABSENT || !otherwise)
        jinja_fail(r, ERR_FORMAT, "needs a text, not a %s", jinja_type_name(v));
    v = jinja_literal(r, otherwise ? otherwise : "");
    return r->failed ? &empty : v.text;
}
