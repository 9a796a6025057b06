/* What schedule.c, schedule_admit.c and schedule_build.c share: the state behind `struct scheduler`. Nobody else includes
 * this. */
#ifndef BRIGADE_COORDINATOR_CORE_SCHEDULE_STATE_H
#define BRIGADE_COORDINATOR_CORE_SCHEDULE_STATE_H

#include "coordinator/core/prefix.h"
#include "coordinator/core/refill.h"
#include "coordinator/core/schedule.h"
#include "coordinator/core/schedule_pace.h"
#include "engine/model/stage.h"

/* A request that is not on the stages: it never was, or had to make room, or the stages are new. */
struct waiting {
    struct request *request;
    uint64_t rank;          /* as in struct running; 0: never admitted */
};

/* An admitted request: one sequence on the stages. */
struct running {
    uint32_t sequence;
    struct request *request;
    uint64_t rank;          /* by first admission, from 1: of equal priority the lower one keeps its pages */
    bool started;           /* its first span was handed over */
    uint32_t submitted;     /* positions handed to the pipe, or held by the pages it started on */
    uint32_t computed;      /* positions whose result is back */
    uint32_t under_way;     /* spans handed over whose result is not back */
    bool waits_for_token;   /* the last of them will bring one */
    uint32_t *pages;        /* room for page_limit, the longest this can become */
    uint32_t page_count, page_limit, pages_sent;
    uint32_t reserved;      /* so many it may have without asking: those of the tokens known at admission and one more */
    uint64_t hash;          /* of the submitted tokens */
    uint32_t told;          /* positions whose tokens the stages know */
    uint8_t *gaps;          /* of its first gap_pages pages: 0, or which shares fill them; NULL: there are none */
    uint32_t gap_pages;
};

struct sent_span {
    uint32_t sequence, first, count, want;
};

struct sent_batch {
    uint64_t id;
    int64_t built_us;
    uint32_t span_count, decodes, tokens;
    bool fills;              /* gaps only */
    struct sent_span *spans;
};

struct scheduler {
    struct scheduler_options o;
    struct pace *pace;       /* NULL: nothing is measured */
    uint32_t groups;         /* in use now, ≤ o.in_flight */
    double rider_credit;     /* prompt tokens that may ride and did not yet; less than one is kept for the next round */
    uint32_t riders;         /* of each micro-batch of this round */
    uint32_t tried;          /* micro-batches of a new number of them that may still go without prompts, to be measured */
    uint32_t ridden;         /* micro-batches since the last round in which no prompt rode */
    struct prefix_cache *pages;
    uint32_t promised;       /* reserved pages that running sequences have not taken yet */
    struct waiting *queue;   /* those never admitted in order of arrival */
    uint32_t queued;
    struct running *running; /* higher priorities first, then lower ranks: the last one makes room first */
    uint32_t running_count;
    uint64_t next_rank;
    struct sent_batch *sent; /* in order of sending */
    uint32_t sent_count;
    uint32_t next_sequence, turn;
    uint64_t next_batch;
    uint32_t *release;       /* sequences to name in the next micro-batch; at most `sequences` can end between two */
    uint32_t *released;      /* those named in the last one, for whoever is still reading it */
    uint32_t release_count;
    struct frame_span *spans; /* of the micro-batch being built */
    struct frame_sampling *sampling;
    struct frame_bias *bias;
    uint32_t bias_capacity;
    uint64_t tokens_shared, tokens_in, tokens_out, done, failed, cancelled, preempted;
    uint64_t prefix_hits, prefix_misses;
    uint64_t replay_kept, replay_resent, replay_computed;
    bool unproven;           /* the stages have ended, and nobody has said yet what the new ones hold */
    bool filled_last;        /* the last micro-batch filled gaps: others take turns with them */
    bool say_filled;         /* no gaps are left: the stages are told with the next micro-batch */
    uint64_t restored_rank;  /* what was admitted before has lived through the change of stages */
    uint32_t share_sets, share_stages;
    struct frame_share *shares; /* [share_sets][share_stages]: ways in which gaps are filled; mark i is set i-1 */
    struct scheduler_batches batches;
};

/* Positions this sequence has yet to hand over; 0 while it waits for a token. */
uint32_t running_positions_left(const struct running *run);
/* One token behind the prompt: the step of a decoding sequence (else a part of a prompt, or of a replay). */
bool running_decodes(const struct running *run);
/* Whether its next position has a page or may take one without asking. */
bool running_has_room(const struct scheduler *s, const struct running *run);

/* schedule_refill.c: whether its next position lies on a page with gaps; steps over pages without. */
bool running_in_gap(struct scheduler *s, struct running *run);
/* The next micro-batch that fills gaps, if it is their turn: 1, 0, or an error. */
int scheduler_fill(struct scheduler *s, struct frame_work *work, struct sent_batch *batch, struct error *err);
/* schedule_build.c: hands over up to `most` positions of a sequence. */
int scheduler_add_span(struct scheduler *s, struct running *run, uint32_t most, struct frame_work *work,
                       struct sent_batch *batch, uint32_t *biases, struct error *err);

/* schedule.c: takes a running sequence off the stages; its request is the caller's. */
struct request *running_remove(struct scheduler *s, uint32_t index);

/* schedule_admit.c. Moves requests from the queue to the stages as far as sequences and pages go. */
int scheduler_admit(struct scheduler *s, struct error *err);
/* Gives each decoding sequence the page of its next position, from the first to the last; where pages are short the
 * last ones go back to the queue. Who still has none afterwards waits for it. */
void scheduler_make_room(struct scheduler *s);
/* Back to the queue: admitted again before others of its priority, and computed from its known tokens. */
void scheduler_preempt(struct scheduler *s, uint32_t index);
/* Takes the next page for a sequence. */
int running_take_page(struct scheduler *s, struct running *run, struct error *err);
/* Whether an unstarted sequence better waits, for an earlier one is computing what it could start on; else begins it on
 * the kept pages that hold its first tokens. */
bool scheduler_begin(struct scheduler *s, uint32_t index);

#endif
