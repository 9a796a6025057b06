/* What runner.c, bring_up.c, loop.c and status.c share: the state behind `struct runner`. Nobody else includes this. */
#ifndef BRIGADE_COORDINATOR_CORE_RUNNER_STATE_H
#define BRIGADE_COORDINATOR_CORE_RUNNER_STATE_H

#include <pthread.h>

#include "base/awake.h"
#include "base/energy.h"
#include "coordinator/core/cluster.h"
#include "coordinator/core/config.h"
#include "coordinator/core/offer.h"
#include "coordinator/core/pipeline.h"
#include "coordinator/core/planning.h"
#include "coordinator/core/rebalance.h"
#include "coordinator/core/refill.h"
#include "coordinator/core/refill_forecast.h"
#include "coordinator/core/roster.h"
#include "coordinator/core/runner.h"
#include "coordinator/core/schedule.h"
#include "coordinator/core/spawn.h"
#include "coordinator/core/stage_meter.h"
#include "planner/plan.h"

/* For telling what a recovery moved. */
struct layout {
    uint32_t stages;
    struct cluster_stage stage[PLAN_MAX_DEVICES];
};

struct letter {
    struct letter *next;
    struct request *request; /* a submission; else: */
    uint64_t cancel;
};

struct control_link {
    struct link *link;
    enum link_state state;   /* as last told to the cluster */
    unsigned connection;     /* while it is up: which one */
    char text[256];
    char reason[128];        /* why it cannot be reached, asked once */
    bool told;
    uint32_t offered_port;   /* of its weights plane, which weights were offered to */
};

struct runner {
    struct runner_options o; /* defaults filled in; its strings are only used while opening */
    enum kv_type kv;
    uint32_t kv_pages, max_tokens;
    enum frame_codec codec; /* unless a link has its own */
    bool may_round;
    struct model *model;
    struct tokenizer *tokenizer;

    struct config *config;
    struct roster roster;             /* who is still in its file */
    struct node_key *key;
    struct hub *hub;
    struct rehearsal *rehearsal;      /* of hops; NULL: none */
    struct spawn *spawn;
    struct offer *offer;              /* of the model's weights; NULL: to nobody */
    struct cluster *cluster;          /* NULL: in this process */
    struct cluster_actions actions;
    uint32_t control_count;
    struct control_link *controls;    /* one a node */
    uint32_t explained;
    struct link **wait_links;         /* room for all links, and which are ready */
    bool *wait_ready;

    struct plan_problem *problem;
    struct plan plan;
    bool planned;
    double own_read_bytes_per_s;      /* of this machine's memory, when our workers share it; 0: not measured */
    double *corrections;              /* of profiles, one a node, learnt from running stages; NULL before the first plan */
    double *token_rtt_seconds;        /* one a node, measured before the first plan; NULL before */

    struct energy_meter *energy;      /* of this machine, when it computes itself */
    struct waker *waker;
    struct pipeline *pipe;            /* NULL until stages are loaded */
    bool remote;
    uint64_t pipe_epoch;
    bool attach_told[2];
    struct scheduler *scheduler;
    uint32_t groups;                  /* micro-batches that decoding sequences are dealt into */
    struct refill *refill;            /* what stages hold when they have loaded; NULL before the first were ready */
    struct scheduler_restored restored; /* by the last recovery */
    struct refill_forecast forecast;  /* and what that was expected to take */
    uint64_t fetched_bytes;           /* of KV pages, by nodes that took over blocks, since the start */
    struct stage_meter *meter;
    int64_t next_deadline;            /* of any request */

    enum runner_phase phase;
    bool reached;
    bool flowing;                     /* micro-batches may be sent: the epoch is ready */
    bool came_to_serve;               /* it was ready once */
    uint32_t barren;                  /* epochs in a row that brought no result */
    bool fruitful;                    /* the present one did */
    double recovery_seconds;          /* of the last recovery */
    struct layout layout, old_layout; /* which node holds which blocks, in this epoch and the one before */
    double planned_corrections[CLUSTER_NODES_MAX]; /* as they were when the plan was made */
    bool moves, back;                 /* the next plan is free to move blocks; goes back to the old layout */
    struct rebalance rebalance;
    int64_t children_at;              /* when to look at worker processes of ours again */
    int64_t rebalance_at;             /* when to look again */
    int64_t slowness_at;              /* the same, for stages that crawl */
    struct scheduler_extent slowness_widest[2]; /* what was under way at most: in this second, and in the one before */
    int64_t slowness_widest_at;       /* when this one began */
    char asked_move[160];             /* a person's wish to plan again, for the log; "" none */
    struct awake awake;               /* while micro-batches are under way, if that was asked for */
    struct error failure;             /* code 0 while all is well */
    bool progressed;                  /* this pass gave the caller something to look at */

    pthread_mutex_t state_lock;       /* all of the above, against runner_status */
    pthread_mutex_t mail_lock;        /* what follows */
    struct letter *mail, **mail_end;
    uint64_t next_id;
    uint32_t inside;                  /* requests in the mailbox, queued or running */
    bool closed;                      /* no more submissions */
    struct error closed_why;
};

/* runner.c */
void runner_enter_phase(struct runner *r, enum runner_phase phase);
void runner_tell(struct runner *r, const char *node, const char *what, uint64_t done, uint64_t total);
/* Submissions fail with this reason until runner_reopen. */
void runner_refuse(struct runner *r, const struct error *why);
void runner_reopen(struct runner *r);
int runner_interrupted(const struct runner *r, struct error *err);
/* Scheduler, meter and so on for a plan of `stages` stages. */
int runner_prepare(struct runner *r, uint32_t stages, struct error *err);

/* bring_up.c: whatever computes, up to the goal. */
int bring_up_here(struct runner *r, struct error *err);
int bring_up_cluster(struct runner *r, struct error *err);
/* Answers the cluster's question for a plan from what it has measured. */
int bring_up_plan(struct runner *r, struct cluster_load *load, struct cluster_stage *stages, struct error *err);

/* replan.c: what the planner is told, whether any plan exists for the nodes that may be used now, and how much better
 * (0.1: 10 %) the best one would be than what runs; false when that is not known. */
struct planning_input replan_input(const struct runner *r);
int replan_possible(const struct runner *r, struct error *err);
bool replan_gain(struct runner *r, double *gain);
/* Each worker is told, with its next heartbeat, what its stage takes and what was expected of it. */
void replan_tell_pace(struct runner *r);

/* recovery_line.c: stages have changed; r->layout and r->old_layout are the new ones and those before. */
void runner_tell_recovery(struct runner *r);

/* loop.c: one round over everything that can be done without waiting; then the wait. */
int loop_pass(struct runner *r, struct error *err);
int loop_wait(struct runner *r, int64_t until_us, struct error *err);

#endif
