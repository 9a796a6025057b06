/* The door for commands and servers: a model, ready to answer, wherever it runs.
 *
 * A runner opens the model's metadata and tokenizer, brings up what computes (this process, worker processes of its own
 * on loopback, or a cluster), plans, loads, and then drives requests. It owns the loop: sockets, clock, cluster state,
 * scheduler.
 *
 * Threads. The thread that calls runner_open is the runner's thread: only it calls runner_step, runner_plan and
 * runner_close, and every callback runs on it, inside runner_open or runner_step. runner_submit, runner_cancel,
 * runner_wake and runner_status may be called by any thread, and from callbacks (runner_status not from callbacks). A
 * command calls everything from one thread; a server gives the runner a thread of its own that loops over runner_step:
 *
 *     runner_open(&options, &runner, &err);
 *     runner_submit(runner, &request, &id, &err);
 *     while (runner_busy(runner) && !(rc = runner_step(runner, 100, &err)))
 *         ;
 *     runner_close(runner); */
#ifndef BRIGADE_COORDINATOR_CORE_RUNNER_H
#define BRIGADE_COORDINATOR_CORE_RUNNER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "coordinator/core/refill_forecast.h"
#include "coordinator/core/request.h"
#include "coordinator/core/schedule.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer.h"

struct plan; /* planner/plan.h */
struct plan_problem;
struct runner;

enum runner_goal {
    RUNNER_SERVE, /* load the model and answer requests */
    RUNNER_PLAN,  /* profile and plan, load nothing: then runner_plan, runner_close */
    RUNNER_LOOK,  /* only look at the nodes, claim none, no model needed: then runner_status, runner_close */
};

#define RUNNER_CODEC_AUTO 1000 /* the plan chooses for each link: core/codecs.h */

enum runner_objective { RUNNER_LATENCY, RUNNER_THROUGHPUT, RUNNER_TTFT };

enum runner_phase {
    RUNNER_STARTING,   /* worker processes come up */
    RUNNER_CONNECTING, /* encrypted control links, who are you */
    RUNNER_PROFILING,  /* how fast is each node */
    RUNNER_MEASURING,  /* how fast is each link */
    RUNNER_PLANNING,
    RUNNER_LOADING,    /* weights */
    RUNNER_READY,
    RUNNER_FAILED,
    RUNNER_WAITING,    /* a node that is needed is gone: for it to come back */
};
const char *runner_phase_name(enum runner_phase phase); /* "profiling" */

struct runner_progress {
    enum runner_phase phase;
    const char *node;      /* which one; NULL for the whole */
    const char *what;      /* "weights", "block 3": from the node; "" when there is nothing to say */
    uint64_t done, total;  /* total 0: unknown */
};

struct runner_options {
    enum runner_goal goal;
    const char *config_path;  /* cluster.yaml; NULL: here or on loopback */
    uint32_t stages;          /* without config_path: 0 computes in this process; K starts K workers on loopback. With
                               * it: the plan must have exactly K stages; 0: as many as the planner likes */
    const char *model_path;   /* a GGUF this process can read (metadata and tokenizer); NULL only to look */
    int threads;              /* of this process or of each loopback worker; 0: a fair share of the cores */
    const uint32_t *split;    /* blocks of each stage; NULL: the planner decides. Without config_path and stages: so
                               * many stages one after the other in this process */
    uint32_t split_count;
    bool kv_given;
    enum kv_type kv;          /* with kv_given; else the config's, else f16 */
    uint32_t kv_tokens;       /* cache to admit; 0: the config's, else enough for `sequences` of max_context,
                               * up to 16384 tokens (or one context) */
    uint32_t max_context;     /* longest sequence; 0: min(what the model was trained for, 4096, kv_tokens) */
    uint32_t sequences;       /* that compute at once; 0: 16 */
    uint32_t queue;           /* requests that may wait beside those; 0: 256 */
    uint32_t chunk_tokens;    /* most prompt tokens of one micro-batch; 0: 256 */
    uint32_t microbatches;    /* in flight; 0: the plan's number */
    int codec;                /* enum frame_codec between stages, or RUNNER_CODEC_AUTO; 0: the config's, else f32 */
    bool inexact;             /* float weights: OpenBLAS may serve prefill; not the same bits for every batch. A config's
                               * `deterministic: false` asks for it too */
    bool awake;               /* idle cores of this machine do not sleep while there is work (base/awake.h) */
    bool no_recovery;         /* a lost worker ends everything; a config's `recovery: {enabled: false}` asks for it too */
    bool stay;                /* for servers: when nobody comes back, requests end, the runner waits on */
    bool rejoin_given;
    double rejoin_seconds;    /* with rejoin_given; else the config's, else 30 (our own loopback workers: 0) */
    bool predict;             /* in this process: measure it too, so that the plan predicts (others always do) */
    enum runner_objective objective;
    uint32_t prompt_tokens, output_tokens, concurrency; /* the workload planned for; 0: 512, 128, 1 */
    const char *worker_path;  /* brigade-worker for `stages`; NULL: beside this program, in the build tree, in PATH */
    void (*on_progress)(void *context, const struct runner_progress *progress); /* may be NULL */
    void *context;
    const volatile sig_atomic_t *interrupt; /* non-zero ends waits soon with ERR_CANCELLED; may be NULL */
};

