/* Waiting for several links at once, and being rung out of it by another thread (an eventfd). */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <zmq.h>

#include "base/clock.h"
#include "base/memory.h"
#include "proto/hub.h"

#define WAIT_LINKS_MAX 512

struct waker {
    int fd;
};

int waker_create(struct waker **out, struct error *err)
{
    struct waker *w = mem_zalloc(1, sizeof *w);
    if (!w)
        return error_set(err, ERR_NOMEM, "no memory for an event");
    if ((w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0) {
        mem_free(w);
        return error_set(err, ERR_IO, "cannot make an event: %s", strerror(errno));
    }
    *out = w;
    return 0;
}

void waker_ring(struct waker *w)
{
    uint64_t one = 1;
    ssize_t done = write(w->fd, &one, sizeof one);
    (void)done; /* full means it is ringing already */
}

int waker_fd(const struct waker *w)
{
    return w->fd;
}

void waker_clear(struct waker *w)
{
    uint64_t count;
    ssize_t done = read(w->fd, &count, sizeof count);
    (void)done;
}

void waker_destroy(struct waker *w)
{
    if (!w)
        return;
    close(w->fd);
    mem_free(w);
}

int link_wait(struct link *const *links, size_t count, struct waker *waker, int timeout_ms, bool *ready)
{
    zmq_pollitem_t items[WAIT_LINKS_MAX + 1];
    if (count > WAIT_LINKS_MAX)
        return ERR_BOUND;
    int64_t end = timeout_ms < 0 ? INT64_MAX : clock_ms() + timeout_ms;
    for (;;) {
        int64_t left = end == INT64_MAX ? INT64_MAX : end - clock_ms();
        if (left < 0)
            left = 0;
        /* Sleep no longer than a link wants to be looked after (a refused one connects again). */
        for (size_t i = 0; i < count; i++) {
            int patience = link_patience_ms(links[i]);
            if (patience >= 0 && patience < left)
                left = patience;
            ready[i] = false;
            items[i] = (zmq_pollitem_t){.socket = link_socket(links[i]), .events = ZMQ_POLLIN};
        }
        if (waker)
            items[count] = (zmq_pollitem_t){.fd = waker->fd, .events = ZMQ_POLLIN};
        int n = zmq_poll(items, (int)(count + (waker != NULL)), left == INT64_MAX ? -1 : (long)left);
        if (n < 0)
            return errno == EINTR ? 0 : ERR_IO;
        bool rung = waker && items[count].revents;
        if (rung)
            waker_clear(waker);
        int links_ready = 0;
        for (size_t i = 0; i < count; i++)
            links_ready += ready[i] = items[i].revents & ZMQ_POLLIN;
        if (links_ready || rung || (end != INT64_MAX && clock_ms() >= end))
            return links_ready;
    }
}
