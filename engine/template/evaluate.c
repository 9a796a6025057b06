/* Expressions: a walk over the tree. Owns nothing; one thread a run. */
#include "engine/template/evaluate.h"

#include <string.h>

#include "engine/template/print.h"

static size_t count(const struct node *n)
{
    size_t length = 0;
    for (; n; n = n->next)
        length++;
    return length;
}

static struct value evaluate_items(struct run *r, const struct node *n)
{
    struct value v = jinja_list(r, n->kind == NODE_LIST ? KIND_LIST : KIND_TUPLE, count(n->items));
    for (const struct node *item = n->items; item && !r->failed; item = item->next)
        jinja_push(r, v.list, jinja_evaluate(r, item));
    return v;
}

static struct value evaluate_dict(struct run *r, const struct node *n)
{
    struct value v = jinja_dict(r, KIND_DICT, count(n->items) / 2);
    for (const struct node *item = n->items; item && item->next && !r->failed; item = item->next->next) {
        struct value key = jinja_evaluate(r, item), value = jinja_evaluate(r, item->next);
        if (!r->failed)
            jinja_set(r, v.dict, key, value);
    }
    return v;
}

static struct value evaluate_part(struct run *r, const struct node *n)
{
    struct value v = jinja_evaluate(r, n->a), part[3] = {{0}, {0}, {0}};
    if (n->b->kind != NODE_SLICE) {
        struct value key = jinja_evaluate(r, n->b);
        return r->failed ? v : jinja_item(r, v, key);
    }
    const struct node *bounds[] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++)
        part[i] = bounds[i] ? jinja_evaluate(r, bounds[i]) : jinja_none();
    return r->failed ? v : jinja_slice(r, v, part[0], part[1], part[2]);
}

static void spread(struct run *r, const struct node *n, struct value v, struct list *plain, struct list *names,
                   struct list *values)
{
    if (n->op == ARGUMENT_SPREAD) {
        struct list *items = jinja_elements(r, v);
        for (size_t i = 0; i < items->n && !r->failed; i++)
            jinja_push(r, plain, items->items[i]);
    } else if (v.kind != KIND_DICT) {
        jinja_fail(r, ERR_FORMAT, "** needs a dict, not a %s", jinja_type_name(v));
    } else {
        for (size_t i = 0; i < v.dict->n && !r->failed; i++) {
            if (v.dict->entries[i].key.kind != KIND_STRING)
                jinja_fail(r, ERR_FORMAT, "keyword arguments need texts as names");
            jinja_push(r, names, v.dict->entries[i].key);
            jinja_push(r, values, v.dict->entries[i].value);
        }
    }
}

/* Evaluates a list of NODE_ARGUMENT; with room for one keyword more. */
static struct arguments evaluate_arguments(struct run *r, const struct node *n)
{
    struct arguments all = {0};
    if (!n)
        return all;
    size_t n_arguments = count(n);
    struct list *plain = jinja_list(r, KIND_LIST, n_arguments).list;
    struct list *names = jinja_list(r, KIND_LIST, 0).list, *values = jinja_list(r, KIND_LIST, 0).list;
    for (; n && !r->failed; n = n->next) {
        struct value v = jinja_evaluate(r, n->a);
        if (r->failed)
            break;
        if (n->op == ARGUMENT_PLAIN) {
            jinja_push(r, plain, v);
        } else if (n->op == ARGUMENT_KEYWORD) {
            jinja_push(r, names, jinja_text(n->name));
            jinja_push(r, values, v);
        } else {
            spread(r, n, v, plain, names, values);
        }
    }
    if (r->failed)
        return all;
    all.plain = plain->items;
    all.n_plain = plain->n;
    all.keywords = names->n ? jinja_alloc(r, names->n, sizeof *all.keywords) : NULL;
    for (size_t i = 0; all.keywords && i < names->n; i++, all.n_keywords++)
        all.keywords[i] = (struct keyword){names->items[i].text, values->items[i]};
    return all;
}

struct value jinja_call_with_caller(struct run *r, const struct node *call, struct value caller)
{
    static const struct string name = {"caller", 6, 6};
    struct value callee = jinja_evaluate(r, call->a);
    struct arguments all = evaluate_arguments(r, call->items);
    struct keyword *keywords = jinja_alloc(r, all.n_keywords + 1, sizeof *keywords);
    if (!keywords)
        return caller;
    if (all.n_keywords)
        memcpy(keywords, all.keywords, all.n_keywords * sizeof *keywords);
    keywords[all.n_keywords++] = (struct keyword){&name, caller};
    all.keywords = keywords;
    return jinja_call(r, callee, &all);
}

