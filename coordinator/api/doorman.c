/* epoll over the listener and the guests. Only its thread touches guests. */
#include "coordinator/api/doorman.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/clock.h"
#include "base/memory.h"

#define METHOD_BYTES_MAX 32 /* no method is as long */
#define LOOK_BYTES 256
#define LINGER_MS 1000 /* a refused guest may still be sending: closing at once would take the reply from him */
#define ROUND_MS 50    /* between two looks at clocks and room, while there are guests or no room */
#define LISTENER UINT64_MAX
#define WAKE (UINT64_MAX - 1)
#define NO_HTTP                                                                              \
    "{\"error\":{\"message\":\"this is no HTTP request; the server speaks plain HTTP/1.1\"," \
    "\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"no_http\"}}"

struct guest {
    int socket; /* -1: free */
    bool refused;
    int64_t until_ms;
};

struct doorman {
    struct doorman_options o;
    int epoll, wake; /* wake: an eventfd */
    pthread_t thread;
    atomic_bool stopped, closing;
    bool listening;
    char refusal[512];
    struct guest *guests; /* [o.connections] */
    unsigned count;
};

/* As RFC 9110 has it of a token. */
static bool is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

enum doorman_verdict doorman_judge(const char *bytes, size_t n)
{
    size_t at = 0;
    while (at < n && (bytes[at] == '\r' || bytes[at] == '\n')) /* empty lines before a request are let pass */
        at++;
    size_t begin = at;
    while (at < n && at - begin <= METHOD_BYTES_MAX && is_token((unsigned char)bytes[at]))
        at++;
    if (begin >= LOOK_BYTES / 2 || at - begin > METHOD_BYTES_MAX)
        return DOORMAN_REFUSE;
    if (at == n)
        return DOORMAN_WAIT;
    return bytes[at] == ' ' && at > begin ? DOORMAN_WELCOME : DOORMAN_REFUSE;
}

static void welcome(struct doorman *d, int socket)
{
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof peer;
    if (getpeername(socket, (struct sockaddr *)&peer, &bytes))
        close(socket);
    else
        MHD_add_connection(d->o.daemon, socket, (struct sockaddr *)&peer, bytes); /* closes it if it does not take it */
}

static bool has_room(const struct doorman *d)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(d->o.daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    return !info || info->num_connections + d->count < d->o.connections;
}

static void leave(struct doorman *d, struct guest *g)
{
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, g->socket, NULL);
    g->socket = -1;
    d->count--;
}

static void turn_away(struct doorman *d, struct guest *g)
{
    int socket = g->socket;
    leave(d, g);
    close(socket);
}

