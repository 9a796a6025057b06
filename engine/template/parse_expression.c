/* Expressions, by recursive descent in Jinja's order of binding: in-line if, or, and, not, comparisons, + -, ~,
 * * / // %, **, signs, then attributes, calls, filters and tests. Owns nothing; one thread. */
#include "engine/template/parser.h"

#include <string.h>

#include "engine/template/call.h"

static struct node *parse_or(struct parser *p);

static struct node *operate(struct parser *p, enum node_kind kind, int op, struct node *a, struct node *b)
{
    struct node *n = jinja_node(p, kind);
    if (n) {
        n->op = (uint8_t)op;
        n->a = a;
        n->b = b;
    }
    return n;
}

static struct node *parse_list(struct parser *p)
{
    struct node *n = jinja_node(p, NODE_LIST);
    struct chain items = {0};
    p->at++;
    while (!p->failed && !jinja_at(p, TOKEN_OPERATOR, "]")) {
        if (items.first)
            jinja_expect(p, TOKEN_OPERATOR, ",");
        if (jinja_at(p, TOKEN_OPERATOR, "]"))
            break;
        jinja_chain(&items, jinja_parse_expression(p, true));
    }
    jinja_expect(p, TOKEN_OPERATOR, "]");
    if (n)
        n->items = items.first;
    return n;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *n = jinja_node(p, NODE_DICT);
    struct chain items = {0};
    p->at++;
    while (!p->failed && !jinja_at(p, TOKEN_OPERATOR, "}")) {
        if (items.first)
            jinja_expect(p, TOKEN_OPERATOR, ",");
        if (jinja_at(p, TOKEN_OPERATOR, "}"))
            break;
        jinja_chain(&items, jinja_parse_expression(p, true));
        jinja_expect(p, TOKEN_OPERATOR, ":");
        jinja_chain(&items, jinja_parse_expression(p, true));
    }
    jinja_expect(p, TOKEN_OPERATOR, "}");
    if (n)
        n->items = items.first;
    return n;
}

struct node *jinja_parse_primary(struct parser *p)
{
    enum token_kind kind = jinja_current(p)->kind;
    if (kind == TOKEN_NAME || kind == TOKEN_STRING || kind == TOKEN_INTEGER || kind == TOKEN_FLOAT)
        return jinja_parse_literal(p);
    if (jinja_at(p, TOKEN_OPERATOR, "["))
        return parse_list(p);
    if (jinja_at(p, TOKEN_OPERATOR, "{"))
        return parse_dict(p);
    if (!jinja_skip(p, TOKEN_OPERATOR, "("))
        return jinja_parse_error(p, ERR_FORMAT, "expected an expression");
    struct node *n = jinja_parse_tuple(p, true, NULL, true);
    jinja_expect(p, TOKEN_OPERATOR, ")");
    return n;
}

struct node *jinja_parse_tuple(struct parser *p, bool with_condition, const char *stop, bool empty_allowed)
{
    struct chain items = {0};
    bool is_tuple = false;
    for (;;) {
        if (jinja_at(p, TOKEN_OUTPUT_END, NULL) || jinja_at(p, TOKEN_BLOCK_END, NULL) ||
            jinja_at(p, TOKEN_OPERATOR, ")") || (stop && jinja_at(p, TOKEN_NAME, stop)))
            break;
        jinja_chain(&items, jinja_parse_expression(p, with_condition));
        if (!jinja_skip(p, TOKEN_OPERATOR, ","))
            break;
        is_tuple = true;
    }
    if (!is_tuple && items.first)
        return items.first;
    if (!is_tuple && !empty_allowed)
        return jinja_parse_error(p, ERR_FORMAT, "expected an expression");
    struct node *n = jinja_node(p, NODE_TUPLE);
    if (n)
        n->items = items.first;
    return n;
}

