/* What the worker's threads share. The control thread (the program's first) owns the control socket, answers
 * heartbeats within milliseconds whatever else goes on, and hands jobs over; the compute thread owns the data sockets,
 * the stage and its sequences. They meet in two mailboxes, a few atomic counters, and the description of what is
 * loaded, under vitals->lock. */
#ifndef BRIGADE_WORKER_WORKER_H
#define BRIGADE_WORKER_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/awake.h"
#include "base/energy.h"
#include "engine/threads.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "worker/mailbox.h"
#include "worker/options.h"

enum worker_state { WORKER_IDLE, WORKER_LOADING, WORKER_READY, WORKER_DRAINING }; /* as HeartbeatReply numbers them */

struct vitals {
    _Atomic uint64_t busy_us, microbatches, tokens, bytes_in, bytes_out;
    _Atomic uint64_t weights_in, weights_out; /* bytes of model files received and sent */
    _Atomic int64_t busy_since_us; /* when the micro-batch that is computed now was begun; 0: none is */
    _Atomic uint64_t decode_ns, expected_ns; /* of this stage, as the coordinator that commands told; 0 unknown */
    _Atomic uint64_t dropped;      /* data frames not taken: stale, malformed, not allowed */
    _Atomic uint32_t state;        /* enum worker_state */
    _Atomic bool interrupt;        /* something newer waits: a load under way may stop */
    _Atomic bool finished;         /* the compute thread has drained and ended */
    pthread_mutex_t lock;
    uint64_t epoch;                /* the newest that a load was asked for */
    bool has_loaded;
    struct control_loaded_stage loaded;
};

struct worker {
    const struct worker_options *options;
    const struct node_key *key;
    struct hub *hub;
    struct link *control;          /* control thread's */
    struct link *data;             /* compute thread's once it runs */
    struct link *weights;          /* weights thread's once it runs */
    struct slices *slices;
    struct left *left;             /* pages of blocks that others have now; its own lock */
    struct mailbox jobs;           /* control → compute */
    struct mailbox replies;        /* compute → control */
    struct vitals vitals;
    struct cpu_info cpu;
    struct energy_meter *energy;   /* any thread reads it */
    uint64_t admitted_bytes;       /* for a stage */
    _Atomic int threads;           /* of the pool, once it runs */
    struct awake awake;            /* compute thread's once it runs */
    double slowdown;               /* --throttle, BRIGADE_TEST_SLOWDOWN, else 1; compute thread's once it runs */
    const char *slowdown_file;     /* BRIGADE_TEST_SLOWDOWN=@FILE: read again before every micro-batch; NULL: none */
};

/* The control thread's loop: returns when the worker has drained after a signal (or the compute thread gave up). */
int control_run(struct worker *w, const volatile int *stop_signals);
/* slowdown.c: how many times as long work is to take, first by options and environment, then by what the file says now.
 * Before the compute thread runs; after that, by that thread. */
void worker_slowdown_read(struct worker *w);
double worker_slowdown(struct worker *w);
/* The compute thread. */
void *compute_thread(void *worker);

#endif
