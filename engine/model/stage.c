/* A stage's life: load, run micro-batches, free. Owns weights, KV pages and buffers; borrows the model and the pool.
 * One owner thread. */
#include "engine/model/stage.h"

#include <string.h>

#include "base/memory.h"
#include "engine/kernels/maths.h"
#include "engine/model/shelf_internal.h"
#include "engine/model/stage_internal.h"

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* The page table that stage_probe.c makes up. */
static size_t probe_table_bytes(const struct stage_options *o)
{
    return ((size_t)o->kv_pages + o->max_context / KV_PAGE_TOKENS + 1) * sizeof(uint32_t);
}

void stage_memory_need(const struct model *m, const struct stage_options *o, struct stage_memory *out)
{
    struct stage_memory need = {0};
    uint32_t last = o->last_block < m->shape.blocks ? o->last_block : m->shape.blocks - 1;
    bool first_stage = o->first_block == 0, last_stage = last == m->shape.blocks - 1;
    for (uint32_t b = o->first_block; b <= last; b++)
        need.weights += weights_block_bytes(m, b);
    if (first_stage)
        need.embedding = weights_embedding_bytes(m);
    if (last_stage)
        need.head = weights_head_bytes(m, first_stage);
    if (o->first_block <= last) {
        need.kv = kv_cache_bytes(&m->shape, o->first_block, last, o->kv, o->kv_pages);
        need.buffers = forward_bytes(&m->shape, o->first_block, last, o->max_tokens, o->max_context, last_stage,
                                     pool_threads(o->pool)) +
                       probe_table_bytes(o);
    }
    need.total = need.weights + need.embedding + need.head + need.kv + need.buffers;
    *out = need;
}

static uint64_t owned_by(const struct matrix *w)
{
    return w->rows ? w->bytes : 0; /* 0 as well while it borrows the file's map */
}

static uint64_t block_owns(const struct stage *s, uint32_t i)
{
    const struct block_weights *w = &s->block[i];
    uint64_t sum = sizeof *w;
    for (int slot = 0; slot < SLOTS; slot++) {
        const struct gguf_tensor *t = s->model->block[s->options.first_block + i].slot[slot];
        sum += owned_by(&w->matrix[slot]) + w->stack_count[slot] * sizeof(struct matrix);
        for (uint32_t e = 0; e < w->stack_count[slot]; e++)
            sum += owned_by(&w->stack[slot][e]);
        if (t && (slots[slot].kind == SLOT_VECTOR || slots[slot].kind == SLOT_VECTORS))
            sum += t->shape[0] * t->shape[1] * sizeof(float);
    }
    return sum;
}

void stage_memory_used(const struct stage *s, struct stage_memory *out)
{
    struct stage_memory used = {0};
    for (uint32_t i = 0; i < s->kv.blocks; i++) {
        used.weights += block_owns(s, i);
        used.kv += (uint64_t)s->kv.pages * s->kv.run[i].page_bytes;
    }
    if (s->has_embedding)
        used.embedding = owned_by(&s->embedding.tokens) + owned_by(&s->embedding.positions);
    if (s->has_head)
        used.head = owned_by(&s->head.output) + weights_head_vector_bytes(s->model);
    used.buffers = s->forward.memory_bytes + probe_table_bytes(&s->options);
    used.total = used.weights + used.embedding + used.head + used.kv + used.buffers;
    *out = used;
}

/* ---- Creation --------------------------------------------------------------------------------------------------- */

static int check_options(const struct model *m, const struct stage_options *o, struct error *err)
{
    if (o->first_block > o->last_block || o->last_block >= m->shape.blocks)
        return error_set(err, ERR_USAGE, "%s: blocks %u to %u are no range of its %u blocks", m->info.name,
                         o->first_block, o->last_block, m->shape.blocks);
    if (o->max_tokens < 1 || o->max_tokens > 1u << 16)
        return error_set(err, ERR_USAGE, "a micro-batch of %u tokens makes no sense; 1 to 65536 do", o->max_tokens);
    if (o->max_context < 1 || o->max_context > CONTEXT_MAX)
        return error_set(err, ERR_USAGE, "a context of %u tokens makes no sense; 1 to %u do", o->max_context,
                         CONTEXT_MAX);
    if (m->shape.arch->positions == POSITIONS_LEARNED && o->max_context > m->shape.context)
        return error_set(err, ERR_USAGE, "%s knows %u positions; a context of %u is beyond them", m->info.name,
                         m->shape.context, o->max_context);
    if (o->kv_pages < 1 || o->kv_pages > 1u << 26)
        return error_set(err, ERR_USAGE, "%u KV pages make no sense; 1 to %u do", o->kv_pages, 1u << 26);
    return 0;
}

