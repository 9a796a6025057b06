/* Numbers to lines. Missing keys are dashes: two kinds of source tell different things. Pure. */
#include "coordinator/cli/top_frame.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "coordinator/cli/output.h"

#define BAR 10
#define LINE_MAX_BYTES 1024
#define LINE_PIECE 120
#define ROWS_MAX 256u

struct drawing {
    struct buffer *out;
    int columns;
};

static void put_line(struct drawing *d, char style, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void put_line(struct drawing *d, char style, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    int shown = 0;
    size_t n = 0;
    for (; line[n]; n++) { /* whole characters, as many as there is room for */
        if (((unsigned char)line[n] & 0xC0) != 0x80 && shown++ == d->columns)
            break;
    }
    if (style)
        buffer_putc(d->out, style);
    buffer_append(d->out, line, n);
    buffer_putc(d->out, '\n');
}

/* Pieces of a line one beside the other, going on below where they do not all fit. */
static void put_pieces(struct drawing *d, char pieces[][LINE_PIECE], size_t count)
{
    char line[LINE_MAX_BYTES] = "";
    for (size_t i = 0; i < count; i++) {
        size_t have = strlen(line);
        bool begins = !have, fits = have + 3 + strlen(pieces[i]) <= (size_t)d->columns;
        if (!begins && !fits) {
            put_line(d, 0, "%s", line);
            have = 0;
            begins = true;
        }
        snprintf(line + have, sizeof line - have, "%s%s", begins ? "" : "   ", pieces[i]);
    }
    put_line(d, 0, "%s", line);
}

/* A table under an empty line: its heading, then its rows, those in `alarm` (may be NULL) as such. */
static void put_table(struct drawing *d, struct table *t, const bool *alarm)
{
    struct buffer text = {0};
    size_t row = 0;
    table_write(t, (size_t)d->columns, &text);
    table_destroy(t);
    put_line(d, 0, "%s", "");
    for (char *line = text.data, *end; line && (end = strchr(line, '\n')); line = end + 1, row++) {
        *end = 0;
        put_line(d, !row ? TOP_HEADING : alarm && row <= ROWS_MAX && alarm[row - 1] ? TOP_ALARM : 0, "%s", line);
    }
    buffer_free(&text);
}

struct heading {
    const char *text;
    size_t width;     /* at least, so that numbers that change do not move what stands beside them */
    unsigned weight;  /* the lightest give way on a narrow screen; 0: never */
};

static struct table *table_of(const struct heading *headings, size_t count)
{
    struct table *t = table_create(count);
    for (size_t i = 0; i < count; i++) {
        table_column(t, i, headings[i].width, headings[i].weight);
        table_cell(t, "%s", headings[i].text);
    }
    return t;
}

static double number(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : 0;
}

static const char *text(const json_t *object, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && *value ? value : otherwise;
}

/* What has been added a second; 0 when that cannot be said. */
static double rate(const json_t *now, const json_t *before, const char *key, double seconds)
{
    double more = number(now, key) - number(before, key);
    return before && seconds > 0 && more > 0 ? more / seconds : 0;
}

static const json_t *same_name(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(text(json_array_get(list, i), "name", ""), name))
            return json_array_get(list, i);
    return NULL;
}

static const char *bar(double share, char out[static BAR + 3])
{
    int filled = share <= 0 ? 0 : share >= 1 ? BAR : (int)(share * BAR + 0.5);
    out[0] = '[';
    for (int i = 0; i < BAR; i++)
        out[i + 1] = i < filled ? '=' : ' ';
    out[BAR + 1] = ']';
    out[BAR + 2] = 0;
    return out;
}

static void put_server(struct drawing *d, const json_t *now, const json_t *before, double seconds)
{
    char b[BAR + 3], pieces[4][LINE_PIECE];
    double pages = number(now, "pages"), used = pages > 0 ? number(now, "pages_used") / pages : 0;
    const json_t *predicted = json_object_get(json_object_get(now, "plan"), "predicted");
    snprintf(pieces[0], LINE_PIECE, "%.1f tokens/s out, %.1f in", rate(now, before, "tokens_out", seconds),
             rate(now, before, "tokens_in", seconds));
    snprintf(pieces[1], LINE_PIECE, "predicted for one stream %.1f", number(predicted, "tokens_per_s"));
    put_pieces(d, pieces, 2);
    snprintf(pieces[0], LINE_PIECE, "requests  %.0f running, %.0f queued, %.0f done, %.0f failed", number(now, "running"),
             number(now, "queued"), number(now, "requests_done"), number(now, "requests_failed"));
    snprintf(pieces[1], LINE_PIECE, "cache %s %3.0f %%", bar(used, b), used * 100);
    snprintf(pieces[2], LINE_PIECE, "micro-batches %.0f of %.0f", number(now, "microbatches"),
             number(now, "microbatches_max"));
    put_pieces(d, pieces, 3);
}

