/* One question to a server of ours over HTTP, and its answer: a small document. One thread; blocks. */
#ifndef BRIGADE_COORDINATOR_CLI_HTTP_CLIENT_H
#define BRIGADE_COORDINATOR_CLI_HTTP_CLIENT_H

#include "base/buffer.h"
#include "base/error.h"

struct http_question {
    const char *url;  /* "http://HOST:PORT" */
    const char *path; /* "/status" */
    const char *key;  /* sent as a bearer token; NULL: none */
    const char *body; /* JSON to POST; NULL: a GET */
    int timeout_ms;   /* of each wait */
};

/* Appends the answer's body to out, whatever its *status. ERR_USAGE: no such URL; ERR_LOST: nobody answers; ERR_TIMEOUT; ERR_FORMAT: no HTTP; ERR_BOUND: too large. */
int http_ask(const struct http_question *question, unsigned *status, struct buffer *out, struct error *err);
/* As http_ask for a GET that must succeed: a key that is refused is ERR_AUTH, any other status ERR_FORMAT. */
int http_get(const struct http_question *question, struct buffer *out, struct error *err);

#endif