/* Bytes of the tensors that have to be read. */
static uint64_t missing_bytes(const struct stage *s, bool shares_embedding)
{
    const struct model *m = s->model;
    const struct stage_options *o = &s->options;
    uint64_t sum = 0;
    for (uint32_t b = o->first_block; b <= o->last_block; b++)
        sum += shelf_has_block(o->shelf, b) ? 0 : weights_block_source_bytes(m, b);
    if (s->has_embedding && !shelf_has_embedding(o->shelf))
        sum += weights_embedding_source_bytes(m);
    if (s->has_head && !shares_embedding && !shelf_has_head(o->shelf, false))
        sum += model_head_tensor(m)->bytes;
    return sum;
}

static int load_embedding(struct stage *s, struct weights_load *l, struct error *err)
{
    if (!shelf_has_embedding(s->options.shelf))
        return weights_load_embedding(s->model, l, &s->embedding, err);
    shelf_take_embedding(s->options.shelf, &s->embedding);
    return 0;
}

static int load_block(struct stage *s, uint32_t b, struct weights_load *l, struct error *err)
{
    struct block_weights *out = &s->block[b - s->options.first_block];
    if (!shelf_has_block(s->options.shelf, b))
        return weights_load_block(s->model, b, l, out, err);
    shelf_take_block(s->options.shelf, b, out);
    return 0;
}

static int load_head(struct stage *s, bool shares_embedding, struct weights_load *l, struct error *err)
{
    if (!shelf_has_head(s->options.shelf, shares_embedding))
        return weights_load_head(s->model, l, s->has_embedding ? &s->embedding.tokens : NULL, &s->head, err);
    shelf_take_head(s->options.shelf, shares_embedding ? &s->embedding.tokens : NULL, &s->head);
    return 0;
}

static int load(struct stage *s, struct error *err)
{
    const struct stage_options *o = &s->options;
    struct weights_load l = {
        .pool = o->pool, .keep_mapped = o->keep_mapped, .progress = o->progress, .context = o->progress_context,
        .await_tensor = o->await_tensor, .await_context = o->await_context};
    bool shares_embedding = s->has_embedding && !s->model->global[OUTPUT];
    l.total = missing_bytes(s, shares_embedding);

    int failed = 0;
    if (s->has_embedding)
        failed = load_embedding(s, &l, err);
    for (uint32_t b = o->first_block; b <= o->last_block && !failed; b++)
        failed = load_block(s, b, &l, err);
    if (!failed && s->has_head)
        failed = load_head(s, shares_embedding, &l, err);
    if (o->read_bytes)
        *o->read_bytes = l.done;
    return failed;
}

int stage_create(const struct model *m, const struct stage_options *o, struct stage **out, struct error *err)
{
    int failed = check_options(m, o, err);
    if (failed)
        return failed;
    struct stage *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NOMEM, "no memory for a stage");
    s->model = m;
    s->options = *o;
    s->has_embedding = o->first_block == 0;
    s->has_head = o->last_block == m->shape.blocks - 1;
    s->block = mem_zalloc(o->last_block - o->first_block + 1, sizeof *s->block);
    s->probe_pages = mem_zalloc(1, probe_table_bytes(o));
    if (!s->block || !s->probe_pages) {
        failed =
            error_set(err, ERR_NOMEM, "no memory for the weights of %u blocks", o->last_block - o->first_block + 1);
        goto fail;
    }
    if ((failed = kv_cache_create(&m->shape, o->first_block, o->last_block, o->kv, o->kv_pages,
                                  shelf_kv(o->shelf, o->kv, o->kv_pages), &s->kv, err)) < 0 ||
        (failed = forward_create(&m->shape, o->first_block, o->last_block, o->max_tokens, o->max_context, s->has_head,
                                 o->pool, &s->forward, err)) < 0)
        goto fail;
    static const enum global_slot rotations[] = {ROPE_FREQS, ROPE_LONG, ROPE_SHORT};
    const struct weights_load l = {.await_tensor = o->await_tensor, .await_context = o->await_context};
    for (size_t i = 0; i < sizeof rotations / sizeof *rotations; i++)
        if ((failed = weights_await(&l, m->global[rotations[i]], err)) < 0)
            goto fail;
    for (uint32_t b = o->first_block; b <= o->last_block; b++) {
        enum rope_use use = m->shape.block[b].rope;
        if (use != ROPE_NOT && !s->ropes[use].inverse_frequency &&
            (failed = rope_create(m, use, o->max_context, &s->ropes[use], err)) < 0)
            goto fail;
    }
    if ((failed = load(s, err)) < 0)
        goto fail;
    s->options.shelf = NULL;
    s->options.read_bytes = NULL;
    *out = s;
    return 0;
