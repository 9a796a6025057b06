/* From frame to engine and back. Owns nothing. */
#include "execution/micro_batch.h"

#include <stddef.h>

_Static_assert(FRAME_BIAS_MAX <= SAMPLING_BIAS_MAX && FRAME_TOP_MAX <= SAMPLING_TOP_MAX, "frames fit the sampler");
_Static_assert(sizeof(struct frame_chosen) == sizeof(struct token_logprob) &&
                   offsetof(struct frame_chosen, logprob) == offsetof(struct token_logprob, logprob),
               "the sampler's pairs are sent as they lie");

static void take_sampling(const struct frame_sampling *from, struct sampling *to)
{
    sampling_default(to);
    to->temperature = from->temperature;
    to->top_k = from->top_k;
    to->top_p = from->top_p;
    to->min_p = from->min_p;
    to->repeat_penalty = from->repeat_penalty;
    to->repeat_last = from->repeat_last;
    to->presence_penalty = from->presence_penalty;
    to->frequency_penalty = from->frequency_penalty;
    to->seed = from->seed;
    to->prompt_tokens = from->prompt_tokens;
    to->top_logprobs = from->top_logprobs;
    to->bias_count = from->bias_count < SAMPLING_BIAS_MAX ? from->bias_count : SAMPLING_BIAS_MAX;
    for (uint32_t i = 0; i < to->bias_count; i++)
        to->bias[i] = (struct sampling_bias){from->bias[i].token, from->bias[i].bias};
}

static int copy_page(const struct frame_page_copy *c, const struct batch_place *place, struct error *err)
{
    int rc = sequence_page_copied(place->table, c->from, c->to, c->count);
    for (uint32_t s = 0; s < place->stage_count && !rc; s++)
        rc = stage_copy_page(place->stages[s], c->from, c->to, c->count);
    if (!rc && place->held)
        held_pages_copy(place->held, c->from, c->to);
    return rc ? error_set(err, rc, "cannot copy %u positions of page %u to page %u", c->count, c->from, c->to) : 0;
}

/* Whether blocks of this stage are left out: their pages must be whole already. */
static bool leaves_out(const struct batch_place *p)
{
    return p->share && (p->share->first_block > p->first_block || p->share->end_block <= p->last_block);
}

/* Where only gaps are filled, spans are whole pages, and the share lies within the stage. */
static int check_share(const struct frame_span *s, const struct batch_place *p, struct error *err)
{
    const struct frame_share *share = p->share;
    bool empty = share->first_block == share->end_block;
    if (s->first % KV_PAGE_TOKENS || s->count % KV_PAGE_TOKENS)
        return error_set(err, ERR_FORMAT, "sequence %u: gaps are filled in whole pages, not from position %u to %u",
                         s->sequence, s->first, s->first + s->count);
    if ((!empty || share->send) && (share->first_block < p->first_block || share->end_block > p->last_block + 1 ||
                                    (share->send && share->end_block != p->last_block + 1) ||
                                    (!share->kept && share->first_block != p->first_block)))
        return error_set(err, ERR_FORMAT, "blocks %u up to %u are no part that a stage of blocks %u-%u can compute",
                         share->first_block, share->end_block, p->first_block, p->last_block);
    return 0;
}

/* Pages that are listed anew below the span are built upon: every block must hold them. */
static int check_below(const struct frame_span *s, const struct held_pages *held, struct error *err)
{
    for (uint32_t i = 0; i < s->page_count && (s->page_offset + i) * (uint64_t)KV_PAGE_TOKENS < s->first; i++)
        if (!held_pages_all(held, s->pages[i]))
            return error_set(err, ERR_ORDER, "sequence %u: not all blocks here hold page %u", s->sequence, s->pages[i]);
    return 0;
}

static void note_held(const struct frame_span *s, const struct sequence *sequence, const struct batch_place *p)
{
    for (uint32_t i = s->first / KV_PAGE_TOKENS; i * KV_PAGE_TOKENS < s->first + s->count; i++) {
        uint32_t page = sequence->pages[i];
        if (leaves_out(p))
            held_pages_catch_up(p->held, page, p->share->first_block, p->share->end_block);
        else if (s->first <= i * KV_PAGE_TOKENS)
            held_pages_begin(p->held, page);
    }
}

