/* What cluster.c, cluster_nodes.c, cluster_phases.c and cluster_recovery.c share: the state behind `struct cluster`.
 * Nobody else includes this. */
#ifndef BRIGADE_COORDINATOR_CORE_CLUSTER_STATE_H
#define BRIGADE_COORDINATOR_CORE_CLUSTER_STATE_H

#include "coordinator/core/cluster.h"

#define NEVER INT64_MAX
#define BEATS_KEPT 64
#define FIRST_BEATS 12

struct member {
    struct cluster_node node;
    uint64_t machine;         /* what it calls the machine it runs on; 0: it does not say */
    uint32_t host;            /* index of the first node on the same machine, by its endpoint or by what it says */
    uint64_t request;         /* the one that is open; 0: none */
    int64_t deadline;         /* of what it is doing; NEVER: nothing is awaited */
    int64_t next_beat;        /* when the next heartbeat goes out; NEVER before the Welcome */
    uint64_t beat, answered;  /* the last heartbeat sent, and the latest one that was answered */
    int64_t sent_us[BEATS_KEPT]; /* when, by number modulo BEATS_KEPT */
    int64_t unanswered_since; /* when the one after `answered` went out; 0: none is open */
    uint32_t pair;            /* while measuring */
    int64_t greet_at;         /* when to say Hello again to a lost one; NEVER */
    int64_t shunned_until;    /* no plan uses it before; 0: not shunned */
    uint32_t failures;        /* since its Welcome */
    bool had;                 /* blocks had_first to had_last, in the epoch that was ready last */
    uint32_t had_first, had_last;
    bool leaves;              /* others were told, since then, to fetch pages from it */
    uint64_t ready_beat;      /* the last heartbeat sent when its stage became ready */
};

struct pair {
    uint32_t a, b;
    bool under_way, known, measured;
    double bytes_per_s, rtt_seconds; /* a to b */
    double back_bytes_per_s;         /* b to a; 0: the same */
    int64_t broken_until;     /* the two cannot reach each other, as it seems; 0: no such news */
};

struct cluster {
    enum cluster_goal goal;
    enum cluster_phase phase;
    bool profile, alike, plan_asked;
    char model[FRAME_TEXT_MAX], coordinator_key[KEY_TEXT];
    uint64_t fingerprint;
    uint32_t kv_type, context, chunk;
    uint64_t token_bytes;
    int64_t heartbeat_us, lost_us, connect_us, quiet_us;
    int64_t last_tick, attach_deadline;
    uint64_t epoch, next_request;
    bool attached[2];         /* first stage, last stage */
    bool data_open;
    /* recovery */
    bool recover, stay, served, interrupted, gave_up, news;
    int64_t now_us;           /* of this step */
    int64_t rejoin_us, settle_us, settle_at, settle_until, interrupted_at, rejoin_deadline;
    uint32_t recoveries, attach_failures;
    char outage[FRAME_TEXT_MAX];
    struct cluster_load load;
    struct cluster_stage *stages; /* load.stages */
    struct control_held *fetch;   /* of the load messages of this step, and from whom; room for 2 · member_count */
    struct control_neighbour *fetch_from;
    uint32_t member_count, pair_count;
    struct member *members;
    struct pair *pairs;       /* every unordered pair of nodes */
    char (*keys)[FRAME_KEY_TEXT]; /* of all nodes and the coordinator: who may use the data plane */
    struct cluster_actions *out; /* during a step */
};

/* Room for it was made at the start of the step. */
struct cluster_action *cluster_act(struct cluster *c, enum cluster_action_kind kind, uint32_t node);
void cluster_report(struct cluster *c, uint32_t node, const char *what, uint64_t done, uint64_t total);
/* Ends it all with a line. */
void cluster_fail(struct cluster *c, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* `worker "name"` was lost: says why and while doing what. */
void cluster_lose(struct cluster *c, uint32_t node, const char *why);
/* `worker "name" ` + text: the work cannot go on as it is. Before the first epoch was ready, or without recovery, that is
 * the end with `code`; else a new epoch is prepared. */
void cluster_interrupt(struct cluster *c, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* No plan uses it for a while. */
void cluster_shun(struct cluster *c, uint32_t node, int64_t for_us);
/* A failure that a worker reports. */
void cluster_failure(struct cluster *c, uint32_t node, const struct control_message *msg, bool answers);
/* A lost node that is there again in part: it is asked once more later. */
void cluster_refuse_greeting(struct cluster *c, uint32_t node, const char *why);
void cluster_unplanned(struct cluster *c, const struct error *why);
/* What comes due by itself while recovering; and what begins then. */
void cluster_recovery_tick(struct cluster *c);
void cluster_recovery_advance(struct cluster *c);
int64_t cluster_recovery_next(const struct cluster *c);
bool cluster_recovers(const struct cluster *c);
void cluster_what_it_did(const struct cluster_node *n, enum node_state state, char *text, size_t size);
/* Which nodes share a machine, after one has said. */
void cluster_find_hosts(struct cluster *c);
struct pair *cluster_pair(const struct cluster *c, uint32_t a, uint32_t b); /* NULL for a node with itself */

/* It is there but of no use; `code` and a text that follows the worker's name. */
void cluster_refuse(struct cluster *c, uint32_t node, int code, const char *text);

/* cluster_phases.c: begins whatever can begin now. */
void cluster_advance(struct cluster *c, int64_t now_us);
/* The other nodes no longer let this one in. */
void cluster_forget_key(struct cluster *c, uint32_t node);
void cluster_greet(struct cluster *c, uint32_t node);
void cluster_welcome(struct cluster *c, uint32_t node, const struct control_message *m, int64_t now_us);
void cluster_start_loading(struct cluster *c, int64_t now_us);

#endif
