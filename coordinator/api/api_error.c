/* Errors of requests and of the runner in the shape that OpenAI's clients read. Owns nothing. */
#include "coordinator/api/api_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/api/json_text.h"

static void set(struct api_error *e, unsigned status, const char *type, const char *code, const char *param,
                const char *format, va_list args)
{
    e->status = status;
    e->type = type;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param);
    vsnprintf(e->message, sizeof e->message, format, args);
}

int api_refuse(struct api_error *e, const char *code, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(e, 400, "invalid_request_error", code, param, format, args);
    va_end(args);
    return ERR_USAGE;
}

int api_fail(struct api_error *e, unsigned status, const char *type, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(e, status, type, code, "", format, args);
    va_end(args);
    return ERR_IO;
}

int api_from_error(struct api_error *e, const struct error *from)
{
    switch (from->code) {
    case ERR_BOUND:
        return api_refuse(e, "context_length_exceeded", "", "%s", from->text);
    case ERR_USAGE:
    case ERR_FORMAT:
        return api_refuse(e, NULL, "", "%s", from->text);
    case ERR_BUSY:
        return api_fail(e, 429, "rate_limit_error", "queue_full", "%s", from->text);
    case ERR_TIMEOUT:
        return api_fail(e, 504, "server_error", "timeout", "%s", from->text);
    case ERR_LOST:
        return api_fail(e, 503, "server_error", "cluster_lost", "%s", from->text);
    case ERR_CANCELLED:
        return api_fail(e, 503, "server_error", "cancelled", "%s", from->text);
    default:
        return api_fail(e, 500, "server_error", NULL, "%s", from->text);
    }
}

static void put_or_null(struct buffer *b, const char *text)
{
    if (text && *text)
        json_put_text(b, text, strlen(text));
    else
        buffer_puts(b, "null");
}

void api_error_put(struct buffer *b, const struct api_error *e)
{
    buffer_puts(b, "{\"error\":{\"message\":");
    json_put_text(b, e->message, strlen(e->message));
    buffer_puts(b, ",\"type\":");
    put_or_null(b, e->type);
    buffer_puts(b, ",\"param\":");
    put_or_null(b, e->param);
    buffer_puts(b, ",\"code\":");
    put_or_null(b, e->code);
    buffer_puts(b, "}}");
}
