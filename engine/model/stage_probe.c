/* Timing a stage's blocks and ends on made-up activations, for the device profile: pass after pass through a run of
 * blocks, as a micro-batch goes, so that what does not fit into the caches is read from memory each time. Uses the
 * stage's own buffers and KV pages and leaves the pages' contents undefined. The stage's thread. */
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/sample.h"
#include "engine/model/stage_internal.h"

#define REPEAT_MAX 64

/* Values about ±1, the same each time, in about the time that copying them takes. */
static void make_up(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = (float)((int32_t)(i * 37 % 64) - 32) / 32;
}

/* Of one column of the passes' times. */
static double middle(const double *times, int count, size_t step)
{
    double column[REPEAT_MAX];
    for (int i = 0; i < count; i++)
        column[i] = times[(size_t)i * step];
    return sample_usual(column, (size_t)count);
}

/* The pass that took the least time in all. */
static int fastest_pass(const double *times, int count, size_t step)
{
    int fastest = 0;
    double least = 0;
    for (int i = 0; i < count; i++) {
        double sum = 0;
        for (size_t k = 0; k < step; k++)
            sum += times[(size_t)i * step + k];
        if (!i || sum < least) {
            fastest = i;
            least = sum;
        }
    }
    return fastest;
}

static double lap(int64_t *since_ns)
{
    int64_t now = clock_ns();
    double seconds = (double)(now - *since_ns) * 1e-9;
    *since_ns = now;
    return seconds;
}

/* Head and sampler for the last token of each sequence. */
static int probe_head(struct stage *s, const struct stage_probe *o)
{
    struct forward *f = &s->forward;
    uint32_t vocabulary = s->model->shape.vocabulary;
    struct sampling sampling;
    sampling_default(&sampling);
    for (uint32_t at = 0; at < o->sequences; at += HEAD_ROWS) {
        struct head_output outputs[HEAD_ROWS];
        uint32_t n = o->sequences - at < HEAD_ROWS ? o->sequences - at : HEAD_ROWS;
        for (uint32_t r = 0; r < n; r++)
            outputs[r] = (struct head_output){.row = (at + r + 1) * o->tokens - 1};
        head_logits(f, &s->head, outputs, n);
        for (uint32_t r = 0; r < n; r++) {
            struct sampled sampled;
            int rc = sampler_pick(&sampling, f->logits + (size_t)r * vocabulary, vocabulary, f->tokens, 1,
                                  f->sampler_scratch, &sampled, NULL);
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* One pass; its times go to row[]: each block, then embedding, head, and the rest. */
static int run_pass(struct stage *s, const struct stage_probe *o, double *row)
{
    struct forward *f = &s->forward;
    size_t floats = (size_t)f->n * s->model->shape.width;
    uint32_t blocks = o->last_block - o->first_block + 1;
    int64_t begun = clock_ns(), since = begun;
    int rc = 0;
    double known = 0;
    forward_rotations(f, s->ropes);
    lap(&since);
    if (s->has_embedding && o->ends)
        embed(f, &s->embedding);
    known += row[blocks] = lap(&since);
    make_up(f->x, floats);
    lap(&since);
    for (uint32_t b = o->first_block; b <= o->last_block; b++) {
        block_forward(f, &s->block[b - s->options.first_block], b, &s->kv, NULL, 0);
        known += row[b - o->first_block] = lap(&since);
    }
    if (s->has_head && o->ends)
        rc = probe_head(s, o);
    known += row[blocks + 1] = lap(&since);
    row[blocks + 2] = (double)(since - begun) * 1e-9 - known;
    return rc;
}

int stage_probe(struct stage *s, const struct stage_probe *o, struct stage_times *out)
{
    struct forward *f = &s->forward;
    const struct stage_options *so = &s->options;
    uint64_t rows = (uint64_t)o->sequences * o->tokens, length = (uint64_t)o->past + o->tokens;
    uint64_t pages = (length + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    if (o->first_block < so->first_block || o->last_block > so->last_block || o->first_block > o->last_block ||
        rows == 0 || rows > so->max_tokens || length > so->max_context || pages > so->kv_pages)
        return ERR_BOUND;
    int repeat = o->repeat < 1 ? 1 : o->repeat > REPEAT_MAX ? REPEAT_MAX : o->repeat, rc = 0;
    uint32_t blocks = o->last_block - o->first_block + 1;
    size_t step = blocks + 3u;
    double *times = mem_alloc((size_t)repeat * step * sizeof *times);
    if (!times)
        return ERR_NOMEM;

    /* One page table, each sequence beginning elsewhere in it: as far as the pages go, none reads another's. */
    uint32_t *table = s->probe_pages;
    for (uint32_t i = 0; i < so->kv_pages + so->max_context / KV_PAGE_TOKENS + 1; i++)
        table[i] = i % so->kv_pages;
    f->n = 0;
    for (uint32_t q = 0; q < o->sequences; q++)
        for (uint32_t t = 0; t < o->tokens; t++, f->n++) {
            f->position[f->n] = o->past + t;
            f->pages[f->n] = table + q * pages % so->kv_pages;
            f->tokens[f->n] = (int32_t)(hash_mix64(f->n) % s->model->shape.vocabulary);
        }
    make_up(f->x, (size_t)f->n * s->model->shape.width);
    for (int i = o->warm ? 0 : -1; i < repeat && !rc; i++) { /* the first run only warms up */
        int64_t begun = clock_ns();
        rc = run_pass(s, o, times + (size_t)(i < 0 ? 0 : i) * step);
        if (o->between)
            o->between(o->context, (double)(clock_ns() - begun) * 1e-9);
    }
    const double *counted = times;
    if (!rc && o->fastest) {
        counted += (size_t)fastest_pass(times, repeat, step) * step;
        repeat = 1;
    }
    for (uint32_t b = 0; b < blocks && !rc; b++)
        out->blocks[b] = middle(counted + b, repeat, step);
    if (!rc) {
        out->embedding = middle(counted + blocks, repeat, step);
        out->head = middle(counted + blocks + 1, repeat, step);
        out->rest = middle(counted + blocks + 2, repeat, step);
    }
    mem_free(times);
    return rc;
}
