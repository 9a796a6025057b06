/* After a change of stages: what the sequences that ran need not compute again, and the micro-batches that fill the gaps
 * of pages which some stages hold and others do not (refill.h). Pure; the scheduler's owner thread. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/schedule_state.h"

enum { SETS_MAX = 64 }; /* different ways to fill gaps; pages that would need more are computed from the tokens */

void scheduler_restart(struct scheduler *s)
{
    if (s->pace)
        pace_forget(s->pace, s->o.stages);
    while (s->running_count) {
        struct running *run = &s->running[s->running_count - 1];
        uint32_t count, whole = run->submitted / s->o.page_tokens;
        const int32_t *tokens = request_tokens(run->request, &count);
        /* Whatever was begun: the new stages will say what they have of it. */
        whole = run->gap_pages > whole ? run->gap_pages : whole;
        if (whole && !request_asked(run->request)->scores)
            prefix_keep(s->pages, run->pages, whole - 1, tokens);
        scheduler_preempt(s, s->running_count - 1);
    }
    s->sent_count = 0;
    s->release_count = 0;
    s->unproven = true;
}

uint32_t scheduler_pages(const struct scheduler *s, uint32_t most, uint32_t *pages, uint64_t *hashes, uint32_t *running)
{
    uint32_t count = prefix_list(s->pages, most, pages, hashes), sum = 0, known;
    for (uint32_t i = 0; i < s->queued; i++)
        if (s->queue[i].rank && request_tokens(s->queue[i].request, &known) && known) {
            uint32_t own = (known - 1) / s->o.page_tokens; /* shared ones count for each: nearly right */
            sum += own < count - sum ? own : count - sum;
        }
    if (running)
        *running = sum;
    return count;
}

/* ---- What is held ------------------------------------------------------------------------------------------------ */

struct judging {
    struct scheduler *s;
    const struct refill *how;
    struct frame_share shares[FRAME_STAGES_MAX];
};

static bool same_shares(const struct frame_share *a, const struct frame_share *b, uint32_t stages)
{
    for (uint32_t i = 0; i < stages; i++)
        if (a[i].first_block != b[i].first_block || a[i].end_block != b[i].end_block || a[i].kept != b[i].kept ||
            a[i].send != b[i].send)
            return false;
    return true;
}

/* The number of a set of shares, which is noted if it is new; 0: no room. */
static uint32_t note_shares(struct scheduler *s, const struct frame_share *shares)
{
    uint32_t n = s->share_stages;
    for (uint32_t i = 0; s->shares && i < s->share_sets; i++)
        if (same_shares(s->shares + (size_t)i * n, shares, n))
            return i + 1;
    if (!s->shares || s->share_sets == SETS_MAX)
        return 0;
    memcpy(s->shares + (size_t)s->share_sets * n, shares, n * sizeof *shares);
    return ++s->share_sets;
}

static int judge(void *context, uint32_t page, uint64_t hash)
{
    struct judging *j = context;
    uint32_t mark = 0;
    switch (refill_page(j->how, page, hash, j->shares)) {
    case REFILL_WHOLE:
        return 0;
    case REFILL_PART:
        mark = note_shares(j->s, j->shares);
        break;
    case REFILL_NOTHING:
        break;
    }
    return mark ? (int)mark : -1;
}

static uint32_t first_kept(const struct scheduler *s, uint32_t mark)
{
    const struct frame_share *shares = s->shares + (size_t)(mark - 1) * s->share_stages;
    for (uint32_t i = 0; i < s->share_stages; i++)
        if (shares[i].kept)
            return i;
    return UINT32_MAX;
}

/* What a sequence that ran will find. */
static void count_sequence(const struct scheduler *s, const struct request *request, uint8_t *marks,
                           struct scheduler_restored *out)
{
    uint32_t known, found = 0, resent = 0;
    const int32_t *tokens = request_tokens(request, &known);
    uint32_t pages = known ? (known - 1) / s->o.page_tokens : 0;
    if (!request_asked(request)->scores)
        found = prefix_look(s->pages, tokens, pages, marks);
    for (uint32_t i = 0; i < found; i++) {
        uint32_t from = marks[i] ? first_kept(s, marks[i]) : UINT32_MAX;
        resent += marks[i] > 0;
        out->from_stage = from < out->from_stage ? from : out->from_stage;
    }
    out->sequences++;
    *(found < pages ? &out->computed : resent ? &out->resent : &out->kept) += 1;
    out->kept_tokens += (uint64_t)(found - resent) * s->o.page_tokens;
    out->resent_tokens += (uint64_t)resent * s->o.page_tokens;
    out->computed_tokens += known - found * s->o.page_tokens;
}

