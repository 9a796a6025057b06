/* Reading YAML configuration strictly: a bounded tree of mappings, sequences and scalars that remembers the line of
 * everything, so that every complaint reads "cluster.yaml:7: nodes[0].memory: ...".
 *
 * Refused with a line number: duplicate keys, anchors and aliases, explicit tags, several documents, keys that are
 * not scalars, NUL bytes, more than YAML_MAX_BYTES, YAML_MAX_DEPTH or YAML_MAX_VALUES. Scalars are typed by the one
 * who asks: only unquoted text is ever null, a bool or a number ("5" in quotes is a text). Usage:
 *
 *     struct yaml_doc *doc;
 *     if ((rc = yaml_read_file(&doc, "cluster.yaml", &e)))
 *         return rc;
 *     const struct yaml_value *root = yaml_root(doc), *nodes;
 *     static const char *const known[] = {"version", "nodes", NULL};
 *     if ((rc = yaml_only_keys(root, known, &e)) || (rc = yaml_need_int(root, "version", 1, 1, &version, &e)) ||
 *         (rc = yaml_need_sequence(root, "nodes", 1, 64, &nodes, &e)))
 *         goto done;
 *     for (size_t i = 0; i < yaml_count(nodes); i++)
 *         if ((rc = yaml_need_text(yaml_item(nodes, i), "name", &name, &e)))
 *             goto done;
 *
 * Texts are borrowed from the document. A document is immutable after reading: any thread may read it. */
#ifndef BRIGADE_BASE_YAML_H
#define BRIGADE_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define YAML_MAX_BYTES ((size_t)1 << 20)
#define YAML_MAX_DEPTH 32
#define YAML_MAX_VALUES 65536 /* of all kinds, in a document */
#define YAML_MAX_KEYS 1024    /* of one mapping */

struct yaml_doc;
struct yaml_value;

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

/* Parses bytes of UTF-8 text; name (a file name) starts every error. The caller frees *out with yaml_doc_free.
 * ERR_FORMAT, ERR_BOUND, ERR_NOMEM. yaml_read_file also ERR_IO, ERR_NOTFOUND. */
int yaml_read_text(struct yaml_doc **out, const char *name, const char *text, size_t bytes, struct error *e);
int yaml_read_file(struct yaml_doc **out, const char *path, struct error *e);
void yaml_doc_free(struct yaml_doc *doc); /* NULL is allowed */

/* The document's only top value; never NULL for a document that was read. */
const struct yaml_value *yaml_root(const struct yaml_doc *doc);

enum yaml_kind yaml_kind(const struct yaml_value *v);
int yaml_line(const struct yaml_value *v); /* from 1; of its key within a mapping */
/* Items of a sequence, pairs of a mapping, 0 for a scalar. */
size_t yaml_count(const struct yaml_value *v);
/* The i-th item of a sequence or the i-th value of a mapping; NULL past the end. */
const struct yaml_value *yaml_item(const struct yaml_value *v, size_t i);
/* The i-th key of a mapping; NULL past the end and for other kinds. */
const char *yaml_key(const struct yaml_value *v, size_t i);
/* The value of a key; NULL when absent or when map is not a mapping. */
const struct yaml_value *yaml_find(const struct yaml_value *map, const char *key);
/* The text of a scalar as written, and whether it was unquoted (plain may be NULL); NULL for other kinds. */
const char *yaml_scalar(const struct yaml_value *v, bool *plain);
/* An unquoted null, ~ or nothing at all. */
bool yaml_is_null(const struct yaml_value *v);

/* Sets "file:line: where: " and the formatted text, where being a path like nodes[0].memory; returns code. For
 * complaints of the caller's own, such as a unit that does not parse. */
int yaml_error(const struct yaml_value *v, struct error *e, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ERR_FORMAT unless v is a mapping whose keys all stand in known (NULL-terminated). */
int yaml_only_keys(const struct yaml_value *v, const char *const *known, struct error *e);

/* The value as a type, or ERR_FORMAT (wrong type) or ERR_BOUND (outside [min, max]). A text is any scalar that is not
 * null. A whole number may be written 200000000 or 2.0e8. */
int yaml_text(const struct yaml_value *v, const char **out, struct error *e);
int yaml_int(const struct yaml_value *v, int64_t min, int64_t max, int64_t *out, struct error *e);
int yaml_double(const struct yaml_value *v, double min, double max, double *out, struct error *e);
int yaml_bool(const struct yaml_value *v, bool *out, struct error *e);

/* The same for a key of a mapping. need: ERR_FORMAT when the key is absent. want: an absent or null key leaves *out as
 * it is, so that the default goes there first. */
int yaml_need(const struct yaml_value *map, const char *key, const struct yaml_value **out, struct error *e);
int yaml_need_mapping(const struct yaml_value *map, const char *key, const struct yaml_value **out, struct error *e);
/* A sequence of min to max items. */
int yaml_need_sequence(const struct yaml_value *map, const char *key, size_t min, size_t max,
                       const struct yaml_value **out, struct error *e);
int yaml_need_text(const struct yaml_value *map, const char *key, const char **out, struct error *e);
int yaml_need_int(const struct yaml_value *map, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct error *e);
int yaml_need_double(const struct yaml_value *map, const char *key, double min, double max, double *out,
                     struct error *e);
int yaml_want_mapping(const struct yaml_value *map, const char *key, const struct yaml_value **out, struct error *e);
int yaml_want_sequence(const struct yaml_value *map, const char *key, size_t min, size_t max,
                       const struct yaml_value **out, struct error *e);
int yaml_want_text(const struct yaml_value *map, const char *key, const char **out, struct error *e);
int yaml_want_int(const struct yaml_value *map, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct error *e);
int yaml_want_double(const struct yaml_value *map, const char *key, double min, double max, double *out,
                     struct error *e);
int yaml_want_bool(const struct yaml_value *map, const char *key, bool *out, struct error *e);

#endif
