/* Command-line options as a table: one row an option, parsed and documented from the same words. Owns nothing. */
#ifndef BRIGADE_COORDINATOR_CLI_OPTIONS_H
#define BRIGADE_COORDINATOR_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum option_kind {
    OPTION_FLAG,    /* bool: set to true */
    OPTION_TEXT,    /* const char *: borrowed from argv */
    OPTION_INT,     /* int64_t within [min, max] */
    OPTION_NUMBER,  /* double within [min, max] */
    OPTION_BYTES,   /* uint64_t: "6G" */
    OPTION_LIST,    /* struct option_list: comma-separated integers, each within [min, max] */
    OPTION_TEXTS,   /* struct option_texts: may be repeated */
};

#define OPTION_LIST_MAX 4096
struct option_list {
    size_t count;
    int64_t *values; /* mem_free */
};

#define OPTION_TEXTS_MAX 64
struct option_texts {
    size_t count;
    const char *values[OPTION_TEXTS_MAX];
};

struct option {
    const char *name;   /* "--threads" */
    char letter;        /* 't', or 0 */
    enum option_kind kind;
    void *value;        /* of the kind's C type */
    const char *argument; /* what the help calls its value: "N"; NULL for flags */
    const char *help;
    double min, max;    /* both 0: unbounded */
};

struct command_help {
    const char *usage;   /* "brigade run -m MODEL (-p TEXT | -f FILE) [options]" */
    const char *about;   /* one or two sentences */
    const char *example; /* one or more whole command lines */
};

enum options_outcome { OPTIONS_OK, OPTIONS_HELP, OPTIONS_WRONG };

/* Parses argv[1..]. Words that are no options go to words[] in order (at most words_max; "--" ends options).
 * OPTIONS_HELP: the help was asked for and printed to stdout. OPTIONS_WRONG: one line stands on stderr. */
enum options_outcome options_parse(int argc, char **argv, const struct option *table, size_t count,
                                   const struct command_help *help, const char **words, size_t words_max,
                                   size_t *word_count);

/* How a command ends: 0, or the error's line on stderr and exit code 2 for ERR_USAGE, 1 for anything else. */
int options_exit(const struct command_help *help, int rc, const struct error *err);

/* One line on stderr in the same voice as options_parse's, and exit code 2. */
int options_wrong(const struct command_help *help, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