static void review(struct scheduler *s, const struct refill *how)
{
    struct judging j = {.s = s, .how = how};
    s->share_sets = 0;
    s->share_stages = how ? refill_stage_count(how) : 0;
    mem_free(s->shares);
    s->shares = how && s->o.chunk_tokens >= s->o.page_tokens
                    ? mem_zalloc((size_t)SETS_MAX * s->share_stages, sizeof *s->shares)
                    : NULL;
    if (how)
        prefix_review(s->pages, judge, &j);
    else
        prefix_clear(s->pages);
}

void scheduler_restore(struct scheduler *s, const struct refill *how, struct scheduler_restored *out)
{
    struct scheduler_restored sum = {.from_stage = UINT32_MAX};
    uint8_t *marks = mem_zalloc(s->o.max_context / s->o.page_tokens + 1, sizeof *marks);
    review(s, marks ? how : NULL);
    for (uint32_t i = 0; marks && i < s->queued; i++)
        if (s->queue[i].rank)
            count_sequence(s, s->queue[i].request, marks, &sum);
    mem_free(marks);
    s->unproven = false;
    s->say_filled = !s->share_sets;
    s->restored_rank = s->next_rank;
    s->replay_kept += sum.kept_tokens;
    s->replay_resent += sum.resent_tokens;
    s->replay_computed += sum.computed_tokens;
    if (out)
        *out = sum;
}

/* ---- Filling gaps ------------------------------------------------------------------------------------------------ */

bool running_in_gap(struct scheduler *s, struct running *run)
{
    uint32_t count, page;
    const int32_t *tokens = request_tokens(run->request, &count);
    while ((page = run->submitted / s->o.page_tokens) < run->gap_pages && !run->gaps[page]) {
        run->hash = hash_tokens(run->hash, tokens + run->submitted, s->o.page_tokens);
        run->submitted += s->o.page_tokens;
    }
    return page < run->gap_pages;
}

/* Whole pages from the next position on that are filled alike, at most `most` positions. */
static uint32_t alike(const struct scheduler *s, const struct running *run, uint32_t most)
{
    uint32_t first = run->submitted / s->o.page_tokens, end = first;
    while (end < run->gap_pages && run->gaps[end] == run->gaps[first] && (end + 1 - first) * s->o.page_tokens <= most)
        end++;
    return (end - first) * s->o.page_tokens;
}

/* Tokens that gaps are still filled with, of all sequences. */
static uint64_t gaps_left(const struct scheduler *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->running_count; i++)
        for (uint32_t p = s->running[i].submitted / s->o.page_tokens; p < s->running[i].gap_pages; p++)
            sum += s->running[i].gaps[p] ? s->o.page_tokens : 0;
    return sum;
}

/* Once all that lived through the change have begun and have no gaps, none are filled any more: stages need not keep
 * rows for pages of sequences that have ended. */
static void end_gaps(struct scheduler *s)
{
    for (uint32_t i = 0; i < s->queued; i++)
        if (s->queue[i].rank && s->queue[i].rank < s->restored_rank)
            return;
    for (uint32_t i = 0; i < s->running_count; i++)
        if ((!s->running[i].started && s->running[i].rank < s->restored_rank) ||
            s->running[i].submitted / s->o.page_tokens < s->running[i].gap_pages)
            return;
    prefix_drop_marked(s->pages);
    s->share_sets = 0;
    s->say_filled = true;
}

int scheduler_fill(struct scheduler *s, struct frame_work *work, struct sent_batch *batch, struct error *err)
{
    uint32_t mark = 0, biases = 0, budget = 0;
    bool turn = !s->filled_last;
    s->filled_last = false;
    if (s->share_sets)
        end_gaps(s);
    for (uint32_t i = 0; turn && i < s->running_count && work->span_count < s->o.sequences; i++) {
        struct running *run = &s->running[i];
        if ((!run->started && !scheduler_begin(s, i)) || !running_in_gap(s, run))
            continue;
        if (!mark) {
            mark = run->gaps[run->submitted / s->o.page_tokens];
            budget = scheduler_chunk(gaps_left(s), s->share_stages, s->o.chunk_tokens);
            budget = budget > s->o.page_tokens ? budget : s->o.page_tokens;
        }
        uint32_t count = run->gaps[run->submitted / s->o.page_tokens] == mark ? alike(s, run, budget) : 0;
        int rc = count ? scheduler_add_span(s, run, count, work, batch, &biases, err) : 0;
        if (rc)
            return rc;
        budget -= count;
    }
    batch->fills = work->span_count > 0;
    s->filled_last = batch->fills;
    if (batch->fills) {
        work->shares = s->shares + (size_t)(mark - 1) * s->share_stages;
        work->share_count = s->share_stages;
    }
    return batch->fills;
}
