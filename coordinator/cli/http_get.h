/* One HTTP GET of a small document from a server of ours. One thread; blocks. */
#ifndef BRIGADE_COORDINATOR_CLI_HTTP_GET_H
#define BRIGADE_COORDINATOR_CLI_HTTP_GET_H

#include "base/buffer.h"
#include "base/error.h"

/* Appends the body of "http://HOST:PORT" + path to out. `key` (NULL: none) is sent as a bearer token. ERR_USAGE: no
 * such URL; ERR_LOST: nobody answers; ERR_TIMEOUT; ERR_AUTH; ERR_FORMAT: no HTTP, or no success. */
int http_get(const char *url, const char *path, const char *key, int timeout_ms, struct buffer *out, struct error *err);

#endif
