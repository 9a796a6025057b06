/* Filters that order, cut and measure sequences, and the search through all filters. Those that Python makes lazily
 * are made at once here, but can be walked only once, as there. Owns nothing; one thread a run. */
#include "engine/template/filter.h"

#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/print.h"
#include "engine/template/text.h"

#define FILTER(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

/* Whether the key a comes before b; a failure counts as equal. Equal keys need no order, so undefined ones sort. */
static bool before(struct run *r, struct value a, struct value b, bool reverse)
{
    if (jinja_equal(r, a, b))
        return false;
    return (reverse ? jinja_order(r, b, a) : jinja_order(r, a, b)) == -1;
}

struct value jinja_sort(struct run *r, const struct list *items, const struct list *keys, bool reverse)
{
    size_t n = items->n;
    struct value sorted = jinja_list(r, KIND_LIST, n);
    size_t *from = jinja_alloc(r, n, sizeof *from), *to = jinja_alloc(r, n, sizeof *to);
    if (!from || !to || keys->n != n)
        return sorted;
    for (size_t i = 0; i < n; i++)
        from[i] = i;
    /* Merges of runs of 1, 2, 4, ...: stable, the left one first when keys are equal. */
    for (size_t width = 1; width < n && !r->failed; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t middle = start + width < n ? start + width : n, end = middle + width < n ? middle + width : n;
            size_t a = start, b = middle;
            for (size_t k = start; k < end; k++) {
                jinja_spend(r, 1);
                bool take_b =
                    b < end && (a >= middle || before(r, keys->items[from[b]], keys->items[from[a]], reverse));
                to[k] = take_b ? from[b++] : from[a++];
            }
        }
        size_t *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < n && !r->failed; i++)
        jinja_push(r, sorted.list, items->items[from[i]]);
    return sorted;
}

struct value jinja_sort_key(struct run *r, struct value item, struct value path, bool case_sensitive)
{
    if (path.kind != KIND_ABSENT && path.kind != KIND_NONE)
        item = jinja_path(r, item, path, jinja_none());
    if (item.kind == KIND_STRING && !case_sensitive && !r->failed)
        item = jinja_change_case(r, item, CASE_LOWER);
    return item;
}

static struct list *sort_keys(struct run *r, const struct list *items, struct value path, bool case_sensitive)
{
    struct list *keys = jinja_list(r, KIND_LIST, items->n).list;
    bool several = path.kind == KIND_STRING && memchr(path.text->bytes, ',', path.text->n_bytes);
    struct list *paths = several ? jinja_split(r, path, &(struct string){",", 1, 1}, -1, false).list : NULL;
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        struct value key;
        if (paths) {
            key = jinja_list(r, KIND_LIST, paths->n);
            for (size_t k = 0; k < paths->n && !r->failed; k++)
                jinja_push(r, key.list, jinja_sort_key(r, items->items[i], paths->items[k], case_sensitive));
        } else {
            key = jinja_sort_key(r, items->items[i], path, case_sensitive);
        }
        jinja_push(r, keys, key);
    }
    return keys;
}

FILTER(do_sort)
{
    struct list *items = jinja_elements(r, self);
    struct list *keys = sort_keys(r, items, args[2], jinja_truth(args[1]));
    return r->failed ? self : jinja_sort(r, items, keys, jinja_truth(args[0]));
}

FILTER(do_dictsort)
{
    if (self.kind != KIND_DICT)
        return jinja_fail(r, ERR_FORMAT, "dictsort: a %s", jinja_type_name(self));
    bool by_value = jinja_is(args[1], "value");
    if (!by_value && args[1].kind != KIND_ABSENT && !jinja_is(args[1], "key"))
        return jinja_fail(r, ERR_FORMAT, "dictsort: by is 'key' or 'value'");
    struct list *items = jinja_elements(r, (struct value){.kind = KIND_VIEW, .detail = VIEW_ITEMS, .dict = self.dict});
    struct list *keys = sort_keys(r, items, jinja_int(by_value), jinja_truth(args[0]));
    return r->failed ? self : jinja_sort(r, items, keys, jinja_truth(args[2]));
}

