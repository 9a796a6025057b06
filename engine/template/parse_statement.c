/* Statements, and the parser's tools: tokens, nodes, names. Owns nothing; one thread. */
#include "engine/template/parser.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

enum { NESTING_MAX = 150 }; /* of expressions and blocks */

const struct token *jinja_current(const struct parser *p)
{
    return &p->tokens.list[p->at];
}

bool jinja_at(const struct parser *p, enum token_kind kind, const char *text)
{
    const struct token *t = jinja_current(p);
    return t->kind == kind && (!text || (t->n_bytes == strlen(text) && !memcmp(t->bytes, text, t->n_bytes)));
}

bool jinja_skip(struct parser *p, enum token_kind kind, const char *text)
{
    bool there = jinja_at(p, kind, text);
    p->at += there;
    return there;
}

void jinja_expect(struct parser *p, enum token_kind kind, const char *text)
{
    char what[48];
    const char *closing = kind == TOKEN_OUTPUT_END ? "}}" : "%}";
    if (jinja_skip(p, kind, text))
        return;
    snprintf(what, sizeof what, "expected '%s'", text ? text : closing);
    jinja_parse_error(p, ERR_FORMAT, what);
}

const struct string *jinja_expect_name(struct parser *p)
{
    const struct token *t = jinja_current(p);
    if (t->kind != TOKEN_NAME) {
        jinja_parse_error(p, ERR_FORMAT, "expected a name");
        return NULL;
    }
    struct name *name = jinja_intern(p, t->bytes, t->n_bytes);
    p->at++;
    return name ? &name->text : NULL;
}

struct node *jinja_parse_error(struct parser *p, int code, const char *what)
{
    if (!p->failed) {
        const struct token *t = jinja_current(p);
        int shown = t->n_bytes < 30 ? (int)t->n_bytes : 30;
        bool plain = t->kind == TOKEN_NAME || t->kind == TOKEN_OPERATOR || t->kind == TOKEN_INTEGER ||
                     t->kind == TOKEN_OUTPUT_END || t->kind == TOKEN_BLOCK_END;
        if (code == ERR_NOMEM || code == ERR_BOUND)
            p->failed = error_set(p->error, code, "chat template, line %d: %s", t->line, what);
        else if (t->kind == TOKEN_END)
            p->failed = error_set(p->error, code, "chat template, line %d: %s, but the template ends", t->line, what);
        else if (plain)
            p->failed = error_set(p->error, code, "chat template, line %d: %s at '%.*s'", t->line, what,
                                  t->kind > TOKEN_BLOCK_END ? shown : 2, t->bytes);
        else
            p->failed = error_set(p->error, code, "chat template, line %d: %s", t->line, what);
    }
    p->at = p->tokens.n - 1;
    return NULL;
}

struct node *jinja_node(struct parser *p, enum node_kind kind)
{
    struct node *n = p->failed ? NULL : jinja_arena_alloc(&p->template->arena, sizeof *n);
    if (!n)
        return jinja_parse_error(p, p->template->arena.failed, "no memory for the template");
    *n = (struct node){.kind = (uint8_t)kind, .line = jinja_current(p)->line};
    return n;
}

void jinja_chain(struct chain *chain, struct node *node)
{
    if (!node)
        return;
    *(chain->first ? chain->end : &chain->first) = node;
    chain->end = &node->next;
}

static size_t bucket(const char *bytes, size_t n)
{
    return hash_crc32(0, bytes, n) % NAME_BUCKETS;
}

struct name *jinja_find_name(const struct template *t, const char *bytes, size_t n)
{
    struct name *name = t->names[bucket(bytes, n)];
    while (name && (name->text.n_bytes != n || memcmp(name->text.bytes, bytes, n)))
        name = name->next;
    return name;
}

