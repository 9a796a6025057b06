/* Values as text: Python's str() and repr(), and JSON both ways. Output goes to a buffer whose sticky error the caller
 * reads (jinja_take). One thread a run. */
#ifndef BRIGADE_ENGINE_TEMPLATE_PRINT_H
#define BRIGADE_ENGINE_TEMPLATE_PRINT_H

#include "engine/template/value.h"

void jinja_print(struct run *r, struct buffer *b, struct value v);      /* str(v) */
void jinja_print_repr(struct run *r, struct buffer *b, struct value v); /* repr(v) */
/* Python's repr of a float: the shortest digits that read back as it. */
#define JINJA_FLOAT_TEXT 40
const char *jinja_float_text(double number, char text[static JINJA_FLOAT_TEXT]);

struct value jinja_to_string(struct run *r, struct value v); /* str(v); a string is itself, with its mark */
struct value jinja_escape(struct run *r, struct value v);    /* marked safe, & < > ' " as entities unless it was */

/* How json.dumps writes. */
struct json_style {
    bool ascii, sort_keys;
    const char *indent;           /* of one level; NULL: all on one line */
    size_t indent_bytes;
    const struct string *between; /* NULL: ", " or, with an indent, "," */
    const struct string *colon;   /* NULL: ": " */
};
struct value jinja_to_json(struct run *r, struct value v, const struct json_style *style);
struct value jinja_from_json(struct run *r, const json_t *json);

#endif
