/* Builds the bounded tree from libyaml's events and walks it (yaml_get.c asks it typed questions). Values lie in chunks
 * that never move, so the tree is freed in one sweep. Touches one file at most, keeps nothing between calls. */
#include "base/yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "base/units.h"

struct yaml_value {
    const struct yaml_doc *doc;
    enum yaml_kind kind;
    bool plain; /* a scalar without quotes */
    int line;
    uint32_t count;             /* children */
    uint32_t index;             /* among its siblings */
    char *key;                  /* within a mapping; owned */
    char *text;                 /* of a scalar; owned */
    struct yaml_value *parent;  /* NULL for the root */
    struct yaml_value *first;   /* first child */
    struct yaml_value *last;    /* last child, while building */
    struct yaml_value *next;    /* next sibling */
    struct yaml_value **values; /* the children as an array, once the container is complete; owned */
};

/* Chunks keep their addresses while the document grows. */
enum { CHUNK = 256 };
struct chunk {
    struct chunk *next;
    size_t used;
    struct yaml_value values[CHUNK];
};

struct yaml_doc {
    char *name;
    struct chunk *chunks;
    size_t values;
    struct yaml_value *root;
};

void yaml_doc_free(struct yaml_doc *doc)
{
    if (!doc)
        return;
    while (doc->chunks) {
        struct chunk *c = doc->chunks;
        for (size_t i = 0; i < c->used; i++) {
            mem_free(c->values[i].key);
            mem_free(c->values[i].text);
            mem_free(c->values[i].values);
        }
        doc->chunks = c->next;
        mem_free(c);
    }
    mem_free(doc->name);
    mem_free(doc);
}

/* Building */

struct builder {
    struct yaml_doc *doc;
    struct yaml_value *open; /* the container being filled */
    char *key;               /* of the pair whose value comes next; owned */
    int key_line;
    int depth;
    struct error *e;
};

static int no_memory(struct builder *b)
{
    return error_set(b->e, ERR_NOMEM, "%s: out of memory while reading", b->doc->name);
}

static int fail(struct builder *b, const yaml_event_t *event, int code, const char *what)
{
    return error_set(b->e, code, "%s:%zu: %s", b->doc->name, event->start_mark.line + 1, what);
}

static struct yaml_value *new_value(struct yaml_doc *doc)
{
    struct chunk *c = doc->chunks;
    if (!c || c->used == CHUNK) {
        c = mem_zalloc(1, sizeof *c);
        if (!c)
            return NULL;
        c->next = doc->chunks;
        doc->chunks = c;
    }
    doc->values++;
    return &c->values[c->used++];
}

/* A scalar in key position: remembered until its value comes. */
static int take_key(struct builder *b, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    for (const struct yaml_value *v = b->open->first; v; v = v->next)
        if (!strcmp(v->key, text))
            return error_set(b->e, ERR_FORMAT, "%s:%zu: duplicate key \"%.64s\" (first on line %d); remove one of them",
                             b->doc->name, event->start_mark.line + 1, text, v->line);
    if (b->open->count == YAML_MAX_KEYS)
        return fail(b, event, ERR_BOUND, "more than 1024 keys in one mapping");
    b->key_line = (int)event->start_mark.line + 1;
    b->key = mem_strdup(text);
    return b->key ? 0 : no_memory(b);
}

static int add_value(struct builder *b, const yaml_event_t *event, enum yaml_kind kind, struct yaml_value **out)
{
    if (b->doc->values == YAML_MAX_VALUES)
        return fail(b, event, ERR_BOUND, "more than 65536 values in one file");
    struct yaml_value *v = new_value(b->doc);
    if (!v)
        return no_memory(b);
    v->doc = b->doc;
    v->kind = kind;
    v->line = b->key ? b->key_line : (int)event->start_mark.line + 1;
    v->parent = b->open;
    v->key = b->key;
    b->key = NULL;
    if (!b->open) {
        b->doc->root = v;
    } else {
        v->index = b->open->count++;
        if (b->open->last)
            b->open->last->next = v;
        else
            b->open->first = v;
        b->open->last = v;
    }
    *out = v;
    return 0;
}

