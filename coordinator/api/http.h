/* HTTP as the API needs it: whole requests in, whole or streamed replies out. The only file that knows libmicrohttpd.
 *
 * A request arrives complete (bounded in size and time) on one of a few HTTP threads. Its handler replies at once, or
 * returns and any thread replies later; meanwhile the connection sleeps and costs no thread. Streamed bytes wait in a
 * bounded buffer of their own call, so that a reader who is slow fills only this buffer and holds up nobody. A client
 * that hangs up is noticed at once, also while nothing is being sent to it. */
#ifndef BRIGADE_COORDINATOR_API_HTTP_H
#define BRIGADE_COORDINATOR_API_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct http_server;
struct http_call; /* one request and its reply; counted references */

enum http_refusal {
    HTTP_ACCEPTED,
    HTTP_TOO_LARGE,      /* more than body_bytes_max */
    HTTP_STRANGE_CODING, /* a Transfer-Encoding other than chunked: where the body ends is not known (RFC 9112, 6.1) */
};

struct http_options {
    const char *host;        /* name or address to listen on */
    uint16_t port;           /* 0: the system chooses */
    size_t body_bytes_max;   /* of a request */
    size_t stream_bytes_max; /* unsent bytes of a streamed reply */
    unsigned body_seconds;   /* a request must have come within; also how long a connection may idle or not take data */
    unsigned threads, connections;
    /* A whole request, on an HTTP thread. Must reply, or keep a reference and have someone reply soon. */
    void (*on_request)(void *context, struct http_call *call);
    /* Instead of on_request where there is no body to hand on. */
    void (*on_refused)(void *context, struct http_call *call, enum http_refusal why);
    void *context;
};

int http_open(const struct http_options *options, struct http_server **out, struct error *err);
uint16_t http_port(const struct http_server *s);
/* No new connections; those that exist go on. */
void http_stop_accepting(struct http_server *s);
/* Calls whose reply is not yet over. */
unsigned http_live(struct http_server *s);
/* Cuts what still runs and ends the threads. No reply may be under way on another thread. NULL is fine. */
void http_close(struct http_server *s);

/* ---- A request; valid while the caller holds a reference (inside on_request: always) ------------------------------- */

void http_call_retain(struct http_call *c);
void http_call_release(struct http_call *c);
const char *http_method(const struct http_call *c);
const char *http_path(const struct http_call *c); /* without the query */
const struct buffer *http_body(const struct http_call *c);
/* The Authorization header as it came; NULL without one. */
const char *http_authorization(const struct http_call *c);
/* A number that is the same for all connections from one address. */
uint64_t http_peer(const struct http_call *c);
/* It comes from this machine, and not from a page in a browser. */
bool http_from_here(const struct http_call *c);

/* ---- A reply ------------------------------------------------------------------------------------------------------ */

/* A header of the reply to come; both texts are copied. */
void http_header(struct http_call *c, const char *name, const char *value);
/* The whole reply; takes the body's bytes and leaves it empty. Any thread. Ignored once a reply has begun, except that
 * bytes of http_write before http_stream are thrown away. */
void http_reply(struct http_call *c, unsigned status, const char *type, struct buffer *body);
/* Begins a streamed reply with status 200. Any thread. */
void http_stream(struct http_call *c, const char *type);
/* Adds bytes to the stream; any thread, also before http_stream. ERR_BOUND: the reader is too slow, nothing was added;
 * ERR_CANCELLED: the client is gone. */
int http_write(struct http_call *c, const char *bytes, size_t n);
/* Ends the stream after what was written, and after `last` (may be NULL) even if the buffer is full. */
void http_end(struct http_call *c, const char *last);
/* Calls gone(context) once, on whatever thread notices, when the reply cannot be delivered any more or was delivered
 * whole: there is nobody to compute for. May run before this returns. `delivered` tells which. */
void http_on_over(struct http_call *c, void (*over)(void *context, bool delivered), void *context);
unsigned http_status(const struct http_call *c); /* of the reply; 0 before */

#endif