fail:
    if (o->shelf && s->kv.run) /* what came off the shelf, pages too, lies there again */
        shelf_put(o->shelf, s);
    else
        stage_destroy(s);
    return failed;
}

void stage_destroy(struct stage *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->block && i <= s->options.last_block - s->options.first_block; i++)
        weights_free_block(&s->block[i]);
    mem_free(s->block);
    mem_free(s->probe_pages);
    weights_free_embedding(&s->embedding);
    weights_free_head(&s->head);
    for (int use = 0; use < 3; use++)
        rope_free(&s->ropes[use]);
    kv_cache_free(&s->kv);
    forward_free(&s->forward);
    mem_free(s);
}

const struct stage_options *stage_options(const struct stage *s)
{
    return &s->options;
}

/* ---- A micro-batch ---------------------------------------------------------------------------------------------- */

static int check_span(const struct stage *s, uint32_t i, const struct batch_span *span, struct error *err)
{
    const struct stage_options *o = &s->options;
    uint32_t vocabulary = s->model->shape.vocabulary;
    uint64_t end = (uint64_t)span->first + span->count;
    if (span->count == 0 || end > o->max_context)
        return error_set(err, ERR_FORMAT, "span %u computes positions %u to %llu, but a context holds %u", i,
                         span->first, (unsigned long long)end, o->max_context);
    if (!span->tokens || !span->pages)
        return error_set(err, ERR_FORMAT, "span %u has no %s", i, span->tokens ? "pages" : "tokens");
    for (uint64_t p = span->first; p < end; p++)
        if (span->tokens[p] < 0 || (uint32_t)span->tokens[p] >= vocabulary)
            return error_set(err, ERR_FORMAT, "span %u: token %d at position %llu is not in a vocabulary of %u", i,
                             span->tokens[p], (unsigned long long)p, vocabulary);
    for (uint64_t p = 0; p < (end + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS; p++)
        if (span->pages[p] >= o->kv_pages)
            return error_set(err, ERR_FORMAT, "span %u: page %u is not one of this stage's %u", i, span->pages[p],
                             o->kv_pages);
    if (span->want == WANT_SCORES &&
        (span->next_token < -1 || (span->next_token >= 0 && (uint32_t)span->next_token >= vocabulary)))
        return error_set(err, ERR_FORMAT, "span %u: token %d is not in a vocabulary of %u", i, span->next_token,
                         vocabulary);
    if (span->want == WANT_TOKEN && s->has_head && !span->sampling)
        return error_set(err, ERR_FORMAT, "span %u wants a token but says not how to choose it", i);
    return 0;
}

/* Part of a stage's work: blocks [first, end). */
struct range {
    uint32_t first, end;
};

static int check_batch(const struct stage *s, struct range r, const struct batch_span *spans, uint32_t span_count,
                       const float *in, const float *out, const struct span_result *results, struct error *err)
{
    uint64_t total = 0;
    uint32_t logits = 0;
    for (uint32_t i = 0; i < span_count; i++) {
        int failed = check_span(s, i, &spans[i], err);
        if (failed)
            return failed;
        total += spans[i].count;
        logits += spans[i].want == WANT_LOGITS;
    }
    if (total == 0 || total > s->options.max_tokens)
        return error_set(err, ERR_BOUND, "a micro-batch of %llu tokens; this stage takes 1 to %u",
                         (unsigned long long)total, s->options.max_tokens);
    if (logits > HEAD_ROWS)
        return error_set(err, ERR_BOUND, "%u spans want their logits at once; at most %u can", logits, HEAD_ROWS);
    bool wants_in = r.first > 0, whole = r.end == s->options.last_block + 1;
    if ((wants_in && !in) || (whole && (s->has_head ? !results : !out)))
        return error_set(err, ERR_INTERNAL, "a stage was called without its %s", wants_in && !in ? "input" : "output");
    return 0;
}

/* Lists the positions whose logits are wanted: outputs for head_logits (those of WANT_LOGITS last, since their rows
 * must outlive the call), kept: their rows, rising. Rows in outputs count kept rows. */
static uint32_t list_outputs(struct forward *f, const struct batch_span *spans, uint32_t span_count,
                             uint32_t *logit_rows)
{
    struct head_output last[HEAD_ROWS];
    uint32_t row = 0, kept = 0, count = 0, logits = 0;
    for (uint32_t i = 0; i < span_count; row += spans[i++].count) {
        const struct batch_span *span = &spans[i];
        uint32_t end = span->count;
        if (span->want == WANT_NOTHING)
            continue;
        if (span->want == WANT_SCORES && span->next_token < 0)
            end--;
        for (uint32_t p = span->want == WANT_SCORES ? 0 : end - 1; p < end; p++) {
            struct head_output output = {.row = kept, .at = row + p, .span = i, .index = p};
            f->kept[kept++] = row + p;
            if (span->want == WANT_LOGITS)
                last[logits++] = output;
            else
                f->outputs[count++] = output;
        }
    }
    memcpy(f->outputs + count, last, logits * sizeof *last);
    *logit_rows = logits;
    return count + logits;
}

struct scoring {
    struct forward *f;
    const struct batch_span *spans;
    const struct head_output *outputs;
};

/* Negative log-likelihood of the token that follows: log Σ exp(l - max) - (l[token] - max). Logits are overwritten. */
static float score(float *logits, uint32_t vocabulary, int32_t token)
{
    uint32_t best = 0;
    for (uint32_t v = 1; v < vocabulary; v++)
        if (logits[v] > logits[best])
            best = v;
    double below = (double)logits[best] - logits[token];
    op_softmax(NULL, logits, vocabulary, 1, vocabulary);
    return logits[best] > 0 ? (float)(below - maths_log(logits[best])) : __builtin_nanf("");
}

static void score_rows(void *context, size_t begin, size_t end, int thread)
{
    struct scoring *c = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const struct head_output *o = &c->outputs[i];
        const struct batch_span *span = &c->spans[o->span];
        if (span->want != WANT_SCORES)
            continue;
        uint32_t vocabulary = c->f->shape->vocabulary;
        int32_t next = o->index + 1 < span->count ? span->tokens[span->first + o->index + 1] : span->next_token;
        c->f->scores[o->at] = score(c->f->logits + i * vocabulary, vocabulary, next);
    }
}