struct name *jinja_intern(struct parser *p, const char *bytes, size_t n)
{
    struct name *name = p->failed ? NULL : jinja_find_name(p->template, bytes, n);
    if (name || p->failed)
        return name;
    name = jinja_arena_alloc(&p->template->arena, sizeof *name);
    if (!name) {
        jinja_parse_error(p, p->template->arena.failed, "no memory for the template");
        return NULL;
    }
    size_t points = 0;
    for (size_t i = 0; i < n; i++)
        points += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    struct name **head = &p->template->names[bucket(bytes, n)];
    *name = (struct name){.text = {bytes, n, points}, .next = *head};
    return *head = name;
}

bool jinja_nest(struct parser *p)
{
    if (!p->failed && p->depth >= NESTING_MAX)
        jinja_parse_error(p, ERR_BOUND, "nested too deeply");
    if (p->failed)
        return false;
    p->depth++;
    return true;
}

static struct node *parse_until(struct parser *p, const char *const *ends);

/* A body up to one of the tags `ends`, whose name is left standing behind its {%. */
static struct node *parse_block(struct parser *p, const char *const *ends)
{
    jinja_expect(p, TOKEN_BLOCK_END, NULL);
    return parse_until(p, ends);
}

/* A body up to {% end %}; the name is skipped, the %} not. */
static struct node *parse_closed(struct parser *p, const char *end)
{
    struct node *body = parse_block(p, (const char *const[]){end, NULL});
    jinja_expect(p, TOKEN_NAME, end);
    return body;
}

static struct node *parse_target(struct parser *p, const char *stop, bool with_namespace);

/* One name, one attribute of a namespace, or several of them in brackets. */
static struct node *parse_target_part(struct parser *p, bool with_namespace)
{
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
    if (jinja_skip(p, TOKEN_OPERATOR, "(")) {
        struct node *inner = jinja_nest(p) ? parse_target(p, NULL, with_namespace) : NULL;
        jinja_expect(p, TOKEN_OPERATOR, ")");
        p->depth -= inner != NULL;
        return inner;
    }
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (jinja_at(p, TOKEN_NAME, constants[i]))
            return jinja_parse_error(p, ERR_FORMAT, "cannot assign to a constant");
    struct node *n = jinja_node(p, NODE_NAME);
    const struct string *name = jinja_expect_name(p);
    if (!n || !name)
        return NULL;
    n->name = name;
    if (!with_namespace || !jinja_skip(p, TOKEN_OPERATOR, "."))
        return n;
    struct node *member = jinja_node(p, NODE_ATTRIBUTE);
    const struct string *part = jinja_expect_name(p);
    if (!member || !part)
        return NULL;
    member->a = n;
    member->name = part;
    return member;
}

/* The target of set or for: one part, or several behind commas. The name `stop` ("in") ends it. */
static struct node *parse_target(struct parser *p, const char *stop, bool with_namespace)
{
    struct chain items = {0};
    bool is_tuple = false;
    do {
        if (items.first && !jinja_at(p, TOKEN_NAME, NULL) && !jinja_at(p, TOKEN_OPERATOR, "("))
            break;
        if (stop && jinja_at(p, TOKEN_NAME, stop))
            break;
        jinja_chain(&items, parse_target_part(p, with_namespace));
        is_tuple = is_tuple || jinja_at(p, TOKEN_OPERATOR, ",");
    } while (jinja_skip(p, TOKEN_OPERATOR, ","));
    if (!items.first)
        return jinja_parse_error(p, ERR_FORMAT, "expected a name");
    if (!is_tuple)
        return items.first;
    struct node *tuple = jinja_node(p, NODE_TUPLE);
    if (tuple)
        tuple->items = items.first;
    return tuple;
}

static void parse_if(struct parser *p, struct node *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct chain branches = {0};
    bool has_condition = true;
    do {
        struct node *branch = jinja_node(p, NODE_BRANCH);
        struct node *condition = has_condition ? jinja_parse_tuple(p, false, NULL, false) : NULL;
        struct node *body = parse_block(p, has_condition ? ends : ends + 2);
        if (!branch)
            return;
        branch->a = condition;
        branch->body = body;
        jinja_chain(&branches, branch);
        has_condition = jinja_skip(p, TOKEN_NAME, "elif");
    } while (has_condition || jinja_skip(p, TOKEN_NAME, "else"));
    jinja_expect(p, TOKEN_NAME, "endif");
    n->items = branches.first;
}

