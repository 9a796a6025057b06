/* Statements: text, output, conditions, loops, assignments, macros. Owns nothing; one thread a run. */
#include "engine/template/evaluate.h"

#include <string.h>

#include "engine/template/print.h"

/* Within one scope; pays for long searches. */
static struct variable *find(struct run *r, const struct scope *scope, const struct string *name)
{
    size_t walked = 0;
    struct variable *v = scope->variables;
    for (; v && v->name != name; v = v->next)
        walked++;
    return walked < 16 || jinja_spend(r, walked / 16) ? v : NULL;
}

struct value jinja_variable(struct run *r, const struct string *name)
{
    for (const struct scope *scope = r->scope; scope && !r->failed; scope = scope->outer) {
        struct variable *v = find(r, scope, name);
        if (v)
            return v->value;
    }
    const struct builtin *b = jinja_find_function(name->bytes, name->n_bytes);
    if (b && (r->now || strcmp(b->name, "strftime_now")))
        return (struct value){.kind = KIND_FUNCTION, .builtin = b};
    return jinja_undefined(name, KIND_ABSENT);
}

void jinja_assign(struct run *r, const struct string *name, struct value value)
{
    struct variable *v = find(r, r->scope, name);
    if (!v) {
        v = r->spare_variables;
        if (v)
            r->spare_variables = v->next;
        else
            v = jinja_alloc(r, 1, sizeof *v);
        if (!v)
            return;
        *v = (struct variable){.name = name, .next = r->scope->variables};
        r->scope->variables = v;
    }
    v->value = value;
}

static void assign_target(struct run *r, const struct node *target, struct value value)
{
    if (r->failed)
        return;
    if (target->kind == NODE_NAME) {
        jinja_assign(r, target->name, value);
    } else if (target->kind == NODE_ATTRIBUTE) {
        struct value owner = jinja_variable(r, target->a->name);
        if (owner.kind != KIND_NAMESPACE)
            jinja_fail(r, ERR_FORMAT, "only a namespace's attributes can be set, not a %s's", jinja_type_name(owner));
        else
            jinja_set(r, owner.dict, jinja_text(target->name), value);
    } else {
        struct list *parts = jinja_elements(r, value);
        size_t at = 0;
        const struct node *item = target->items;
        for (; item && at < parts->n; item = item->next, at++)
            assign_target(r, item, parts->items[at]);
        if (item || at < parts->n)
            jinja_fail(r, ERR_FORMAT, "there are %s values than names to take them", item ? "fewer" : "more");
    }
}

/* A scope within `outer`, which becomes the present one; returns the one before, for leave_scope; NULL: failed. */
static struct scope *enter_scope(struct run *r, struct scope *outer)
{
    struct scope *before = r->scope, *scope = r->spare_scopes;
    if (scope)
        r->spare_scopes = scope->outer;
    else
        scope = jinja_alloc(r, 1, sizeof *scope);
    if (!scope)
        return NULL;
    *scope = (struct scope){.outer = outer};
    r->scope = scope;
    return before;
}

/* Keeps a scope and those around it from being used again: something refers to them. */
static void capture_scope(struct scope *scope)
{
    for (; scope && !scope->captured; scope = scope->outer)
        scope->captured = true;
}

/* Ends the present scope; what no macro can look into any more is kept for the next. */
static void leave_scope(struct run *r, struct scope *before)
{
    struct scope *over = r->scope;
    r->scope = before;
    if (over->captured)
        return;
    while (over->variables) {
        struct variable *v = over->variables;
        over->variables = v->next;
        v->next = r->spare_variables;
        r->spare_variables = v;
    }
    over->outer = r->spare_scopes;
    r->spare_scopes = over;
}

/* Runs a body in a scope of its own. */
static enum flow execute_scoped(struct run *r, const struct node *body)
{
    struct scope *before = enter_scope(r, r->scope);
    if (!before)
        return FLOW_ON;
    enum flow flow = jinja_execute(r, body);
    leave_scope(r, before);
    return flow;
}

/* Runs a body with its output taken as a string. */
static struct value capture(struct run *r, const struct node *body, enum flow *flow)
{
    struct buffer b = {.limit = r->output_limit}, *before = r->out;
    r->out = &b;
    *flow = execute_scoped(r, body);
    r->out = before;
    return jinja_take(r, &b);
}

static enum flow run_if(struct run *r, const struct node *n)
{
    for (const struct node *branch = n->items; branch && !r->failed; branch = branch->next)
        if (!branch->a || jinja_truth(jinja_evaluate(r, branch->a)))
            return jinja_execute(r, branch->body);
    return FLOW_ON;
}

