/* The doorman's connections, libmicrohttpd's threads and responses behind the calls of http.h. A call's lock guards its
 * reply; the server's lock guards the list of calls; the list's lock is taken first. Nothing outside is called under
 * either, but libmicrohttpd's suspend and resume. */
#include "coordinator/api/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/api/doorman.h"
#include "coordinator/api/hangup.h"
#include "coordinator/api/listener.h"

#define HEADERS_MAX 16
#define DISCARD_FACTOR 16          /* a body over the bound is read to its end and dropped, up to so many bounds */
#define STREAM_BLOCK_BYTES 16384
#define CONNECTIONS_SPARE 64       /* handed over, and not yet counted by libmicrohttpd */
#define SOCKET_SEND_BYTES (256 * 1024) /* what the kernel may hold for one reader, so that slow ones are noticed */

enum reply_kind { REPLY_NONE, REPLY_WHOLE, REPLY_STREAM };

struct http_call {
    atomic_uint references;
    struct http_server *server;
    struct http_call *previous, *next; /* under the server's lock */
    uint64_t number;
    /* The request: written by its HTTP thread before on_request, constant from then on. */
    char *method, *path, *authorization;
    struct buffer body;
    uint64_t peer;
    int64_t began_ms;
    int socket;
    enum http_refusal refusal;
    bool handled, from_here;

    pthread_mutex_t lock; /* what follows */
    struct MHD_Connection *connection; /* NULL once libmicrohttpd is done with it */
    enum reply_kind kind;
    bool suspended, gone, ended;
    unsigned status;
    const char *type;
    char *header_names[HEADERS_MAX], *header_values[HEADERS_MAX];
    unsigned headers;
    struct buffer out;
    size_t sent; /* bytes of out that libmicrohttpd has taken */
    void (*over)(void *context, bool delivered);
    void *over_context;
    bool is_over, delivered;
};

struct http_server {
    struct http_options o;
    int listener;
    uint16_t port;
    struct MHD_Daemon *daemon;
    struct hangup_watch *watch;
    struct doorman *doorman;
    bool quiesced;
    atomic_bool closing;
    pthread_mutex_t lock; /* what follows */
    struct http_call *calls;
    unsigned live;
    uint64_t next_number;
};

/* ---- A call's life -------------------------------------------------------------------------------------------------- */

void http_call_retain(struct http_call *c)
{
    atomic_fetch_add(&c->references, 1);
}

