/* Request lists and service levels as text. Pure. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/units.h"
#include "planner/simulate.h"

static int by_arrival(const void *a, const void *b)
{
    const struct plan_request *x = a, *y = b;
    return (x->arrival_s > y->arrival_s) - (x->arrival_s < y->arrival_s);
}

/* Cuts one field off a line, without the spaces around it; NULL when there is none left. */
static char *next_field(char **line)
{
    if (!*line)
        return NULL;
    char *field = *line, *end = strchr(field, ',');
    *line = end ? end + 1 : NULL;
    if (end)
        *end = 0;
    field += strspn(field, " \t");
    size_t n = strlen(field);
    while (n && strchr(" \t\r", field[n - 1]))
        field[--n] = 0;
    return field;
}

static int parse_line(char *line, struct plan_request *out)
{
    char *arrival = next_field(&line), *prompt = next_field(&line), *output = next_field(&line);
    double at;
    int64_t in, produced;
    if (!output || line || units_parse_double(arrival, &at) || at < 0 || at > 1e9 ||
        units_parse_int(prompt, 1, 1 << 24, &in) || units_parse_int(output, 1, 1 << 24, &produced))
        return ERR_FORMAT;
    *out = (struct plan_request){at, (int)in, (int)produced};
    return 0;
}

/* A first line that names its columns: arrival..., prompt..., output..., in this order. */
static bool is_heading(const char *line)
{
    static const char *const words[] = {"arrival", "prompt", "output"};
    for (int i = 0; i < 3; i++) {
        line += strspn(line, " \t");
        if (strncmp(line, words[i], strlen(words[i])))
            return false;
        line += strcspn(line, ",");
        if (!*line != (i == 2))
            return false;
        line += *line == ',';
    }
    return true;
}

int plan_requests_parse(struct plan_request **out, size_t *count, const char *name, const char *text, size_t bytes,
                        struct error *e)
{
    struct plan_request *list = NULL;
    size_t n = 0, capacity = 0;
    const char *end = text + bytes;
    int number = 1, rc = 0;
    for (const char *at = text; at < end && !rc; number++) {
        char line[160];
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        const char *first = at;
        at = stop ? stop + 1 : end;
        if (length >= sizeof line) {
            rc = error_set(e, ERR_FORMAT, "%s:%d: a line of more than 159 characters", name, number);
            break;
        }
        memcpy(line, first, length);
        line[length] = 0;
        size_t blank = strspn(line, " \t\r");
        if (!line[blank] || line[blank] == '#' || (n == 0 && is_heading(line)))
            continue;
        if (n == PLAN_MAX_REQUESTS) {
            rc = error_set(e, ERR_BOUND, "%s:%d: more than %d requests", name, number, PLAN_MAX_REQUESTS);
            break;
        }
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            struct plan_request *grown = mem_resize(list, capacity, sizeof *grown);
            if (!grown) {
                rc = error_set(e, ERR_NOMEM, "%s: out of memory while reading", name);
                break;
            }
            list = grown;
        }
        if (parse_line(line, &list[n++]))
            rc = error_set(e, ERR_FORMAT, "%s:%d: expected arrival_s,prompt_tokens,output_tokens such as 0.5,128,64",
                           name, number);
    }
    if (!rc && !n)
        rc = error_set(e, ERR_FORMAT, "%s: no requests; expected lines of arrival_s,prompt_tokens,output_tokens", name);
    if (rc) {
        mem_free(list);
        return rc;
    }
    qsort(list, n, sizeof *list, by_arrival);
    *out = list;
    *count = n;
    return 0;
}

int plan_slo_parse(const char *text, struct plan_slo *out, struct error *e)
{
    struct plan_slo slo = {INFINITY, INFINITY};
    char copy[128];
    if (strlen(text) >= sizeof copy || !*text)
        return error_set(e, ERR_FORMAT, "a service level reads ttft=1s,tpot=200ms (either or both)");
    strcpy(copy, text);
    for (char *rest = copy, *part; (part = next_field(&rest));) {
        double *to = !strncmp(part, "ttft=", 5) ? &slo.ttft_s : !strncmp(part, "tpot=", 5) ? &slo.tpot_s : NULL;
        if (!to || isfinite(*to) || units_parse_seconds(part + 5, to))
            return error_set(e, ERR_FORMAT, "\"%.60s\" is no service level; it reads ttft=1s,tpot=200ms (either or both)",
                             part);
    }
    *out = slo;
    return 0;
}
