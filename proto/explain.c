/* Why nobody answers at an endpoint: one plain TCP connection, tried and dropped. Nothing is sent. Any thread. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/link.h"

void link_explain(const char *endpoint, int timeout_ms, char *text, size_t text_size)
{
    char host[256];
    const char *colon = strrchr(endpoint, ':'), *start = endpoint + (strncmp(endpoint, "tcp://", 6) ? 0 : 6);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    if (!colon || colon < start || (size_t)(colon - start) >= sizeof host) {
        snprintf(text, text_size, "not an endpoint; write tcp://ADDRESS:PORT");
        return;
    }
    bool bracketed = *start == '[' && colon > start + 1 && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - start) - 2 * bracketed, start + bracketed);
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc) {
        snprintf(text, text_size, "%s: %s", host, gai_strerror(rc));
        return;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), failure = 0;
    socklen_t size = sizeof failure;
    if (fd < 0 || (connect(fd, found->ai_addr, found->ai_addrlen) && errno != EINPROGRESS))
        failure = errno;
    else if (poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, timeout_ms) != 1)
        failure = ETIMEDOUT;
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size))
        failure = errno;
    if (failure == ETIMEDOUT)
        snprintf(text, text_size, "no answer within %d ms", timeout_ms);
    else if (failure)
        snprintf(text, text_size, "%s", strerror(failure));
    else if (text_size)
        *text = 0;
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
}
