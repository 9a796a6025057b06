/* Iteration-level scheduling: which positions of which sequences make the next micro-batch.
 *
 * Every micro-batch takes decoding sequences first (dealt into `groups`, so that with several micro-batches in flight
 * every stage has one of them), then prompt chunks up to a token budget, so that a long prompt rides along and never
 * stalls the others. Both numbers follow what the stages measure: while sequences stream, prompts ride with them, so many
 * tokens at once that a round takes PACE_STRETCH times its usual time. A sequence is in at most one decoding micro-batch at a time; the chunks of one prompt follow each
 * other down the pipe without waiting, for each depends only on those before it.
 *
 * Requests wait in one bounded queue; the next one admitted is, of the highest priority, the earliest of the client with
 * the fewest running. Admission reserves the pages of the tokens it begins with; an answer takes more as it grows. When
 * pages run short the sequence of the lowest priority, of those the one first admitted last, goes back to the head of the
 * queue and is computed again later from its known tokens: the same tokens follow. The first in that order never makes
 * room and a cache holds at least one context, so every request comes to its end. Pages of a finished, cancelled or
 * preempted sequence are free at once: the stages are told with the next micro-batch, before its spans are applied.
 *
 * A prompt that begins like an earlier one starts on that one's pages (prefix.h), and waits for them while they are being
 * computed.
 *
 * Pure: no clock, no socket, no lock; it speaks in the frames' own structs. One owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_SCHEDULE_H
#define BRIGADE_COORDINATOR_CORE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "coordinator/core/request.h"
#include "proto/frame.h"

struct scheduler;
struct refill;

struct scheduler_options {
    uint32_t pages, page_tokens;
    uint32_t max_context;
    uint32_t sequences;    /* computing at once, ≤ FRAME_SPANS_MAX */
    uint32_t queue;        /* waiting beside them */
    uint32_t chunk_tokens; /* most prompt tokens of one micro-batch, decoding ones counted in */
    uint32_t groups;       /* micro-batches that decoding sequences are dealt into: the number of stages, about */
    uint32_t in_flight;    /* micro-batches under way, ≥ groups */
    bool want_trace;       /* ask the stages when they computed */
    uint32_t stages;       /* with want_trace: adapt to what so many stages measure (schedule_pace.h); 0: do not */
    bool fixed_groups;     /* but let `groups` be */
};

/* Most tokens a micro-batch can have, for the stages' buffers. */
uint32_t scheduler_max_tokens(const struct scheduler_options *o);

/* Tokens of a prompt's chunks: a short prompt is cut so that all stages work on it at once; `most` is the budget. */
uint32_t scheduler_chunk(uint64_t prompt_tokens, uint32_t stages, uint32_t most);

int scheduler_create(const struct scheduler_options *o, struct scheduler **out, struct error *err);
/* Requests still inside are destroyed without callbacks: scheduler_fail or scheduler_cancel them first. */
void scheduler_destroy(struct scheduler *s); /* NULL is fine */

/* Queues a request and owns it from then on; on failure (ERR_BUSY: the queue is full) it stays the caller's. Requests
 * are destroyed after their on_finish. */
int scheduler_submit(struct scheduler *s, struct request *r, struct error *err);
void scheduler_cancel(struct scheduler *s, uint64_t id, int64_t now_us); /* unknown ids are ignored */
/* Ends requests whose deadline has passed; returns the next deadline (INT64_MAX: none). */
int64_t scheduler_tick(struct scheduler *s, int64_t now_us);

/* Builds the next micro-batch and counts it as under way: 1 and *out, which points into the scheduler and is valid until
 * its next call (epoch is 0: the pipeline's affair); 0 when there is nothing to send now; a negative error. */
int scheduler_next(struct scheduler *s, int64_t now_us, struct frame_work *out, struct error *err);
/* What the last stage made of a micro-batch. A result for none under way (late, twice) is ignored. One that says that a
 * stage failed ends the requests in it with that text. */
void scheduler_result(struct scheduler *s, const struct frame_result *result, int64_t now_us);

/* Ends every request: cancelled, or with an error. */
void scheduler_cancel_all(struct scheduler *s, int64_t now_us);
void scheduler_fail(struct scheduler *s, const struct error *error, int64_t now_us);
/* Forgets what is under way and starts every running sequence again from its known tokens: the stages behind the pipe
 * are new. What follows is the same tokens (replay). */
void scheduler_restart(struct scheduler *s);

/* What became of the sequences that ran, and of the whole pages of positions they had. */
struct scheduler_restored {
    uint32_t sequences, kept, resent, computed; /* nothing is missing; gaps are filled from kept rows; from the tokens */
    uint32_t from_stage;                        /* the first stage whose kept rows serve; of `resent` ones */
    uint64_t kept_tokens, resent_tokens, computed_tokens;
};
/* After scheduler_restart: whole pages that sequences would go on from, those of the ones that ran (*running of them, where
 * that is not NULL) first, and the running token hash after each; at most so many. Returns how many. */
uint32_t scheduler_pages(const struct scheduler *s, uint32_t most, uint32_t *pages, uint64_t *hashes, uint32_t *running);
/* After scheduler_restart: what the new stages hold. Sequences that begin go on from there, and gaps are filled with as
 * little computing as possible. NULL, or if this is not called: from nothing. */
void scheduler_restore(struct scheduler *s, const struct refill *how, struct scheduler_restored *out);
/* Another number of stages (0: none that are measured), groups and micro-batches in flight; only while nothing is under
 * way. What was learned of the old stages is forgotten. */
int scheduler_regroup(struct scheduler *s, uint32_t stages, uint32_t groups, uint32_t in_flight, struct error *err);

enum { SCHEDULER_BATCH_BUCKETS = 12 };

/* Micro-batches by their tokens: up to 1, 2, 4, … 1024 each, then larger ones. */
struct scheduler_batches {
    uint64_t buckets[SCHEDULER_BATCH_BUCKETS];
    uint64_t count, tokens;
};

struct scheduler_counts {
    uint32_t running, queued, in_flight, in_flight_max;
    uint32_t groups;                     /* micro-batches that decoding sequences are dealt into now */
    uint32_t pages, pages_used;          /* all, and those of running sequences */
    uint32_t pages_promised, pages_idle; /* reserved and not yet taken; kept prefixes that nobody uses now */
    uint64_t tokens_shared;              /* prompt tokens that were not computed again */
    uint64_t tokens_in, tokens_out, done, failed, cancelled; /* prompt tokens computed, tokens generated, requests */
    uint64_t preempted;                  /* times a sequence had to make room */
    uint64_t replay_kept, replay_resent, replay_computed; /* tokens of sequences that lived through a change of stages */
    uint64_t prefix_hits, prefix_misses; /* sequences that started on kept pages, and those that found none */
    struct scheduler_batches batches;
};
void scheduler_count(const struct scheduler *s, struct scheduler_counts *out);
bool scheduler_busy(const struct scheduler *s);
/* Of the micro-batches under way: the most rows of one, and the most positions that a row looks back on; 0 when none is. */
struct scheduler_extent {
    uint32_t rows, past;
};
struct scheduler_extent scheduler_widest(const struct scheduler *s);
/* When the oldest micro-batch under way was built; 0 when none is. */
int64_t scheduler_oldest(const struct scheduler *s);

#endif
