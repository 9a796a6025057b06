/* Whole clusters in simulated time: the coordinator's real cluster step and scheduler, and workers made of their real
 * pure parts (claim, session, table of sequences), on a network and under accidents drawn from a seed. The same seed
 * gives the same schedule, event by event.
 *
 * The model's token after some tokens is a function of these tokens, so each answer is known beforehand; a block's
 * cache is the running token hash of every position it computed, and a row of activations is that hash with the boundary it
 * crosses, so that a block that builds on anything else, or is given anything else, is seen at once. One world, one thread. */
#ifndef BRIGADE_TESTS_SIM_H
#define BRIGADE_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/cluster.h"
#include "coordinator/core/job.h"
#include "coordinator/core/refill.h"
#include "coordinator/core/schedule.h"
#include "engine/model/sequence.h"
#include "engine/model/stage.h"
#include "execution/held_pages.h"
#include "execution/kept_rows.h"
#include "execution/left_pages.h"
#include "worker/claim.h"
#include "worker/session.h"

enum {
    SIM_NODES = 5,
    SIM_BLOCKS = 12,
    SIM_REQUESTS = 10,
    SIM_PAGES = 14,
    SIM_CONTEXT = 128,
    SIM_SEQUENCES = 4,
    SIM_CHUNK = 36,
    SIM_VOCABULARY = 1000,
    SIM_WIDTH = 8,
    SIM_FAULTS = 6,
    SIM_MAILS = 1 << 14,
    SIM_COORDINATOR = SIM_NODES /* as the sender or receiver of something */
};

#define SIM_S(seconds) ((int64_t)((seconds)*1e6))

/* A control message in few bytes. */
struct note {
    enum control_kind kind;
    uint64_t epoch, request, a, b;
    uint32_t stage, stages, first, last, previous, next; /* nodes by number; next: SIM_COORDINATOR for none */
    int code;
    bool claim, leave;
    uint32_t fetch_count, page_count; /* runs of blocks and the nodes that had them; pages worth fetching */
    struct {
        uint32_t first, last, from;
    } fetch[2 * SIM_NODES];
    uint32_t pages[SIM_PAGES];
    uint64_t hashes[SIM_PAGES];
};

enum mail_kind {
    MAIL_NOTE_TO_NODE,
    MAIL_NOTE_TO_CLUSTER,
    MAIL_LINK, /* control plane */
    MAIL_WORK,
    MAIL_ATTACH,
    MAIL_ATTACHED,
    MAIL_RESULT, /* data plane */
    MAIL_LOADED,
    MAIL_TEND, /* a worker's own timers */
    MAIL_LATE,
    MAIL_WANT, /* weights plane: what a block held */
    MAIL_PAGES,
    MAIL_FAULT,
    MAIL_HEAL,
    MAIL_REQUEST,
    MAIL_CANCEL,
    MAIL_RESTART /* what the schedule holds */
};

/* Something that will happen. */
struct mail {
    int64_t at;
    uint64_t order; /* of equal times, the earlier sent */
    enum mail_kind kind;
    uint32_t from, to;
    uint64_t connection; /* it travels on; dropped when that is closed meanwhile. 0: none */
    uint64_t epoch;
    uint32_t role, index; /* of Attach; of a fault, a request */
    enum link_state link;
    struct note note;
    struct job *job;           /* owned */
    uint64_t *rows;            /* owned: activations of its tokens, one value each; NULL: none are sent */
    struct sim_result *result; /* owned */
    struct sim_pages *pages;   /* owned */
    uint32_t fetch;            /* of the load: which of its runs */
    bool soon;
};

/* A block's pages, as many as are held of those that were asked for. */
struct sim_pages {
    bool held[SIM_PAGES];
    uint64_t hash[SIM_PAGES][KV_PAGE_TOKENS], cache[SIM_PAGES][KV_PAGE_TOKENS];
};

/* What left a stage at once, and the caches as they were. */
struct sim_left {
    struct sim_left *older;
    struct left_pages *pages;
    uint64_t cache[SIM_PAGES][KV_PAGE_TOKENS][SIM_BLOCKS];
};

struct sim_result {
    struct frame_result result;
    struct frame_span_result spans[FRAME_SPANS_MAX < 64 ? FRAME_SPANS_MAX : 64];
    float floats[SIM_CHUNK + SIM_SEQUENCES + SIM_CONTEXT];
    char text[FRAME_TEXT_MAX];
};

struct sim_node {
    char name[16], endpoint[40], key[KEY_TEXT];
    bool alive;
    uint64_t life; /* counts its starts */
    int64_t frozen_until, busy_until, disk_full_until;
    uint64_t control;          /* its connection with the coordinator, as both ends see it; 0: none */
    bool told_up;              /* the coordinator was told that it stands */
    uint64_t claim_connection; /* the one its claim came over */
    bool claim_half_open;      /* that one broke without its knowing */
    struct claim claim;
    struct session session;
    struct sequence_table *table;
    struct held_pages *held;
    struct kept_rows *rows;
    uint64_t rows_limit;
    struct sim_left *left; /* newest first */
    uint64_t left_epoch;
    uint32_t fetching;          /* blocks that are asked for, as bits; while loading */
    int64_t fetch_begun, heard; /* and when */
    uint64_t (*cache)[KV_PAGE_TOKENS][SIM_BLOCKS]; /* [SIM_PAGES] */
    struct control_message said; /* its last Loaded */
    uint32_t have;                     /* blocks whose weights are in memory, as bits */
    uint64_t read;                     /* blocks read so far */
    bool loading;
    uint64_t load_number, epoch_loaded;
    struct note load;
    uint32_t next;
};