/* Blocks that are left out must hold the span's pages. */
static int check_left_out(const struct frame_span *s, const struct sequence *sequence, const struct batch_place *p,
                          struct error *err)
{
    for (uint32_t i = s->first / KV_PAGE_TOKENS; i * KV_PAGE_TOKENS < s->first + s->count; i++)
        for (uint32_t b = p->first_block; b <= p->last_block; b++)
            if ((b < p->share->first_block || b >= p->share->end_block) &&
                !held_pages_has(p->held, b, sequence->pages[i]))
                return error_set(err, ERR_ORDER, "sequence %u: block %u does not hold page %u", s->sequence, b,
                                 sequence->pages[i]);
    return 0;
}

static int apply_span(const struct frame_span *s, const struct batch_place *place, struct batch_span *out,
                      struct error *err)
{
    struct sampling sampling;
    const struct sequence *sequence;
    int rc = 0;
    if (s->sampling)
        take_sampling(s->sampling, &sampling);
    struct span_update update = {
        .sequence = s->sequence,
        .first = s->first,
        .count = s->count,
        .known = s->known,
        .tokens = s->tokens,
        .page_offset = s->page_offset,
        .pages = s->pages,
        .page_count = s->page_count,
        .hash = s->hash,
        .sampling = s->sampling ? &sampling : NULL,
        .held = leaves_out(place),
    };
    if ((place->share && (rc = check_share(s, place, err))) || (place->held && (rc = check_below(s, place->held, err))) ||
        (rc = sequence_apply(place->table, &update, &sequence, err)))
        return rc;
    if (leaves_out(place) && (rc = check_left_out(s, sequence, place, err)))
        return rc;
    if (place->held)
        note_held(s, sequence, place);
    *out = (struct batch_span){
        .first = s->first,
        .count = s->count,
        .tokens = sequence->tokens,
        .pages = sequence->pages,
        .want = (enum span_want)s->want,
        .next_token = s->next_token,
        .sampling = &sequence->sampling,
    };
    return 0;
}

/* The first `count` spans were applied, but will not be computed. */
static void forget_spans(const struct frame_work *w, uint32_t count, const struct batch_place *place)
{
    for (uint32_t i = 0; place->held && i < count; i++) {
        const struct frame_span *s = &w->spans[i];
        const struct sequence *sequence = sequence_find(place->table, s->sequence);
        for (uint32_t p = s->first / KV_PAGE_TOKENS; sequence && p < sequence->page_count; p++)
            held_pages_forget(place->held, sequence->pages[p]);
    }
}

int micro_batch_apply(const struct frame_work *w, const struct batch_place *place, struct batch_span *spans,
                      struct error *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < w->release_count; i++)
        sequence_release(place->table, w->release[i]);
    for (uint32_t i = 0; i < w->copy_count && !rc; i++)
        rc = copy_page(&w->copies[i], place, err);
    for (uint32_t i = 0; i < w->span_count && !rc; i++)
        if ((rc = apply_span(&w->spans[i], place, &spans[i], err)))
            forget_spans(w, i, place);
    return rc;
}

void micro_batch_failed(const struct frame_work *w, const struct batch_place *place)
{
    forget_spans(w, w->span_count, place);
}

void micro_batch_results(const struct frame_work *w, const struct span_result *results, uint32_t vocabulary,
                         struct frame_span_result *out)
{
    for (uint32_t i = 0; i < w->span_count; i++) {
        const struct frame_span *s = &w->spans[i];
        const struct span_result *got = &results[i];
        out[i] = (struct frame_span_result){.sequence = s->sequence, .position = s->first + s->count, .want = s->want};
        if (s->want == WANT_TOKEN) {
            out[i].chosen = (struct frame_chosen){got->sampled.chosen.token, got->sampled.chosen.logprob};
            out[i].top_count = got->sampled.top_count;
            out[i].top = (struct frame_chosen *)got->sampled.top;
        } else if (s->want == WANT_LOGITS) {
            out[i].float_count = vocabulary;
            out[i].floats = got->logits;
        } else if (s->want == WANT_SCORES) {
            out[i].float_count = s->count;
            out[i].floats = got->scores;
        }
    }
}
