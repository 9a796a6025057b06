/* Finds where a sequence and its items stand in a text (by libyaml's marks), then cuts and pastes whole lines, or what
 * stands between brackets. Pure; any thread. */
#include "base/yaml_edit.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include <yaml.h>

#include "base/memory.h"

struct place {
    size_t start, end; /* bytes [start, end) of what an item holds, without its dash */
};

struct outline {
    bool found, is_sequence, flow, root_flow;
    size_t key_end, value_start, value_end; /* bytes; a block sequence's value_end is the end of its last item */
    size_t count, room;
    struct place *items;
};

/* libyaml counts characters; a cursor follows it in bytes. */
struct cursor {
    const char *text;
    size_t bytes, at, index;
};

static void cursor_reset(struct cursor *c)
{
    c->at = c->bytes >= 3 && !memcmp(c->text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    c->index = 0;
}

static size_t offset_of(struct cursor *c, size_t index)
{
    if (index < c->index)
        cursor_reset(c);
    while (c->index < index && c->at < c->bytes) {
        c->at++;
        while (c->at < c->bytes && ((unsigned char)c->text[c->at] & 0xC0) == 0x80)
            c->at++;
        c->index++;
    }
    return c->at;
}

static int add_place(struct outline *o, size_t start)
{
    if (o->count == o->room) {
        size_t room = o->room ? o->room * 2 : 16;
        struct place *items = mem_resize(o->items, room, sizeof *items);
        if (!items)
            return ERR_NOMEM;
        o->items = items;
        o->room = room;
    }
    o->items[o->count++] = (struct place){start, start};
    return 0;
}

/* What is known between events. */
struct walk {
    struct cursor cursor;
    struct outline *o;
    const char *key;
    int depth;          /* open containers */
    bool key_next;      /* in the top mapping: a key is due */
    bool inside;        /* the wanted value */
    size_t content_end; /* of the last text or bracket */
};

/* A value begins (or is all there, for a scalar) directly in the top mapping or in the wanted sequence. */
static int take_start(struct walk *w, const yaml_event_t *event, size_t start)
{
    bool scalar = event->type == YAML_SCALAR_EVENT, sequence = event->type == YAML_SEQUENCE_START_EVENT;
    if (w->depth == 1 && w->key_next) {
        w->inside = scalar && !strcmp((const char *)event->data.scalar.value, w->key);
        if (w->inside)
            w->o->key_end = offset_of(&w->cursor, event->end_mark.index);
        return 0;
    }
    if (w->depth == 1 && w->inside) {
        w->o->found = true;
        w->o->is_sequence = sequence;
        w->o->flow = sequence && event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
        w->o->value_start = start;
    }
    return w->depth == 2 && w->inside && w->o->is_sequence ? add_place(w->o, start) : 0;
}

static int take_event(struct walk *w, const yaml_event_t *event)
{
    size_t start = offset_of(&w->cursor, event->start_mark.index);
    int rc = 0;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
    case YAML_ALIAS_EVENT:
        rc = take_start(w, event, start);
        w->content_end = offset_of(&w->cursor, event->end_mark.index);
        break;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (!w->depth)
            w->o->root_flow =
                event->type != YAML_MAPPING_START_EVENT || event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;
        rc = take_start(w, event, start);
        w->depth++;
        if (w->depth == 1) {
            w->key_next = true;
            return rc;
        }
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: {
        size_t end = offset_of(&w->cursor, event->end_mark.index);
        if (end > start) /* a bracket; the end of a block has no text of its own */
            w->content_end = end;
        w->depth--;
        break;
    }
    default:
        return 0;
    }
    if (rc)
        return rc;
    if (w->depth == 2 && w->inside && w->o->count)
        w->o->items[w->o->count - 1].end = w->content_end;
    if (w->depth == 1) {
        if (w->inside && !w->key_next) {
            w->o->value_end = w->content_end;
            w->inside = false;
        }
        w->key_next = !w->key_next;
    }
    return 0;
}

