/* A TCP proxy on loopback that records every byte it passes, in both directions: what an eavesdropper would see.
 * One thread; one connection at a time is enough for the tests. */
#ifndef BRIGADE_TESTS_PROTO_TAP_H
#define BRIGADE_TESTS_PROTO_TAP_H

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TAP_CONNECTIONS 8

struct tap {
    int listener, port, target_port;
    pthread_t thread;
    _Atomic bool stop;
    pthread_mutex_t lock;
    unsigned char *seen[2]; /* towards the target, and back */
    size_t size[2], room[2];
};

static inline void tap_record(struct tap *t, int way, const unsigned char *bytes, size_t n)
{
    pthread_mutex_lock(&t->lock);
    if (t->size[way] + n > t->room[way]) {
        t->room[way] = (t->size[way] + n) * 2;
        t->seen[way] = realloc(t->seen[way], t->room[way]);
        if (!t->seen[way])
            abort();
    }
    memcpy(t->seen[way] + t->size[way], bytes, n);
    t->size[way] += n;
    pthread_mutex_unlock(&t->lock);
}

static inline int tap_connect(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static inline void *tap_run(void *context)
{
    struct tap *t = context;
    struct pollfd p[1 + 2 * TAP_CONNECTIONS];
    int pairs = 0;
    unsigned char bytes[65536];
    p[0] = (struct pollfd){.fd = t->listener, .events = POLLIN};
    while (!t->stop) {
        poll(p, (nfds_t)(1 + 2 * pairs), 50);
        for (int i = 0; i < 2 * pairs; i++) {
            if (!(p[1 + i].revents & (POLLIN | POLLHUP | POLLERR)))
                continue;
            ssize_t n = read(p[1 + i].fd, bytes, sizeof bytes);
            if (n > 0) {
                tap_record(t, i % 2, bytes, (size_t)n);
                for (ssize_t done = 0, k; done < n; done += k)
                    if ((k = send(p[1 + (i ^ 1)].fd, bytes + done, (size_t)(n - done), MSG_NOSIGNAL)) <= 0)
                        break;
            } else { /* either side ends: both end */
                shutdown(p[1 + i].fd, SHUT_RDWR);
                shutdown(p[1 + (i ^ 1)].fd, SHUT_RDWR);
                p[1 + i].events = 0;
                close(p[1 + i].fd);
                p[1 + i].fd = -1;
            }
        }
        if (p[0].revents & POLLIN) {
            int from = accept(t->listener, NULL, NULL), to = tap_connect(t->target_port);
            if (from < 0 || to < 0 || pairs == TAP_CONNECTIONS) {
                close(from);
                close(to);
                continue;
            }
            p[1 + 2 * pairs] = (struct pollfd){.fd = from, .events = POLLIN};
            p[2 + 2 * pairs] = (struct pollfd){.fd = to, .events = POLLIN};
            pairs++;
        }
    }
    for (int i = 0; i < 2 * pairs; i++)
        if (p[1 + i].fd >= 0)
            close(p[1 + i].fd);
    return NULL;
}

/* Listens on a fresh port and passes everything on to target_port. False when it cannot. */
static inline bool tap_start(struct tap *t, int target_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    memset(t, 0, sizeof *t);
    t->target_port = target_port;
    pthread_mutex_init(&t->lock, NULL);
    t->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (t->listener < 0 || bind(t->listener, (struct sockaddr *)&a, sizeof a) || listen(t->listener, 8) ||
        getsockname(t->listener, (struct sockaddr *)&a, &size))
        return false;
    t->port = ntohs(a.sin_port);
    return !pthread_create(&t->thread, NULL, tap_run, t);
}

static inline void tap_stop(struct tap *t)
{
    t->stop = true;
    pthread_join(t->thread, NULL);
    close(t->listener);
    free(t->seen[0]);
    free(t->seen[1]);
}

/* Bytes that passed towards the target (0) or back (1). */
static inline size_t tap_size(struct tap *t, int way)
{
    pthread_mutex_lock(&t->lock);
    size_t size = t->size[way];
    pthread_mutex_unlock(&t->lock);
    return size;
}

/* Whether a run of bytes passed, in either direction. */
static inline bool tap_saw(struct tap *t, const void *bytes, size_t n)
{
    bool found = false;
    pthread_mutex_lock(&t->lock);
    for (int way = 0; way < 2 && !found; way++)
        found = t->size[way] && memmem(t->seen[way], t->size[way], bytes, n);
    pthread_mutex_unlock(&t->lock);
    return found;
}

#endif
