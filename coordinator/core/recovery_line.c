/* The line that tells what a recovery moved, kept and computed again, and what was expected of it. Runner's thread. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "coordinator/core/runner_state.h"

static void add_count(char *text, size_t size, uint32_t count, const char *what)
{
    size_t at = strlen(text);
    if (count)
        snprintf(text + at, size - at, "%s%u %s", at ? ", " : "", count, what);
}

/* "; 3 sequences: 2 re-sent from stage 1, 1 computed again; re-sending was chosen (predicted: …)" */
static void tell_sequences(const struct scheduler_restored *s, const struct refill_forecast *expected, char *text,
                           size_t size)
{
    char parts[120] = "", from[32];
    text[0] = 0;
    if (!s->sequences)
        return;
    if (s->from_stage == UINT32_MAX)
        snprintf(from, sizeof from, "filled in");
    else
        snprintf(from, sizeof from, "re-sent from stage %u", s->from_stage);
    add_count(parts, sizeof parts, s->kept, "kept");
    add_count(parts, sizeof parts, s->resent, from);
    add_count(parts, sizeof parts, s->computed, "computed again");
    snprintf(text, size, "; %u sequence%s: %s", s->sequences, s->sequences == 1 ? "" : "s", parts);
    size_t at = strlen(text);
    refill_forecast_text(expected, text + at, size - at);
}

/* Blocks that are on another node than before, and weights that had to be read for that. */
void runner_tell_recovery(struct runner *r)
{
    char where[400] = "", read[UNITS_TEXT];
    uint32_t moved = 0, blocks = 0;
    uint64_t bytes = 0, fetched = 0;
    for (uint32_t s = 0; s < r->layout.stages; s++) {
        const struct cluster_stage *now = &r->layout.stage[s];
        const struct cluster_node *node = cluster_node_at(r->cluster, now->node);
        uint32_t kept = 0;
        for (uint32_t o = 0; o < r->old_layout.stages; o++) {
            const struct cluster_stage *old = &r->old_layout.stage[o];
            uint32_t from = now->first_block > old->first_block ? now->first_block : old->first_block,
                     to = now->last_block < old->last_block ? now->last_block : old->last_block;
            if (old->node == now->node && from <= to)
                kept += to - from + 1;
        }
        blocks += now->last_block - now->first_block + 1;
        moved += now->last_block - now->first_block + 1 - kept;
        bytes += node->read_bytes;
        fetched += node->fetched_bytes;
        size_t at = strlen(where);
        snprintf(where + at, sizeof where - at, "%s%.40s %u-%u", s ? ", " : "", node->name, now->first_block,
                 now->last_block);
    }
    struct scheduler_counts counts;
    char how[300], cache[UNITS_TEXT], with[64] = "";
    scheduler_count(r->scheduler, &counts);
    units_bytes_text(bytes, read);
    r->fetched_bytes += fetched;
    if (fetched)
        snprintf(with, sizeof with, " with %s of cache", units_bytes_text(fetched, cache));
    tell_sequences(&r->restored, &r->forecast, how, sizeof how);
    log_warn("works again after %.2f s: %u stage%s (%s); %u of %u blocks moved%s, %s of weights read; %u request%s go%s on%s",
             r->recovery_seconds, r->layout.stages, r->layout.stages == 1 ? "" : "s", where, moved, blocks, with, read,
             counts.running + counts.queued, counts.running + counts.queued == 1 ? "" : "s",
             counts.running + counts.queued == 1 ? "es" : "", how);
}