/* The items that a loop's condition lets through. */
static struct list *select_items(struct run *r, const struct node *n, struct list *items)
{
    struct list *chosen = jinja_list(r, KIND_LIST, 0).list;
    struct scope *before = enter_scope(r, r->scope);
    for (size_t i = 0; before && i < items->n && jinja_spend(r, 1); i++) {
        assign_target(r, n->b, items->items[i]);
        if (jinja_truth(jinja_evaluate(r, n->c)))
            jinja_push(r, chosen, items->items[i]);
    }
    if (before)
        leave_scope(r, before);
    return chosen;
}

static enum flow run_loop(struct run *r, const struct node *n, struct value over, size_t depth0)
{
    struct list *items = jinja_elements(r, over);
    if (n->c)
        items = select_items(r, n, items);
    struct loop *loop = jinja_alloc(r, 1, sizeof *loop);
    struct scope *before = r->scope;
    bool completed = false; /* some pass came to the end of the body; as in Jinja, one cut short does not count */
    if (!loop)
        return FLOW_ON;
    if (n->op) /* it can be called, from anywhere */
        capture_scope(before);
    *loop = (struct loop){.node = n, .outer = before, .items = items, .length = items->n, .depth0 = depth0};
    for (; loop->index0 < items->n && jinja_spend(r, 1); loop->index0++) {
        if (!enter_scope(r, before))
            break;
        jinja_assign(r, r->template->loop, (struct value){.kind = KIND_LOOP, .loop = loop});
        assign_target(r, n->b, items->items[loop->index0]);
        enum flow flow = jinja_execute(r, n->body);
        leave_scope(r, before);
        completed = completed || flow == FLOW_ON;
        if (flow == FLOW_BREAK)
            break;
    }
    if (!completed && !r->failed && n->otherwise)
        return execute_scoped(r, n->otherwise);
    return FLOW_ON;
}

struct value jinja_call_loop(struct run *r, const struct loop *loop, struct value items)
{
    if (!loop->node->op)
        return jinja_fail(r, ERR_FORMAT, "a loop that is called must be marked recursive");
    if (!jinja_enter(r))
        return items;
    struct buffer b = {.limit = r->output_limit}, *out = r->out;
    struct scope *scope = r->scope;
    r->out = &b;
    r->scope = loop->outer;
    run_loop(r, loop->node, items, loop->depth0 + 1);
    r->scope = scope;
    r->out = out;
    jinja_leave(r);
    return jinja_take(r, &b);
}

static struct value make_macro(struct run *r, const struct node *n)
{
    struct macro *macro = jinja_alloc(r, 1, sizeof *macro);
    if (!macro)
        return jinja_none();
    *macro = (struct macro){n, r->scope};
    capture_scope(r->scope);
    return (struct value){.kind = KIND_MACRO, .macro = macro};
}

/* A parameter's value: the i-th plain argument, else the keyword of its name, else its default, else undefined. */
static struct value parameter(struct run *r, const struct node *p, size_t i, const struct keyword *keyword,
                              const struct arguments *all)
{
    if (i < all->n_plain && keyword)
        return jinja_fail(r, ERR_FORMAT, "two values for the argument '%.*s'",
                          (int)(p->name->n_bytes < 60 ? p->name->n_bytes : 60), p->name->bytes);
    if (i < all->n_plain)
        return all->plain[i];
    if (keyword)
        return keyword->value;
    return p->a ? jinja_evaluate(r, p->a) : jinja_undefined(p->name, KIND_ABSENT);
}

static bool same_text(const struct string *a, const struct string *b)
{
    return a->n_bytes == b->n_bytes && !memcmp(a->bytes, b->bytes, a->n_bytes);
}

/* varargs, kwargs and caller for a body that reads them; arguments that nothing takes are an error. */
static void bind_rest(struct run *r, const struct node *n, const struct arguments *all, size_t n_parameters)
{
    const struct template *t = r->template;
    struct value varargs = jinja_list(r, KIND_TUPLE, 0), kwargs = jinja_dict(r, KIND_DICT, 0);
    struct value caller = jinja_undefined(t->caller, KIND_ABSENT);
    if (all->n_plain > n_parameters && !(n->op & USES_VARARGS))
        jinja_fail(r, ERR_FORMAT, "a macro of %zu arguments is given %zu", n_parameters, all->n_plain);
    for (size_t i = n_parameters; i < all->n_plain && !r->failed; i++)
        jinja_push(r, varargs.list, all->plain[i]);
    for (size_t i = 0; i < all->n_keywords && !r->failed; i++) {
        const struct keyword *k = &all->keywords[i];
        const struct node *p = n->items;
        while (p && jinja_spend(r, 1) && !same_text(p->name, k->name))
            p = p->next;
        if (p)
            continue;
        if ((n->op & USES_CALLER) && same_text(k->name, t->caller))
            caller = k->value;
        else if (n->op & USES_KWARGS)
            jinja_set(r, kwargs.dict, jinja_text(k->name), k->value);
        else
            jinja_fail(r, ERR_FORMAT, "a macro takes no argument named '%.*s'",
                       (int)(k->name->n_bytes < 60 ? k->name->n_bytes : 60), k->name->bytes);
    }
    if (n->op & USES_VARARGS)
        jinja_assign(r, t->varargs, varargs);
    if (n->op & USES_KWARGS)
        jinja_assign(r, t->kwargs, kwargs);
    if (n->op & USES_CALLER)
        jinja_assign(r, t->caller, caller);
}