/* Arguments between parentheses. */
static struct node *parse_arguments(struct parser *p)
{
    struct chain items = {0};
    bool keywords = false;
    jinja_expect(p, TOKEN_OPERATOR, "(");
    while (!p->failed && !jinja_at(p, TOKEN_OPERATOR, ")")) {
        if (items.first)
            jinja_expect(p, TOKEN_OPERATOR, ",");
        if (jinja_at(p, TOKEN_OPERATOR, ")"))
            break;
        struct node *n = jinja_node(p, NODE_ARGUMENT);
        if (!n)
            break;
        if (jinja_skip(p, TOKEN_OPERATOR, "**")) {
            n->op = ARGUMENT_SPREAD_KEYWORDS;
        } else if (jinja_skip(p, TOKEN_OPERATOR, "*")) {
            n->op = ARGUMENT_SPREAD;
        } else if (jinja_at(p, TOKEN_NAME, NULL) && p->tokens.list[p->at + 1].kind == TOKEN_OPERATOR &&
                   p->tokens.list[p->at + 1].n_bytes == 1 && *p->tokens.list[p->at + 1].bytes == '=') {
            n->op = ARGUMENT_KEYWORD;
            n->name = jinja_expect_name(p);
            p->at++;
        } else if (keywords) {
            jinja_parse_error(p, ERR_FORMAT, "a positional argument behind a keyword argument");
        }
        keywords = keywords || n->op == ARGUMENT_KEYWORD || n->op == ARGUMENT_SPREAD_KEYWORDS;
        n->a = jinja_parse_expression(p, true);
        jinja_chain(&items, n);
    }
    jinja_expect(p, TOKEN_OPERATOR, ")");
    return items.first;
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    struct node *n = operate(p, NODE_CALL, 0, callee, NULL);
    struct node *arguments = parse_arguments(p);
    if (n)
        n->items = arguments;
    return n;
}

static struct node *parse_subscripted(struct parser *p)
{
    struct node *part[3] = {NULL};
    int line = jinja_current(p)->line, i = 0;
    bool is_slice = false;
    while (!p->failed && !jinja_at(p, TOKEN_OPERATOR, "]") && !jinja_at(p, TOKEN_OPERATOR, ",")) {
        if (jinja_skip(p, TOKEN_OPERATOR, ":")) {
            is_slice = true;
            if (++i > 2)
                jinja_parse_error(p, ERR_FORMAT, "a slice of more than three parts");
        } else if (part[i]) {
            jinja_parse_error(p, ERR_FORMAT, "expected ']'");
        } else {
            part[i] = jinja_parse_expression(p, true);
        }
    }
    if (!is_slice)
        return part[0] ? part[0] : jinja_parse_error(p, ERR_FORMAT, "expected an expression");
    struct node *n = operate(p, NODE_SLICE, 0, part[0], part[1]);
    if (n) {
        n->c = part[2];
        n->line = line;
    }
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *value)
{
    while (!p->failed) {
        struct node *n = value;
        if (jinja_at(p, TOKEN_OPERATOR, "(")) {
            n = parse_call(p, value);
        } else if (jinja_skip(p, TOKEN_OPERATOR, ".")) {
            if (jinja_at(p, TOKEN_INTEGER, NULL)) {
                n = operate(p, NODE_ITEM, 0, value, jinja_parse_literal(p));
            } else {
                n = operate(p, NODE_ATTRIBUTE, 0, value, NULL);
                const struct string *name = jinja_expect_name(p);
                if (n)
                    n->name = name;
            }
        } else if (jinja_skip(p, TOKEN_OPERATOR, "[")) {
            n = operate(p, NODE_ITEM, 0, value, parse_subscripted(p));
            if (jinja_at(p, TOKEN_OPERATOR, ",")) {
                struct node *tuple = jinja_node(p, NODE_TUPLE);
                struct chain items = {0};
                jinja_chain(&items, n ? n->b : NULL);
                while (jinja_skip(p, TOKEN_OPERATOR, ","))
                    jinja_chain(&items, parse_subscripted(p));
                if (n && tuple) {
                    tuple->items = items.first;
                    n->b = tuple;
                }
            }
            jinja_expect(p, TOKEN_OPERATOR, "]");
        } else {
            break;
        }
        value = n;
    }
    return value;
}