FILTER(do_groupby)
{
    struct list *items = jinja_elements(r, self), *keys = jinja_list(r, KIND_LIST, items->n).list;
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        struct value part = jinja_path(r, items->items[i], args[0], args[1]);
        if (part.kind == KIND_UNDEFINED && items->n > 1)
            jinja_fail_undefined(r, part);
        jinja_push(r, keys, part);
    }
    struct list *folded = r->failed ? keys : sort_keys(r, keys, jinja_none(), jinja_truth(args[2]));
    struct value ordered = jinja_sort(r, items, folded, false), names = jinja_sort(r, keys, folded, false);
    struct value compared = jinja_sort(r, folded, folded, false), groups = jinja_list(r, KIND_LIST, 0);
    struct list *members = NULL;
    for (size_t i = 0; !r->failed && i < ordered.list->n; i++) {
        if (!i || !jinja_equal(r, compared.list->items[i - 1], compared.list->items[i])) {
            struct value list = jinja_list(r, KIND_LIST, 0), group = jinja_pair(r, names.list->items[i], list);
            group.detail = 1;
            members = list.list;
            jinja_push(r, groups.list, group);
        }
        jinja_push(r, members, ordered.list->items[i]);
    }
    return groups;
}

FILTER(do_unique)
{
    struct list *items = jinja_elements(r, self), *chosen = jinja_list(r, KIND_LIST, 0).list;
    struct list *seen = jinja_list(r, KIND_LIST, 0).list;
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        struct value key = jinja_sort_key(r, items->items[i], args[1], jinja_truth(args[0]));
        size_t k = 0;
        if (!jinja_can_hash(key))
            jinja_fail(r, ERR_FORMAT, "unique does not work on a %s", jinja_type_name(key));
        while (k < seen->n && jinja_spend(r, 1) && !jinja_equal(r, seen->items[k], key))
            k++;
        if (k < seen->n)
            continue;
        jinja_push(r, seen, key);
        jinja_push(r, chosen, items->items[i]);
    }
    return jinja_iterator(r, chosen);
}

static struct value extreme(struct run *r, struct value self, const struct value *args, bool largest)
{
    struct list *items = jinja_elements(r, self), *keys = sort_keys(r, items, args[1], jinja_truth(args[0]));
    size_t best = 0;
    for (size_t i = 1; i < items->n && jinja_spend(r, 1); i++) {
        int order = jinja_order(r, keys->items[i], keys->items[best]);
        if (order == (largest ? 1 : -1))
            best = i;
    }
    return r->failed || !items->n ? jinja_undefined(NULL, KIND_LIST) : items->items[best];
}

FILTER(do_min)
{
    return extreme(r, self, args, false);
}

FILTER(do_max)
{
    return extreme(r, self, args, true);
}

FILTER(do_sum)
{
    struct list *items = jinja_elements(r, self);
    struct value sum = args[1].kind == KIND_ABSENT ? jinja_int(0) : args[1];
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        bool whole = args[0].kind == KIND_ABSENT || args[0].kind == KIND_NONE;
        struct value item = whole ? items->items[i] : jinja_path(r, items->items[i], args[0], jinja_none());
        sum = r->failed ? sum : jinja_operate(r, OP_ADD, sum, item);
    }
    return sum;
}

FILTER(do_length)
{
    return jinja_int((int64_t)jinja_length(r, self));
}

FILTER(do_first)
{
    if (self.kind == KIND_ITERATOR)
        return self.iterator->at < self.iterator->items->n ? self.iterator->items->items[self.iterator->at++]
                                                           : jinja_undefined(NULL, KIND_ITERATOR);
    struct list *items = jinja_elements(r, self);
    return items->n ? items->items[0] : jinja_undefined(NULL, self.kind);
}

FILTER(do_last)
{
    if (self.kind == KIND_ITERATOR)
        return jinja_fail(r, ERR_FORMAT, "last: a generator has to be made a list first");
    struct list *items = jinja_elements(r, self);
    return items->n ? items->items[items->n - 1] : jinja_undefined(NULL, self.kind);
}

FILTER(do_list)
{
    struct list *items = jinja_elements(r, self);
    struct value copy = jinja_list(r, KIND_LIST, jinja_spend(r, items->n / 16) ? items->n : 0);
    for (size_t i = 0; i < items->n && !r->failed; i++)
        jinja_push(r, copy.list, items->items[i]);
    return copy;
}

FILTER(do_items)
{
    if (self.kind == KIND_UNDEFINED)
        return jinja_iterator(r, jinja_list(r, KIND_LIST, 0).list);
    if (self.kind != KIND_DICT)
        return jinja_fail(r, ERR_FORMAT, "items: a dict is needed, not a %s", jinja_type_name(self));
    self.kind = KIND_VIEW;
    self.detail = VIEW_ITEMS;
    return jinja_iterator(r, jinja_elements(r, self));
}

