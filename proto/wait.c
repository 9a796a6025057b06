/* Waiting for several links at once, and being rung out of it by another thread (an eventfd). */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

/* How long to sleep: no longer than a link wants to be looked after (a refused one connects again). */
static int patience_ms(struct link *const *links, size_t count, int64_t end)
{
    int64_t left = end == INT64_MAX ? INT_MAX : end - clock_ms();
    left = left < 0 ? 0 : left < INT_MAX ? left : INT_MAX;
    for (size_t i = 0; i < count; i++) {
        int patience = link_patience_ms(links[i]);
        if (patience >= 0 && patience < left)
            left = patience;
    }
    return (int)left;
}

/* ZeroMQ's own poll asks every socket, with some system calls each, before and after it sleeps; while tokens are under way
 * that is a good part of a hop. So only those are asked that may have something by what we know, or whose descriptor says. */
int link_wait(struct link *const *links, size_t count, struct waker *waker, int timeout_ms, bool *ready)
{
    struct pollfd fds[WAIT_LINKS_MAX + 1];
    if (count > WAIT_LINKS_MAX)
        return ERR_BOUND;
    int64_t end = timeout_ms < 0 ? INT64_MAX : clock_ms() + timeout_ms;
    for (size_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = link_events(links[i]), .events = POLLIN};
    if (waker)
        fds[count] = (struct pollfd){.fd = waker->fd, .events = POLLIN};
    for (bool slept = false;; slept = true) {
        int links_ready = 0, left = patience_ms(links, count, end);
        for (size_t i = 0; i < count; i++) {
            int has = link_may_have(links[i]) || (slept && fds[i].revents) ? link_ask(links[i]) : 0;
            if (has < 0)
                return has;
            links_ready += ready[i] = has;
        }
        bool rung = slept && waker && fds[count].revents;
        if (rung)
            waker_clear(waker);
        if (links_ready || rung || (slept && end != INT64_MAX && clock_ms() >= end))
            return links_ready;
        if (poll(fds, count + (waker != NULL), left) < 0)
            return errno == EINTR ? 0 : ERR_IO;
    }
}
