/* OpenAI's error objects. Pure. */
#ifndef BRIGADE_COORDINATOR_API_API_ERROR_H
#define BRIGADE_COORDINATOR_API_API_ERROR_H

#include "base/buffer.h"
#include "base/error.h"

struct api_error {
    unsigned status;      /* of HTTP */
    const char *type;     /* "invalid_request_error" … */
    const char *code;     /* NULL: null */
    char param[96];       /* the field; "": null */
    char message[640];
};

/* A 400 that names a field ("" for none). Returns ERR_USAGE, so that `return api_refuse(...)` reads well. */
int api_refuse(struct api_error *e, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Any other; returns a negative error. */
int api_fail(struct api_error *e, unsigned status, const char *type, const char *code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* An error of the layers below as a client should see it: status and type by its code. Returns it. */
int api_from_error(struct api_error *e, const struct error *from);

/* {"error":{"message":…,"type":…,"param":…,"code":…}} */
void api_error_put(struct buffer *b, const struct api_error *e);

#endif
