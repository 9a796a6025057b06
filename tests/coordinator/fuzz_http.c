/* libFuzzer: bytes of connections to a server that has no model yet. Whatever comes, the reply is none, or HTTP with a
 * status that is not the server's own failure (503: it is loading). */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "coordinator/api/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static struct api_server *server;

static void open_server(void)
{
    const struct api_options o = {.host = "127.0.0.1",
                                  .model = "m",
                                  .origin = "*",
                                  .parallel = 1,
                                  .queue = 1,
                                  .body_bytes_max = 4096,
                                  .stream_bytes_max = 4096,
                                  .read_seconds = 5};
    struct error err = {0};
    if (api_open(&o, &server, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

static int connect_to_server(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(api_port(server))};
    const struct linger at_once = {1, 0};                /* or ports would run out */
    const struct timeval patience = {.tv_usec = 20000}; /* the server may wait for more that never comes */
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&at, sizeof at))
        abort();
    setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char got[4096];
    size_t n = 0;
    ssize_t more;
    if (!server)
        open_server();
    if (!size)
        return 0;
    int s = connect_to_server();
    if (send(s, bytes, size, MSG_NOSIGNAL) == (ssize_t)size)
        shutdown(s, SHUT_WR); /* that was all: the server need not wait for the rest */
    while (n < sizeof got - 1 && (more = recv(s, got + n, sizeof got - 1 - n, 0)) > 0)
        n += (size_t)more;
    close(s);
    got[n] = 0;
    unsigned status = 0;
    if (n && (sscanf(got, "HTTP/1.%*u %u", &status) != 1 || status < 100 || status > 599 ||
              (status >= 500 && status != 503 && status != 505 && status != 501)))
        abort();
    return 0;
}