void http_call_release(struct http_call *c)
{
    if (atomic_fetch_sub(&c->references, 1) != 1)
        return;
    for (unsigned i = 0; i < c->headers; i++) {
        mem_free(c->header_names[i]);
        mem_free(c->header_values[i]);
    }
    mem_free(c->method);
    mem_free(c->path);
    mem_free(c->authorization);
    buffer_free(&c->body);
    buffer_free(&c->out);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

static bool peer_is_loopback(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    if (a && a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a && a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static uint64_t hash_peer(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    if (a && a->sa_family == AF_INET)
        return hash_mix64(hash_crc32(0, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4));
    if (a && a->sa_family == AF_INET6) {
        uint64_t halves[2];
        memcpy(halves, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, sizeof halves);
        return hash_mix64(halves[0] ^ hash_mix64(halves[1]));
    }
    return 0;
}

static struct http_call *call_create(struct http_server *s, struct MHD_Connection *connection, const char *url,
                                     const char *method)
{
    struct http_call *c = mem_zalloc(1, sizeof *c);
    if (!c)
        return NULL;
    const char *authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    atomic_init(&c->references, 1);
    pthread_mutex_init(&c->lock, NULL);
    c->server = s;
    c->connection = connection;
    c->socket = info ? info->connect_fd : -1;
    c->peer = hash_peer(connection);
    c->from_here = peer_is_loopback(connection) && !MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Origin");
    c->began_ms = clock_ms();
    c->body.limit = s->o.body_bytes_max;
    c->method = mem_strdup(method);
    c->path = mem_strdup(url);
    c->authorization = authorization ? mem_strdup(authorization) : NULL;
    if (!c->method || !c->path || (authorization && !c->authorization)) {
        http_call_release(c);
        return NULL;
    }
    pthread_mutex_lock(&s->lock);
    c->number = ++s->next_number;
    c->next = s->calls;
    if (c->next)
        c->next->previous = c;
    s->calls = c;
    s->live++;
    pthread_mutex_unlock(&s->lock);
    return c;
}

/* The reply has an end, good or bad: whoever computes for it is told, once. */
static void tell_over(struct http_call *c, bool delivered)
{
    pthread_mutex_lock(&c->lock);
    bool first = !c->is_over;
    if (first)
        c->delivered = delivered;
    c->is_over = true;
    void (*over)(void *, bool) = first ? c->over : NULL;
    void *context = c->over_context;
    pthread_mutex_unlock(&c->lock);
    if (over)
        over(context, delivered);
}

void http_on_over(struct http_call *c, void (*over)(void *context, bool delivered), void *context)
{
    pthread_mutex_lock(&c->lock);
    bool already = c->is_over, delivered = c->delivered;
    if (!already) {
        c->over = over;
        c->over_context = context;
    }
    pthread_mutex_unlock(&c->lock);
    if (already)
        over(context, delivered);
}

/* With the call's lock held. */
static void wake(struct http_call *c)
{
    if (!c->suspended)
        return;
    c->suspended = false;
    MHD_resume_connection(c->connection);
}

static void abandon(struct http_call *c)
{
    pthread_mutex_lock(&c->lock);
    c->gone = true;
    wake(c);
    pthread_mutex_unlock(&c->lock);
    tell_over(c, false);
}

static void on_hangup(void *context, uint64_t number)
{
    struct http_server *s = context;
    pthread_mutex_lock(&s->lock);
    struct http_call *c = s->calls;
    while (c && c->number != number)
        c = c->next;
    if (c)
        http_call_retain(c);
    pthread_mutex_unlock(&s->lock);
    if (!c)
        return;
    abandon(c);
    http_call_release(c);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code)
{
    struct http_server *s = context;
    struct http_call *c = *state;
    (void)connection;
    if (!c)
        return;
    *state = NULL;
    hangup_expect(s->watch, c->socket, 0);
    pthread_mutex_lock(&s->lock);
    if (c->previous)
        c->previous->next = c->next;
    else
        s->calls = c->next;
    if (c->next)
        c->next->previous = c->previous;
    s->live--;
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_lock(&c->lock);
    c->connection = NULL;
    c->suspended = false;
    bool delivered = code == MHD_REQUEST_TERMINATED_COMPLETED_OK && !c->gone && c->kind != REPLY_NONE;
    pthread_mutex_unlock(&c->lock);
    tell_over(c, delivered);
    http_call_release(c);
}

/* ---- What libmicrohttpd asks for ------------------------------------------------------------------------------------ */

static ssize_t read_stream(void *context, uint64_t position, char *to, size_t max)
{
    struct http_call *c = context;
    ssize_t n;
    (void)position;
    pthread_mutex_lock(&c->lock);
    size_t left = c->out.size - c->sent;
    if (c->gone) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (left) {
        n = (ssize_t)(left < max ? left : max);
        memcpy(to, c->out.data + c->sent, (size_t)n);
        c->sent += (size_t)n;
        if (c->sent == c->out.size) {
            c->sent = 0;
            buffer_clear(&c->out);
        } else if (c->sent >= 2 * STREAM_BLOCK_BYTES && c->sent >= c->out.size / 2) {
            memmove(c->out.data, c->out.data + c->sent, c->out.size - c->sent + 1);
            c->out.size -= c->sent;
            c->sent = 0;
        }
    } else if (c->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        n = 0;
        c->suspended = true;
        MHD_suspend_connection(c->connection);
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

/* Gives libmicrohttpd the reply, or lets the connection sleep until there is one. The lock is not held while a response
 * is made and queued: libmicrohttpd locks responses, and calls read_stream with that lock. */
static enum MHD_Result settle(struct http_call *c)
{
    struct MHD_Response *response;
    pthread_mutex_lock(&c->lock);
    enum reply_kind kind = c->kind;
    bool cut = c->gone || atomic_load(&c->server->closing);
    if (!cut && kind != REPLY_WHOLE)
        hangup_expect(c->server->watch, c->socket, c->number);
    if (!cut && kind == REPLY_NONE) {
        c->suspended = true;
        MHD_suspend_connection(c->connection);
    }
    size_t bytes = c->out.size;
    char *data = !cut && kind == REPLY_WHOLE ? buffer_steal(&c->out) : NULL;
    pthread_mutex_unlock(&c->lock);
    if (cut || kind == REPLY_NONE)
        return cut ? MHD_NO : MHD_YES;
    if (kind == REPLY_STREAM)
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, c, NULL);
    else
        response = data ? MHD_create_response_from_buffer_with_free_callback(bytes, data, mem_free) : NULL;
    if (!response) {
        mem_free(data);
        return MHD_NO;
    }
    /* Headers are not added any more once there is a reply. */
    MHD_add_response_header(response, "Content-Type", c->type);
    for (unsigned i = 0; i < c->headers; i++)
        MHD_add_response_header(response, c->header_names[i], c->header_values[i]);
    enum MHD_Result queued = MHD_queue_response(c->connection, c->status, response);
    MHD_destroy_response(response);
    return queued;
}

/* What is replied to before its body, for that would be read in vain or has no end; the connection ends with the reply. */
static enum http_refusal refuse_unread(const struct http_server *s, struct MHD_Connection *connection)
{
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length"),
               *coding = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding");
    if (coding && strcasecmp(coding, "chunked"))
        return HTTP_STRANGE_CODING;
    return length && strtoull(length, NULL, 10) > (unsigned long long)s->o.body_bytes_max * DISCARD_FACTOR ? HTTP_TOO_LARGE
                                                                                                           : HTTP_ACCEPTED;
}

static enum MHD_Result on_access(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                 const char *version, const char *upload, size_t *upload_bytes, void **state)
{
    struct http_server *s = context;
    struct http_call *c = *state;
    (void)version;
    if (!c) {
        if (!(c = call_create(s, connection, url, method)))
            return MHD_NO;
        *state = c;
        c->refusal = refuse_unread(s, connection);
        if (c->refusal == HTTP_ACCEPTED)
            return MHD_YES;
        c->handled = true;
        s->o.on_refused(s->o.context, c, c->refusal);
    } else if (*upload_bytes) {
        if (clock_ms() - c->began_ms > (int64_t)s->o.body_seconds * 1000)
            return MHD_NO;
        if (buffer_append(&c->body, upload, *upload_bytes)) {
            if (c->body.failed == ERR_NOMEM)
                return MHD_NO;
            c->refusal = HTTP_TOO_LARGE; /* the rest is read and dropped, so that the client gets to read the reply */
        }
        *upload_bytes = 0;
        return MHD_YES;
    } else if (!c->handled) {
        c->handled = true;
        if (c->refusal != HTTP_ACCEPTED)
            s->o.on_refused(s->o.context, c, c->refusal);
        else
            s->o.on_request(s->o.context, c);
    }
    return settle(c);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *s = context;
    (void)state;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    int bytes = SOCKET_SEND_BYTES;
    if (!info)
        return;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        hangup_forget(s->watch, info->connect_fd);
        return;
    }
    setsockopt(info->connect_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    hangup_add(s->watch, info->connect_fd);
}

/* Paths stay as they came: no route needs an escape, and none must be reached by a hidden zero byte. */
static size_t keep_escapes(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context;
    (void)connection;
    return strlen(text);
}

/* ---- Replies (any thread) ------------------------------------------------------------------------------------------- */

const char *http_method(const struct http_call *c) { return c->method; }
const char *http_path(const struct http_call *c) { return c->path; }
const struct buffer *http_body(const struct http_call *c) { return &c->body; }
const char *http_authorization(const struct http_call *c) { return c->authorization; }
uint64_t http_peer(const struct http_call *c) { return c->peer; }

bool http_from_here(const struct http_call *c) { return c->from_here; }

unsigned http_status(const struct http_call *c)
{
    struct http_call *shared = (struct http_call *)(uintptr_t)c;
    pthread_mutex_lock(&shared->lock);
    unsigned status = c->kind == REPLY_NONE ? 0 : c->status;
    pthread_mutex_unlock(&shared->lock);
    return status;
}

void http_header(struct http_call *c, const char *name, const char *value)
{
    pthread_mutex_lock(&c->lock);
    char *n = c->kind == REPLY_NONE && c->headers < HEADERS_MAX ? mem_strdup(name) : NULL, *v = n ? mem_strdup(value) : NULL;
    if (v) {
        c->header_names[c->headers] = n;
        c->header_values[c->headers++] = v;
    } else {
        mem_free(n);
    }
    pthread_mutex_unlock(&c->lock);
}

void http_reply(struct http_call *c, unsigned status, const char *type, struct buffer *body)
{
    pthread_mutex_lock(&c->lock);
    if (c->kind == REPLY_NONE && !c->gone) {
        buffer_free(&c->out);
        c->out = *body;
        *body = (struct buffer){0};
        c->sent = 0;
        c->status = status;
        c->type = type;
        c->kind = REPLY_WHOLE;
        c->ended = true;
        wake(c);
    }
    pthread_mutex_unlock(&c->lock);
    buffer_free(body);
}

void http_stream(struct http_call *c, const char *type)
{
    pthread_mutex_lock(&c->lock);
    if (c->kind == REPLY_NONE) {
        c->status = 200;
        c->type = type;
        c->kind = REPLY_STREAM;
        wake(c);
    }
    pthread_mutex_unlock(&c->lock);
}

int http_write(struct http_call *c, const char *bytes, size_t n)
{
    pthread_mutex_lock(&c->lock);
    int rc = 0;
    if (c->gone || !c->connection || c->ended)
        rc = ERR_CANCELLED;
    else if (c->out.size - c->sent + n > c->server->o.stream_bytes_max)
        rc = ERR_BOUND;
    else
        rc = buffer_append(&c->out, bytes, n);
    if (!rc && c->kind == REPLY_STREAM)
        wake(c);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void http_end(struct http_call *c, const char *last)
{
    pthread_mutex_lock(&c->lock);
    if (!c->ended && !c->gone && c->connection) {
        if (last)
            buffer_puts(&c->out, last);
        c->ended = true;
        if (c->kind == REPLY_STREAM)
            wake(c);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- The server ----------------------------------------------------------------------------------------------------- */

int http_open(const struct http_options *options, struct http_server **out, struct error *err)
{
    struct http_server *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NOMEM, "out of memory for the HTTP server");
    s->o = *options;
    s->listener = -1;
    pthread_mutex_init(&s->lock, NULL);
    int rc = listener_open(s->o.host, s->o.port, &s->listener, &s->port, err);
    if (!rc)
        rc = hangup_open(on_hangup, s, &s->watch, err);
    if (rc)
        goto fail;
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, on_access, s,
        MHD_OPTION_THREAD_POOL_SIZE, s->o.threads < 2 ? 2 : s->o.threads, MHD_OPTION_CONNECTION_LIMIT,
        s->o.connections + CONNECTIONS_SPARE, MHD_OPTION_CONNECTION_TIMEOUT, s->o.body_seconds, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (!s->daemon) {
        rc = error_set(err, ERR_IO, "the HTTP server does not start: %s", strerror(errno));
        goto fail;
    }
    const struct doorman_options door = {s->listener, s->daemon, s->o.connections, s->o.body_seconds};
    if ((rc = doorman_open(&door, &s->doorman, err)))
        goto fail;
    *out = s;
    return 0;
fail:
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    hangup_close(s->watch);
    if (s->listener >= 0)
        close(s->listener);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
    return rc;
}

uint16_t http_port(const struct http_server *s)
{
    return s->port;
}

void http_stop_accepting(struct http_server *s)
{
    if (s->quiesced)
        return;
    s->quiesced = true;
    doorman_stop(s->doorman);
    shutdown(s->listener, SHUT_RDWR); /* who knocks now is refused, not left waiting */
}

unsigned http_live(struct http_server *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned live = s->live;
    pthread_mutex_unlock(&s->lock);
    return live;
}

void http_close(struct http_server *s)
{
    if (!s)
        return;
    http_stop_accepting(s);
    doorman_close(s->doorman);
    atomic_store(&s->closing, true);
    /* No connection may sleep when libmicrohttpd stops, and one that is cut does not fall asleep again. */
    for (bool more = true; more;) {
        struct http_call *c;
        pthread_mutex_lock(&s->lock);
        for (c = s->calls; c; c = c->next) {
            pthread_mutex_lock(&c->lock);
            bool cut = c->gone;
            pthread_mutex_unlock(&c->lock);
            if (!cut)
                break;
        }
        if (c)
            http_call_retain(c);
        pthread_mutex_unlock(&s->lock);
        if ((more = c != NULL)) {
            abandon(c);
            http_call_release(c);
        }
    }
    MHD_stop_daemon(s->daemon);
    hangup_close(s->watch);
    close(s->listener);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}
