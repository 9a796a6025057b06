/* Name to address to listening socket. Any thread. */
#include "coordinator/api/listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 1024

/* A socket that listens there, or -1 and errno. */
static int listen_at(const struct addrinfo *a)
{
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, BACKLOG))
        return fd;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage at;
    socklen_t bytes = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &bytes))
        return 0;
    return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&at)->sin6_port
                                          : ((struct sockaddr_in *)(void *)&at)->sin_port);
}

int listener_open(const char *host, uint16_t port, int *out, uint16_t *bound, struct error *err)
{
    char text[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_ADDRCONFIG}, *found = NULL;
    snprintf(text, sizeof text, "%u", port);
    int rc = getaddrinfo(host, text, &hints, &found), fd = -1, number = 0;
    if (rc)
        return error_set(err, ERR_USAGE, "cannot listen on '%s': %s", host, gai_strerror(rc));
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        if ((fd = listen_at(a)) < 0)
            number = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return error_set(err, ERR_IO, "cannot listen on %s, port %u: %s; choose another with --host and --port", host, port,
                         strerror(number));
    *out = fd;
    *bound = port_of(fd);
    return 0;
}
