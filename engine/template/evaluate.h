/* Evaluating expressions and running statements. One thread a run. */
#ifndef BRIGADE_ENGINE_TEMPLATE_EVALUATE_H
#define BRIGADE_ENGINE_TEMPLATE_EVALUATE_H

#include "engine/template/call.h"
#include "engine/template/node.h"
#include "engine/template/value.h"

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

/* Expressions (evaluate.c). */
struct value jinja_evaluate(struct run *r, const struct node *n);
/* Filters over a text, as blocks have them; `filters` may be NULL. */
struct value jinja_filter_text(struct run *r, const struct node *filters, struct value text);
/* The call of a NODE_CALL with one keyword argument more, caller=. */
struct value jinja_call_with_caller(struct run *r, const struct node *call, struct value caller);

/* Operators (operator.c). */
struct value jinja_operate(struct run *r, enum operation op, struct value a, struct value b);
bool jinja_compare(struct run *r, enum operation op, struct value a, struct value b);
struct value jinja_negate(struct run *r, struct value v, bool minus);

/* Parts (subscript.c): what Jinja's v.name, v[key] and v[start:stop:step] give; undefined where there is nothing. */
struct value jinja_attribute(struct run *r, struct value v, const struct string *name);
struct value jinja_item(struct run *r, struct value v, struct value key);
struct value jinja_slice(struct run *r, struct value v, struct value start, struct value stop, struct value step);
/* "a.b.0": one part after the other, as filters name them; `otherwise` (absent or none: nothing) stands in for each
 * part that is undefined. */
struct value jinja_path(struct run *r, struct value v, struct value path, struct value otherwise);

/* Formats (format.c): "%s of %d" % v, and "{} of {}".format(...). */
struct value jinja_format_percent(struct run *r, struct value format, struct value v);
struct value jinja_format_braces(struct run *r, const struct string *format, const struct arguments *all);

/* Statements (execute.c). */
enum flow jinja_execute(struct run *r, const struct node *body);
struct value jinja_call_macro(struct run *r, const struct macro *macro, const struct arguments *arguments);
struct value jinja_call_loop(struct run *r, const struct loop *loop, struct value items);

/* Variables: the innermost of that name, else a function, else undefined; into the innermost scope. */
struct value jinja_variable(struct run *r, const struct string *name);
void jinja_assign(struct run *r, const struct string *name, struct value value);

#endif
