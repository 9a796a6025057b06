/* Timing a block and the head on made-up activations, for the device profile. Uses the stage's own buffers and KV pages
 * and leaves the pages' contents undefined. The stage's thread. */
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "engine/model/stage_internal.h"

#define REPEAT_MAX 64

/* Values about ±1, the same each time. */
static void make_up(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = (float)((double)(hash_mix64(i + 1) >> 11) * 0x1p-52 - 1.0);
}

static double median(double *times, int count)
{
    for (int i = 1; i < count; i++) {
        double t = times[i];
        int at = i;
        for (; at > 0 && times[at - 1] > t; at--)
            times[at] = times[at - 1];
        times[at] = t;
    }
    return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

static int clamp_repeat(int repeat)
{
    return repeat < 1 ? 1 : repeat > REPEAT_MAX ? REPEAT_MAX : repeat;
}

double stage_probe_block(struct stage *s, uint32_t block, uint32_t sequences, uint32_t tokens, uint32_t past,
                         int repeat)
{
    struct forward *f = &s->forward;
    const struct stage_options *o = &s->options;
    uint64_t rows = (uint64_t)sequences * tokens, length = (uint64_t)past + tokens;
    uint64_t pages = (length + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    if (block < o->first_block || block > o->last_block || rows == 0 || rows > o->max_tokens ||
        length > o->max_context || pages > o->kv_pages)
        return ERR_BOUND;

    /* One page table serves all: sequences share the pages, which costs the same to read. */
    uint32_t table_room = o->max_context / KV_PAGE_TOKENS + 1;
    uint32_t *table = s->probe_pages;
    for (uint32_t i = 0; i < table_room; i++)
        table[i] = i % o->kv_pages;
    f->n = 0;
    for (uint32_t q = 0; q < sequences; q++)
        for (uint32_t t = 0; t < tokens; t++, f->n++) {
            f->position[f->n] = past + t;
            f->pages[f->n] = table;
        }
    forward_rotations(f, s->ropes);
    double times[REPEAT_MAX];
    repeat = clamp_repeat(repeat);
    for (int i = -1; i < repeat; i++) { /* the first run only warms up */
        make_up(f->x, (size_t)f->n * s->model->shape.width);
        int64_t start = clock_ns();
        block_forward(f, &s->block[block - o->first_block], block, &s->kv, NULL, 0);
        if (i >= 0)
            times[i] = (double)(clock_ns() - start) * 1e-9;
    }
    return median(times, repeat);
}

double stage_probe_head(struct stage *s, uint32_t tokens, int repeat)
{
    struct forward *f = &s->forward;
    if (tokens == 0 || tokens > s->options.max_tokens || (!s->has_head && !s->has_embedding))
        return ERR_BOUND;
    double times[REPEAT_MAX];
    repeat = clamp_repeat(repeat);
    f->n = tokens;
    make_up(f->x, (size_t)tokens * s->model->shape.width);
    for (uint32_t t = 0; t < tokens; t++) {
        f->position[t] = 0;
        f->tokens[t] = (int32_t)(hash_mix64(t) % s->model->shape.vocabulary);
    }
    for (int i = -1; i < repeat; i++) {
        int64_t start = clock_ns();
        if (s->has_embedding)
            embed(f, &s->embedding);
        for (uint32_t at = 0; s->has_head && at < tokens; at += HEAD_ROWS) {
            struct head_output outputs[HEAD_ROWS];
            uint32_t n = tokens - at < HEAD_ROWS ? tokens - at : HEAD_ROWS;
            for (uint32_t r = 0; r < n; r++)
                outputs[r] = (struct head_output){.row = at + r};
            head_logits(f, &s->head, outputs, n);
        }
        if (i >= 0)
            times[i] = (double)(clock_ns() - start) * 1e-9;
    }
    return median(times, repeat);
}