static void put_energy(struct drawing *d, const json_t *now, const json_t *before, double seconds)
{
    const json_t *energy = json_object_get(now, "energy"), *earlier = json_object_get(before, "energy");
    double tokens = rate(now, before, "tokens_out", seconds), watts = number(energy, "watts");
    if (!energy)
        return;
    if (number(energy, "machines_measured") < 1)
        put_line(d, 0, "energy    not measured (%s)", text(energy, "source", "no node tells"));
    else if (tokens > 0 && earlier)
        put_line(d, 0, "energy    %.1f W, %.3g J/token (%s, %.0f of %.0f machines)", watts,
                 rate(energy, earlier, "joules", seconds) / tokens, text(energy, "source", "?"),
                 number(energy, "machines_measured"), number(energy, "machines"));
    else
        put_line(d, 0, "energy    %.1f W (%s, %.0f of %.0f machines)", watts, text(energy, "source", "?"),
                 number(energy, "machines_measured"), number(energy, "machines"));
}

static void put_stages(struct drawing *d, const json_t *now, const json_t *before, double seconds)
{
    static const struct heading headings[] = {{"stage", 5, 0},     {"device", 6, 0},    {"blocks", 6, 0},
                                              {"memory", 10, 3},   {"busy", 18, 0},     {"tokens/s", 8, 0},
                                              {"decode ms", 9, 2}, {"predicted", 9, 1}};
    const json_t *plan = json_object_get(json_object_get(now, "plan"), "stages"),
                 *live = json_object_get(now, "stages"), *earlier = json_object_get(before, "stages");
    char b[BAR + 3], memory[UNITS_TEXT];
    if (!json_array_size(plan))
        return;
    struct table *t = table_of(headings, sizeof headings / sizeof *headings);
    for (size_t i = 0; i < json_array_size(plan); i++) {
        const json_t *p = json_array_get(plan, i), *s = json_array_get(live, i), *e = json_array_get(earlier, i);
        double busy = rate(s, e, "busy_seconds", seconds);
        table_cell(t, "%zu", i);
        table_cell(t, "%.20s", text(p, "device", "?"));
        table_cell(t, "%.0f-%.0f", number(p, "first_block"), number(p, "last_block"));
        table_cell(t, "%s", units_bytes_text((uint64_t)number(p, "memory_bytes"), memory));
        table_cell(t, "%s %3.0f %%", bar(busy, b), busy * 100);
        table_cell(t, "%.1f", rate(s, e, "tokens", seconds));
        table_cell(t, "%.3f", number(s, "decode_ms"));
        table_cell(t, "%.3f", number(p, "decode_ms"));
    }
    put_table(d, t, NULL);
}

static bool is_bad(const json_t *node)
{
    const char *state = text(node, "state", "?");
    return !strcmp(state, "lost") || !strcmp(state, "refused");
}

/* Either name of a value, in the first one's unit. */
static double either(const json_t *object, const char *key, const char *other, double scale)
{
    return json_object_get(object, key) ? number(object, key) : number(object, other) * scale;
}

