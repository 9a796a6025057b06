/* Stages in a chain within one process. Owns the stages, the sequence table and the activations between; borrows the
 * model and the pool. One owner thread. */
#include "engine/model/local.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"

struct local {
    const struct model *model;
    struct local_options o;
    uint32_t stage_count;
    struct stage *stage[LOCAL_STAGES_MAX];
    struct sequence_table *sequences;
    struct batch_span *spans;
    float *between; /* max_tokens × width: from one stage to the next */
    uint32_t kv_pages;
    uint32_t *free_pages; /* for local_feed: a stack */
    uint32_t free_count;
};

/* Fills the blanks of o and settles the split. */
static int settle(const struct model *m, const struct local_options *o, struct local_options *out,
                  uint32_t split[LOCAL_STAGES_MAX], struct error *err)
{
    const struct model_info *info = model_info(m);
    struct local_options s = *o;
    uint32_t sum = 0;
    s.stages = s.stages ? s.stages : 1;
    if (s.stages > info->blocks || s.stages > LOCAL_STAGES_MAX)
        return error_set(err, ERR_USAGE, "%u stages make no sense for %u blocks; 1 to %u do", s.stages, info->blocks,
                         info->blocks < LOCAL_STAGES_MAX ? info->blocks : LOCAL_STAGES_MAX);
    for (uint32_t i = 0; i < s.stages; i++) {
        split[i] = o->split ? o->split[i] : info->blocks / s.stages + (i < info->blocks % s.stages);
        if (split[i] == 0 || split[i] > info->blocks - sum)
            return error_set(err, ERR_USAGE,
                             "stage %u of the split has %u blocks; all together must have %u, each one at least", i,
                             split[i], info->blocks);
        sum += split[i];
    }
    if (sum != info->blocks)
        return error_set(err, ERR_USAGE, "the split has %u blocks, but the model has %u", sum, info->blocks);
    s.max_context = s.max_context ? s.max_context : info->context;
    s.kv_tokens = s.kv_tokens ? s.kv_tokens : s.max_context;
    s.max_tokens = s.max_tokens ? s.max_tokens : 256;
    s.max_sequences = s.max_sequences ? s.max_sequences : 64;
    *out = s;
    return 0;
}

struct loading {
    const struct local_options *o;
    uint64_t before, total, last;
};

static int pass_progress(void *context, uint64_t done, uint64_t total)
{
    struct loading *p = context;
    (void)total;
    p->last = done;
    return p->o->progress ? p->o->progress(p->o->progress_context, p->before + done, p->total) : 0;
}

static struct stage_options options_of(const struct local_options *o, uint32_t first, uint32_t count)
{
    return (struct stage_options){.first_block = first,
                                  .last_block = first + count - 1,
                                  .kv = o->kv,
                                  .kv_pages = o->kv_tokens / KV_PAGE_TOKENS + (o->kv_tokens % KV_PAGE_TOKENS != 0),
                                  .max_tokens = o->max_tokens,
                                  .max_context = o->max_context,
                                  .pool = o->pool,
                                  .keep_mapped = o->keep_mapped};
}

int local_memory_need(const struct model *m, const struct local_options *o, struct stage_memory *out, struct error *err)
{
    struct local_options s;
    uint32_t split[LOCAL_STAGES_MAX];
    struct stage_memory sum = {0}, one;
    int failed = settle(m, o, &s, split, err);
    if (failed)
        return failed;
    for (uint32_t i = 0, first = 0; i < s.stages; first += split[i++]) {
        struct stage_options so = options_of(&s, first, split[i]);
        stage_memory_need(m, &so, &one);
        sum.weights += one.weights;
        sum.embedding += one.embedding;
        sum.head += one.head;
        sum.kv += one.kv;
        sum.buffers += one.buffers;
        sum.total += one.total;
    }
    *out = sum;
    return 0;
}

int local_open(const struct model *m, const struct local_options *o, struct local **out, struct error *err)
{
    uint32_t split[LOCAL_STAGES_MAX];
    struct local *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NOMEM, "no memory for a model in this process");
    int failed = settle(m, o, &l->o, split, err);
    if (failed)
        goto fail;
    l->o.split = NULL; /* the caller's array is not kept */
    l->model = m;
    struct loading p = {.o = &l->o, .total = model_info(m)->weight_bytes};
    for (uint32_t first = 0; l->stage_count < l->o.stages; first += split[l->stage_count++]) {
        struct stage_options so = options_of(&l->o, first, split[l->stage_count]);
        so.progress = pass_progress;
        so.progress_context = &p;
        if ((failed = stage_create(m, &so, &l->stage[l->stage_count], err)) < 0)
            goto fail;
        l->kv_pages = so.kv_pages;
        p.before += p.last;
    }
    l->between = mem_alloc((size_t)l->o.max_tokens * model_info(m)->width * sizeof *l->between);
    l->spans = mem_zalloc(l->o.max_tokens, sizeof *l->spans);
    l->free_pages = mem_zalloc(l->kv_pages, sizeof *l->free_pages);
    if (!l->between || !l->spans || !l->free_pages) {
        failed = error_set(err, ERR_NOMEM, "no memory for the activations between stages");
        goto fail;
    }
    for (uint32_t i = 0; i < l->kv_pages; i++)
        l->free_pages[l->free_count++] = l->kv_pages - 1 - i;
    if ((failed = sequence_table_create(l->o.max_sequences, l->o.max_context, l->kv_pages, model_info(m)->vocabulary,
                                        &l->sequences, err)) < 0)
        goto fail;
    *out = l;
    return 0;
