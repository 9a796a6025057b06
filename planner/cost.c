/* The formulas, each once. Pure; any thread. */
#include "planner/cost.h"

#include <math.h>

/* The grid segment to interpolate on: its lower index and the place within it (below 0 or above 1: extrapolated). */
static int segment(const double *grid, int n, double x, double *place)
{
    int i = 0;
    if (n == 1) {
        *place = 0;
        return 0;
    }
    while (i < n - 2 && x >= grid[i + 1])
        i++;
    *place = (x - grid[i]) / (grid[i + 1] - grid[i]);
    return i;
}

static double line(const double *grid, int n, const double *values, double x)
{
    double place;
    int i = segment(grid, n, x, &place);
    double v = n == 1 ? values[0] : values[i] + place * (values[i + 1] - values[i]);
    return v > 0 ? v : 0;
}

/* Bilinear on a row-major table [rows][columns]. */
static double surface(const double *rows, int m, const double *columns, int n, const double *values, double y, double x)
{
    double place;
    int i = segment(rows, m, y, &place);
    double low = line(columns, n, values + (size_t)i * (size_t)n, x);
    if (m == 1)
        return low;
    double v = low + place * (line(columns, n, values + (size_t)(i + 1) * (size_t)n, x) - low);
    return v > 0 ? v : 0;
}

double cost_block_decode(const struct plan_problem *p, int device, int block, int batch)
{
    return cost_block_decode_at(p, device, block, batch, p->workload.context);
}

double cost_block_decode_at(const struct plan_problem *p, int device, int block, int batch, double c)
{
    const struct plan_device *d = &p->device[device];
    const struct plan_block *k = &p->model.block[block];
    if (d->profile) {
        const struct plan_profile *f = d->profile;
        const double *table = f->decode + (size_t)k->measured_class * (size_t)f->batches * (size_t)f->contexts;
        return surface(f->batch, f->batches, f->context, f->contexts, table, batch, c);
    }
    return fmax((k->weight_bytes + batch * c * k->kv_bytes) / d->read,
                batch * (k->flops_per_token + c * k->attention_flops) / d->compute);
}

double cost_head_decode(const struct plan_problem *p, int device, int batch)
{
    const struct plan_device *d = &p->device[device];
    if (d->profile)
        return line(d->profile->batch, d->profile->batches, d->profile->head, batch);
    return fmax(p->model.head_weight_bytes / d->read, batch * p->model.head_flops_per_token / d->compute);
}

double cost_embedding(const struct plan_problem *p, int device, double tokens)
{
    const struct plan_profile *f = p->device[device].profile;
    return f ? tokens * f->embedding_per_token : 0;
}

double cost_block_prefill(const struct plan_problem *p, int device, int block, double tokens, double past)
{
    const struct plan_device *d = &p->device[device];
    const struct plan_block *k = &p->model.block[block];
    if (d->profile) {
        const struct plan_profile *f = d->profile;
        if (tokens < f->chunk[0]) { /* a few tokens take at least what one takes */
            double one = cost_block_decode_at(p, device, block, 1, past),
                   more = cost_block_prefill(p, device, block, f->chunk[0], past);
            return more > one ? one + (more - one) * (tokens - 1) / (f->chunk[0] - 1) : one;
        }
        const double *table = f->prefill + (size_t)k->measured_class * (size_t)f->chunks * (size_t)f->pasts;
        return surface(f->chunk, f->chunks, f->past, f->pasts, table, tokens, past);
    }
    return fmax((k->weight_bytes + past * k->kv_bytes) / d->read,
                tokens * (k->flops_per_token + (past + tokens / 2) * k->attention_flops) / d->compute);
}

bool cost_block_repeats(const struct plan_problem *p, int block)
{
    const struct plan_block *a = &p->model.block[block], *b = a - 1;
    return block > 0 && a->weight_bytes == b->weight_bytes && a->flops_per_token == b->flops_per_token &&
           a->attention_flops == b->attention_flops && a->kv_bytes == b->kv_bytes &&
           a->measured_class == b->measured_class;
}

double cost_stage_decode(const struct plan_problem *p, int device, int first, int last, int batch)
{
    return cost_stage_decode_at(p, device, first, last, batch, p->workload.context);
}

double cost_stage_decode_at(const struct plan_problem *p, int device, int first, int last, int batch, double context)
{
    double t = p->device[device].overhead_s, block = 0;
    for (int k = first; k <= last; k++) {
        if (k == first || !cost_block_repeats(p, k))
            block = cost_block_decode_at(p, device, k, batch, context);
        t += block;
    }
    if (first == 0)
        t += cost_embedding(p, device, batch);
    if (last == p->model.blocks - 1)
        t += cost_head_decode(p, device, batch);
    return t;
}

double cost_stage_chunk(const struct plan_problem *p, int device, int first, int last, double tokens, double past,
                        bool last_chunk)
{
    double t = p->device[device].overhead_s, block = 0;
    for (int k = first; k <= last; k++) {
        if (k == first || !cost_block_repeats(p, k))
            block = cost_block_prefill(p, device, k, tokens, past);
        t += block;
    }
    if (first == 0)
        t += cost_embedding(p, device, tokens);
    if (last == p->model.blocks - 1 && last_chunk)
        t += cost_head_decode(p, device, 1);
    return t;
}

double cost_stage_prefill(const struct plan_problem *p, int device, int first, int last, int c)
{
    return cost_stage_chunk(p, device, first, last, cost_chunk_tokens(p, c), (double)c * p->workload.chunk,
                            c == cost_chunks(p) - 1);
}

double cost_block_memory(const struct plan_problem *p, int block)
{
    const struct plan_block *k = &p->model.block[block];
    return (k->resident_bytes > 0 ? k->resident_bytes : k->weight_bytes) + k->kv_bytes * p->workload.kv_tokens;
}

double cost_stage_memory(const struct plan_problem *p, int device, int first, int last)
{
    double bytes = p->device[device].buffers;
    for (int k = first; k <= last; k++)
        bytes += cost_block_memory(p, k);
    if (first == 0)
        bytes += p->model.embedding_bytes;
    if (last == p->model.blocks - 1)
        bytes += p->model.head_weight_bytes;
    return bytes;
}

int cost_chunks(const struct plan_problem *p)
{
    return (p->workload.prompt_tokens - 1) / p->workload.chunk + 1;
}

int cost_chunk_tokens(const struct plan_problem *p, int c)
{
    int left = p->workload.prompt_tokens - c * p->workload.chunk;
    return left < p->workload.chunk ? left : p->workload.chunk;
}

double cost_transfer(const struct plan_problem *p, int from, int to, double tokens)
{
    const struct plan_link *l = plan_problem_link(p, from, to);
    if (!l)
        return 0;
    double value = l->value_bytes > 0 ? l->value_bytes : p->workload.value_bytes;
    return tokens * p->model.hidden * value / l->bandwidth;
}

double cost_hop(const struct plan_problem *p, int from, int to, double tokens)
{
    const struct plan_link *l = plan_problem_link(p, from, to);
    return l ? l->rtt_s / 2 + cost_transfer(p, from, to, tokens) : 0;
}

double cost_token_hop(const struct plan_problem *p, int from, int to)
{
    const struct plan_link *l = plan_problem_link(p, from, to);
    return l ? l->rtt_s / 2 : 0;
}

const char *cost_bytes_text(double bytes, char text[static UNITS_TEXT])
{
    return units_bytes_text(bytes < 0 ? 0 : bytes > 0x1p62 ? UINT64_C(1) << 62 : (uint64_t)bytes, text);
}
