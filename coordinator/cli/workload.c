/* Parsing and making workloads. Owns nothing. */
#include "coordinator/cli/workload.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/units.h"
#include "coordinator/core/request.h"

/* ---- Made up ----------------------------------------------------------------------------------------------------- */

#define POISSON "poisson:"
#define CLIENTS "clients:"
#define CLIENTS_MAX 4096

int workload_is_made(const char *spec)
{
    return !strncmp(spec, POISSON, strlen(POISSON)) || !strncmp(spec, CLIENTS, strlen(CLIENTS));
}

/* Evenly spread over (0, 1]. */
static double next_random(uint64_t *state)
{
    return (double)((hash_mix64(++*state) >> 11) + 1) * 0x1p-53;
}

static uint32_t within(const struct workload_range *r, uint64_t *state)
{
    return r->least + (uint32_t)((double)(r->most - r->least + 1) * (1 - next_random(state)));
}

int workload_make(const char *spec, const struct workload_shape *shape, struct workload *out, struct error *err)
{
    double rate = 0, at = 0;
    int64_t clients = 0;
    if (!strncmp(spec, POISSON, strlen(POISSON))) {
        if (units_parse_double(spec + strlen(POISSON), &rate) || !(rate > 0) || rate > 1e6)
            return error_set(err, ERR_USAGE, "'%s': poisson needs a rate of requests a second, as in poisson:2.5", spec);
    } else if (strncmp(spec, CLIENTS, strlen(CLIENTS)) ||
               units_parse_int(spec + strlen(CLIENTS), 1, CLIENTS_MAX, &clients)) {
        return error_set(err, ERR_USAGE,
                         "'%s' is no workload: poisson:RATE, clients:N (1 to %d) or the name of a CSV file", spec,
                         CLIENTS_MAX);
    }
    struct workload w = {.count = shape->requests, .clients = (uint32_t)clients};
    uint64_t state = shape->seed * UINT64_C(0x9E3779B97F4A7C15);
    if (!(w.rows = mem_zalloc(w.count, sizeof *w.rows)))
        return error_set(err, ERR_NOMEM, "out of memory for %zu requests", w.count);
    for (size_t i = 0; i < w.count; i++) {
        at += rate > 0 ? -log(next_random(&state)) / rate : 0;
        w.rows[i].arrival_s = at;
        w.rows[i].prompt_tokens = within(&shape->prompt, &state);
        w.rows[i].output_tokens = within(&shape->output, &state);
        w.rows[i].client = clients ? (uint32_t)(i % (size_t)clients) : (uint32_t)i;
    }
    *out = w;
    return 0;
}

/* ---- From a file ------------------------------------------------------------------------------------------------- */

enum { ARRIVAL, PROMPT, OUTPUT, CLIENT, PRIORITY, COLUMNS };
static const char *const column_names[COLUMNS] = {"arrival_s", "prompt_tokens", "output_tokens", "client", "priority"};
enum { FIELD_BYTES = 64, FIELDS_MAX = COLUMNS };

struct line {
    char fields[FIELDS_MAX][FIELD_BYTES];
    size_t count;
};

/* Splits at commas and drops blanks around fields. */
static int split_line(const char *text, size_t bytes, struct line *out, const char *where, struct error *err)
{
    out->count = 0;
    for (size_t at = 0; at <= bytes;) {
        const char *comma = memchr(text + at, ',', bytes - at);
        size_t end = comma ? (size_t)(comma - text) : bytes, from = at, to = end;
        while (from < to && (text[from] == ' ' || text[from] == '\t'))
            from++;
        while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t' || text[to - 1] == '\r'))
            to--;
        if (out->count == FIELDS_MAX)
            return error_set(err, ERR_FORMAT, "%s: more than %d columns", where, FIELDS_MAX);
        if (to - from >= FIELD_BYTES || memchr(text + from, 0, to - from))
            return error_set(err, ERR_FORMAT, "%s: column %zu is no number and no name of one", where, out->count + 1);
        memcpy(out->fields[out->count], text + from, to - from);
        out->fields[out->count++][to - from] = 0;
        at = end + 1;
    }
    return 0;
}

/* which[i]: the column that stands in field i. */
static int read_heading(const struct line *line, int which[FIELDS_MAX], const char *where, struct error *err)
{
    bool seen[COLUMNS] = {false};
    for (size_t i = 0; i < line->count; i++) {
        int c = 0;
        while (c < COLUMNS && strcmp(line->fields[i], column_names[c]))
            c++;
        if (c == COLUMNS)
            return error_set(err, ERR_FORMAT,
                             "%s: '%s' is no column of a workload; the heading may name arrival_s, prompt_tokens, "
                             "output_tokens, client and priority",
                             where, line->fields[i]);
        if (seen[c])
            return error_set(err, ERR_FORMAT, "%s: column %s stands there twice", where, column_names[c]);
        seen[c] = true;
        which[i] = c;
    }
    for (int c = ARRIVAL; c <= OUTPUT; c++)
        if (!seen[c])
            return error_set(err, ERR_FORMAT, "%s: the heading lacks the column %s", where, column_names[c]);
    return 0;
}