static struct value evaluate_call(struct run *r, const struct node *n)
{
    struct value callee = jinja_evaluate(r, n->a);
    struct arguments all = evaluate_arguments(r, n->items);
    return r->failed ? callee : jinja_call(r, callee, &all);
}

/* A filter or test over `self`. */
static struct value apply(struct run *r, const struct node *n, struct value self)
{
    if (!r->failed && !n->builtin)
        jinja_fail(r, ERR_UNSUPPORTED, "there is no %s named '%.*s'", n->kind == NODE_FILTER ? "filter" : "test",
                   (int)(n->name->n_bytes < 60 ? n->name->n_bytes : 60), n->name->bytes);
    struct arguments all = evaluate_arguments(r, n->items);
    return r->failed ? self : jinja_call_builtin(r, n->builtin, self, &all);
}

struct value jinja_filter_text(struct run *r, const struct node *filters, struct value text)
{
    if (!filters || !jinja_enter(r))
        return text;
    text = apply(r, filters, jinja_filter_text(r, filters->a, text));
    jinja_leave(r);
    return text;
}

static struct value evaluate_comparison(struct run *r, const struct node *n)
{
    struct value left = jinja_evaluate(r, n->a);
    bool holds = true;
    for (const struct node *operand = n->items; operand && holds && !r->failed; operand = operand->next) {
        struct value right = jinja_evaluate(r, operand->a);
        holds = !r->failed && jinja_compare(r, operand->op, left, right);
        left = right;
    }
    return jinja_bool(holds);
}

static struct value evaluate_concat(struct run *r, const struct node *n)
{
    struct buffer b = {.limit = r->output_limit};
    for (const struct node *item = n->items; item && !r->failed; item = item->next)
        jinja_print(r, &b, jinja_evaluate(r, item));
    return jinja_take(r, &b);
}

static struct value evaluate_binary(struct run *r, const struct node *n)
{
    struct value a = jinja_evaluate(r, n->a), b = jinja_evaluate(r, n->b);
    return r->failed ? a : jinja_operate(r, n->op, a, b);
}

static struct value evaluate_choice(struct run *r, const struct node *n)
{
    struct value v = jinja_evaluate(r, n->a);
    if (n->kind == NODE_CONDITION) {
        const struct node *chosen = jinja_truth(v) ? n->b : n->c;
        return chosen ? jinja_evaluate(r, chosen) : jinja_undefined(NULL, KIND_ABSENT);
    }
    return jinja_truth(v) == (n->kind == NODE_AND) ? jinja_evaluate(r, n->b) : v;
}

struct value jinja_evaluate(struct run *r, const struct node *n)
{
    struct value v = jinja_undefined(NULL, KIND_ABSENT);
    if (!jinja_enter(r))
        return v;
    int line = r->line;
    r->line = n->line;
    switch ((enum node_kind)n->kind) {
    case NODE_CONSTANT:
        v = n->constant;
        break;
    case NODE_NAME:
        v = jinja_variable(r, n->name);
        break;
    case NODE_LIST:
    case NODE_TUPLE:
        v = evaluate_items(r, n);
        break;
    case NODE_DICT:
        v = evaluate_dict(r, n);
        break;
    case NODE_ATTRIBUTE:
        v = jinja_evaluate(r, n->a);
        if (!r->failed)
            v = jinja_attribute(r, v, n->name);
        break;
    case NODE_ITEM:
        v = evaluate_part(r, n);
        break;
    case NODE_CALL:
        v = evaluate_call(r, n);
        break;
    case NODE_FILTER:
    case NODE_TEST:
        v = apply(r, n, jinja_evaluate(r, n->a));
        break;
    case NODE_NOT:
        v = jinja_bool(!jinja_truth(jinja_evaluate(r, n->a)));
        break;
    case NODE_NEGATE:
    case NODE_PLUS:
        v = jinja_negate(r, jinja_evaluate(r, n->a), n->kind == NODE_NEGATE);
        break;
    case NODE_AND:
    case NODE_OR:
    case NODE_CONDITION:
        v = evaluate_choice(r, n);
        break;
    case NODE_BINARY:
        v = evaluate_binary(r, n);
        break;
    case NODE_COMPARE:
        v = evaluate_comparison(r, n);
        break;
    case NODE_CONCAT:
        v = evaluate_concat(r, n);
        break;
    default:
        jinja_fail(r, ERR_INTERNAL, "a statement stands where a value belongs");
    }
    if (!r->failed)
        r->line = line;
    jinja_leave(r);
    return v;
}