fail:
    local_close(l);
    return failed;
}

void local_close(struct local *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; i < LOCAL_STAGES_MAX; i++)
        stage_destroy(l->stage[i]);
    sequence_table_destroy(l->sequences);
    mem_free(l->between);
    mem_free(l->spans);
    mem_free(l->free_pages);
    mem_free(l);
}

int local_step(struct local *l, const struct local_span *spans, uint32_t count, struct span_result *results,
               struct error *err)
{
    if (count == 0 || count > l->o.max_tokens)
        return error_set(err, ERR_BOUND, "a micro-batch of %u spans; 1 to %u fit", count, l->o.max_tokens);
    for (uint32_t i = 0; i < count; i++) {
        const struct sequence *s;
        int failed = sequence_apply(l->sequences, &spans[i].update, &s, err);
        if (failed)
            return failed;
        l->spans[i] = (struct batch_span){.first = spans[i].update.first,
                                          .count = spans[i].update.count,
                                          .tokens = s->tokens,
                                          .pages = s->pages,
                                          .want = spans[i].want,
                                          .next_token = spans[i].next_token,
                                          .sampling = &s->sampling};
    }
    for (uint32_t i = 0; i < count; i++) { /* two spans of one sequence: its arrays may have moved meanwhile */
        const struct sequence *s = sequence_find(l->sequences, spans[i].update.sequence);
        l->spans[i].tokens = s->tokens;
        l->spans[i].pages = s->pages;
    }
    for (uint32_t i = 0; i < l->stage_count; i++) {
        int failed = stage_forward(l->stage[i], l->spans, count, l->between, l->between, results, err);
        if (failed)
            return failed;
    }
    return 0;
}

int local_feed(struct local *l, uint32_t sequence, const int32_t *tokens, uint32_t count, enum span_want want,
               int32_t next_token, const struct sampling *sampling, float *scores, struct span_result *result,
               struct error *err)
{
    for (uint32_t done = 0, n; done < count; done += n) {
        const struct sequence *s = sequence_find(l->sequences, sequence);
        uint32_t first = s ? s->length : 0, pages = s ? s->page_count : 0;
        n = count - done < l->o.max_tokens ? count - done : l->o.max_tokens;
        bool last = done + n == count;
        uint64_t end = (uint64_t)first + n, need = (end + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
        if (end > l->o.max_context)
            return error_set(err, ERR_BOUND, "%llu tokens are more than the context of %u holds",
                             (unsigned long long)end, l->o.max_context);
        if (need > pages && need - pages > l->free_count)
            return error_set(err, ERR_BOUND, "the KV cache of %u tokens is full", l->kv_pages * KV_PAGE_TOKENS);
        uint32_t fresh = need > pages ? (uint32_t)need - pages : 0;
        struct local_span span = {.update = {.sequence = sequence,
                                             .first = first,
                                             .count = n,
                                             .known = first,
                                             .tokens = tokens + done,
                                             .page_offset = pages,
                                             .pages = l->free_pages + l->free_count - fresh,
                                             .page_count = fresh,
                                             .hash = hash_tokens(s ? s->hash : HASH_TOKENS_START, tokens + done, n),
                                             .sampling = sampling},
                                  .want = last || want == WANT_SCORES ? want : WANT_NOTHING,
                                  .next_token = last ? next_token : tokens[done + n]};
        struct span_result r;
        int failed = local_step(l, &span, 1, &r, err);
        const struct sequence *after = sequence_find(l->sequences, sequence);
        if (after && after->page_count > pages)
            l->free_count -= fresh;
        if (failed)
            return failed;
        if (scores && want == WANT_SCORES)
            memcpy(scores + done, r.scores, n * sizeof *scores);
        if (last && result)
            *result = r;
    }
    return 0;
}

void local_release(struct local *l, uint32_t sequence)
{
    const struct sequence *s = sequence_find(l->sequences, sequence);
    for (uint32_t i = 0; s && i < s->page_count && l->free_count < l->kv_pages; i++)
        l->free_pages[l->free_count++] = s->pages[i];
    sequence_release(l->sequences, sequence);
}

int local_truncate(struct local *l, uint32_t sequence, uint32_t length)
{
    return sequence_truncate(l->sequences, sequence, length);
}

uint32_t local_stages(const struct local *l)
{
    return l->stage_count;
}

struct stage *local_stage(struct local *l, uint32_t i)
{
    return i < l->stage_count ? l->stage[i] : NULL;
}

struct sequence_table *local_sequences(struct local *l)
{
    return l->sequences;
}

uint32_t local_kv_pages(const struct local *l)
{
    return l->kv_pages;
}

uint32_t local_max_context(const struct local *l)
{
    return l->o.max_context;
}
