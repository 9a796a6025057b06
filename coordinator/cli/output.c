/* Writes to stdout and stderr; knows terminals. One thread. */
#include "coordinator/cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

int output_failure(const struct error *err)
{
    fprintf(stderr, "brigade: %s\n", err->text[0] ? err->text : error_name(err->code));
    return 1;
}

int output_text(const char *text, size_t bytes, struct error *err)
{
    if (fwrite(text, 1, bytes, stdout) != bytes || fflush(stdout) || ferror(stdout))
        return error_set(err, ERR_IO, "cannot write to standard output: %s", strerror(errno));
    return 0;
}

int output_document(json_t *document, struct error *err)
{
    char *text = document ? json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    int rc = text ? output_text(text, strlen(text), err) : error_set(err, ERR_NOMEM, "out of memory for the output");
    if (!rc)
        rc = output_text("\n", 1, err);
    free(text); /* jansson's own allocation */
    json_decref(document);
    return rc;
}

int output_json(json_t *document)
{
    struct error err = {0};
    return output_document(document, &err) ? output_failure(&err) : 0;
}

bool output_unread(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO};
    return poll(&p, 1, 0) == 1 && p.revents & (POLLERR | POLLHUP);
}

bool output_on_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

bool output_errors_on_terminal(void)
{
    return isatty(STDERR_FILENO);
}

void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t total)
{
    enum { WIDTH = 30 };
    int64_t now = clock_ms();
    bool changed = strncmp(p->what, what, sizeof p->what - 1) != 0;
    if (!output_errors_on_terminal() || (!changed && done < total && now - p->drawn_at_ms < 100))
        return;
    snprintf(p->what, sizeof p->what, "%s", what);
    p->drawn_at_ms = now;
    p->visible = true;
    double share = total ? (double)done / (double)total : 0;
    if (share > 1)
        share = 1;
    char bar[WIDTH + 1];
    memset(bar, ' ', WIDTH);
    memset(bar, '=', (size_t)(share * WIDTH));
    bar[WIDTH] = 0;
    fprintf(stderr, "\r\033[K%s [%s] %3.0f %%", what, bar, share * 100);
    fflush(stderr);
}

void progress_clear(struct progress *p)
{
    if (p->visible)
        fputs("\r\033[K", stderr);
    *p = (struct progress){0};
}

#define TABLE_COLUMNS_MAX 16u

struct table {
    size_t columns, count, capacity;
    char **cells;
    size_t least[TABLE_COLUMNS_MAX];     /* width */
    unsigned weight[TABLE_COLUMNS_MAX];
};

struct table *table_create(size_t columns)
{
    struct table *t = columns <= TABLE_COLUMNS_MAX ? mem_zalloc(1, sizeof *t) : NULL;
    if (t)
        t->columns = columns;
    return t;
}

void table_cell(struct table *t, const char *format, ...)
{
    char text[256];
    va_list args;
    if (!t)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        char **cells = mem_resize(t->cells, capacity, sizeof *cells);
        if (!cells)
            return;
        t->cells = cells;
        t->capacity = capacity;
    }
    t->cells[t->count++] = mem_strdup(text);
}

/* Terminal columns of UTF-8 text: continuation bytes take none. */
static size_t text_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

void table_column(struct table *t, size_t column, size_t width, unsigned weight)
{
    if (!t || column >= t->columns)
        return;
    t->least[column] = width;
    t->weight[column] = weight;
}

/* The widths of all columns; 0 for those that are left out so that a line has at most `most` characters. */
static void fit(const struct table *t, size_t most, size_t widths[static TABLE_COLUMNS_MAX])
{
    memcpy(widths, t->least, sizeof t->least);
    for (size_t i = 0; i < t->count; i++)
        if (t->cells[i] && text_width(t->cells[i]) > widths[i % t->columns])
            widths[i % t->columns] = text_width(t->cells[i]);
    for (;;) {
        size_t sum = 0, lightest = t->columns;
        for (size_t c = 0; c < t->columns; c++) {
            sum += widths[c] ? widths[c] + (sum ? 2 : 0) : 0;
            if (widths[c] && t->weight[c] && (lightest == t->columns || t->weight[c] < t->weight[lightest]))
                lightest = c;
        }
        if (sum <= most || lightest == t->columns)
            return;
        widths[lightest] = 0;
    }
}

void table_write(const struct table *t, size_t most, struct buffer *out)
{
    size_t widths[TABLE_COLUMNS_MAX], last = 0;
    if (!t || !t->columns)
        return;
    fit(t, most, widths);
    for (size_t c = 0; c < t->columns; c++)
        last = widths[c] ? c : last;
    for (size_t i = 0; i < t->count; i++) {
        const char *cell = t->cells[i] ? t->cells[i] : "?";
        size_t column = i % t->columns;
        /* A column is right-aligned when its first body cell is a number. */
        const char *sample = i >= t->columns ? cell : i + t->columns < t->count ? t->cells[i + t->columns] : cell;
        bool right = sample && (isdigit((unsigned char)sample[0]) || (sample[0] == '-' && isdigit((unsigned char)sample[1])));
        if (!widths[column])
            continue;
        int pad = (int)(widths[column] - text_width(cell));
        buffer_printf(out, "%*s%s%*s%s", right ? pad : 0, "", cell, right || column == last ? 0 : pad, "",
                      column == last ? "\n" : "  ");
    }
}

void table_print(struct table *t)
{
    struct buffer out = {0};
    table_write(t, SIZE_MAX, &out);
    if (out.size)
        fwrite(out.data, 1, out.size, stdout);
    buffer_free(&out);
}

void table_destroy(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++)
        mem_free(t->cells[i]);
    mem_free(t->cells);
    mem_free(t);
}
