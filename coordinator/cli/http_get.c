/* HTTP/1.0 over one connection that the server closes. Owns its socket. */
#include "coordinator/cli/http_get.h"

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

int http_get(const char *url, const char *path, const char *key, int timeout_ms, struct buffer *out, struct error *err)
{
    char host[256], port[8];
    struct buffer reply = {.limit = BODY_MAX};
    unsigned status = 0;
    int fd = -1, rc = split_url(url, host, port, err);
    char *request = rc ? NULL
                       : mem_printf("GET %s HTTP/1.0\r\nHost: %s\r\n%s%s%sConnection: close\r\n\r\n", path, host,
                                    key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "");
    if (!rc && !request)
        rc = error_set(err, ERR_NOMEM, "no memory for a request");
    if (!rc && !(rc = open_connection(url, host, port, timeout_ms, &fd, err)))
        rc = exchange(fd, url, request, &reply, err);
    const char *body = !rc && reply.data ? strstr(reply.data, "\r\n\r\n") : NULL;
    if (!rc && (!body || sscanf(reply.data, "HTTP/%*d.%*d %u", &status) != 1))
        rc = error_set(err, ERR_FORMAT, "%.80s: that is no HTTP server", url);
    if (!rc && (status == 401 || status == 403))
        rc = error_set(err, ERR_AUTH, "%.80s: it wants a key; put one into BRIGADE_API_KEY", url);
    if (!rc && status != 200)
        rc = error_set(err, ERR_FORMAT, "%.80s%s: HTTP status %u; is that 'brigade serve'?", url, path, status);
    if (!rc && (rc = buffer_puts(out, body + 4)))
        error_set(err, rc, "%.80s: no memory for its answer", url);
    if (fd >= 0)
        close(fd);
    mem_free(request);
    buffer_free(&reply);
    return rc;
}
