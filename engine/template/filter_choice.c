/* Filters that put each item through a test, an attribute or another filter. Owns nothing; one thread a run. */
#include "engine/template/evaluate.h"
#include "engine/template/filter.h"

#define FILTER(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

/* The arguments behind the first `n` plain ones. */
static struct arguments rest(const struct arguments *all, size_t n)
{
    struct arguments left = *all;
    n = n < left.n_plain ? n : left.n_plain;
    if (n) {
        left.plain += n;
        left.n_plain -= n;
    }
    return left;
}

/* What is to be gone through; nothing, not even an error, in what counts as false (none). */
static struct list *items_of(struct run *r, struct value self)
{
    return jinja_truth(self) ? jinja_elements(r, self) : jinja_list(r, KIND_LIST, 0).list;
}

/* Items that pass (or, rejecting, fail) the test that the first argument names, else plain truth; with a path, their
 * parts are tested. */
static struct value choose(struct run *r, struct value self, const struct arguments *all, bool by_part, bool wanted)
{
    struct list *items = items_of(r, self), *chosen = jinja_list(r, KIND_LIST, 0).list;
    if (by_part && !all->n_plain)
        return jinja_fail(r, ERR_FORMAT, "needs the name of an attribute");
    struct arguments tail = rest(all, by_part);
    struct arguments further = rest(&tail, 1);
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        struct value v = by_part ? jinja_path(r, items->items[i], all->plain[0], jinja_none()) : items->items[i];
        bool passes = tail.n_plain ? jinja_apply_test(r, tail.plain[0], v, &further) : jinja_truth(v);
        if (passes == wanted && !r->failed)
            jinja_push(r, chosen, items->items[i]);
    }
    return jinja_iterator(r, chosen);
}

FILTER(do_select)
{
    return choose(r, self, all, false, true);
}

FILTER(do_reject)
{
    return choose(r, self, all, false, false);
}

FILTER(do_selectattr)
{
    return choose(r, self, all, true, true);
}

FILTER(do_rejectattr)
{
    return choose(r, self, all, true, false);
}

FILTER(do_map)
{
    struct list *items = items_of(r, self), *made = jinja_list(r, KIND_LIST, items->n).list;
    struct value attribute = {0}, otherwise = {0};
    for (size_t i = 0; i < all->n_keywords && !all->n_plain; i++) {
        struct value name = jinja_text(all->keywords[i].name);
        if (jinja_is(name, "attribute"))
            attribute = all->keywords[i].value;
        else if (jinja_is(name, "default"))
            otherwise = all->keywords[i].value;
        else
            return jinja_fail(r, ERR_FORMAT, "map is given an argument it does not take");
    }
    if (!all->n_plain && attribute.kind == KIND_ABSENT)
        return jinja_fail(r, ERR_FORMAT, "map needs a filter or an attribute");
    struct arguments further = rest(all, 1);
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        struct value v = all->n_plain ? jinja_apply_filter(r, all->plain[0], items->items[i], &further)
                                      : jinja_path(r, items->items[i], attribute, otherwise);
        jinja_push(r, made, v);
    }
    return jinja_iterator(r, made);
}

const struct builtin jinja_choice_filters[] = {
    {"select", "*", do_select},         {"reject", "*", do_reject}, {"selectattr", "*", do_selectattr},
    {"rejectattr", "*", do_rejectattr}, {"map", "*", do_map},
};
const size_t jinja_choice_filter_count = sizeof jinja_choice_filters / sizeof *jinja_choice_filters;
