/* epoll over the sockets of all connections, for the peer's end only. A seat for each descriptor says which connection
 * has it now, so that an event that comes late touches no other one. */
#include "coordinator/api/hangup.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

#define SEATS_AT_ONCE 64 /* more when they are all taken */
#define REMIND_MS 20     /* between two events for a connection whose client has ended */

struct seat {
    uint32_t visit;  /* 0: empty */
    bool ended;      /* the client sends no more */
    uint64_t number; /* whose reply is waited for; 0: nobody's */
};

struct hangup_watch {
    int epoll, stop; /* stop: an eventfd, with visit 0 in the set */
    pthread_t thread;
    void (*gone)(void *context, uint64_t number);
    void *context;
    pthread_mutex_t lock; /* what follows; held while a socket is shut, so that it is not closed meanwhile */
    struct seat *seats;   /* by descriptor */
    size_t seat_count, ended_count;
    uint32_t last_visit;
};

static uint64_t name_of(uint32_t visit, int socket)
{
    return (uint64_t)visit << 32 | (uint32_t)socket;
}

/* The other end of this connection is there no more. */
static void peer_ended(struct hangup_watch *w, uint64_t name)
{
    size_t socket = (uint32_t)name;
    uint64_t number = 0;
    pthread_mutex_lock(&w->lock);
    if (socket < w->seat_count && w->seats[socket].visit == name >> 32) {
        number = w->seats[socket].number;
        w->ended_count += !w->seats[socket].ended;
        w->seats[socket].ended = true;
    }
    pthread_mutex_unlock(&w->lock);
    if (number)
        w->gone(w->context, number);
}

/* Events for those who wait for one; returns whether there are any. */
static bool remind(struct hangup_watch *w)
{
    pthread_mutex_lock(&w->lock);
    size_t left = w->ended_count;
    for (size_t i = 0; left && i < w->seat_count; i++)
        if (w->seats[i].ended) {
            shutdown((int)i, SHUT_RD);
            left--;
        }
    bool any = w->ended_count > 0;
    pthread_mutex_unlock(&w->lock);
    return any;
}

static void *watch(void *argument)
{
    struct hangup_watch *w = argument;
    struct epoll_event events[64];
    for (;;) {
        int n = epoll_wait(w->epoll, events, sizeof events / sizeof *events, remind(w) ? REMIND_MS : -1);
        if (n < 0 && errno != EINTR)
            return NULL;
        for (int i = 0; i < n; i++) {
            if (!(events[i].data.u64 >> 32))
                return NULL;
            peer_ended(w, events[i].data.u64);
        }
    }
}

int hangup_open(void (*gone)(void *context, uint64_t number), void *context, struct hangup_watch **out, struct error *err)
{
    struct hangup_watch *w = mem_zalloc(1, sizeof *w);
    if (!w)
        return error_set(err, ERR_NOMEM, "out of memory for watching connections");
    w->gone = gone;
    w->context = context;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->stop = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&w->lock, NULL);
    struct epoll_event event = {.events = EPOLLIN};
    int rc = w->epoll < 0 || w->stop < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->stop, &event) ? errno : 0;
    if (!rc)
        rc = pthread_create(&w->thread, NULL, watch, w);
    if (rc) {
        if (w->epoll >= 0)
            close(w->epoll);
        if (w->stop >= 0)
            close(w->stop);
        pthread_mutex_destroy(&w->lock);
        mem_free(w);
        return error_set(err, ERR_IO, "cannot watch connections: %s", strerror(rc));
    }
    *out = w;
    return 0;
}

void hangup_close(struct hangup_watch *w)
{
    if (!w)
        return;
    uint64_t one = 1;
    while (write(w->stop, &one, sizeof one) < 0 && errno == EINTR)
        ;
    pthread_join(w->thread, NULL);
    close(w->epoll);
    close(w->stop);
    pthread_mutex_destroy(&w->lock);
    mem_free(w->seats);
    mem_free(w);
}

/* With the lock held: the seat of a descriptor, if need be among new ones. */
static struct seat *seat_of(struct hangup_watch *w, int socket)
{
    size_t at = (size_t)socket;
    if (at >= w->seat_count) {
        size_t count = at + SEATS_AT_ONCE;
        struct seat *grown = mem_resize(w->seats, count, sizeof *grown);
        if (!grown)
            return NULL;
        memset(grown + w->seat_count, 0, (count - w->seat_count) * sizeof *grown);
        w->seats = grown;
        w->seat_count = count;
    }
    return &w->seats[at];
}

/* With the lock held: tells of the peer's end once, also of one that has come. */
static bool arm(struct hangup_watch *w, int how, int socket, uint32_t visit)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = name_of(visit, socket)};
    return !epoll_ctl(w->epoll, how, socket, &event);
}

void hangup_add(struct hangup_watch *w, int socket)
{
    pthread_mutex_lock(&w->lock);
    struct seat *seat = socket < 0 ? NULL : seat_of(w, socket);
    if (seat) {
        w->last_visit += w->last_visit == UINT32_MAX ? 2 : 1; /* never 0 */
        *seat = (struct seat){.visit = arm(w, EPOLL_CTL_ADD, socket, w->last_visit) ? w->last_visit : 0};
    }
    pthread_mutex_unlock(&w->lock);
}

void hangup_expect(struct hangup_watch *w, int socket, uint64_t number)
{
    pthread_mutex_lock(&w->lock);
    if (socket >= 0 && (size_t)socket < w->seat_count && w->seats[socket].visit) {
        w->seats[socket].number = number;
        if (number)
            arm(w, EPOLL_CTL_MOD, socket, w->seats[socket].visit);
    }
    pthread_mutex_unlock(&w->lock);
}

void hangup_forget(struct hangup_watch *w, int socket)
{
    pthread_mutex_lock(&w->lock);
    if (socket >= 0 && (size_t)socket < w->seat_count && w->seats[socket].visit) {
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, socket, NULL);
        w->ended_count -= w->seats[socket].ended;
        w->seats[socket] = (struct seat){0};
    }
    pthread_mutex_unlock(&w->lock);
}