struct node *jinja_parse_filters(struct parser *p, struct node *value, bool begins_with_name)
{
    while (!p->failed && (begins_with_name || jinja_skip(p, TOKEN_OPERATOR, "|"))) {
        begins_with_name = false;
        struct node *n = operate(p, NODE_FILTER, 0, value, NULL);
        const struct string *name = jinja_expect_name(p);
        if (!n || !name)
            break;
        n->name = name;
        n->builtin = jinja_find_filter(name->bytes, name->n_bytes);
        if (jinja_at(p, TOKEN_OPERATOR, "("))
            n->items = parse_arguments(p);
        value = n;
    }
    return value;
}

/* From behind `is` on. */
static struct node *parse_test(struct parser *p, struct node *value)
{
    bool negated = jinja_skip(p, TOKEN_NAME, "not");
    struct node *n = operate(p, NODE_TEST, 0, value, NULL);
    const struct string *name = jinja_expect_name(p);
    if (!n || !name)
        return NULL;
    n->name = name;
    n->builtin = jinja_find_test(name->bytes, name->n_bytes);
    enum token_kind kind = jinja_current(p)->kind;
    if (jinja_at(p, TOKEN_OPERATOR, "(")) {
        n->items = parse_arguments(p);
    } else if ((kind == TOKEN_NAME || kind == TOKEN_STRING || kind == TOKEN_INTEGER || kind == TOKEN_FLOAT ||
                jinja_at(p, TOKEN_OPERATOR, "[") || jinja_at(p, TOKEN_OPERATOR, "{")) &&
               !jinja_at(p, TOKEN_NAME, "else") && !jinja_at(p, TOKEN_NAME, "or") && !jinja_at(p, TOKEN_NAME, "and")) {
        if (jinja_at(p, TOKEN_NAME, "is"))
            return jinja_parse_error(p, ERR_FORMAT, "tests cannot be chained with 'is'");
        n->items = jinja_node(p, NODE_ARGUMENT);
        struct node *argument = parse_postfix(p, jinja_parse_primary(p));
        if (n->items)
            n->items->a = argument;
    }
    return negated ? operate(p, NODE_NOT, 0, n, NULL) : n;
}

struct node *jinja_parse_unary(struct parser *p, bool with_filters)
{
    struct node *n = NULL;
    if (!jinja_nest(p))
        return NULL;
    if (jinja_skip(p, TOKEN_OPERATOR, "-"))
        n = operate(p, NODE_NEGATE, 0, jinja_parse_unary(p, false), NULL);
    else if (jinja_skip(p, TOKEN_OPERATOR, "+"))
        n = operate(p, NODE_PLUS, 0, jinja_parse_unary(p, false), NULL);
    else
        n = jinja_parse_primary(p);
    n = parse_postfix(p, n);
    while (with_filters && !p->failed) {
        if (jinja_at(p, TOKEN_OPERATOR, "|"))
            n = jinja_parse_filters(p, n, false);
        else if (jinja_skip(p, TOKEN_NAME, "is"))
            n = parse_test(p, n);
        else if (jinja_at(p, TOKEN_OPERATOR, "("))
            n = parse_call(p, n);
        else
            break;
    }
    p->depth--;
    return n;
}

static struct node *parse_power(struct parser *p)
{
    struct node *n = jinja_parse_unary(p, true);
    while (jinja_skip(p, TOKEN_OPERATOR, "**"))
        n = operate(p, NODE_BINARY, OP_POWER, n, jinja_parse_unary(p, true));
    return n;
}

static struct node *parse_product(struct parser *p)
{
    struct node *n = parse_power(p);
    while (!p->failed) {
        int op = jinja_skip(p, TOKEN_OPERATOR, "*")    ? OP_MULTIPLY
                 : jinja_skip(p, TOKEN_OPERATOR, "/")  ? OP_DIVIDE
                 : jinja_skip(p, TOKEN_OPERATOR, "//") ? OP_FLOOR_DIVIDE
                 : jinja_skip(p, TOKEN_OPERATOR, "%")  ? OP_MODULO
                                                       : -1;
        if (op < 0)
            break;
        n = operate(p, NODE_BINARY, op, n, parse_power(p));
    }
    return n;
}