static int take_scalar(struct builder *b, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t bytes = event->data.scalar.length;
    if (strlen(text) != bytes)
        return fail(b, event, ERR_FORMAT, "a text holds a NUL byte");
    if (b->open && b->open->kind == YAML_MAPPING && !b->key)
        return take_key(b, event);
    struct yaml_value *v = NULL;
    int rc = add_value(b, event, YAML_SCALAR, &v);
    if (rc)
        return rc;
    v->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    v->text = mem_strdup(text);
    return v->text ? 0 : no_memory(b);
}

static int open_container(struct builder *b, const yaml_event_t *event, enum yaml_kind kind)
{
    if (b->open && b->open->kind == YAML_MAPPING && !b->key)
        return fail(b, event, ERR_FORMAT, "a key must be a plain text, not a list or a mapping");
    if (b->depth == YAML_MAX_DEPTH)
        return fail(b, event, ERR_BOUND, "nested more than 32 deep");
    struct yaml_value *v = NULL;
    int rc = add_value(b, event, kind, &v);
    if (rc)
        return rc;
    b->open = v;
    b->depth++;
    return 0;
}

static int close_container(struct builder *b)
{
    struct yaml_value *v = b->open;
    v->values = mem_alloc(v->count * sizeof *v->values);
    if (!v->values)
        return no_memory(b);
    for (struct yaml_value *child = v->first; child; child = child->next)
        v->values[child->index] = child;
    b->open = v->parent;
    b->depth--;
    return 0;
}

static const yaml_char_t *event_anchor(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor;
    default:
        return NULL;
    }
}

static const yaml_char_t *event_tag(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.tag;
    default:
        return NULL;
    }
}

static int take_event(struct builder *b, const yaml_event_t *event)
{
    if (event->type == YAML_ALIAS_EVENT || event_anchor(event))
        return fail(b, event, ERR_UNSUPPORTED, "anchors and aliases (& and *) are not supported; write the value out");
    if (event_tag(event))
        return fail(b, event, ERR_UNSUPPORTED, "tags (!) are not supported; quote a text that starts with !");
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return b->doc->root ? fail(b, event, ERR_FORMAT, "a second document; only one is read") : 0;
    case YAML_SCALAR_EVENT:
        return take_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
        return open_container(b, event, YAML_SEQUENCE);
    case YAML_MAPPING_START_EVENT:
        return open_container(b, event, YAML_MAPPING);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_container(b);
    default:
        return 0;
    }
}

static int syntax_error(const struct yaml_doc *doc, const yaml_parser_t *parser, struct error *e)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return error_set(e, ERR_NOMEM, "%s: out of memory while reading", doc->name);
    const char *problem = parser->problem ? parser->problem : "cannot be read as YAML";
    if (parser->error == YAML_READER_ERROR)
        return error_set(e, ERR_FORMAT, "%s: byte %zu: %s", doc->name, parser->problem_offset, problem);
    return error_set(e, ERR_FORMAT, "%s:%zu: %s%s%s", doc->name, parser->problem_mark.line + 1, problem,
                     parser->context ? " " : "", parser->context ? parser->context : "");
}

