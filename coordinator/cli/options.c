/* The option table's parser: long options with "--name value" or "--name=value", letters with "-n value" or "-nvalue".
 * One thread. */
#include "coordinator/cli/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/units.h"
#include "coordinator/cli/output.h"

int options_wrong(const struct command_help *help, const char *format, ...)
{
    char line[400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    const char *name = help->usage + strlen("brigade ");
    fprintf(stderr, "brigade: %s; see 'brigade %.*s --help'\n", line, (int)strcspn(name, " "), name);
    return 2;
}

int options_exit(const struct command_help *help, int rc, const struct error *err)
{
    if (rc == ERR_USAGE)
        return options_wrong(help, "%s", err->text);
    return rc ? output_failure(err) : 0;
}

static void print_help(const struct option *table, size_t count, const struct command_help *help)
{
    printf("%s\n\n%s\n", help->usage, help->about);
    if (count)
        printf("\nOptions:\n");
    for (size_t i = 0; i < count; i++) {
        char left[64];
        int n = table[i].letter ? snprintf(left, sizeof left, "-%c, %s", table[i].letter, table[i].name)
                                : snprintf(left, sizeof left, "    %s", table[i].name);
        if (table[i].argument)
            snprintf(left + n, sizeof left - (size_t)n, " %s", table[i].argument);
        printf("  %-28s %s\n", left, table[i].help);
    }
    printf("  %-28s %s\n", "-h, --help", "this text");
    printf("\nExample:\n");
    for (const char *line = help->example; *line;) {
        size_t n = strcspn(line, "\n");
        printf("  %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

static bool in_range(const struct option *o, double value)
{
    return (o->min == 0 && o->max == 0) || (value >= o->min && value <= o->max);
}

static int parse_list(const struct option *o, const char *text, struct option_list *list)
{
    size_t count = 1;
    for (const char *c = text; *c; c++)
        count += *c == ',';
    if (count > OPTION_LIST_MAX)
        return ERR_BOUND;
    int64_t *values = mem_zalloc(count, sizeof *values);
    if (!values)
        return ERR_NOMEM;
    size_t at = 0;
    for (const char *c = text; at < count; at++) {
        char item[32];
        size_t n = strcspn(c, ",");
        if (n >= sizeof item) {
            mem_free(values);
            return ERR_FORMAT;
        }
        memcpy(item, c, n);
        item[n] = 0;
        c += n + (c[n] == ',');
        int rc = units_parse_int(item, INT64_MIN, INT64_MAX, &values[at]);
        if (rc || !in_range(o, (double)values[at])) {
            mem_free(values);
            return rc ? rc : ERR_BOUND;
        }
    }
    mem_free(list->values);
    list->values = values;
    list->count = count;
    return 0;
}

/* Returns 0, or a negative error when text is no value of this option. */
static int set_value(const struct option *o, const char *text)
{
    int64_t whole;
    double number;
    int rc;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->value = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)o->value = text;
        return 0;
    case OPTION_INT:
        rc = units_parse_int(text, INT64_MIN, INT64_MAX, &whole);
        if (!rc && !in_range(o, (double)whole))
            rc = ERR_BOUND;
        if (!rc)
            *(int64_t *)o->value = whole;
        return rc;
    case OPTION_NUMBER:
        rc = units_parse_double(text, &number);
        if (!rc && !in_range(o, number))
            rc = ERR_BOUND;
        if (!rc)
            *(double *)o->value = number;
        return rc;
    case OPTION_BYTES:
        return units_parse_bytes(text, o->value);
    case OPTION_LIST:
        return parse_list(o, text, o->value);
    case OPTION_TEXTS: {
        struct option_texts *texts = o->value;
        if (texts->count == OPTION_TEXTS_MAX)
            return ERR_BOUND;
        texts->values[texts->count++] = text;
        return 0;
    }
    }
    return ERR_INTERNAL;
}

static const struct option *find(const struct option *table, size_t count, const char *word, const char **inline_value)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = table[i].name;
        size_t n = strlen(name);
        *inline_value = NULL;
        if (!strncmp(word, name, n) && (!word[n] || word[n] == '=')) {
            if (word[n])
                *inline_value = word + n + 1;
            return &table[i];
        }
        if (table[i].letter && word[0] == '-' && word[1] == table[i].letter) {
            if (word[2])
                *inline_value = word + 2 + (word[2] == '=');
            return &table[i];
        }
    }
    return NULL;
}

enum options_outcome options_parse(int argc, char **argv, const struct option *table, size_t count,
                                   const struct command_help *help, const char **words, size_t words_max,
                                   size_t *word_count)
{
    bool options = true;
    size_t word_n = 0;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = NULL;
        if (!options || word[0] != '-' || !word[1]) {
            if (word_n == words_max) {
                options_wrong(help, "unexpected '%s'", word);
                return OPTIONS_WRONG;
            }
            words[word_n++] = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            options = false;
            continue;
        }
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            print_help(table, count, help);
            return OPTIONS_HELP;
        }
        const struct option *o = find(table, count, word, &value);
        if (!o) {
            options_wrong(help, "unknown option '%s'", word);
            return OPTIONS_WRONG;
        }
        if (o->kind == OPTION_FLAG && value) {
            options_wrong(help, "option '%s' takes no value", o->name);
            return OPTIONS_WRONG;
        }
        if (o->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc) {
                options_wrong(help, "option '%s' needs %s", o->name, o->argument);
                return OPTIONS_WRONG;
            }
            value = argv[++i];
        }
        int rc = set_value(o, value);
        if (rc) {
            if (rc == ERR_BOUND && o->max > o->min)
                options_wrong(help, "'%s' is out of range for %s (%.16g to %.16g)", value, o->name, o->min, o->max);
            else
                options_wrong(help, "'%s' is no %s for option %s", value, o->argument, o->name);
            return OPTIONS_WRONG;
        }
    }
    *word_count = word_n;
    return OPTIONS_OK;
}
