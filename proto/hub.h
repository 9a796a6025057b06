/* Private to proto/: what links, the ZAP thread and the socket monitors share.
 *
 * Threads: one hub thread answers ZAP requests and reads every socket's monitor, so that ZeroMQ's own threads never
 * wait for a busy owner. A `watch` is the meeting point of one socket: the hub thread writes what happened, the
 * socket's owner reads it. Lists, key sets and texts are guarded by hub->lock. */
#ifndef BRIGADE_PROTO_HUB_H
#define BRIGADE_PROTO_HUB_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/link.h"

#define HUB_IO_THREADS 3      /* one a plane; joining shares the control plane's */
#define HUB_NOTED_MAX 256     /* refused keys and addresses remembered, each logged once */
#define WATCH_ACCEPTED_MAX 64 /* connections whose handshake is under way, by address */

struct watch {
    struct watch *next;
    struct hub *hub;
    char monitor_name[48];    /* inproc endpoint of the socket's events */
    char where[256];          /* the endpoint, for messages */
    bool listening;
    bool attached, closed;    /* hub thread listens to the events; the owner is gone */
    int attach_error;
    _Atomic int state;        /* enum link_state */
    _Atomic unsigned connections; /* handshakes that succeeded; counted before the state says so */
    _Atomic bool broken;      /* ZeroMQ gave this connection up: the owner has to connect again */
    char text[192];           /* why, for a person; hub->lock */
    /* Hub thread only. */
    void *monitor;
    struct {
        int fd;
        char address[64];
    } accepted[WATCH_ACCEPTED_MAX];
    char refusal[128];        /* of a handshake that failed; the next disconnection tells whose */
    bool hung_up;             /* that one ended by itself, so nothing was refused */
};

struct hub {
    void *context;
    const struct node_key *key;
    pthread_t thread;
    struct waker *waker;
    pthread_mutex_t lock;
    pthread_cond_t attached;
    struct watch *watches;
    unsigned watch_count;
    struct {
        char (*keys)[KEY_TEXT];
        size_t count;
    } allowed[PLANE_COUNT];
    _Atomic bool guests;      /* any key may use PLANE_JOIN */
    _Atomic uint64_t refused;
    _Atomic int links;        /* open ones */
    /* Hub thread and link_receive, under lock. */
    char noted[HUB_NOTED_MAX][64];
    size_t noted_count;
};

/* What each plane is called, in messages and as a ZAP domain. */
extern const char *const hub_plane_names[PLANE_COUNT];
/* Whether the key may use our listening sockets of a plane. */
bool hub_knows(struct hub *hub, enum link_plane plane, const char *public_key);
/* Counts a refusal and logs it unless `who` was logged before. */
void hub_refuse(struct hub *hub, const char *who, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Logs, at info and uncounted, a connection that came to nothing, unless `who` was logged before. */
void hub_notice(struct hub *hub, const char *who, const char *what);

/* Puts a socket under watch (hub thread attached to its events when this returns) and back. */
int watch_open(struct hub *hub, void *socket, const char *where, bool listening, struct watch **out,
               struct error *err);
void watch_close(struct watch *w, void *socket);
/* Hub thread: takes in every event that waits. */
void watch_read_events(struct watch *w);

/* How long the owner may sleep before this link wants a look (a refused one connects again), -1: for ever. */
int link_patience_ms(struct link *l);
/* Readable when ZeroMQ has something to see to for this socket, once link_ask has said no. */
int link_events(const struct link *l);
/* 1 when a message waits, 0 when none does, ERR_IO. */
int link_ask(struct link *l);

int waker_fd(const struct waker *w);
void waker_clear(struct waker *w);

#endif
