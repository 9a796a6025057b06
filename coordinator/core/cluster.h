/* The cluster's logic as a pure step: (state, event, now) → state and actions.
 *
 * It owns no socket, clock, file or global, and allocates nothing but its own state, so tests run whole clusters in
 * simulated time. The loop (loop.c) turns what happens into events and carries out the actions, in order.
 *
 *     connecting → greeting → idle → profiling → measuring → (plan) → loading → loaded → ready       a node
 *                                any of them → lost | refused
 *
 * Until it is ready for the first time, every way to fail ends in one CLUSTER_FAILED action with a line that names the
 * node and what it was doing. Afterwards, with `recover`, a loss interrupts the work and a new epoch begins:
 *
 *     ready → settling → planning → loading → attaching → ready      the whole
 *                           ↓   ↑ a node returns
 *                         waiting → (rejoin_us) → failed, or with `stay` waiting on
 *
 * A node that was lost is greeted again when it answers, and is a spare until the next plan. Every wait has a deadline.
 * Replies are matched to the one request a node has open, so late and repeated ones are harmless; an epoch numbers each
 * loading of stages, and what belongs to an older one is ignored. One owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_CLUSTER_H
#define BRIGADE_COORDINATOR_CORE_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/frame.h"
#include "proto/link.h"

#define CLUSTER_NODES_MAX 256u

struct cluster;

enum cluster_goal { CLUSTER_SERVE, CLUSTER_PLAN, CLUSTER_LOOK };

enum cluster_phase {
    CLUSTER_CONNECTING, CLUSTER_PROFILING, CLUSTER_MEASURING,
    CLUSTER_SETTLING,   /* something was lost: what else is? */
    CLUSTER_PLANNING,
    CLUSTER_WAITING,    /* no plan is possible now: for a node to return */
    CLUSTER_LOADING, CLUSTER_ATTACHING,
    CLUSTER_IS_READY,   /* serving, or the lesser goal is reached */
    CLUSTER_HAS_FAILED
};

enum node_state {
    NODE_CONNECTING,    /* no encrypted connection yet */
    NODE_GREETING,      /* Hello is out */
    NODE_IDLE,          /* welcomed */
    NODE_PROFILING,
    NODE_MEASURING,     /* its link to another node */
    NODE_LOADING,
    NODE_LOADED,
    NODE_READY,
    NODE_LOST,          /* gone */
    NODE_REFUSED,       /* it is there, but we cannot work together */
};
const char *node_state_name(enum node_state state);

struct cluster_node_options {
    const char *name, *endpoint, *public_key;
    uint64_t memory_cap;          /* 0: none */
};

struct cluster_link_options {     /* known beforehand, not measured */
    uint32_t from, to;
    double bytes_per_s, rtt_seconds;
};

struct cluster_options {
    enum cluster_goal goal;
    const struct cluster_node_options *nodes; /* copied */
    uint32_t node_count;
    const struct cluster_link_options *links; /* copied */
    uint32_t link_count;
    const char *coordinator_key;  /* our public key, Z85 */
    const char *model;            /* file name, as workers find it */
    uint64_t fingerprint;
    uint32_t kv_type, context, chunk; /* for the device profile */
    uint64_t token_bytes;         /* of one token's activations, for measuring links; 0: unknown */
    bool profile;                 /* measure devices and links; else straight to planning */
    bool alike;                   /* the nodes are equal shares of one machine: measuring one device serves for all */
    int64_t heartbeat_us, lost_us;
    int64_t connect_us;           /* for connecting and greeting; 0: 4 s */
    int64_t quiet_us;             /* longest silence of a node that profiles, measures or loads; 0: 60 s */
    bool recover;                 /* once ready, losses begin a new epoch instead of ending everything */
    bool stay;                    /* with it: rejoin_us ends the requests that wait, not the cluster */
    int64_t rejoin_us;            /* with it: how long to wait when those that are left cannot hold the model */
    int64_t settle_us;            /* between a loss and the new plan, for the news to arrive; 0: 150 ms */
};

