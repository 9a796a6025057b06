/* HTTP/1.0 over one connection that the server closes. Owns its socket. */
#include "coordinator/cli/http_client.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/memory.h"

#define BODY_MAX ((size_t)4 << 20)

static int split_url(const char *url, char host[static 256], char port[static 8], struct error *err)
{
    const char *start = url + 7, *end;
    if (strncmp(url, "http://", 7))
        return error_set(err, ERR_USAGE, "\"%.80s\" is no http://HOST:PORT", url);
    size_t n = strcspn(start, "/");
    end = start + n;
    const char *bracket = *start == '[' ? memchr(start, ']', n) : NULL;
    const char *colon = memchr(bracket ? bracket : start, ':', (size_t)(end - (bracket ? bracket : start)));
    const char *first = bracket ? start + 1 : start, *last = bracket ? bracket : colon ? colon : end;
    if (last <= first || last - first > 255 || (colon && (end - colon < 2 || end - colon > 7)))
        return error_set(err, ERR_USAGE, "\"%.80s\" is no http://HOST:PORT", url);
    snprintf(host, 256, "%.*s", (int)(last - first), first);
    if (colon)
        snprintf(port, 8, "%.*s", (int)(end - colon - 1), colon + 1);
    else
        snprintf(port, 8, "80");
    return 0;
}

static int open_connection(const char *url, const char *host, const char *port, int timeout_ms, int *out,
                           struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc)
        return error_set(err, ERR_LOST, "%.80s: %s", url, gai_strerror(rc));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) ||
        connect(fd, found->ai_addr, found->ai_addrlen)) {
        rc = error_set(err, ERR_LOST, "%.80s: %s; is 'brigade serve' running there?", url, strerror(errno));
        if (fd >= 0)
            close(fd);
    } else {
        *out = fd;
    }
    freeaddrinfo(found);
    return rc;
}

static int exchange(int fd, const char *url, const char *request, struct buffer *reply, struct error *err)
{
    size_t n = strlen(request);
    for (size_t sent = 0; sent < n;) {
        ssize_t done = send(fd, request + sent, n - sent, MSG_NOSIGNAL);
        if (done < 0)
            return error_set(err, ERR_LOST, "%.80s: %s", url, strerror(errno));
        sent += (size_t)done;
    }
    for (;;) {
        char piece[8192];
        ssize_t got = recv(fd, piece, sizeof piece, 0);
        if (got == 0)
            return 0;
        if (got < 0)
            return error_set(err, errno == EAGAIN ? ERR_TIMEOUT : ERR_LOST, "%.80s: %s", url,
                             errno == EAGAIN ? "no answer in time" : strerror(errno));
        int rc = buffer_append(reply, piece, (size_t)got);
        if (rc)
            return error_set(err, rc, "%.80s: its answer is too large", url);
    }
}

static int write_request(const struct http_question *q, const char *host, struct buffer *out, struct error *err)
{
    buffer_printf(out, "%s %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n", q->body ? "POST" : "GET", q->path, host);
    if (q->key)
        buffer_printf(out, "Authorization: Bearer %s\r\n", q->key);
    if (q->body)
        buffer_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(q->body), q->body);
    else
        buffer_puts(out, "\r\n");
    return out->failed ? error_set(err, out->failed, "no memory for a request") : 0;
}

int http_ask(const struct http_question *q, unsigned *status, struct buffer *out, struct error *err)
{
    char host[256], port[8];
    struct buffer request = {0}, reply = {.limit = BODY_MAX};
    unsigned said = 0;
    int fd = -1, rc = split_url(q->url, host, port, err);
    if (!rc && !(rc = write_request(q, host, &request, err)) &&
        !(rc = open_connection(q->url, host, port, q->timeout_ms, &fd, err)))
        rc = exchange(fd, q->url, request.data, &reply, err);
    const char *body = !rc && reply.data ? strstr(reply.data, "\r\n\r\n") : NULL;
    if (!rc && (!body || sscanf(reply.data, "HTTP/%*d.%*d %u", &said) != 1))
        rc = error_set(err, ERR_FORMAT, "%.80s: that is no HTTP server", q->url);
    if (!rc && (rc = buffer_puts(out, body + 4)))
        error_set(err, rc, "%.80s: no memory for its answer", q->url);
    if (!rc)
        *status = said;
    if (fd >= 0)
        close(fd);
    buffer_free(&request);
    buffer_free(&reply);
    return rc;
}

int http_get(const struct http_question *q, struct buffer *out, struct error *err)
{
    unsigned status = 0;
    int rc = http_ask(q, &status, out, err);
    if (!rc && (status == 401 || status == 403))
        rc = error_set(err, ERR_AUTH, "%.80s: it wants a key; put one into BRIGADE_API_KEY", q->url);
    else if (!rc && status != 200)
        rc = error_set(err, ERR_FORMAT, "%.80s%s: HTTP status %u; is that 'brigade serve'?", q->url, q->path, status);
    return rc;
}