FILTER(do_join)
{
    struct list *items = jinja_elements(r, self);
    struct value between = args[0].kind == KIND_ABSENT ? jinja_literal(r, "") : jinja_to_string(r, args[0]);
    bool whole = args[1].kind == KIND_ABSENT || args[1].kind == KIND_NONE;
    struct buffer b = {.limit = r->output_limit};
    for (size_t i = 0; i < items->n && jinja_spend(r, 1) && !b.failed; i++) {
        if (i)
            jinja_print(r, &b, between);
        struct value item = whole ? items->items[i] : jinja_path(r, items->items[i], args[1], jinja_none());
        if (!r->failed)
            jinja_print(r, &b, item);
    }
    return jinja_take(r, &b);
}

FILTER(do_reverse)
{
    if (self.kind == KIND_STRING)
        return jinja_slice(r, self, jinja_none(), jinja_none(), jinja_int(-1));
    if (self.kind == KIND_ITERATOR)
        return jinja_fail(r, ERR_FORMAT, "reverse: a generator has to be made a list first");
    struct list *items = jinja_elements(r, self), *turned = jinja_list(r, KIND_LIST, items->n).list;
    for (size_t i = items->n; i-- > 0 && jinja_spend(r, 1);)
        jinja_push(r, turned, items->items[i]);
    return jinja_iterator(r, turned);
}

FILTER(do_batch)
{
    int64_t width = jinja_int_argument(r, args[0], 1);
    struct list *items = jinja_elements(r, self), *rows = jinja_list(r, KIND_LIST, 0).list, *row = NULL;
    if (r->failed || width < 1)
        return jinja_fail(r, ERR_FORMAT, "batch: at least one a row");
    for (size_t i = 0; i < items->n && jinja_spend(r, 1); i++) {
        if (!row || (int64_t)row->n == width) {
            struct value fresh = jinja_list(r, KIND_LIST, 0);
            row = fresh.list;
            jinja_push(r, rows, fresh);
        }
        jinja_push(r, row, items->items[i]);
    }
    bool fill = row && args[1].kind != KIND_ABSENT && args[1].kind != KIND_NONE;
    while (fill && (int64_t)row->n < width && jinja_spend(r, 1))
        jinja_push(r, row, args[1]);
    return jinja_iterator(r, rows);
}

FILTER(do_slice)
{
    int64_t columns = jinja_int_argument(r, args[0], 1);
    struct list *items = jinja_elements(r, self), *rows = jinja_list(r, KIND_LIST, 0).list;
    if (r->failed || columns < 1)
        return jinja_fail(r, ERR_FORMAT, "slice: at least one column");
    size_t each = items->n / (size_t)columns, longer = items->n % (size_t)columns, at = 0;
    bool fill = args[1].kind != KIND_ABSENT && args[1].kind != KIND_NONE;
    for (size_t i = 0; i < (size_t)columns && jinja_spend(r, 1); i++) {
        struct value row = jinja_list(r, KIND_LIST, 0);
        for (size_t k = each + (i < longer); k > 0 && jinja_spend(r, 1); k--)
            jinja_push(r, row.list, items->items[at++]);
        if (fill && i >= longer)
            jinja_push(r, row.list, args[1]);
        jinja_push(r, rows, row);
    }
    return jinja_iterator(r, rows);
}

const struct builtin jinja_sequence_filters[] = {
    {"length", "", do_length},
    {"count", "", do_length},
    {"list", "", do_list},
    {"items", "", do_items},
    {"join", "d?,attribute?", do_join},
    {"first", "", do_first},
    {"last", "", do_last},
    {"reverse", "", do_reverse},
    {"sort", "reverse?,case_sensitive?,attribute?", do_sort},
    {"dictsort", "case_sensitive?,by?,reverse?", do_dictsort},
    {"groupby", "attribute,default?,case_sensitive?", do_groupby},
    {"unique", "case_sensitive?,attribute?", do_unique},
    {"min", "case_sensitive?,attribute?", do_min},
    {"max", "case_sensitive?,attribute?", do_max},
    {"sum", "attribute?,start?", do_sum},
    {"batch", "linecount,fill_with?", do_batch},
    {"slice", "slices,fill_with?", do_slice},
};
const size_t jinja_sequence_filter_count = sizeof jinja_sequence_filters / sizeof *jinja_sequence_filters;

const struct builtin *jinja_find_filter(const char *name, size_t n)
{
    const struct builtin *b = jinja_lookup(jinja_text_filters, jinja_text_filter_count, name, n);
    b = b ? b : jinja_lookup(jinja_sequence_filters, jinja_sequence_filter_count, name, n);
    return b ? b : jinja_lookup(jinja_choice_filters, jinja_choice_filter_count, name, n);
}
