/* Where frames meet the engine: a work frame's bookkeeping applied to the sequences and stages of this machine, and a
 * stage's results in the frame's words. Used by the worker and by the coordinator's pipe in process, so that both do
 * exactly the same. No socket, no clock; the thread that owns the stages. */
#ifndef BRIGADE_EXECUTION_MICRO_BATCH_H
#define BRIGADE_EXECUTION_MICRO_BATCH_H

#include "base/error.h"
#include "engine/model/sequence.h"
#include "engine/model/stage.h"
#include "execution/held_pages.h"
#include "proto/frame.h"

/* Where a micro-batch is applied: the table of sequences, what the stage's blocks hold of its pages (NULL: all of it
 * always), and the stages over them. */
struct batch_place {
    struct sequence_table *table;
    struct held_pages *held;
    struct stage *const *stages;
    uint32_t stage_count;
    uint32_t first_block, last_block;  /* of the one stage; with `held` only */
    const struct frame_share *share;   /* its part where only gaps are filled; NULL: all its blocks compute */
};

/* Releases, page copies (in all stages), then every span's update of the sequence table. spans[] (room for w->span_count)
 * is what stage_forward shall compute; it points into the table. ERR_ORDER and others as sequence_apply, or when blocks
 * that compute nothing lack a page: the spans before the offending one stay applied, and the micro-batch must not be
 * computed. */
int micro_batch_apply(const struct frame_work *w, const struct batch_place *place, struct batch_span *spans,
                      struct error *err);
/* It was applied, but not computed: nobody holds what it would have written. */
void micro_batch_failed(const struct frame_work *w, const struct batch_place *place);

/* Describes the last stage's results[] in out[] (room for w->span_count); pointers go into the stage's buffers. */
void micro_batch_results(const struct frame_work *w, const struct span_result *results, uint32_t vocabulary,
                         struct frame_span_result *out);

#endif