static void put_nodes(struct drawing *d, const json_t *now, const json_t *before, double seconds)
{
    static const struct heading headings[] = {
        {"node", 4, 0},    {"state", 7, 0},   {"holds", 10, 6}, {"busy", 18, 0}, {"memory", 20, 5},
        {"temp", 5, 4},    {"power", 6, 3},   {"rtt", 8, 2},    {"in a second", 11, 1},
        {"out a second", 12, 1}};
    const json_t *nodes = json_object_get(now, "nodes"), *earlier = json_object_get(before, "nodes");
    bool alarm[ROWS_MAX] = {0};
    if (!json_array_size(nodes))
        return;
    struct table *t = table_of(headings, sizeof headings / sizeof *headings);
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *n = json_array_get(nodes, i), *e = same_name(earlier, text(n, "name", "")),
                     *loaded = json_object_get(n, "loaded");
        char b[BAR + 3], used[UNITS_TEXT], all[UNITS_TEXT], in[UNITS_TEXT], sent[UNITS_TEXT];
        double busy =
            e && seconds > 0
                ? (either(n, "busy_seconds", "busy_us", 1e-6) - either(e, "busy_seconds", "busy_us", 1e-6)) / seconds
                : 0;
        double degrees = either(n, "temperature", "temperature_c", 1);
        if (i < ROWS_MAX)
            alarm[i] = is_bad(n);
        table_cell(t, "%.16s", text(n, "name", "?"));
        table_cell(t, "%.12s", text(n, "state", "?"));
        if (loaded)
            table_cell(t, "blocks %.0f-%.0f", number(loaded, "first_block"), number(loaded, "last_block"));
        else if (number(n, "stage") >= 0 && json_object_get(n, "stage"))
            table_cell(t, "stage %.0f", number(n, "stage"));
        else
            table_cell(t, "-");
        table_cell(t, "%s %3.0f %%", bar(busy, b), busy * 100);
        table_cell(t, number(n, "memory_bytes") > 0 ? "%s of %s" : "-",
                   units_bytes_text((uint64_t)number(n, "resident_bytes"), used),
                   units_bytes_text((uint64_t)number(n, "memory_bytes"), all));
        table_cell(t, degrees > 0 ? "%.0f °C" : "-", degrees);
        table_cell(t, json_object_get(n, "watts") ? "%.1f W" : "-", number(n, "watts"));
        table_cell(t, number(n, "rtt_ms") > 0 ? "%.2f ms" : "-", number(n, "rtt_ms"));
        table_cell(t, "%s", units_bytes_text((uint64_t)rate(n, e, "bytes_in", seconds), in));
        table_cell(t, "%s", units_bytes_text((uint64_t)rate(n, e, "bytes_out", seconds), sent));
    }
    put_table(d, t, alarm);
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *n = json_array_get(nodes, i);
        if (is_bad(n) && *text(n, "detail", ""))
            put_line(d, TOP_ALARM, "%s: %s", text(n, "name", "?"), text(n, "detail", ""));
    }
}

static void put_links(struct drawing *d, const json_t *now)
{
    static const struct heading headings[] = {{"link", 20, 0}, {"bandwidth", 10, 0}, {"rtt", 8, 0}, {"from", 8, 1}};
    const json_t *links = json_object_get(now, "links");
    if (!json_array_size(links))
        return;
    struct table *t = table_of(headings, sizeof headings / sizeof *headings);
    for (size_t i = 0; i < json_array_size(links); i++) {
        const json_t *l = json_array_get(links, i);
        table_cell(t, "%.16s - %.16s", text(l, "from", "?"), text(l, "to", "?"));
        table_cell(t, "%.0f Mb/s", number(l, "bytes_per_s") * 8 / 1e6);
        table_cell(t, "%.2f ms", number(l, "rtt_ms"));
        table_cell(t, "%s", json_is_true(json_object_get(l, "measured")) ? "measured" : "cluster.yaml");
    }
    put_table(d, t, NULL);
}

void top_frame(const json_t *now, const json_t *before, double seconds, const char *source, int columns,
               struct buffer *out)
{
    struct drawing d = {out, columns};
    bool served = json_object_get(now, "status") != NULL;
    double up = number(now, "uptime_seconds");
    if (served)
        put_line(&d, TOP_TITLE, "brigade %s  %s  %s  up %d:%02d:%02d  %s", text(now, "version", "?"),
                 text(now, "model", "?"), text(now, "status", "?"), (int)(up / 3600), (int)(up / 60) % 60, (int)up % 60,
                 source);
    else
        put_line(&d, TOP_TITLE, "brigade  %zu nodes  %s", json_array_size(json_object_get(now, "nodes")), source);
    if (served && *text(now, "detail", "") && strcmp(text(now, "status", ""), "ready"))
        put_line(&d, TOP_ALARM, "%s", text(now, "detail", ""));
    if (served)
        put_server(&d, now, before, seconds);
    put_energy(&d, now, before, seconds);
    put_stages(&d, now, before, seconds);
    put_nodes(&d, now, before, seconds);
    put_links(&d, now);
}