struct value jinja_call_macro(struct run *r, const struct macro *macro, const struct arguments *all)
{
    const struct node *n = macro->node;
    size_t n_parameters = 0;
    struct scope *before = jinja_enter(r) ? enter_scope(r, macro->scope) : NULL;
    if (!before)
        return jinja_none();
    for (const struct node *p = n->items; p && !r->failed; p = p->next) {
        const struct keyword *keyword = NULL;
        for (size_t k = 0; k < all->n_keywords && !keyword && jinja_spend(r, 1); k++)
            keyword = same_text(all->keywords[k].name, p->name) ? &all->keywords[k] : NULL;
        jinja_assign(r, p->name, parameter(r, p, n_parameters++, keyword, all));
    }
    bind_rest(r, n, all, n_parameters);
    struct buffer b = {.limit = r->output_limit}, *out = r->out;
    r->out = &b;
    jinja_execute(r, n->body);
    r->out = out;
    leave_scope(r, before);
    jinja_leave(r);
    return jinja_take(r, &b);
}

static void write_out(struct run *r, struct value v)
{
    if (r->failed)
        return;
    jinja_print(r, r->out, v);
    if (r->out->failed == ERR_BOUND)
        jinja_fail(r, ERR_BOUND, "makes a text of more than %zu MiB", r->output_limit >> 20);
    else if (r->out->failed)
        jinja_fail(r, r->out->failed, "out of memory");
}

static enum flow run_with(struct run *r, const struct node *n)
{
    struct scope *outer = r->scope, *before = enter_scope(r, outer), *inner = r->scope;
    enum flow flow = FLOW_ON;
    if (!before)
        return flow;
    for (const struct node *set = n->items; set && !r->failed; set = set->next) {
        r->scope = outer; /* the values do not see each other */
        struct value v = jinja_evaluate(r, set->a);
        r->scope = inner;
        assign_target(r, set->b, v);
    }
    if (!r->failed)
        flow = jinja_execute(r, n->body);
    leave_scope(r, before);
    return flow;
}

static enum flow execute_one(struct run *r, const struct node *n)
{
    enum flow flow = FLOW_ON;
    struct value v;
    switch ((enum node_kind)n->kind) {
    case NODE_TEXT:
        write_out(r, n->constant);
        break;
    case NODE_OUTPUT:
        write_out(r, jinja_evaluate(r, n->a));
        break;
    case NODE_DO:
        jinja_evaluate(r, n->a);
        break;
    case NODE_IF:
        return run_if(r, n);
    case NODE_FOR:
        v = jinja_evaluate(r, n->a);
        return r->failed ? FLOW_ON : run_loop(r, n, v, 0);
    case NODE_SET:
        assign_target(r, n->b, jinja_evaluate(r, n->a));
        break;
    case NODE_SET_BLOCK:
        v = jinja_filter_text(r, n->a, capture(r, n->body, &flow));
        if (flow == FLOW_ON)
            assign_target(r, n->b, v);
        break;
    case NODE_FILTER_BLOCK:
        v = jinja_filter_text(r, n->a, capture(r, n->body, &flow));
        if (flow == FLOW_ON)
            write_out(r, v);
        break;
    case NODE_MACRO:
        jinja_assign(r, n->name, make_macro(r, n));
        break;
    case NODE_CALL_BLOCK:
        v = make_macro(r, n);
        write_out(r, r->failed ? v : jinja_call_with_caller(r, n->a, v));
        break;
    case NODE_WITH:
        return run_with(r, n);
    case NODE_SCOPE:
        return execute_scoped(r, n->body);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        jinja_fail(r, ERR_INTERNAL, "a value stands where a statement belongs");
    }
    return flow;
}

enum flow jinja_execute(struct run *r, const struct node *body)
{
    enum flow flow = FLOW_ON;
    if (!jinja_enter(r))
        return flow;
    for (; body && flow == FLOW_ON && jinja_spend(r, 1); body = body->next) {
        r->line = body->line;
        flow = execute_one(r, body);
    }
    jinja_leave(r);
    return flow;
}