static struct node *parse_concat(struct parser *p)
{
    struct chain items = {0};
    struct node *n = parse_product(p);
    if (!jinja_at(p, TOKEN_OPERATOR, "~"))
        return n;
    jinja_chain(&items, n);
    while (jinja_skip(p, TOKEN_OPERATOR, "~"))
        jinja_chain(&items, parse_product(p));
    n = jinja_node(p, NODE_CONCAT);
    if (n)
        n->items = items.first;
    return n;
}

static struct node *parse_sum(struct parser *p)
{
    struct node *n = parse_concat(p);
    while (!p->failed) {
        int op = jinja_skip(p, TOKEN_OPERATOR, "+") ? OP_ADD : jinja_skip(p, TOKEN_OPERATOR, "-") ? OP_SUBTRACT : -1;
        if (op < 0)
            break;
        n = operate(p, NODE_BINARY, op, n, parse_concat(p));
    }
    return n;
}

/* The comparison that stands here, skipped; -1 when none does. */
static int comparison(struct parser *p)
{
    static const struct {
        const char *text;
        enum operation op;
    } signs[] = {{"==", OP_EQUAL},      {"!=", OP_UNEQUAL}, {"<", OP_LESS},
                 {"<=", OP_LESS_EQUAL}, {">", OP_GREATER},  {">=", OP_GREATER_EQUAL}};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (jinja_skip(p, TOKEN_OPERATOR, signs[i].text))
            return signs[i].op;
    if (jinja_skip(p, TOKEN_NAME, "in"))
        return OP_IN;
    if (jinja_at(p, TOKEN_NAME, "not")) {
        const struct token *next = &p->tokens.list[p->at + 1];
        if (next->kind == TOKEN_NAME && next->n_bytes == 2 && !memcmp(next->bytes, "in", 2)) {
            p->at += 2;
            return OP_NOT_IN;
        }
    }
    return -1;
}

static struct node *parse_comparison(struct parser *p)
{
    struct node *first = parse_sum(p);
    struct chain operands = {0};
    for (int op; !p->failed && (op = comparison(p)) >= 0;)
        jinja_chain(&operands, operate(p, NODE_OPERAND, op, parse_sum(p), NULL));
    if (!operands.first)
        return first;
    struct node *n = operate(p, NODE_COMPARE, 0, first, NULL);
    if (n)
        n->items = operands.first;
    return n;
}

static struct node *parse_not(struct parser *p)
{
    if (!jinja_at(p, TOKEN_NAME, "not"))
        return parse_comparison(p);
    if (!jinja_nest(p))
        return NULL;
    p->at++;
    struct node *n = operate(p, NODE_NOT, 0, parse_not(p), NULL);
    p->depth--;
    return n;
}

static struct node *parse_and(struct parser *p)
{
    struct node *n = parse_not(p);
    while (jinja_skip(p, TOKEN_NAME, "and"))
        n = operate(p, NODE_AND, 0, n, parse_not(p));
    return n;
}

static struct node *parse_or(struct parser *p)
{
    struct node *n = parse_and(p);
    while (jinja_skip(p, TOKEN_NAME, "or"))
        n = operate(p, NODE_OR, 0, n, parse_and(p));
    return n;
}

struct node *jinja_parse_expression(struct parser *p, bool with_condition)
{
    if (!jinja_nest(p))
        return NULL;
    struct node *n = parse_or(p);
    while (with_condition && jinja_skip(p, TOKEN_NAME, "if")) {
        n = operate(p, NODE_CONDITION, 0, parse_or(p), n);
        if (jinja_skip(p, TOKEN_NAME, "else")) {
            struct node *otherwise = jinja_parse_expression(p, true);
            if (n)
                n->c = otherwise;
        }
    }
    p->depth--;
    return n;
}
