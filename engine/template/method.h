/* The tables of methods. */
#ifndef BRIGADE_ENGINE_TEMPLATE_METHOD_H
#define BRIGADE_ENGINE_TEMPLATE_METHOD_H

#include "engine/template/call.h"

extern const struct builtin jinja_string_methods[];
extern const size_t jinja_string_method_count;

/* str.isupper() and str.islower(): some letters, all of them of that case. */
bool jinja_is_cased(struct run *r, const struct string *s, bool upper);

#endif
