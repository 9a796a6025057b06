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

static int copy_page(const struct frame_page_copy *c, struct sequence_table *table, struct stage *const *stages,
                     uint32_t stage_count, struct error *err)
{
    int rc = sequence_page_copied(table, c->from, c->to, c->count);
    for (uint32_t s = 0; s < stage_count && !rc; s++)
        rc = stage_copy_page(stages[s], c->from, c->to, c->count);
    return rc ? error_set(err, rc, "cannot copy %u positions of page %u to page %u", c->count, c->from, c->to) : 0;
}

static int apply_span(const struct frame_span *s, struct sequence_table *table, struct batch_span *out, struct error *err)
{
    struct sampling sampling;
    const struct sequence *sequence;
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
    };
    int rc = sequence_apply(table, &update, &sequence, err);
    if (rc)
        return rc;
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

int micro_batch_apply(const struct frame_work *w, struct sequence_table *table, struct stage *const *stages,
                      uint32_t stage_count, struct batch_span *spans, struct error *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < w->release_count; i++)
        sequence_release(table, w->release[i]);
    for (uint32_t i = 0; i < w->copy_count && !rc; i++)
        rc = copy_page(&w->copies[i], table, stages, stage_count, err);
    for (uint32_t i = 0; i < w->span_count && !rc; i++)
        rc = apply_span(&w->spans[i], table, &spans[i], err);
    return rc;
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