/* Returns when the goal is reached. *out is the caller's: runner_close. Every failure is one line that names the file,
 * node or setting; worker processes started are gone again. */
int runner_open(const struct runner_options *options, struct runner **out, struct error *err);
/* Ends what still runs (FINISH_CANCELLED), stops worker processes, closes links. NULL is fine. */
void runner_close(struct runner *r);

/* NULL when only looking. Live as long as the runner; immutable. */
const struct model *runner_model(const struct runner *r);
const struct tokenizer *runner_tokenizer(const struct runner *r);
uint32_t runner_max_context(const struct runner *r);
/* The plan in use and the problem it solves; NULL when only looking. Borrowed, valid until the next runner_step. The
 * plan's predictions are 0 where nothing was measured (in this process without `predict`). */
const struct plan *runner_plan(const struct runner *r);
const struct plan_problem *runner_problem(const struct runner *r);
/* Micro-batches that decoding sequences are dealt into; 0 before it serves. */
uint32_t runner_microbatches(const struct runner *r);
/* Most prompt tokens of one micro-batch. */
uint32_t runner_chunk(const struct runner *r);

/* Queues a request; *id names it from now on. ERR_BUSY: the queue is full, later. ERR_BOUND: the prompt is over the
 * context (both numbers). ERR_USAGE: a setting makes no sense. ERR_LOST: the cluster has failed, or (`stay`) waits for a
 * node to come back: later. While a loss is being recovered from, requests are taken and wait. */
int runner_submit(struct runner *r, const struct request_options *request, uint64_t *id, struct error *err);
/* Ends a request soon with FINISH_CANCELLED; its pages are free at once. Unknown ids are ignored. */
void runner_cancel(struct runner *r, uint64_t id);
/* Makes a waiting runner_step return. */
void runner_wake(struct runner *r);

/* Does what there is to do, waiting for it at most timeout_ms (-1: no limit), and delivers callbacks. 0; ERR_CANCELLED
 * once the interrupt flag is set (running requests go on with the next call: cancel them or close); ERR_LOST and others
 * when the cluster failed, after every request was finished with that error. Must be called at least every few hundred
 * milliseconds while ready: heartbeats ride on it. */
int runner_step(struct runner *r, int timeout_ms, struct error *err);
/* Whether any request is queued or running. */
bool runner_busy(const struct runner *r);

/* Keeps a node out of the work, or lets it in again, and plans anew; at the next step, answers go on after a pause. Any
 * thread. ERR_NOTFOUND: no such node. ERR_INFEASIBLE: the others cannot hold the model, with the arithmetic. ERR_BUSY:
 * not while a loss is being recovered from. ERR_USAGE: no cluster computes. */
int runner_drain(struct runner *r, const char *node, bool drained, struct error *err);
/* Plans anew with what was measured while running, if that gains anything: *gain_percent, by prediction, 0 when blocks
 * stay where they are. Any thread; errors as above. */
