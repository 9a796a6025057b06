/* epoll over the sockets of requests being answered, for the peer's end only. */
#include "coordinator/api/hangup.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/memory.h"

struct hangup_watch {
    int epoll, stop; /* stop: an eventfd, number 0 in the set */
    pthread_t thread;
    void (*gone)(void *context, uint64_t number);
    void *context;
};

static void *watch(void *argument)
{
    struct hangup_watch *w = argument;
    struct epoll_event events[64];
    for (;;) {
        int n = epoll_wait(w->epoll, events, sizeof events / sizeof *events, -1);
        if (n < 0 && errno != EINTR)
            return NULL;
        for (int i = 0; i < n; i++) {
            if (!events[i].data.u64)
                return NULL;
            w->gone(w->context, events[i].data.u64);
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
    struct epoll_event event = {.events = EPOLLIN};
    int rc = w->epoll < 0 || w->stop < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->stop, &event) ? errno : 0;
    if (!rc)
        rc = pthread_create(&w->thread, NULL, watch, w);
    if (rc) {
        if (w->epoll >= 0)
            close(w->epoll);
        if (w->stop >= 0)
            close(w->stop);
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
    mem_free(w);
}

int hangup_add(struct hangup_watch *w, int socket, uint64_t number)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = number};
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, socket, &event) ? ERR_IO : 0;
}

void hangup_forget(struct hangup_watch *w, int socket)
{
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, socket, NULL); /* one that was never added is fine */
}
