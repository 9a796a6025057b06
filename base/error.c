/* The error table and its texts. Owns nothing; any thread. */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [-ERR_NOMEM] = "out of memory",
    [-ERR_IO] = "input/output error",
    [-ERR_FORMAT] = "malformed data",
    [-ERR_UNSUPPORTED] = "not supported",
    [-ERR_BOUND] = "over a limit",
    [-ERR_USAGE] = "bad usage",
    [-ERR_AUTH] = "not authorised",
    [-ERR_VERSION] = "protocol version mismatch",
    [-ERR_LOST] = "node lost",
    [-ERR_TIMEOUT] = "timed out",
    [-ERR_MEMORY] = "does not fit in memory",
    [-ERR_BUSY] = "busy",
    [-ERR_CANCELLED] = "cancelled",
    [-ERR_NOTFOUND] = "not found",
    [-ERR_ORDER] = "out of order",
    [-ERR_INFEASIBLE] = "no feasible plan",
    [-ERR_INTERNAL] = "internal error",
};

int error_vset(struct error *e, int code, const char *format, va_list args)
{
    if (e) {
        char text[sizeof e->text]; /* the arguments may point into e->text */
        vsnprintf(text, sizeof text, format, args);
        memcpy(e->text, text, sizeof text);
        e->code = code;
    }
    return code;
}

int error_set(struct error *e, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(e, code, format, args);
    va_end(args);
    return code;
}

int error_prefix(struct error *e, const char *format, ...)
{
    if (!e)
        return ERR_INTERNAL;
    char where[256];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
    return error_set(e, e->code, "%s: %s", where, e->text);
}

const char *error_name(int code)
{
    int i = -code;
    if (code == 0)
        return "ok";
    if (i < 0 || i >= (int)(sizeof names / sizeof *names) || !names[i])
        return "unknown error";
    return names[i];
}