int yaml_read_text(struct yaml_doc **out, const char *name, const char *text, size_t bytes, struct error *e)
{
    if (bytes > YAML_MAX_BYTES)
        return error_set(e, ERR_BOUND, "%s: larger than 1 MiB; this is not a configuration file", name);
    yaml_parser_t parser;
    struct yaml_doc *doc = mem_zalloc(1, sizeof *doc);
    if (!doc || !(doc->name = mem_strdup(name)) || !yaml_parser_initialize(&parser)) {
        yaml_doc_free(doc);
        return error_set(e, ERR_NOMEM, "%s: out of memory while reading", name);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    struct builder b = {.doc = doc, .e = e};
    int rc = 0;
    for (bool more = true; more && !rc;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            rc = syntax_error(doc, &parser, e);
            break;
        }
        rc = take_event(&b, &event);
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    mem_free(b.key);
    yaml_parser_delete(&parser);
    if (!rc && !doc->root)
        rc = error_set(e, ERR_FORMAT, "%s: empty; nothing to read", name);
    if (rc) {
        yaml_doc_free(doc);
        return rc;
    }
    *out = doc;
    return 0;
}

int yaml_read_file(struct yaml_doc **out, const char *path, struct error *e)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return error_set(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    struct buffer b = {.limit = YAML_MAX_BYTES + 4096};
    int rc = 0;
    while (b.size <= YAML_MAX_BYTES) {
        char *at = buffer_reserve(&b, 4096);
        if (!at) {
            rc = error_set(e, b.failed, "%s: %s while reading", path, error_name(b.failed));
            break;
        }
        size_t n = fread(at, 1, YAML_MAX_BYTES + 1 - b.size < 4096 ? YAML_MAX_BYTES + 1 - b.size : 4096, f);
        b.size += n;
        if (!n)
            break;
    }
    if (!rc && ferror(f))
        rc = error_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    fclose(f);
    if (!rc)
        rc = yaml_read_text(out, path, b.data ? b.data : "", b.size, e);
    buffer_free(&b);
    return rc;
}

/* Walking */

const struct yaml_value *yaml_root(const struct yaml_doc *doc)
{
    return doc->root;
}

enum yaml_kind yaml_kind(const struct yaml_value *v)
{
    return v->kind;
}

int yaml_line(const struct yaml_value *v)
{
    return v->line;
}

size_t yaml_count(const struct yaml_value *v)
{
    return v->count;
}

const struct yaml_value *yaml_item(const struct yaml_value *v, size_t i)
{
    return i < v->count ? v->values[i] : NULL;
}

const char *yaml_key(const struct yaml_value *v, size_t i)
{
    return v->kind == YAML_MAPPING && i < v->count ? v->values[i]->key : NULL;
}

const struct yaml_value *yaml_find(const struct yaml_value *map, const char *key)
{
    if (map->kind == YAML_MAPPING)
        for (uint32_t i = 0; i < map->count; i++)
            if (!strcmp(map->values[i]->key, key))
                return map->values[i];
    return NULL;
}

const char *yaml_scalar(const struct yaml_value *v, bool *plain)
{
    if (v->kind != YAML_SCALAR)
        return NULL;
    if (plain)
        *plain = v->plain;
    return v->text;
}

bool yaml_is_null(const struct yaml_value *v)
{
    return v->kind == YAML_SCALAR && v->plain &&
           (!*v->text || !strcmp(v->text, "~") || !strcmp(v->text, "null") || !strcmp(v->text, "Null") ||
            !strcmp(v->text, "NULL"));
}

/* Writes the path of v from the root: "nodes[0].memory"; "" for the root. */
static void path_text(const struct yaml_value *v, char *text, size_t size)
{
    const struct yaml_value *way[YAML_MAX_DEPTH + 1];
    int n = 0;
    for (; v->parent && n < YAML_MAX_DEPTH + 1; v = v->parent)
        way[n++] = v;
    size_t used = 0;
    text[0] = 0;
    while (n-- > 0 && used < size) {
        int wrote = way[n]->key ? snprintf(text + used, size - used, "%s%.64s", used ? "." : "", way[n]->key)
                                : snprintf(text + used, size - used, "[%u]", way[n]->index);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

int yaml_error(const struct yaml_value *v, struct error *e, int code, const char *format, ...)
{
    char path[160];
    va_list args;
    va_start(args, format);
    error_vset(e, code, format, args);
    va_end(args);
    path_text(v, path, sizeof path);
    if (path[0])
        error_prefix(e, "%s:%d: %s", v->doc->name, v->line, path);
    else
        error_prefix(e, "%s:%d", v->doc->name, v->line);
    return code;
}

int yaml_only_keys(const struct yaml_value *v, const char *const *known, struct error *e)
{
    if (v->kind != YAML_MAPPING)
        return yaml_error(v, e, ERR_FORMAT, "expected a mapping (key: value), not a %s",
                          v->kind == YAML_SEQUENCE ? "list" : "text");
    for (uint32_t i = 0; i < v->count; i++) {
        const struct yaml_value *child = v->values[i];
        size_t k = 0;
        while (known[k] && strcmp(known[k], child->key))
            k++;
        if (known[k])
            continue;
        char path[160], list[256] = "";
        path_text(v, path, sizeof path);
        size_t used = 0;
        for (k = 0; known[k] && used < sizeof list; k++) {
            int wrote = snprintf(list + used, sizeof list - used, "%s%s", k ? ", " : "", known[k]);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
        return error_set(e, ERR_FORMAT, "%s:%d: unknown key \"%.64s\"%s%s; known: %s", v->doc->name, child->line,
                         child->key, path[0] ? " in " : "", path, list);
    }
    return 0;
}
