/* A parsed template: a tree of nodes, never changed after parsing. */
#ifndef BRIGADE_ENGINE_TEMPLATE_NODE_H
#define BRIGADE_ENGINE_TEMPLATE_NODE_H

#include "engine/template/value.h"

enum node_kind { /* which members each kind uses; "list" is a chain over next */
    /* expressions */
    NODE_CONSTANT,  /* constant */
    NODE_NAME,      /* name */
    NODE_LIST,      /* items: expressions */
    NODE_TUPLE,     /* items: expressions */
    NODE_DICT,      /* items: key, value, key, value, ... */
    NODE_ATTRIBUTE, /* a.name */
    NODE_ITEM,      /* a[b]; b may be a NODE_SLICE */
    NODE_SLICE,     /* a:b:c, each may be NULL */
    NODE_CALL,      /* a(items), items: NODE_ARGUMENT */
    NODE_ARGUMENT,  /* a; op: enum argument_kind; name of a keyword */
    NODE_FILTER,    /* a|name(items); builtin, NULL when unknown; a NULL: the text of a block */
    NODE_TEST,      /* a is name(items); builtin */
    NODE_NOT,       /* not a */
    NODE_NEGATE,    /* -a */
    NODE_PLUS,      /* +a */
    NODE_AND,       /* a and b */
    NODE_OR,        /* a or b */
    NODE_BINARY,    /* a op b */
    NODE_COMPARE,   /* a, then items: NODE_OPERAND, as in 1 < x <= 3 */
    NODE_OPERAND,   /* op a */
    NODE_CONCAT,    /* items joined by ~ */
    NODE_CONDITION, /* b if a else c; c may be NULL */
    /* statements */
    NODE_TEXT,         /* constant */
    NODE_OUTPUT,       /* a */
    NODE_DO,           /* a, not printed */
    NODE_IF,           /* items: NODE_BRANCH */
    NODE_BRANCH,       /* a (NULL: else), body */
    NODE_FOR,          /* for b in a if c: body, otherwise; op 1: recursive */
    NODE_SET,          /* b = a; b: NODE_NAME, NODE_ATTRIBUTE of a name, or NODE_TUPLE of them */
    NODE_SET_BLOCK,    /* b = body, through the filters a (may be NULL) */
    NODE_MACRO,        /* name, items: NODE_PARAMETER, body; op: enum macro_uses */
    NODE_CALL_BLOCK,   /* a: NODE_CALL; items, body, op: those of its caller */
    NODE_PARAMETER,    /* name, a: default or NULL */
    NODE_FILTER_BLOCK, /* body through the filters a */
    NODE_WITH,         /* items: NODE_SET; body */
    NODE_SCOPE,        /* body, its variables its own */
    NODE_BREAK,
    NODE_CONTINUE,
};

enum operation {
    OP_ADD, OP_SUBTRACT, OP_MULTIPLY, OP_DIVIDE, OP_FLOOR_DIVIDE, OP_MODULO, OP_POWER,
    OP_EQUAL, OP_UNEQUAL, OP_LESS, OP_LESS_EQUAL, OP_GREATER, OP_GREATER_EQUAL, OP_IN, OP_NOT_IN,
};

enum argument_kind { ARGUMENT_PLAIN, ARGUMENT_KEYWORD, ARGUMENT_SPREAD, ARGUMENT_SPREAD_KEYWORDS };

enum macro_uses { USES_VARARGS = 1, USES_KWARGS = 2, USES_CALLER = 4 };

struct node {
    uint8_t kind, op;
    int line;
    struct node *next;
    struct node *a, *b, *c;
    struct node *items, *body, *otherwise;
    const struct string *name;
    const struct builtin *builtin;
    struct value constant;
};

/* The names that stand in a template, each once, so that equal names are equal pointers. */
enum { NAME_BUCKETS = 2048 };

struct name {
    struct string text;
    bool read; /* as a variable */
    struct name *next;
};

struct template {
    struct arena arena;
    struct node *body;
    const struct string *loop, *varargs, *kwargs, *caller; /* the names that the language itself sets */
    struct name *names[NAME_BUCKETS];
};

/* The template's name of these bytes, NULL when it has none. */
struct name *jinja_find_name(const struct template *t, const char *bytes, size_t n);

#endif
