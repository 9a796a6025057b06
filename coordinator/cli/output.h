/* What commands print: JSON documents, tables, progress bars, and the one line of a failure. Colour and bars only on a
 * terminal. One thread. */
#ifndef BRIGADE_COORDINATOR_CLI_OUTPUT_H
#define BRIGADE_COORDINATOR_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

/* Prints the error's line to stderr and returns the exit code 1. */
int output_failure(const struct error *err);

/* Prints a JSON document and a newline to stdout and releases it. Returns 0, or 1 after a line on stderr when stdout
 * cannot be written or `document` is NULL (out of memory). */
int output_json(json_t *document);
/* The same, but the line is the caller's to print: 0, ERR_IO or ERR_NOMEM. */
int output_document(json_t *document, struct error *err);
/* Whoever read stdout (`| head`) has gone. */
bool output_unread(void);
/* Writes and flushes text to stdout, with what was printed before; 0 or ERR_IO (a closed pipe, a full disk). */
int output_text(const char *text, size_t bytes, struct error *err);

bool output_on_terminal(void);        /* stdout */
bool output_errors_on_terminal(void); /* stderr */

/* A bar on stderr while it is a terminal; nothing otherwise. Redraws at most ten times a second. */
struct progress {
    char what[64];
    int64_t drawn_at_ms;
    bool visible;
};
void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t total);
void progress_clear(struct progress *p);

/* A text table: cells are added row by row, columns sized to fit; numbers to the right. */
struct table;
struct table *table_create(size_t columns);           /* NULL when out of memory; all calls accept NULL */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A column's least width in characters, and its weight where a line has not room for all: the lightest is left out first;
 * 0, as without a call, is never. */
void table_column(struct table *t, size_t column, size_t width, unsigned weight);
void table_print(struct table *t);                     /* to stdout; the first row is the heading */
/* The same lines appended to a buffer; columns are left out until no line has more characters than `most`. */
void table_write(const struct table *t, size_t most, struct buffer *out);
void table_destroy(struct table *t);

#endif
