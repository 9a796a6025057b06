/* The methods of lists, tuples, dictionaries and loops, and the search through all methods. Lists and dictionaries are
 * the render's own copies, so a template may change them. Owns nothing; one thread a run. */
#include "engine/template/method.h"

#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/filter.h"

#define METHOD(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

/* An index counted from the end when negative; -1 when it lies outside. */
static int64_t place(const struct list *list, int64_t at)
{
    int64_t n = (int64_t)list->n;
    at += at < 0 ? n : 0;
    return at < 0 || at >= n ? -1 : at;
}

METHOD(list_append)
{
    jinja_push(r, self.list, args[0]);
    return jinja_none();
}

METHOD(list_extend)
{
    struct list *items = jinja_elements(r, args[0]);
    size_t n = items->n; /* it may be this very list */
    for (size_t i = 0; i < n && jinja_spend(r, 1); i++)
        jinja_push(r, self.list, items->items[i]);
    return jinja_none();
}

METHOD(list_insert)
{
    struct list *list = self.list;
    int64_t at = jinja_int_argument(r, args[0], 0), n = (int64_t)list->n;
    at = at < -n ? 0 : at < 0 ? at + n : at > n ? n : at;
    jinja_push(r, list, args[1]);
    if (!jinja_spend(r, list->n / 16))
        return self;
    memmove(list->items + at + 1, list->items + at, (size_t)(n - at) * sizeof *list->items);
    list->items[at] = args[1];
    return jinja_none();
}

static void remove_at(struct list *list, size_t at)
{
    memmove(list->items + at, list->items + at + 1, (list->n - at - 1) * sizeof *list->items);
    list->n--;
}

METHOD(list_pop)
{
    int64_t at = place(self.list, jinja_int_argument(r, args[0], -1));
    if (r->failed || at < 0)
        return jinja_fail(r, ERR_FORMAT, "pop: the list has no such element");
    struct value v = self.list->items[at];
    jinja_spend(r, self.list->n / 16);
    remove_at(self.list, (size_t)at);
    return v;
}

static int64_t find(struct run *r, const struct list *list, struct value what)
{
    for (size_t i = 0; i < list->n && jinja_spend(r, 1); i++)
        if (jinja_equal(r, list->items[i], what))
            return (int64_t)i;
    return -1;
}

METHOD(list_remove)
{
    int64_t at = find(r, self.list, args[0]);
    if (at < 0)
        return jinja_fail(r, ERR_FORMAT, "remove: the list has no such element");
    remove_at(self.list, (size_t)at);
    return jinja_none();
}

METHOD(list_index)
{
    int64_t at = find(r, self.list, args[0]);
    return at < 0 ? jinja_fail(r, ERR_FORMAT, "index: there is no such element") : jinja_int(at);
}

METHOD(list_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.list->n && jinja_spend(r, 1); i++)
        n += jinja_equal(r, self.list->items[i], args[0]);
    return jinja_int(n);
}

METHOD(list_clear)
{
    self.list->n = 0;
    return jinja_none();
}

METHOD(list_copy)
{
    return jinja_slice(r, self, jinja_none(), jinja_none(), jinja_none());
}

METHOD(list_reverse)
{
    struct list *list = self.list;
    for (size_t i = 0; i < list->n / 2 && jinja_spend(r, 1); i++) {
        struct value v = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = v;
    }
    return jinja_none();
}

METHOD(list_sort)
{
    struct value sorted = jinja_sort(r, self.list, self.list, jinja_truth(args[0]));
    if (!r->failed)
        *self.list = *sorted.list;
    return jinja_none();
}

METHOD(dict_get)
{
    struct value *found = jinja_get(r, self.dict, args[0]);
    return found ? *found : args[1].kind == KIND_ABSENT ? jinja_none() : args[1];
}

static struct value view(struct value self, enum view which)
{
    return (struct value){.kind = KIND_VIEW, .detail = (uint8_t)which, .dict = self.dict};
}

METHOD(dict_keys)
{
    return view(self, VIEW_KEYS);
}

METHOD(dict_values)
{
    return view(self, VIEW_VALUES);
}