static int find_sequence(const char *name, const char *text, size_t bytes, const char *key, struct outline *o,
                         struct error *err)
{
    struct walk w = {.cursor = {.text = text, .bytes = bytes}, .o = o, .key = key};
    yaml_parser_t parser;
    bool done = false;
    int rc = 0;
    cursor_reset(&w.cursor);
    if (!yaml_parser_initialize(&parser))
        return error_set(err, ERR_NOMEM, "%s: no memory to read it", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    while (!rc && !done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            rc = error_set(err, ERR_FORMAT, "%s:%zu: not YAML", name, parser.problem_mark.line + 1);
            break;
        }
        done = event.type == YAML_STREAM_END_EVENT || event.type == YAML_DOCUMENT_END_EVENT;
        if ((rc = take_event(&w, &event)))
            error_set(err, rc, "%s: no memory to read it", name);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return rc;
}

/* ---- Lines ------------------------------------------------------------------------------------------------------- */

static size_t line_start(const char *text, size_t at)
{
    while (at && text[at - 1] != '\n')
        at--;
    return at;
}

/* Past the line's end. */
static size_t line_end(const char *text, size_t bytes, size_t at)
{
    while (at < bytes && text[at] != '\n')
        at++;
    return at + (at < bytes);
}

static size_t indent_at(const char *text, size_t bytes, size_t line)
{
    size_t n = 0;
    while (line + n < bytes && text[line + n] == ' ')
        n++;
    return n;
}

/* The line of an item's dash, which stands at `column`; looks upward from the item's text. */
static size_t dash_line(const char *text, size_t bytes, size_t column, size_t from)
{
    for (size_t line = line_start(text, from);; line = line_start(text, line - 1)) {
        size_t indent = indent_at(text, bytes, line);
        if ((indent == column && line + indent < bytes && text[line + indent] == '-') || !line)
            return line;
    }
}

/* Past an item's last line and the comments that stand deeper than its dash right below it. */
static size_t item_lines_end(const char *text, size_t bytes, size_t column, size_t item_end)
{
    size_t end = line_end(text, bytes, item_end);
    for (;;) {
        size_t indent = indent_at(text, bytes, end);
        if (end + indent >= bytes || text[end + indent] != '#' || indent <= column)
            return end;
        end = line_end(text, bytes, end);
    }
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

static bool is_plain(const char *value)
{
    static const char *const words[] = {"null", "Null", "NULL", "true", "false", "yes", "no", "on", "off"};
    size_t n = strlen(value);
    if (!isalpha((unsigned char)*value) || value[n - 1] == ':')
        return false;
    for (const char *c = value; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("_.:/-", *c))
            return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i], value))
            return false;
    return true;
}

static void put_value(struct buffer *out, const char *value, bool quoted)
{
    if (!quoted && is_plain(value)) {
        buffer_puts(out, value);
        return;
    }
    buffer_putc(out, '"');
    for (const char *c = value; *c; c++) {
        if (*c == '"' || *c == '\\')
            buffer_putc(out, '\\');
        buffer_putc(out, *c);
    }
    buffer_putc(out, '"');
}

static void put_block_item(struct buffer *out, size_t column, const char *newline, const struct yaml_pair *pairs,
                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        buffer_printf(out, "%*s%s", (int)column, "", i ? "  " : "- ");
        if (pairs[i].key)
            buffer_printf(out, "%s: ", pairs[i].key);
        put_value(out, pairs[i].value, false);
        buffer_puts(out, newline);
    }
}

static void put_flow_item(struct buffer *out, const struct yaml_pair *pairs, size_t count)
{
    bool mapping = count && pairs[0].key;
    buffer_puts(out, mapping ? "{" : "");
    for (size_t i = 0; i < count; i++) {
        buffer_puts(out, i ? ", " : "");
        if (pairs[i].key)
            buffer_printf(out, "%s: ", pairs[i].key);
        put_value(out, pairs[i].value, true);
    }
    buffer_puts(out, mapping ? "}" : "");
}

static void put_rest(struct buffer *out, const char *text, size_t bytes, size_t from)
{
    if (from < bytes)
        buffer_append(out, text + from, bytes - from);
}

/* Copies text[from, to) and sees to it that a line begins then. */
static void put_lines(struct buffer *out, const char *text, size_t from, size_t to, const char *newline)
{
    buffer_append(out, text + from, to - from);
    if (to && text[to - 1] != '\n')
        buffer_puts(out, newline);
}

static int finished(const char *name, const struct buffer *out, struct error *err)
{
    return out->failed ? error_set(err, out->failed, "%s: no memory to change it", name) : 0;
}

static size_t column_of(const char *text, size_t at)
{
    return at - line_start(text, at);
}