static int read_row(const struct line *line, const int *which, size_t columns, struct workload_row *row,
                    const char *where, struct error *err)
{
    if (line->count != columns)
        return error_set(err, ERR_FORMAT, "%s: %zu columns, but the heading names %zu", where, line->count, columns);
    for (size_t i = 0; i < columns; i++) {
        static const struct {
            int64_t least, most;
        } bounds[COLUMNS] = {[PROMPT] = {1, WORKLOAD_TOKENS_MAX},
                             [OUTPUT] = {1, WORKLOAD_TOKENS_MAX},
                             [CLIENT] = {0, UINT32_MAX},
                             [PRIORITY] = {-REQUEST_PRIORITY_MAX, REQUEST_PRIORITY_MAX}};
        int c = which[i], rc;
        int64_t whole = 0;
        if (c == ARRIVAL)
            rc = units_parse_double(line->fields[i], &row->arrival_s) || row->arrival_s < 0 ||
                 row->arrival_s > WORKLOAD_SECONDS_MAX;
        else
            rc = units_parse_int(line->fields[i], bounds[c].least, bounds[c].most, &whole);
        if (rc)
            return error_set(err, ERR_FORMAT, "%s: '%s' is no %s", where, line->fields[i], column_names[c]);
        if (c == PROMPT)
            row->prompt_tokens = (uint32_t)whole;
        else if (c == OUTPUT)
            row->output_tokens = (uint32_t)whole;
        else if (c == CLIENT)
            row->client = (uint32_t)whole;
        else if (c == PRIORITY)
            row->priority = (int32_t)whole;
    }
    return 0;
}

static int by_arrival(const void *a, const void *b)
{
    const struct workload_row *x = a, *y = b;
    return (x->arrival_s > y->arrival_s) - (x->arrival_s < y->arrival_s);
}

static int add_row(struct workload *w, size_t *capacity, const struct workload_row *row, const char *where,
                   struct error *err)
{
    if (w->count == WORKLOAD_ROWS_MAX)
        return error_set(err, ERR_BOUND, "%s: more than %u requests", where, WORKLOAD_ROWS_MAX);
    if (w->count == *capacity) {
        size_t wanted = *capacity ? *capacity * 2 : 256;
        struct workload_row *grown = mem_resize(w->rows, wanted, sizeof *grown);
        if (!grown)
            return error_set(err, ERR_NOMEM, "out of memory for %zu requests", wanted);
        w->rows = grown;
        *capacity = wanted;
    }
    w->rows[w->count++] = *row;
    return 0;
}

int workload_parse(const char *text, size_t bytes, const char *name, struct workload *out, struct error *err)
{
    struct workload w = {0};
    size_t capacity = 0, columns = 0, number = 0;
    int which[FIELDS_MAX] = {0}, rc = 0;
    for (size_t at = 0; at < bytes && !rc;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t length = end ? (size_t)(end - text) - at : bytes - at;
        const char *start = text + at;
        char where[300];
        struct line line;
        struct workload_row row = {0};
        at += length + 1;
        snprintf(where, sizeof where, "%.200s, line %zu", name, ++number);
        if (!length || *start == '#' || (length == 1 && *start == '\r'))
            continue;
        if ((rc = split_line(start, length, &line, where, err)))
            break;
        if (!columns) {
            columns = line.count;
            rc = read_heading(&line, which, where, err);
        } else if (!(rc = read_row(&line, which, columns, &row, where, err))) {
            rc = add_row(&w, &capacity, &row, where, err);
        }
    }
    if (!rc && !w.count)
        rc = error_set(err, ERR_FORMAT, "%.200s holds no request: it needs a heading and a line for each", name);
    if (rc) {
        workload_free(&w);
        return rc;
    }
    qsort(w.rows, w.count, sizeof *w.rows, by_arrival);
    *out = w;
    return 0;
}

void workload_free(struct workload *w)
{
    mem_free(w->rows);
    *w = (struct workload){0};
}

/* ---- What a request may take ------------------------------------------------------------------------------------- */

int workload_parse_slo(const char *text, struct workload_slo *out, struct error *err)
{
    struct workload_slo slo = {0};
    const struct {
        const char *name;
        double *seconds;
    } known[] = {{"ttft", &slo.ttft_s}, {"tpot", &slo.tpot_s}, {"e2el", &slo.e2el_s}};
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, ","), name = strcspn(at, "=,"), i = 0;
        char value[32];
        while (i < 3 && (strlen(known[i].name) != name || strncmp(known[i].name, at, name)))
            i++;
        bool fits = i < 3 && at[name] == '=' && n - name - 1 < sizeof value;
        if (fits) {
            memcpy(value, at + name + 1, n - name - 1);
            value[n - name - 1] = 0;
        }
        if (!fits || *known[i].seconds > 0 || units_parse_seconds(value, known[i].seconds) || !(*known[i].seconds > 0))
            return error_set(err, ERR_USAGE, "'%.*s' is no limit; they look like ttft=1s,tpot=200ms,e2el=30s", (int)n,
                             at);
        at += n + (at[n] == ',');
    }
    *out = slo;
    return 0;
}