int runner_rebalance(struct runner *r, double *gain_percent, struct error *err);

/* ---- What is going on ------------------------------------------------------------------------------------------- */

struct runner_node {
    char name[128], endpoint[256], state[16] /* "connecting" … "ready", "lost", "refused" */, detail[512];
    char public_key[48], version[64], isa[16], cpu[96];
    uint32_t machine;         /* nodes on one machine share it */
    uint32_t cores, threads;
    uint64_t memory_bytes;    /* admitted */
    uint64_t resident_bytes;
    bool has_stage;
    uint32_t stage, first_block, last_block;
    char model[256];          /* loaded there; "" for none */
    double decode_seconds, expected_seconds; /* its stage's decoding micro-batch, taken and expected, as its coordinator
                                                told it last; 0 unknown */
    uint64_t busy_us, microbatches, tokens, bytes_in, bytes_out;
    uint64_t weights_in, weights_out; /* bytes of model files received and sent since it started */
    double rtt_seconds;       /* of heartbeats; 0 unknown */
    int32_t temperature_millic;
    uint32_t refused;
    bool energy_measured;
    double joules, watts;     /* since its worker was started; now */
    char energy_source[64];   /* what measures, or why nothing does */
};

struct runner_energy {        /* of all machines, each counted once however many workers share it */
    uint32_t machines, measured;
    double joules, watts;     /* of those that are measured */
    char source[64];
};
void runner_energy_sum(const struct runner_node *nodes, uint32_t count, struct runner_energy *out);

struct runner_link {
    char from[128], to[128];
    double bytes_per_s, rtt_seconds;
    bool measured;            /* else from cluster.yaml */
};

struct runner_stage {         /* what micro-batches measured, by the stages' own clocks */
    uint64_t microbatches, tokens;
    double compute_seconds;   /* in all */
    double decode_seconds;    /* median of the last micro-batches that only decoded, one token a sequence */
    double decode_typical;    /* half of their time went into ones of this length or longer, however many short ones came
                               * before; never the longest alone. 0: fewer than two came */
    uint32_t decodes;         /* how many those were */
    double decode_sequences, decode_context; /* of them on average: how many at once, how far they looked back */
    double predicted_seconds; /* what the plan says of the same; 0 where nothing was predicted */
    double wait_seconds;      /* between having a micro-batch and starting it, in all */
};

struct runner_status {
    enum runner_phase phase;
    uint32_t recoveries;      /* since the start */
    double recovery_seconds;  /* the last one, from the first loss to work again */
    char outage[512];         /* why it does not work now; "" when it does */
    uint64_t epoch;
    uint32_t running, queued;
    uint32_t pages, pages_used;               /* all, and those that requests hold */
    uint32_t pages_idle;                      /* kept for prompts that begin like earlier ones */
    uint64_t tokens_shared;                   /* prompt tokens that were found there and not computed again */
    uint32_t microbatches, microbatches_max; /* in flight */
    uint64_t prefix_hits, prefix_misses;      /* requests that began on kept pages, and those that found none */
    uint64_t replay_kept, replay_resent, replay_computed; /* tokens of sequences that lived through a change of stages */
    uint64_t replay_fetched_bytes;            /* of KV pages that went with their blocks to other nodes */
    struct refill_forecast replay_forecast;   /* of the last change */
    uint64_t preempted;                       /* times a request had to make room for others and was computed again */
    struct scheduler_batches batches;         /* micro-batches by size */
    uint64_t tokens_in, tokens_out, requests_done, requests_failed, requests_cancelled;
    double round_seconds;     /* of a decoding micro-batch through all stages and back; median, 0 unknown */
    double hop_seconds;       /* of that, outside the stages' computing, for one of stage_count + 1 hops */
    uint32_t node_count, link_count, stage_count;
    struct runner_energy energy;
    struct runner_node *nodes;
    struct runner_link *links;
    struct runner_stage *stages;
};
int runner_status(struct runner *r, struct runner_status *out, struct error *err);
void runner_status_free(struct runner_status *s);

#endif