/* Logits of the wanted positions, HEAD_ROWS at a time, and what each span wants of them. */
static int finish(struct stage *s, const struct batch_span *spans, uint32_t count, uint32_t logit_rows,
                  struct span_result *results, struct error *err)
{
    struct forward *f = &s->forward;
    uint32_t vocabulary = f->shape->vocabulary;
    for (uint32_t at = 0, n; at < count; at += n) {
        uint32_t end = at < count - logit_rows ? count - logit_rows : count;
        n = end - at < HEAD_ROWS ? end - at : HEAD_ROWS;
        const struct head_output *outputs = f->outputs + at;
        head_logits(f, &s->head, outputs, n);
        struct scoring c = {.f = f, .spans = spans, .outputs = outputs};
        pool_for(s->options.pool, n, 1, score_rows, &c);
        for (uint32_t i = 0; i < n; i++) {
            const struct batch_span *span = &spans[outputs[i].span];
            struct span_result *r = &results[outputs[i].span];
            float *logits = f->logits + (size_t)i * vocabulary;
            int failed = 0;
            if (span->want == WANT_LOGITS)
                r->logits = logits;
            else if (span->want == WANT_TOKEN)
                failed = sampler_pick(span->sampling, logits, vocabulary, span->tokens, span->first + span->count,
                                      f->sampler_scratch, &r->sampled, err);
            else if (!(f->scores[outputs[i].at] == f->scores[outputs[i].at]))
                failed =
                    error_set(err, ERR_FORMAT, "logits at position %u are not numbers; the model's weights are damaged",
                              span->first + outputs[i].index);
            if (failed)
                return failed;
        }
    }
    return 0;
}

