/* What need not be computed again after an epoch has ended: which KV pages the stages of the new one still hold, whose rows
 * they kept, and hence which blocks have to compute a page's positions.
 *
 * A page that all blocks hold is as good as before. For one that some lack, the stages that lack it compute, from the
 * nearest rows on their way: those they kept themselves, those the stage before sends again, or what it computes. Rows that
 * are sent again cross no link that computing them again would spare, so this is never dearer than a replay.
 * Pure; one owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_REFILL_H
#define BRIGADE_COORDINATOR_CORE_REFILL_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/cluster.h"
#include "proto/frame.h"

struct refill;

/* For a model of `blocks` blocks and a cache of `pages` pages. *out is the caller's: refill_destroy. */
int refill_create(uint32_t blocks, uint32_t pages, struct refill **out, struct error *err);
void refill_destroy(struct refill *r); /* NULL is fine */

/* What a node said of its pages when it had loaded (CONTROL_LOADED; copied). What it said for an older epoch is
 * forgotten. Without memory for it nothing is known, and all is computed. */
void refill_note(struct refill *r, uint32_t node, const struct control_message *loaded);
/* The stages of the epoch that begins. */
void refill_stages(struct refill *r, uint64_t epoch, uint32_t count, const struct cluster_stage *stages);
uint32_t refill_stage_count(const struct refill *r);

enum refill_verdict {
    REFILL_WHOLE,  /* every block holds the page */
    REFILL_PART,   /* shares[] (one a stage) says who computes */
    REFILL_NOTHING /* everybody computes, from the tokens */
};
/* For a page that must stand for the tokens of this running hash. */
enum refill_verdict refill_page(const struct refill *r, uint32_t page, uint64_t hash, struct frame_share *shares);

struct refill_rates { /* by stage */
    double block_seconds[FRAME_STAGES_MAX]; /* one block, one token, in chunks */
    double row_seconds[FRAME_STAGES_MAX];   /* one token's row to the next stage */
};
/* Seconds of the busiest stage or link until every block holds these pages, as refill_page says, and if all of it were
 * computed from the tokens. */
void refill_seconds(const struct refill *r, const struct refill_rates *rates, uint32_t page_tokens, const uint32_t *pages,
                    const uint64_t *hashes, uint32_t count, double *filled, double *computed);

#endif
