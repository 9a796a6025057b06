/* What the two halves of the parser share. Parsing functions return NULL after a failure, which is noted once and puts
 * the parser at the end of its tokens, so that every loop ends there. One thread. */
#ifndef BRIGADE_ENGINE_TEMPLATE_PARSER_H
#define BRIGADE_ENGINE_TEMPLATE_PARSER_H

#include "engine/template/lexer.h"
#include "engine/template/node.h"

struct parser {
    struct template *template;
    struct tokens tokens;
    size_t at;
    unsigned depth;       /* of nested expressions and statements */
    unsigned loops;       /* around the present statement, within its macro */
    struct node *macro;   /* the innermost macro or call block around, else NULL */
    struct error *error;
    int failed;
};

/* A list under construction: nodes are appended at *end. */
struct chain {
    struct node *first, **end;
};

/* Tokens. */
const struct token *jinja_current(const struct parser *p);
bool jinja_at(const struct parser *p, enum token_kind kind, const char *text); /* text NULL: any */
bool jinja_skip(struct parser *p, enum token_kind kind, const char *text);     /* goes past it when it is there */
void jinja_expect(struct parser *p, enum token_kind kind, const char *text);   /* fails when it is not */
const struct string *jinja_expect_name(struct parser *p);
struct node *jinja_parse_error(struct parser *p, int code, const char *what);  /* names the token and line; NULL */

/* Building. */
struct node *jinja_node(struct parser *p, enum node_kind kind);
void jinja_chain(struct chain *chain, struct node *node); /* NULL is ignored */
struct name *jinja_intern(struct parser *p, const char *bytes, size_t n);
bool jinja_nest(struct parser *p); /* one level deeper; false: failed. Pairs with p->depth--. */

/* Expressions (parse_expression.c). */
struct node *jinja_parse_expression(struct parser *p, bool with_condition);
/* a or a, b: what stands in {{ }}. `stop`: a name that ends it (NULL: none). `empty_allowed` for (). */
struct node *jinja_parse_tuple(struct parser *p, bool with_condition, const char *stop, bool empty_allowed);
struct node *jinja_parse_primary(struct parser *p);
/* The name, text or number that stands here (parse_literal.c). */
struct node *jinja_parse_literal(struct parser *p);
/* The filters behind a value, or with a NULL value those of a block, from their first name on. */
struct node *jinja_parse_filters(struct parser *p, struct node *value, bool begins_with_name);
struct node *jinja_parse_unary(struct parser *p, bool with_filters);

/* Statements (parse_statement.c): up to the end of the template. */
struct node *jinja_parse_body(struct parser *p);

#endif