METHOD(dict_items)
{
    return view(self, VIEW_ITEMS);
}

METHOD(dict_pop)
{
    struct value removed;
    if (jinja_remove(r, self.dict, args[0], &removed))
        return removed;
    return args[1].kind == KIND_ABSENT ? jinja_fail(r, ERR_FORMAT, "pop: the dict has no such key") : args[1];
}

METHOD(dict_popitem)
{
    if (!self.dict->n)
        return jinja_fail(r, ERR_FORMAT, "popitem: the dict is empty");
    struct dict_entry *last = &self.dict->entries[--self.dict->n];
    return jinja_pair(r, last->key, last->value);
}

METHOD(dict_setdefault)
{
    struct value *found = jinja_get(r, self.dict, args[0]);
    struct value v = args[1].kind == KIND_ABSENT ? jinja_none() : args[1];
    if (found || r->failed)
        return found ? *found : v;
    jinja_set(r, self.dict, args[0], v);
    return v;
}

METHOD(dict_update)
{
    jinja_fill(r, self.dict, all);
    return jinja_none();
}

METHOD(dict_clear)
{
    self.dict->n = 0;
    return jinja_none();
}

METHOD(dict_copy)
{
    struct value copy = jinja_dict(r, KIND_DICT, self.dict->n);
    for (size_t i = 0; i < self.dict->n && jinja_spend(r, 1) && copy.dict->n < copy.dict->capacity; i++)
        copy.dict->entries[copy.dict->n++] = self.dict->entries[i];
    return copy;
}

METHOD(loop_cycle)
{
    if (!all->n_plain)
        return jinja_fail(r, ERR_FORMAT, "cycle needs values to cycle through");
    return all->plain[self.loop->index0 % all->n_plain];
}

METHOD(loop_changed)
{
    struct list now = {all->plain, all->n_plain, all->n_plain}, *last = self.loop->changed;
    bool same = last && last->n == now.n;
    for (size_t i = 0; same && i < now.n && !r->failed; i++)
        same = jinja_equal(r, last->items[i], now.items[i]);
    if (!same && (last = jinja_alloc(r, 1, sizeof *last))) {
        *last = now; /* the arguments lie in the run's arena */
        self.loop->changed = last;
    }
    return jinja_bool(!same);
}

static const struct builtin list_methods[] = {
    {"append", "object", list_append}, {"extend", "iterable", list_extend}, {"insert", "index,object", list_insert},
    {"pop", "index?", list_pop},       {"remove", "value", list_remove},    {"index", "value", list_index},
    {"count", "value", list_count},    {"clear", "", list_clear},           {"copy", "", list_copy},
    {"reverse", "", list_reverse},     {"sort", "reverse?", list_sort},
};

static const struct builtin tuple_methods[] = {
    {"index", "value", list_index},
    {"count", "value", list_count},
};

static const struct builtin dict_methods[] = {
    {"get", "key,default?", dict_get},
    {"items", "", dict_items},
    {"keys", "", dict_keys},
    {"values", "", dict_values},
    {"pop", "key,default?", dict_pop},
    {"popitem", "", dict_popitem},
    {"setdefault", "key,default?", dict_setdefault},
    {"update", "*", dict_update},
    {"clear", "", dict_clear},
    {"copy", "", dict_copy},
};

static const struct builtin loop_methods[] = {
    {"cycle", "*", loop_cycle},
    {"changed", "*", loop_changed},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

const struct builtin *jinja_find_method(enum kind kind, const char *name, size_t n)
{
    switch (kind) {
    case KIND_STRING:
        return jinja_lookup(jinja_string_methods, jinja_string_method_count, name, n);
    case KIND_LIST:
        return jinja_lookup(list_methods, COUNT(list_methods), name, n);
    case KIND_TUPLE:
        return jinja_lookup(tuple_methods, COUNT(tuple_methods), name, n);
    case KIND_DICT:
        return jinja_lookup(dict_methods, COUNT(dict_methods), name, n);
    case KIND_LOOP:
        return jinja_lookup(loop_methods, COUNT(loop_methods), name, n);
    default:
        return NULL;
    }
}
