/* Numbers to lines. Missing keys are dashes: two kinds of source tell different things. Pure. */
#include "coordinator/cli/top_frame.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

#define BAR 10
#define LINE_MAX_BYTES 1024

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
    char b[BAR + 3];
    double pages = number(now, "pages"), used = pages > 0 ? number(now, "pages_used") / pages : 0;
    const json_t *predicted = json_object_get(json_object_get(now, "plan"), "predicted");
    put_line(d, 0, "%.1f tokens/s out, %.1f in   predicted for one stream %.1f",
             rate(now, before, "tokens_out", seconds), rate(now, before, "tokens_in", seconds),
             number(predicted, "tokens_per_s"));
    put_line(
        d, 0,
        "requests  %.0f running, %.0f queued, %.0f done, %.0f failed   cache %s %3.0f %%   micro-batches %.0f of %.0f",
        number(now, "running"), number(now, "queued"), number(now, "requests_done"), number(now, "requests_failed"),
        bar(used, b), used * 100, number(now, "microbatches"), number(now, "microbatches_max"));
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
    const json_t *plan = json_object_get(json_object_get(now, "plan"), "stages"),
                 *live = json_object_get(now, "stages"), *earlier = json_object_get(before, "stages");
    char b[BAR + 3], blocks[32], memory[UNITS_TEXT];
    if (!json_array_size(plan))
        return;
    put_line(d, 0, "%s", "");
    put_line(d, TOP_HEADING, "%-5s  %-20s  %-9s  %10s  %-16s  %8s  %10s  %10s", "stage", "device", "blocks", "memory",
             "busy", "tokens/s", "decode ms", "predicted");
    for (size_t i = 0; i < json_array_size(plan); i++) {
        const json_t *p = json_array_get(plan, i), *s = json_array_get(live, i), *e = json_array_get(earlier, i);
        double busy = rate(s, e, "busy_seconds", seconds);
        snprintf(blocks, sizeof blocks, "%.0f-%.0f", number(p, "first_block"), number(p, "last_block"));
        put_line(d, 0, "%5zu  %-20.20s  %-9s  %10s  %s %3.0f %%  %8.1f  %10.3f  %10.3f", i, text(p, "device", "?"),
                 blocks, units_bytes_text((uint64_t)number(p, "memory_bytes"), memory), bar(busy, b), busy * 100,
                 rate(s, e, "tokens", seconds), number(s, "decode_ms"), number(p, "decode_ms"));
    }
}

/* Either name of a value, in the first one's unit. */
static double either(const json_t *object, const char *key, const char *other, double scale)
{
    return json_object_get(object, key) ? number(object, key) : number(object, other) * scale;
}

static void put_nodes(struct drawing *d, const json_t *now, const json_t *before, double seconds)
{
    const json_t *nodes = json_object_get(now, "nodes"), *earlier = json_object_get(before, "nodes");
    if (!json_array_size(nodes))
        return;
    put_line(d, 0, "%s", "");
    put_line(d, TOP_HEADING, "%-16s  %-10s  %-16s  %-16s  %21s  %6s  %7s  %8s  %19s", "node", "state", "holds", "busy",
             "memory", "temp", "power", "rtt", "in, out a second");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *n = json_array_get(nodes, i), *e = same_name(earlier, text(n, "name", "")),
                     *loaded = json_object_get(n, "loaded");
        char b[BAR + 3], holds[64] = "-", used[UNITS_TEXT], all[UNITS_TEXT], in[UNITS_TEXT], sent[UNITS_TEXT],
                         temp[16] = "-", power[16] = "-";
        double busy =
            e && seconds > 0
                ? (either(n, "busy_seconds", "busy_us", 1e-6) - either(e, "busy_seconds", "busy_us", 1e-6)) / seconds
                : 0;
        double degrees = either(n, "temperature", "temperature_c", 1);
        const char *state = text(n, "state", "?");
        if (loaded)
            snprintf(holds, sizeof holds, "blocks %.0f-%.0f", number(loaded, "first_block"),
                     number(loaded, "last_block"));
        else if (number(n, "stage") >= 0 && json_object_get(n, "stage"))
            snprintf(holds, sizeof holds, "stage %.0f", number(n, "stage"));
        if (degrees > 0)
            snprintf(temp, sizeof temp, "%.0f °C", degrees);
        if (json_object_get(n, "watts"))
            snprintf(power, sizeof power, "%.1f W", number(n, "watts"));
        bool bad = !strcmp(state, "lost") || !strcmp(state, "refused");
        /* "°" takes two bytes: one more column for it. */
        put_line(d, bad ? TOP_ALARM : 0, "%-16.16s  %-10s  %-16s  %s %3.0f %%  %9s of %9s  %*s  %7s  %5.2f ms  %9s %9s",
                 text(n, "name", "?"), state, holds, bar(busy, b), busy * 100,
                 units_bytes_text((uint64_t)number(n, "resident_bytes"), used),
                 units_bytes_text((uint64_t)number(n, "memory_bytes"), all), degrees > 0 ? 7 : 6, temp, power,
                 number(n, "rtt_ms"), units_bytes_text((uint64_t)rate(n, e, "bytes_in", seconds), in),
                 units_bytes_text((uint64_t)rate(n, e, "bytes_out", seconds), sent));
        if (bad && *text(n, "detail", ""))
            put_line(d, TOP_ALARM, "  %s", text(n, "detail", ""));
    }
}

static void put_links(struct drawing *d, const json_t *now)
{
    const json_t *links = json_object_get(now, "links");
    if (!json_array_size(links))
        return;
    put_line(d, 0, "%s", "");
    put_line(d, TOP_HEADING, "%-36s  %12s  %10s", "link", "bandwidth", "rtt");
    for (size_t i = 0; i < json_array_size(links); i++) {
        const json_t *l = json_array_get(links, i);
        char ends[80];
        snprintf(ends, sizeof ends, "%.16s - %.16s", text(l, "from", "?"), text(l, "to", "?"));
        put_line(d, 0, "%-36s  %7.0f Mb/s  %7.2f ms%s", ends, number(l, "bytes_per_s") * 8 / 1e6, number(l, "rtt_ms"),
                 json_is_true(json_object_get(l, "measured")) ? "" : "  (from cluster.yaml)");
    }
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
