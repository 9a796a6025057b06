/* Errors: one table of negative codes, and a text that a person can act on.
 *
 * A function that can fail returns 0 or a negative `enum error_code` and, where its caller may want to
 * tell a person, fills a caller-owned `struct error` with one line: what is wrong, where, what to do.
 * `*out` parameters stay untouched on failure. A NULL `struct error *` is always allowed. */
#ifndef BRIGADE_BASE_ERROR_H
#define BRIGADE_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

enum error_code {
    ERR_NOMEM = -1,       /* an allocation failed */
    ERR_IO = -2,          /* a file or device could not be read or written */
    ERR_FORMAT = -3,      /* bytes from outside are not what they claim to be */
    ERR_UNSUPPORTED = -4, /* well formed, but not something this build can do */
    ERR_BOUND = -5,       /* over a stated bound (frame, queue, prompt, file) */
    ERR_USAGE = -6,       /* the person asked in a way that makes no sense */
    ERR_AUTH = -7,        /* a key is wrong, missing or not allowed */
    ERR_VERSION = -8,     /* the peer speaks another protocol version */
    ERR_LOST = -9,        /* a node is gone */
    ERR_TIMEOUT = -10,    /* nothing came in time */
    ERR_MEMORY = -11,     /* admission refused: it would not fit */
    ERR_BUSY = -12,       /* try again later (a queue is full) */
    ERR_CANCELLED = -13,  /* someone asked to stop */
    ERR_NOTFOUND = -14,   /* the named thing does not exist */
    ERR_ORDER = -15,      /* right message, wrong moment (stale epoch, gap in a sequence) */
    ERR_INFEASIBLE = -16, /* no plan satisfies the constraints */
    ERR_INTERNAL = -17,   /* a bug: an invariant of our own does not hold */
};

struct error {
    int code;       /* 0 or an enum error_code */
    char text[512]; /* one line, no trailing newline; always terminated */
};

/* Sets code and text (printf-style, cut to fit) and returns code, so that `return error_set(...)` reads well. */
int error_set(struct error *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int error_vset(struct error *e, int code, const char *format, va_list args);

/* Puts "context: " before the present text; for adding where on the way up. Returns e->code (ERR_INTERNAL for NULL). */
int error_prefix(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A short English name of a code ("out of memory"); never NULL. */
const char *error_name(int code);

#endif