static void parse_for(struct parser *p, struct node *n)
{
    n->b = parse_target(p, "in", false);
    jinja_expect(p, TOKEN_NAME, "in");
    n->a = jinja_parse_tuple(p, false, "recursive", false);
    if (jinja_skip(p, TOKEN_NAME, "if"))
        n->c = jinja_parse_expression(p, true);
    n->op = jinja_skip(p, TOKEN_NAME, "recursive");
    p->loops++;
    n->body = parse_block(p, (const char *const[]){"endfor", "else", NULL});
    p->loops--;
    if (jinja_skip(p, TOKEN_NAME, "else"))
        n->otherwise = parse_block(p, (const char *const[]){"endfor", NULL});
    jinja_expect(p, TOKEN_NAME, "endfor");
}

static void parse_set(struct parser *p, struct node *n)
{
    n->b = parse_target(p, NULL, true);
    if (jinja_skip(p, TOKEN_OPERATOR, "=")) {
        n->a = jinja_parse_tuple(p, true, NULL, false);
        return;
    }
    n->kind = NODE_SET_BLOCK;
    n->a = jinja_parse_filters(p, NULL, false);
    n->body = parse_closed(p, "endset");
}

/* Parameters between parentheses: names, some with a default. */
static struct node *parse_parameters(struct parser *p)
{
    struct chain items = {0};
    bool had_default = false;
    jinja_expect(p, TOKEN_OPERATOR, "(");
    while (!p->failed && !jinja_at(p, TOKEN_OPERATOR, ")")) {
        if (items.first)
            jinja_expect(p, TOKEN_OPERATOR, ",");
        struct node *n = jinja_node(p, NODE_PARAMETER);
        const struct string *name = jinja_expect_name(p);
        if (!n || !name)
            break;
        n->name = name;
        if (jinja_skip(p, TOKEN_OPERATOR, "="))
            n->a = jinja_parse_expression(p, true);
        else if (had_default)
            jinja_parse_error(p, ERR_FORMAT, "a parameter without a default behind one that has one");
        had_default = had_default || n->a;
        jinja_chain(&items, n);
    }
    jinja_expect(p, TOKEN_OPERATOR, ")");
    return items.first;
}

/* The body of a macro or call block: its own loops, its own special names. */
static void parse_macro_body(struct parser *p, struct node *n, const char *end)
{
    struct node *outer = p->macro;
    unsigned loops = p->loops;
    p->macro = n;
    p->loops = 0;
    n->body = parse_closed(p, end);
    if (outer)
        outer->op |= n->op; /* a use within counts for the macro around, too */
    p->macro = outer;
    p->loops = loops;
}

static void parse_macro(struct parser *p, struct node *n)
{
    n->name = jinja_expect_name(p);
    n->items = parse_parameters(p);
    parse_macro_body(p, n, "endmacro");
}

static void parse_call_block(struct parser *p, struct node *n)
{
    if (jinja_at(p, TOKEN_OPERATOR, "("))
        n->items = parse_parameters(p);
    n->a = jinja_parse_expression(p, true);
    if (n->a && n->a->kind != NODE_CALL)
        jinja_parse_error(p, ERR_FORMAT, "a call block needs a call");
    n->name = n->a ? n->a->name : NULL;
    parse_macro_body(p, n, "endcall");
}

static void parse_with(struct parser *p, struct node *n)
{
    struct chain items = {0};
    while (!p->failed && !jinja_at(p, TOKEN_BLOCK_END, NULL)) {
        if (items.first)
            jinja_expect(p, TOKEN_OPERATOR, ",");
        struct node *set = jinja_node(p, NODE_SET), *target = parse_target(p, NULL, false);
        jinja_expect(p, TOKEN_OPERATOR, "=");
        if (!set)
            break;
        set->b = target;
        set->a = jinja_parse_expression(p, true);
        jinja_chain(&items, set);
    }
    n->items = items.first;
    n->body = parse_closed(p, "endwith");
}