static int run(struct stage *s, struct range r, const struct batch_span *spans, uint32_t span_count, const float *in,
               float *out, struct span_result *results, struct error *err)
{
    struct forward *f = &s->forward;
    const struct model_shape *shape = &s->model->shape;
    bool ends = s->has_head && r.end == s->options.last_block + 1;
    int failed = check_batch(s, r, spans, span_count, in, out, results, err);
    if (failed)
        return failed;

    f->n = 0;
    for (uint32_t i = 0; i < span_count; i++)
        for (uint32_t p = 0; p < spans[i].count; p++, f->n++) {
            f->tokens[f->n] = spans[i].tokens[spans[i].first + p];
            f->position[f->n] = spans[i].first + p;
            f->pages[f->n] = spans[i].pages;
        }
    forward_rotations(f, s->ropes);
    if (r.first == 0)
        embed(f, &s->embedding);
    else
        memcpy(f->x, in, (size_t)f->n * shape->width * sizeof *f->x);

    uint32_t count = 0, logit_rows = 0, n = f->n;
    if (ends) {
        memset(results, 0, span_count * sizeof *results);
        memset(f->scores, 0, n * sizeof *f->scores);
        count = list_outputs(f, spans, span_count, &logit_rows);
        for (uint32_t i = 0, at = 0; i < span_count; at += spans[i++].count)
            results[i].scores = spans[i].want == WANT_SCORES ? f->scores + at : NULL;
    }
    for (uint32_t b = r.first; b < r.end; b++) {
        bool last = ends && b == s->options.last_block && count < n;
        block_forward(f, &s->block[b - s->options.first_block], b, &s->kv, last ? f->kept : NULL, count);
    }
    if (ends)
        return finish(s, spans, count, logit_rows, results, err);
    if (out)
        memcpy(out, f->x, (size_t)n * shape->width * sizeof *out);
    return 0;
}

int stage_forward(struct stage *s, const struct batch_span *spans, uint32_t span_count, const float *in, float *out,
                  struct span_result *results, struct error *err)
{
    return run(s, (struct range){s->options.first_block, s->options.last_block + 1}, spans, span_count, in, out, results,
               err);
}

int stage_forward_blocks(struct stage *s, uint32_t first_block, uint32_t end_block, const struct batch_span *spans,
                         uint32_t span_count, const float *in, float *out, struct span_result *results,
                         struct error *err)
{
    if (first_block < s->options.first_block || first_block >= end_block || end_block > s->options.last_block + 1)
        return error_set(err, ERR_USAGE, "blocks %u to %u are no part of a stage of blocks %u to %u", first_block,
                         end_block, s->options.first_block, s->options.last_block);
    return run(s, (struct range){first_block, end_block}, spans, span_count, in, out, results, err);
}

int stage_copy_page(struct stage *s, uint32_t src, uint32_t dst, uint32_t count)
{
    if (src >= s->options.kv_pages || dst >= s->options.kv_pages || count > KV_PAGE_TOKENS)
        return ERR_FORMAT;
    kv_cache_copy(&s->kv, src, dst, count);
    return 0;
}

int stage_put_page(struct stage *s, uint32_t block, uint32_t page, const void *bytes, size_t size)
{
    if (block < s->options.first_block || block > s->options.last_block || page >= s->options.kv_pages)
        return ERR_FORMAT;
    const struct kv_run *r = kv_cache_run(&s->kv, block);
    if (size != r->page_bytes)
        return ERR_FORMAT;
    memcpy(r->base + page * r->page_bytes, bytes, size);
    return 0;
}
