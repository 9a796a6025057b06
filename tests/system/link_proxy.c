/* A TCP forwarder that makes a link longer, for kernels without netem: what comes in on one side goes out on the other
 * after a delay, with jitter that never reorders, and with pauses as long as TCP takes to notice a lost segment. One
 * thread; each direction of a connection is a bounded queue of pieces with the time at which they are due. For tests.
 *
 *     link_proxy DELAY_US JITTER_US LOSS LISTEN_ADDRESS:PORT TARGET_ADDRESS:PORT [LISTEN TARGET]...
 *
 * LOSS is the probability, 0 to 1, that a piece (one read) is delayed by 200 ms more. Prints "ready" when it listens. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"

enum { DOORS = 32, WAYS = 512, PIECES = 256, PIECE_BYTES = 16384 };
#define LOST_NS INT64_C(200000000)

struct piece {
    int64_t due_ns;
    size_t size, sent;
    char bytes[PIECE_BYTES];
};

struct way { /* one direction of a connection */
    int from, to;
    int other;        /* the way back */
    bool used, ended; /* ended: the sender has closed */
    size_t head, count;
    int64_t last_due_ns;
    struct piece *pieces;
};

static struct way ways[WAYS];
static int64_t delay_ns, jitter_ns;
static double loss;
static uint64_t draws;

static double draw(void)
{
    return (double)(hash_mix64(++draws) >> 11) * 0x1p-53;
}

static int parse_address(const char *text, struct sockaddr_in *out)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        return -1;
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    return inet_pton(AF_INET, host, &out->sin_addr) == 1 ? 0 : -1;
}

static int no_waiting(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fcntl(fd, F_SETFL, O_NONBLOCK);
}

static int listen_at(const struct sockaddr_in *where)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (const struct sockaddr *)where, sizeof *where) || listen(fd, 64) || no_waiting(fd))
        return -1;
    return fd;
}

static int free_way(void)
{
    for (int i = 0; i < WAYS; i++)
        if (!ways[i].used)
            return i;
    return -1;
}

static bool start_way(int i, int from, int to)
{
    struct piece *pieces = malloc(PIECES * sizeof *pieces);
    if (!pieces)
        return false;
    ways[i] = (struct way){.from = from, .to = to, .used = true, .pieces = pieces};
    return true;
}

static void accept_one(int door, const struct sockaddr_in *target)
{
    int from = accept4(door, NULL, NULL, SOCK_CLOEXEC), to, there, back;
    if (from < 0)
        return;
    to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (to < 0 || connect(to, (const struct sockaddr *)target, sizeof *target) || no_waiting(from) || no_waiting(to) ||
        (there = free_way()) < 0 || !start_way(there, from, to))
        goto refused;
    if ((back = free_way()) < 0 || !start_way(back, to, from)) {
        free(ways[there].pieces);
        ways[there].used = false;
        goto refused;
    }
    ways[there].other = back;
    ways[back].other = there;
    return;
refused:
    if (to >= 0)
        close(to);
    close(from);
}

static void end_connection(int i)
{
    struct way *w = &ways[i], *back = &ways[w->other];
    close(w->from);
    close(w->to);
    free(w->pieces);
    free(back->pieces);
    w->used = back->used = false;
}

static void take_in(struct way *w)
{
    while (w->count < PIECES && !w->ended) {
        struct piece *p = &w->pieces[(w->head + w->count) % PIECES];
        ssize_t n = recv(w->from, p->bytes, sizeof p->bytes, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            w->ended = true;
            return;
        }
        p->size = (size_t)n;
        p->sent = 0;
        p->due_ns = clock_ns() + delay_ns + (int64_t)(draw() * (double)jitter_ns) + (draw() < loss ? LOST_NS : 0);
        if (p->due_ns < w->last_due_ns)
            p->due_ns = w->last_due_ns;
        w->last_due_ns = p->due_ns;
        w->count++;
    }
}

/* False when the connection is over. */
static bool put_out(struct way *w, int64_t now)
{
    while (w->count && w->pieces[w->head].due_ns <= now) {
        struct piece *p = &w->pieces[w->head];
        ssize_t n = send(w->to, p->bytes + p->sent, p->size - p->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->sent += (size_t)n;
        if (p->sent < p->size)
            return true;
        w->head = (w->head + 1) % PIECES;
        w->count--;
    }
    return !(w->ended && !w->count);
}

static void run(const int *doors, const struct sockaddr_in *targets, nfds_t count)
{
    static struct pollfd fds[DOORS + 2 * WAYS];
    static int way_of[DOORS + 2 * WAYS];
    for (;;) {
        int64_t next = INT64_MAX, now = clock_ns();
        nfds_t n = 0;
        for (; n < count; n++)
            fds[n] = (struct pollfd){.fd = doors[n], .events = POLLIN};
        for (int i = 0; i < WAYS; i++) {
            struct way *w = &ways[i];
            if (!w->used)
                continue;
            if (!put_out(w, now)) {
                end_connection(i);
                continue;
            }
            if (w->count && w->pieces[w->head].due_ns > now && w->pieces[w->head].due_ns < next)
                next = w->pieces[w->head].due_ns;
            if (w->count < PIECES && !w->ended) {
                way_of[n] = i;
                fds[n++] = (struct pollfd){.fd = w->from, .events = POLLIN};
            }
            if (w->count && w->pieces[w->head].due_ns <= now) {
                way_of[n] = -1;
                fds[n++] = (struct pollfd){.fd = w->to, .events = POLLOUT};
            }
        }
        int64_t left = next == INT64_MAX ? 1000000000 : next - clock_ns();
        struct timespec wait = {.tv_sec = left > 0 ? left / 1000000000 : 0, .tv_nsec = left > 0 ? left % 1000000000 : 0};
        if (ppoll(fds, n, &wait, NULL) < 0 && errno != EINTR)
            return;
        for (nfds_t i = 0; i < n; i++) {
            if (!fds[i].revents)
                continue;
            if (i < count)
                accept_one(doors[i], &targets[i]);
            else if (way_of[i] >= 0 && ways[way_of[i]].used)
                take_in(&ways[way_of[i]]);
        }
    }
}

int main(int argc, char **argv)
{
    int doors[DOORS];
    struct sockaddr_in here, targets[DOORS];
    if (argc < 6 || argc % 2 || argc > 4 + 2 * DOORS) {
        fprintf(stderr, "usage: link_proxy DELAY_US JITTER_US LOSS LISTEN TARGET [LISTEN TARGET]...\n");
        return 2;
    }
    delay_ns = (int64_t)(atof(argv[1]) * 1e3);
    jitter_ns = (int64_t)(atof(argv[2]) * 1e3);
    loss = atof(argv[3]);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    int count = (argc - 4) / 2;
    for (int i = 0; i < count; i++) {
        if (parse_address(argv[4 + 2 * i], &here) || parse_address(argv[5 + 2 * i], &targets[i]) ||
            (doors[i] = listen_at(&here)) < 0) {
            fprintf(stderr, "link_proxy: %s to %s: %s\n", argv[4 + 2 * i], argv[5 + 2 * i], strerror(errno));
            return 1;
        }
    }
    printf("ready\n");
    fflush(stdout);
    run(doors, targets, (nfds_t)count);
    return 1;
}