static void parse_filter_block(struct parser *p, struct node *n)
{
    n->a = jinja_parse_filters(p, NULL, true);
    n->body = parse_closed(p, "endfilter");
}

static void parse_scope(struct parser *p, struct node *n)
{
    n->body = parse_closed(p, "endgeneration");
}

static void parse_print(struct parser *p, struct node *n)
{
    n->a = jinja_parse_tuple(p, true, NULL, false);
}

static void parse_jump(struct parser *p, struct node *n)
{
    if (!p->loops)
        jinja_parse_error(p, ERR_FORMAT, "break and continue belong into a loop");
}

/* One statement, from its name on, without its %}. */
static struct node *parse_statement(struct parser *p)
{
    static const struct {
        const char *name;
        enum node_kind kind;
        void (*parse)(struct parser *p, struct node *n);
    } statements[] = {
        {"if", NODE_IF, parse_if},           {"for", NODE_FOR, parse_for},
        {"set", NODE_SET, parse_set},        {"macro", NODE_MACRO, parse_macro},
        {"break", NODE_BREAK, parse_jump},   {"continue", NODE_CONTINUE, parse_jump},
        {"with", NODE_WITH, parse_with},     {"call", NODE_CALL_BLOCK, parse_call_block},
        {"do", NODE_DO, parse_print},        {"filter", NODE_FILTER_BLOCK, parse_filter_block},
        {"print", NODE_OUTPUT, parse_print}, {"generation", NODE_SCOPE, parse_scope},
    };
    static const char *const foreign[] = {"block", "extends", "include", "import", "from", "autoescape", "trans"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (jinja_at(p, TOKEN_NAME, foreign[i]))
            return jinja_parse_error(p, ERR_UNSUPPORTED, "this tag has no meaning in a chat template,");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!jinja_at(p, TOKEN_NAME, statements[i].name))
            continue;
        struct node *n = jinja_node(p, statements[i].kind);
        if (!n || !jinja_nest(p))
            return NULL;
        p->at++;
        statements[i].parse(p, n);
        p->depth--;
        return n;
    }
    return jinja_parse_error(p, ERR_FORMAT, "an unknown tag or an end that matches none,");
}

static struct node *parse_text(struct parser *p)
{
    struct node *n = jinja_node(p, NODE_TEXT);
    struct string *text = n ? jinja_arena_alloc(&p->template->arena, sizeof *text) : NULL;
    if (!text)
        return jinja_parse_error(p, ERR_NOMEM, "no memory for the template");
    const struct token *t = jinja_current(p);
    *text = (struct string){t->bytes, t->n_bytes, 0}; /* only ever printed: its points do not matter */
    n->constant = jinja_text(text);
    p->at++;
    return n;
}

static struct node *parse_until(struct parser *p, const char *const *ends)
{
    struct chain body = {0};
    while (!p->failed) {
        if (jinja_at(p, TOKEN_TEXT, NULL)) {
            jinja_chain(&body, parse_text(p));
        } else if (jinja_at(p, TOKEN_OUTPUT_BEGIN, NULL)) {
            struct node *n = jinja_node(p, NODE_OUTPUT);
            p->at++;
            struct node *value = jinja_parse_tuple(p, true, NULL, false);
            jinja_expect(p, TOKEN_OUTPUT_END, NULL);
            if (n)
                n->a = value;
            jinja_chain(&body, n);
        } else if (jinja_skip(p, TOKEN_BLOCK_BEGIN, NULL)) {
            for (const char *const *end = ends; *end; end++)
                if (jinja_at(p, TOKEN_NAME, *end))
                    return body.first;
            jinja_chain(&body, parse_statement(p));
            jinja_expect(p, TOKEN_BLOCK_END, NULL);
        } else {
            break; /* the end of the template */
        }
    }
    if (*ends) {
        char what[64];
        snprintf(what, sizeof what, "expected {%% %s %%}", *ends);
        jinja_parse_error(p, ERR_FORMAT, what);
    }
    return body.first;
}

struct node *jinja_parse_body(struct parser *p)
{
    return parse_until(p, (const char *const[]){NULL});
}