struct sim_request {
    int32_t tokens[SIM_CONTEXT]; /* prompt, then what must come */
    uint32_t prompt, max_tokens, seen, finishes;
    bool scores, cancelled, submitted, deadline;
    uint64_t id;
    enum finish_reason reason;
    char error[FRAME_TEXT_MAX];
};

enum fault_kind {
    FAULT_CRASH, /* the process ends; its connections close */
    FAULT_POWER, /* the board ends; nobody is told */
    FAULT_FREEZE,
    FAULT_RESET /* of the control connection */,
    FAULT_AWAY,  /* node and coordinator cannot reach each other */
    FAULT_APART, /* two nodes cannot */
    FAULT_DISK,
    FAULT_GOODBYE,
    FAULT_STOPPED, /* the coordinator itself is stopped for a while */
    FAULT_SLOW,
    FAULT_MOVE, /* none at all: blocks are to move, for somebody asked */
    FAULT_DRAIN, /* and away from a node */
    FAULT_KINDS
};

struct fault {
    enum fault_kind kind;
    uint32_t node, other;
    int64_t at, lasts;
};

struct world {
    uint64_t seed, draws, orders, connections;
    bool tracing, heals, stay, takeover;
    int64_t now, rejoin, stopped_until;
    uint32_t nodes, capacity[SIM_NODES]; /* blocks that fit */
    uint64_t rows_limit;                 /* of rows a stage keeps */
    struct cluster_node_options options[SIM_NODES];
    struct sim_node node[SIM_NODES];
    int64_t last_at[2][SIM_NODES + 1][SIM_NODES + 1]; /* of what travels: order is kept on each connection */
    int64_t away_until[SIM_NODES + 1][SIM_NODES + 1];
    struct mail **mails; /* a heap by time */
    uint32_t mail_count;
    struct fault faults[SIM_FAULTS];
    uint32_t fault_count;

    struct cluster *cluster;
    struct cluster_actions actions;
    struct scheduler *scheduler;
    struct refill *refill;
    struct scheduler_restored restored; /* summed */
    bool flowing, failed, refused, ever_ready;
    uint64_t pipe, pipe_epoch; /* connection numbers from pipe on; 0: none */
    uint32_t first, last;
    bool attach_told[2];
    struct cluster_stage stages[SIM_NODES];
    uint32_t stage_count;
    struct error failure;
    struct sim_request requests[SIM_REQUESTS];
    uint32_t request_count;
    uint64_t last_epoch;
    uint64_t fetched; /* pages of blocks */
    uint32_t starts, recoveries, results;
    struct note unsent[SIM_NODES][16]; /* said while there was no connection: they go out when there is one again */
    uint32_t unsent_count[SIM_NODES];
};

extern struct world w;

/* sim_world.c */
uint32_t sim_below(uint32_t n);
bool sim_chance(uint32_t percent);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A broken invariant: said once, with the trace; the schedule ends. */
void sim_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern bool sim_is_broken;
void sim_post(struct mail mail);                             /* at mail.at */
void sim_travel(struct mail mail, int plane, int64_t after); /* from mail.from to mail.to, in order; owns its parts */
void sim_mail_free(struct mail *mail);
bool sim_reachable(uint32_t a, uint32_t b);
/* Runs one schedule to its end. */
void sim_run(uint64_t seed, bool tracing);
const char *sim_node_name(uint32_t node);
int32_t sim_next_token(const int32_t *tokens, uint32_t count);
uint64_t sim_row(uint64_t hash, uint32_t boundary);
float sim_score(const int32_t *tokens, uint32_t count, int32_t next);

/* sim_worker.c: a worker, woken by what reaches it. */
void worker_start(uint32_t node);
void worker_end(uint32_t node);
void worker_hears(uint32_t node, const struct note *note, uint64_t connection);
void worker_loaded(uint32_t node, uint64_t number);
void worker_late(uint32_t node, uint64_t number);
void worker_pages(uint32_t node, const struct mail *mail);
void worker_tends(uint32_t node, uint64_t epoch);
void worker_free(uint32_t node); /* what outlives a worker in memory */
void worker_takes(uint32_t node, const struct mail *mail);

/* sim_coordinator.c: what loop.c does, without sockets. */
void coordinator_start(void);
void coordinator_end(void);
void coordinator_hears(uint32_t node, const struct note *note);
void coordinator_link(uint32_t node, enum link_state state);
void coordinator_takes(const struct mail *mail);
void coordinator_turn(void); /* ticks, mail, micro-batches: whatever is due */
int64_t coordinator_next(void);
void coordinator_submit(uint32_t index);
void coordinator_cancel(uint32_t index);
/* Blocks are to move; node: away from it, or (drained false) it may be used again. SIM_COORDINATOR: just so. */
void coordinator_moves(uint32_t node, bool drained);

#endif