int yaml_add_item(const char *name, const char *text, size_t bytes, const char *key, const struct yaml_pair *pairs,
                  size_t pair_count, struct buffer *out, struct error *err)
{
    struct outline o = {0};
    const char *first_line = memchr(text, '\n', bytes);
    const char *newline = first_line && first_line > text && first_line[-1] == '\r' ? "\r\n" : "\n";
    int rc = find_sequence(name, text, bytes, key, &o, err);
    if (rc)
        goto done;
    bool scalar = o.found && !o.is_sequence && o.value_end > o.value_start;
    bool nothing = o.found && !o.is_sequence && o.value_end <= o.value_start; /* "key:" and no more */
    bool one_line = o.found && !memchr(text + o.key_end, '\n', o.value_end > o.key_end ? o.value_end - o.key_end : 0);
    if (o.root_flow && (!o.found || nothing)) {
        rc = error_set(err, ERR_FORMAT, "%s: has no list \"%s\" to add to; write \"%s: []\" there", name, key, key);
    } else if (!o.found) {
        put_lines(out, text, 0, bytes, newline);
        buffer_printf(out, "%s:%s", key, newline);
        put_block_item(out, 2, newline, pairs, pair_count);
    } else if (nothing || (o.is_sequence && !o.count && !o.root_flow && one_line)) {
        size_t cut = nothing ? o.key_end : o.value_start, resume = nothing ? cut : o.value_end;
        size_t end = line_end(text, bytes, resume);
        while (!nothing && cut > o.key_end && text[cut - 1] == ' ')
            cut--;
        buffer_append(out, text, cut);
        put_lines(out, text, resume, end, newline);
        put_block_item(out, 2, newline, pairs, pair_count);
        put_rest(out, text, bytes, end);
    } else if (scalar) {
        buffer_append(out, text, o.value_start);
        buffer_putc(out, '[');
        buffer_append(out, text + o.value_start, o.value_end - o.value_start);
        buffer_puts(out, ", ");
        put_flow_item(out, pairs, pair_count);
        buffer_putc(out, ']');
        put_rest(out, text, bytes, o.value_end);
    } else if (o.flow) {
        size_t at = o.count ? o.items[o.count - 1].end : o.value_start + 1;
        buffer_append(out, text, at);
        buffer_puts(out, o.count ? ", " : "");
        put_flow_item(out, pairs, pair_count);
        put_rest(out, text, bytes, at);
    } else {
        size_t column = column_of(text, o.value_start), at = item_lines_end(text, bytes, column, o.value_end);
        put_lines(out, text, 0, at, newline);
        put_block_item(out, column, newline, pairs, pair_count);
        put_rest(out, text, bytes, at);
    }
    if (!rc)
        rc = finished(name, out, err);
done:
    mem_free(o.items);
    return rc;
}

int yaml_remove_item(const char *name, const char *text, size_t bytes, const char *key, size_t index,
                     struct buffer *out, struct error *err)
{
    struct outline o = {0};
    int rc = find_sequence(name, text, bytes, key, &o, err);
    if (rc)
        goto done;
    if (!o.is_sequence || index >= o.count) {
        rc = error_set(err, ERR_NOTFOUND, "%s: \"%s\" has no entry %zu", name, key, index);
        goto done;
    }
    const struct place *item = &o.items[index];
    if (o.flow) {
        bool last = index + 1 == o.count;
        size_t from = o.count == 1 ? o.value_start + 1 : last ? item[-1].end : item->start;
        size_t to = o.count == 1 ? o.value_end - 1 : last ? item->end : item[1].start;
        buffer_append(out, text, from);
        put_rest(out, text, bytes, to);
    } else {
        size_t column = column_of(text, o.value_start), from = dash_line(text, bytes, column, item->start);
        size_t to = item_lines_end(text, bytes, column, item->end), copied = 0;
        if (o.count == 1) { /* "key:" alone would be no list any more */
            const char *colon = memchr(text + o.key_end, ':', from - o.key_end);
            copied = colon ? (size_t)(colon - text) + 1 : o.key_end;
            buffer_append(out, text, copied);
            buffer_puts(out, " []");
        }
        buffer_append(out, text + copied, from - copied);
        put_rest(out, text, bytes, to);
    }
    rc = finished(name, out, err);
done:
    mem_free(o.items);
    return rc;
}
