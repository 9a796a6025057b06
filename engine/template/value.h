/* What a template computes with: Python's values as Jinja sees them, all in the arena of one render, and the render's
 * own state. Functions that can fail set run.failed once (with its text) and go on returning harmless values; loops
 * stop on it, and what comes back after a failure means nothing. One thread a run. */
#ifndef BRIGADE_ENGINE_TEMPLATE_VALUE_H
#define BRIGADE_ENGINE_TEMPLATE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "engine/template/arena.h"
#include "engine/template/template.h"

enum kind {
    KIND_ABSENT,    /* no value at all: an argument not given */
    KIND_UNDEFINED, /* Jinja's undefined; detail: the kind that lacks it (KIND_ABSENT: a variable), text: its name */
    KIND_NONE,
    KIND_BOOL,      /* integer 0 or 1 */
    KIND_INT,
    KIND_FLOAT,
    KIND_STRING,    /* detail 1: marked safe (Markup) */
    KIND_LIST,
    KIND_TUPLE,     /* list; detail 1: a group of groupby, with names for its two parts */
    KIND_DICT,
    KIND_NAMESPACE, /* dict */
    KIND_VIEW,      /* of dict; detail: enum view */
    KIND_ITERATOR,  /* what Python's generators are: to be walked once */
    KIND_RANGE,
    KIND_LOOP,
    KIND_MACRO,
    KIND_FUNCTION,  /* builtin */
    KIND_METHOD,
    KIND_JOINER,
};

enum view { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

/* Immutable UTF-8; not NUL-terminated. Two strings of a template's own names are equal when their pointers are. */
struct string {
    const char *bytes;
    size_t n_bytes, n_points; /* points: Unicode code points, Python's characters */
};

struct value {
    uint8_t kind, detail;
    union {
        int64_t integer;
        double number;
        const struct string *text;
        struct list *list;
        struct dict *dict;
        struct iterator *iterator;
        struct range *range;
        struct loop *loop;
        struct macro *macro;
        const struct builtin *builtin;
        struct method *method;
        struct joiner *joiner;
    };
};

struct list {
    struct value *items;
    size_t n, capacity;
};

struct dict_entry {
    struct value key, value;
};

struct dict { /* in order of insertion */
    struct dict_entry *entries;
    size_t n, capacity;
};

struct iterator {
    struct list *items;
    size_t at;
};

struct range {
    int64_t start, stop, step;
    size_t n;
};

struct macro {
    const struct node *node; /* NODE_MACRO or NODE_CALL_BLOCK */
    struct scope *scope;     /* where it was defined */
};

struct method {
    struct value self;
    const struct builtin *builtin;
};

struct joiner {
    struct value separator;
    bool used;
};

struct loop {
    const struct node *node;
    struct scope *outer;     /* where the loop stands */
    struct list *items;
    size_t index0, length, depth0;
    struct list *changed;    /* the last arguments of loop.changed(), NULL before the first */
};

struct variable {
    const struct string *name;
    struct value value;
    struct variable *next;
};

struct scope {
    struct scope *outer;
    struct variable *variables;
    bool captured; /* a macro or recursive loop stands within: it may be looked into when it is over */
};

/* A render under way. */
struct run {
    struct arena arena;
    struct error *error;       /* filled when failed is set */
    int failed;                /* 0 or an error code: sticky */
    int line;                  /* of what is being evaluated */
    unsigned depth, depth_limit;
    uint64_t steps_left;
    size_t output_limit;
    const struct tm *now;
    const struct template *template;
    struct buffer *out;        /* where text goes */
    struct scope *scope;
    struct scope *spare_scopes;       /* over and captured by nothing, chained by outer: to be used again */
    struct variable *spare_variables;
};

/* Failing. jinja_fail keeps the first failure only and returns an undefined value. The text needs no line. */
struct value jinja_fail(struct run *r, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Memory of the run, NULL after a failure; count elements of bytes_each. */
void *jinja_alloc(struct run *r, size_t count, size_t bytes_each);
/* Takes steps off the budget; false after any failure. */
bool jinja_spend(struct run *r, size_t steps);
/* One level of recursion: pairs of enter (false: failed, do not leave) and leave. */
bool jinja_enter(struct run *r);
void jinja_leave(struct run *r);

/* Making values. */
struct value jinja_undefined(const struct string *name, enum kind owner);
struct value jinja_none(void);
struct value jinja_bool(bool truth);
struct value jinja_int(int64_t integer);
struct value jinja_float(double number);
struct value jinja_text(const struct string *text);                        /* shares it */
struct value jinja_string(struct run *r, const char *bytes, size_t n);      /* copies the bytes */
struct value jinja_borrow(struct run *r, const char *bytes, size_t n);      /* the bytes outlive the run */
struct value jinja_literal(struct run *r, const char *text);                /* a C string that outlives the run */
struct value jinja_take(struct run *r, struct buffer *b);                   /* a string of the buffer; frees it */
struct value jinja_character(struct run *r, const char *bytes, size_t n);   /* one code point */
struct value jinja_list(struct run *r, enum kind kind, size_t capacity);    /* KIND_LIST or KIND_TUPLE, empty */
struct value jinja_pair(struct run *r, struct value first, struct value second);
struct value jinja_dict(struct run *r, enum kind kind, size_t capacity);    /* KIND_DICT or KIND_NAMESPACE, empty */
struct value jinja_iterator(struct run *r, struct list *items);

void jinja_push(struct run *r, struct list *list, struct value item);
bool jinja_can_hash(struct value v); /* may be a dictionary's key */
/* Dictionaries: get returns NULL for a missing key; set fails on keys that Python cannot hash; remove tells whether. */
struct value *jinja_get(struct run *r, const struct dict *dict, struct value key);
struct value *jinja_get_text(const struct dict *dict, const char *bytes, size_t n);
void jinja_set(struct run *r, struct dict *dict, struct value key, struct value value);
bool jinja_remove(struct run *r, struct dict *dict, struct value key, struct value *removed);

/* Asking values. */
bool jinja_is(struct value v, const char *text);                     /* a string of just these bytes */
bool jinja_is_integer(struct value v);                               /* an int or a bool */
bool jinja_is_number(struct value v);
double jinja_number(struct value v);                                 /* of a number */
bool jinja_truth(struct value v);
bool jinja_equal(struct run *r, struct value a, struct value b);
/* -1, 0, 1; 2 when one is no number (NaN). Fails on what has no order. */
int jinja_order(struct run *r, struct value a, struct value b);
bool jinja_contains(struct run *r, struct value container, struct value item);
bool jinja_has_length(struct value v);
size_t jinja_length(struct run *r, struct value v);                  /* fails without one */
bool jinja_is_iterable(struct value v);
/* The elements: a list's or tuple's own list, else a new one (keys of a dict, characters of a string). Walks an
 * iterator to its end. Fails on what cannot be iterated; never NULL. */
struct list *jinja_elements(struct run *r, struct value v);
/* Python's name of the type ("str", "dict"); what an undefined is missing, as a sentence. */
const char *jinja_type_name(struct value v);
struct value jinja_fail_undefined(struct run *r, struct value v);

#endif
