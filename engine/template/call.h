/* Calling: arguments, the tables of what is built in, macros. One thread a run. */
#ifndef BRIGADE_ENGINE_TEMPLATE_CALL_H
#define BRIGADE_ENGINE_TEMPLATE_CALL_H

#include "engine/template/node.h"
#include "engine/template/value.h"

struct keyword {
    const struct string *name;
    struct value value;
};

struct arguments {
    struct value *plain;
    size_t n_plain;
    struct keyword *keywords;
    size_t n_keywords;
};

enum { PARAMETERS_MAX = 6 };

/* A filter, test, function or method. */
struct builtin {
    const char *name;
    /* "old,new,count?": the parameters' names in order, "?" after those that may be left out; a last "*" lets any
     * others through, to be read from `all`. */
    const char *parameters;
    /* self: what is filtered or tested, or the method's object. args: one value a parameter, KIND_ABSENT when not
     * given. all: the arguments as they came. */
    struct value (*call)(struct run *r, struct value self, const struct value *args, const struct arguments *all);
};

const struct builtin *jinja_find_filter(const char *name, size_t n);
const struct builtin *jinja_find_test(const char *name, size_t n);
const struct builtin *jinja_find_function(const char *name, size_t n);
const struct builtin *jinja_find_method(enum kind kind, const char *name, size_t n);
/* The entry of that name in a table of `count`; NULL when there is none. */
const struct builtin *jinja_lookup(const struct builtin *table, size_t count, const char *name, size_t n);

/* Calls a builtin with its arguments put in place; fails on missing and surplus ones. */
struct value jinja_call_builtin(struct run *r, const struct builtin *b, struct value self,
                                const struct arguments *arguments);
/* Calls anything that can be called. */
struct value jinja_call(struct run *r, struct value callee, const struct arguments *arguments);
/* The filter or test named by a value (as map and select do) applied to `self`. */
struct value jinja_apply_filter(struct run *r, struct value name, struct value self, const struct arguments *arguments);
bool jinja_apply_test(struct run *r, struct value name, struct value self, const struct arguments *arguments);

/* Arguments read plainly; each fails on another type and gives `otherwise` for one that is absent. */
int64_t jinja_int_argument(struct run *r, struct value v, int64_t otherwise);
const struct string *jinja_text_argument(struct run *r, struct value v, const char *otherwise);

#endif