/* What a plan says, as far as the cluster cares. */
struct cluster_stage {
    uint32_t node, first_block, last_block;
    enum frame_codec codec; /* of what it sends to the next stage; CODEC_NONE: f32 */
};
struct cluster_load {
    uint32_t stage_count;
    const struct cluster_stage *stages; /* copied */
    uint32_t kv_type, kv_pages, max_tokens, max_context, max_sequences;
    uint64_t keep_bytes;                /* of rows that a stage may keep, to send them again */
    bool inexact;                       /* float prefill may use OpenBLAS */
    uint32_t page_count;                /* KV pages, and the running token hash after each, that nodes which take over
                                           blocks may fetch from those that had them; borrowed during the step */
    const uint32_t *pages;
    const uint64_t *hashes;
};

enum cluster_event_kind {
    CLUSTER_TICK,       /* time has passed; all that came before has been told */
    CLUSTER_LINK,       /* node, link, text: the control link's state */
    CLUSTER_MESSAGE,    /* node, message */
    CLUSTER_BAD,        /* node, error: bytes that are no message of our version */
    CLUSTER_PLANNED,    /* load */
    CLUSTER_UNPLANNED,  /* error */
    CLUSTER_ATTACHED,   /* epoch, last: the first (false) or last (true) stage greets us on the data plane */
    CLUSTER_STALLED,    /* a micro-batch has been under way for `stalled_us` */
    CLUSTER_BROKEN,     /* epoch, last, text: the data connection to the first or last stage closed */
    CLUSTER_REVOKED,    /* node, text: it is no longer one of us; the others are told not to let it in */
    CLUSTER_REPLAN,     /* text: plan again with all that are there now, though nothing was lost */
};

struct cluster_event {
    enum cluster_event_kind kind;
    uint32_t node;
    enum link_state link;
    const char *text;
    const struct control_message *message; /* borrowed; not freed */
    const struct error *error;
    const struct cluster_load *load;
    uint64_t epoch;
    bool last;
    int64_t stalled_us;
};

enum cluster_action_kind {
    CLUSTER_SEND,         /* message to node */
    CLUSTER_NEED_PLAN,    /* answer with CLUSTER_PLANNED or CLUSTER_UNPLANNED */
    CLUSTER_OPEN_DATA,    /* connect data links of `epoch` to the first and last stage (nodes `node` and `other`) */
    CLUSTER_CLOSE_DATA,   /* and drop what is under way of `epoch` */
    CLUSTER_REPORT,       /* progress of node (or of the whole: CLUSTER_NODES_MAX): what, done, total */
    CLUSTER_REACHED,      /* the goal; epoch; after a recovery `done` is how many microseconds it took */
    CLUSTER_TROUBLE,      /* error: something was lost or came back; only to be told */
    CLUSTER_GIVE_UP,      /* error: what waits is to end with it; the cluster goes on waiting (`stay`) */
    CLUSTER_FAILED,       /* error; nothing follows it */
};

struct cluster_action {
    enum cluster_action_kind kind;
    uint32_t node, other;
    uint64_t epoch, done, total;
    char what[64];
    struct control_message message; /* its arrays belong to the cluster: encode before the next step, do not free */
    struct error error;
};

struct cluster_actions {  /* start from {0}; the step appends; cluster_actions_free at the end */
    struct cluster_action *list;
    size_t count, capacity;
};
void cluster_actions_free(struct cluster_actions *a);

int cluster_create(const struct cluster_options *o, int64_t now_us, struct cluster **out, struct error *err);
void cluster_destroy(struct cluster *c); /* NULL is fine */

/* 0, or ERR_NOMEM: then the state has not seen the event. */
int cluster_step(struct cluster *c, const struct cluster_event *event, int64_t now_us, struct cluster_actions *out,
                 struct error *err);
/* When the next CLUSTER_TICK is due. */
int64_t cluster_next_tick(const struct cluster *c);

/* ---- What it knows ------------------------------------------------------------------------------------------------ */