static void refuse(struct doorman *d, struct guest *g)
{
    if (send(g->socket, d->refusal, strlen(d->refusal), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || shutdown(g->socket, SHUT_WR)) {
        turn_away(d, g);
        return;
    }
    g->refused = true;
    g->until_ms = clock_ms() + LINGER_MS;
}

/* Reads what a refused guest still says until he ends, too. */
static void hear_out(struct doorman *d, struct guest *g)
{
    char dropped[4096];
    ssize_t n;
    while ((n = recv(g->socket, dropped, sizeof dropped, MSG_DONTWAIT)) > 0)
        ;
    if (!n || (errno != EAGAIN && errno != EINTR))
        turn_away(d, g);
}

static void look(struct doorman *d, struct guest *g, uint32_t events)
{
    char bytes[LOOK_BYTES];
    if (!g->refused) {
        ssize_t n = recv(g->socket, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
        bool ended = !n || (n < 0 && errno != EAGAIN && errno != EINTR);
        enum doorman_verdict verdict = n > 0 ? doorman_judge(bytes, (size_t)n) : DOORMAN_WAIT;
        if (verdict == DOORMAN_WELCOME) {
            int socket = g->socket;
            leave(d, g);
            welcome(d, socket);
            return;
        }
        if (ended) {
            turn_away(d, g);
            return;
        }
        if (verdict == DOORMAN_WAIT && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return;
        refuse(d, g); /* also who ends before his first word is whole */
    }
    if (g->refused && g->socket >= 0)
        hear_out(d, g);
}

static void let_in(struct doorman *d)
{
    for (;;) {
        if (!has_room(d))
            return;
        int socket = accept4(d->o.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (socket < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                usleep(ROUND_MS * 1000); /* others must go first */
            return;
        }
        unsigned i = 0;
        while (i < d->o.connections && d->guests[i].socket >= 0)
            i++;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u64 = i};
        if (i == d->o.connections || epoll_ctl(d->epoll, EPOLL_CTL_ADD, socket, &event)) {
            welcome(d, socket); /* no place to wait: unseen */
            continue;
        }
        d->guests[i] = (struct guest){.socket = socket, .until_ms = clock_ms() + (int64_t)d->o.seconds * 1000};
        d->count++;
        look(d, &d->guests[i], 0); /* mostly its request is there already; events tell of what comes later */
    }
}

/* The listener is heard only where there is room. Returns whether it is. */
static bool listen_if_room(struct doorman *d)
{
    bool wanted = !atomic_load(&d->stopped) && has_room(d);
    if (wanted != d->listening) {
        struct epoll_event event = {.events = wanted ? EPOLLIN : 0, .data.u64 = LISTENER};
        d->listening = !epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->o.listener, &event) ? wanted : d->listening;
    }
    return d->listening;
}

static void send_late_ones_away(struct doorman *d)
{
    int64_t now = clock_ms();
    for (unsigned i = 0; i < d->o.connections && d->count; i++)
        if (d->guests[i].socket >= 0 && d->guests[i].until_ms <= now)
            turn_away(d, &d->guests[i]);
}

static void *stand_at_the_door(void *argument)
{
    struct doorman *d = argument;
    struct epoll_event events[64];
    int64_t looked_ms = clock_ms();
    while (!atomic_load(&d->closing)) {
        bool waits = !listen_if_room(d) && !atomic_load(&d->stopped), knocks = false;
        int n = epoll_wait(d->epoll, events, sizeof events / sizeof *events, waits || d->count ? ROUND_MS : -1);
        for (int i = 0; i < n; i++) {
            uint64_t who = events[i].data.u64, told;
            knocks |= who == LISTENER;
            if (who == WAKE && read(d->wake, &told, sizeof told) < 0)
                continue;
            if (who < d->o.connections && d->guests[who].socket >= 0)
                look(d, &d->guests[who], events[i].events);
        }
        if (knocks && !atomic_load(&d->stopped)) /* last: who comes in now takes the place of nobody who has an event */
            let_in(d);
        if (clock_ms() - looked_ms >= ROUND_MS) {
            looked_ms = clock_ms();
            send_late_ones_away(d);
        }
    }
    return NULL;
}

static void destroy(struct doorman *d)
{
    for (unsigned i = 0; d->guests && i < d->o.connections; i++)
        if (d->guests[i].socket >= 0)
            close(d->guests[i].socket);
    if (d->epoll >= 0)
        close(d->epoll);
    if (d->wake >= 0)
        close(d->wake);
    mem_free(d->guests);
    mem_free(d);
}

int doorman_open(const struct doorman_options *options, struct doorman **out, struct error *err)
{
    struct doorman *d = mem_zalloc(1, sizeof *d);
    if (!d)
        return error_set(err, ERR_NOMEM, "out of memory for taking connections in");
    d->o = *options;
    snprintf(d->refusal, sizeof d->refusal,
             "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
             sizeof NO_HTTP - 1, NO_HTTP);
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->guests = mem_zalloc(d->o.connections, sizeof *d->guests);
    for (unsigned i = 0; d->guests && i < d->o.connections; i++)
        d->guests[i].socket = -1;
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = WAKE}, door = {.events = 0, .data.u64 = LISTENER};
    int rc = d->epoll < 0 || d->wake < 0 || epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->wake, &wake) ||
                     epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->o.listener, &door)
                 ? errno
             : d->guests ? pthread_create(&d->thread, NULL, stand_at_the_door, d)
                         : ENOMEM;
    if (rc) {
        destroy(d);
        return error_set(err, ERR_IO, "cannot take connections in: %s", strerror(rc));
    }
    *out = d;
    return 0;
}

static void wake(struct doorman *d)
{
    uint64_t one = 1;
    while (write(d->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void doorman_stop(struct doorman *d)
{
    atomic_store(&d->stopped, true);
    wake(d);
}

void doorman_close(struct doorman *d)
{
    if (!d)
        return;
    atomic_store(&d->closing, true);
    wake(d);
    pthread_join(d->thread, NULL);
    destroy(d);
}