struct cluster_node {
    char name[128], endpoint[256], public_key[KEY_TEXT];
    uint64_t memory_cap;
    enum node_state state;
    char detail[FRAME_TEXT_MAX];        /* why it is lost or refused, or what its connection says */
    bool welcomed, profiled;
    bool linked;                        /* its control connection stands */
    bool drained;                       /* not to be used until told otherwise */
    bool slow;                          /* its stage takes far longer than planned, though it answers */
    /* of Welcome */
    char program_version[64], isa[16], cpu[96];
    uint32_t cores, threads, data_port, weights_port, kernels_version;
    uint64_t memory_bytes;              /* admitted, the cap applied */
    bool has_loaded;
    struct control_loaded_stage loaded;
    /* of Profile; its cells belong to the cluster. When nodes are alike, only the one named by profile_of has one. */
    struct control_message profile;
    uint32_t profile_of;
    /* of the last heartbeat */
    double rtt_seconds;                 /* the least seen; 0 unknown */
    struct control_message heartbeat;   /* CONTROL_HEARTBEAT_REPLY once there was one */
    bool has_stage;                     /* in the present epoch */
    uint64_t decode_ns, expected_ns;    /* of that stage, told it with heartbeats: cluster_set_pace; 0 unknown */
    uint32_t stage, first_block, last_block;
    uint64_t stage_bytes;               /* it says it holds */
    uint64_t read_bytes;                /* of weights that it read for that, the rest it had */
    uint64_t fetched_bytes;             /* of KV pages that it took over from other nodes */
};

/* Whether a plan may use it now: it is there, was measured, and nothing speaks against it. */
bool cluster_node_usable(const struct cluster *c, uint32_t node);
/* Since the first loss of the present outage; empty when all is well. */
const char *cluster_outage(const struct cluster *c);
uint32_t cluster_recoveries(const struct cluster *c);
/* Keeps a node out of plans, or lets it in again; takes effect with the next plan (CLUSTER_REPLAN). */
void cluster_set_drained(struct cluster *c, uint32_t node, bool drained);
void cluster_set_slow(struct cluster *c, uint32_t node, bool slow);
/* What the node's stage takes for a decoding micro-batch and what the plan expects; its worker is told, for others to see. */
void cluster_set_pace(struct cluster *c, uint32_t node, double decode_seconds, double expected_seconds);

enum cluster_phase cluster_phase_of(const struct cluster *c);
uint64_t cluster_epoch(const struct cluster *c);
uint32_t cluster_node_count(const struct cluster *c);
const struct cluster_node *cluster_node_at(const struct cluster *c, uint32_t node);
/* Nodes of one machine, by the host in their endpoints or by what their workers say, have the same number. */
uint32_t cluster_node_host(const struct cluster *c, uint32_t node);
/* "tcp://host:port" of a node's data plane; needs its Welcome. */
void cluster_data_endpoint(const struct cluster *c, uint32_t node, char *text, size_t size);
/* The same of its weights plane; false when it has none. */
bool cluster_weights_endpoint(const struct cluster *c, uint32_t node, char *text, size_t size);
/* The node that had a block when all was well, still answers, and can hand its KV pages to this one, which is to have the
 * block now; CLUSTER_NODES_MAX: none. */
uint32_t cluster_page_source(const struct cluster *c, uint32_t block, uint32_t node);
/* Rate from one to the other, and round trip; false when unknown. */
bool cluster_link_between(const struct cluster *c, uint32_t from, uint32_t to, double *bytes_per_s,
                          double *rtt_seconds, bool *measured);
/* Sleepers wake the later the longer they slept, so links are measured with pauses like those between this model's
 * micro-batches: as long as a few of its blocks take on a node. Microseconds; 0 when that is not known. */
uint32_t cluster_pause_us(const struct cluster *c, uint32_t node);
/* The node of a stage of the present epoch; CLUSTER_NODES_MAX when there is none. */
uint32_t cluster_stage_node(const struct cluster *c, uint32_t stage);
uint32_t cluster_stage_count(const struct cluster *c);

#endif
