/* Builds the planner's problem from measurements. Owns nothing; pure; any thread. */
#include "coordinator/core/planning.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/core/codecs.h"
#include "coordinator/core/runner.h"
#include "coordinator/core/schedule.h"
#include "planner/cost.h"

#define GRID_MAX 64
/* Running statistics change a profile: from so many micro-batches on, when they differ by so much, and so far at most. */
#define CORRECT_LEAST 16
#define CORRECT_BAND 1.05
#define SLOWER_MOST 32.0
#define FASTER_MOST 4.0
/* For links that nobody measured: a wired home network. */
#define UNKNOWN_BYTES_PER_S 117e6
#define UNKNOWN_RTT_S 0.3e-3
/* Two predictions no further apart than this are the same to us: block times vary by as much from run to run. */
#define ALIKE 1.02
/* A block's time for one token may grow by so much from one point of a measured grid to the next. */
#define SMOOTH 1.5

/* ---- Profiles ---------------------------------------------------------------------------------------------------- */

struct grid {
    int count;
    double at[GRID_MAX];
};

static void grid_add(struct grid *g, double value)
{
    int i = g->count;
    for (int k = 0; k < g->count; k++)
        if (g->at[k] == value)
            return;
    if (g->count == GRID_MAX)
        return;
    for (; i && g->at[i - 1] > value; i--)
        g->at[i] = g->at[i - 1];
    g->at[i] = value;
    g->count++;
}

static double distance(double a, double b)
{
    return fabs(log2(a + 1) - log2(b + 1));
}

#define KIND_HEAD (-1)

/* The time of the cell nearest to what is asked, scaled by the work where the nearest is another size or kind. A whole
 * grid is measured as a rule; this fills the holes of one that was not. */
static double cell_time(const struct control_message *profile, const struct plan_model *model, int kind,
                        double sequences, double tokens, double past)
{
    const struct control_cell *best = NULL;
    double least = 0;
    for (uint32_t i = 0; i < profile->u.profile.cell_count; i++) {
        const struct control_cell *c = &profile->u.profile.cells[i];
        if ((c->tokens > 1) != (tokens > 1) || (c->kind == FRAME_KIND_HEAD) != (kind < 0))
            continue;
        double d = (kind < 0 || c->kind == (uint32_t)kind ? 0 : 100) + 2 * distance(c->sequences, sequences) +
                   2 * distance(c->tokens, tokens) + distance(c->past, past);
        if (!best || d < least) {
            best = c;
            least = d;
        }
    }
    if (!best)
        return 0;
    double seconds = best->seconds * (tokens / best->tokens);
    if (kind >= 0 && best->kind != (uint32_t)kind) {
        double mine = 0, theirs = 0;
        for (int b = 0; b < model->blocks; b++) {
            if (model->block[b].measured_class == kind)
                mine = model->block[b].weight_bytes;
            if (model->block[b].measured_class == (int)best->kind)
                theirs = model->block[b].weight_bytes;
        }
        if (mine > 0 && theirs > 0)
            seconds *= mine / theirs;
    }
    return seconds;
}

/* One disturbed measurement must not ruin a plan, least of all where it is extrapolated: with more tokens a block takes
 * not much longer a token than with fewer. It may take less time (kernels work on tiles of tokens), but not at the end,
 * from where it would fall to nothing. `times` go `step` apart, one for each of at[]. */
static void smooth(double *times, size_t step, const double *at, int count)
{
    for (int i = 1; i < count; i++) {
        double before = times[(i - 1) * step], *now = &times[i * step], most = SMOOTH * before * at[i] / at[i - 1];
        if (*now > most)
            *now = most;
        if (i == count - 1 && *now < before)
            *now = before;
    }
}

/* A longer context never makes a block faster: what a disturbed measurement says would else be carried on to contexts
 * that nobody measured, down to nothing. */
static void rise(double *times, int count)
{
    for (int i = 1; i < count; i++)
        if (times[i] < times[i - 1])
            times[i] = times[i - 1];
}

static int fill_profile(const struct control_message *m, const struct plan_model *model, int classes,
                        struct plan_device *device, struct error *err)
{
    struct grid batch = {0}, context = {0}, chunk = {0}, past = {0};
    for (uint32_t i = 0; i < m->u.profile.cell_count; i++) {
        const struct control_cell *c = &m->u.profile.cells[i];
        if (!(c->seconds > 0) || !c->sequences || !c->tokens)
            return error_set(err, ERR_FORMAT, "worker \"%s\" measured a block in %g s, which cannot be", device->name,
                             c->seconds);
        if (c->kind == FRAME_KIND_HEAD)
            continue;
        grid_add(c->tokens > 1 ? &chunk : &batch, c->tokens > 1 ? c->tokens : c->sequences);
        grid_add(c->tokens > 1 ? &past : &context, c->past);
    }
    if (!batch.count || !chunk.count)
        return error_set(err, ERR_FORMAT, "worker \"%s\" measured no %s", device->name,
                         batch.count ? "prefill" : "decode");
    struct plan_profile *p = plan_profile_new(classes, batch.count, context.count, chunk.count, past.count);
    if (!p)
        return error_set(err, ERR_NOMEM, "out of memory for a device profile");
    memcpy(p->batch, batch.at, (size_t)batch.count * sizeof *p->batch);
    memcpy(p->context, context.at, (size_t)context.count * sizeof *p->context);
    memcpy(p->chunk, chunk.at, (size_t)chunk.count * sizeof *p->chunk);
    memcpy(p->past, past.at, (size_t)past.count * sizeof *p->past);
    for (int kind = 0; kind < classes; kind++) {
        for (int b = 0; b < batch.count; b++)
            for (int c = 0; c < context.count; c++)
                p->decode[(kind * batch.count + b) * context.count + c] =
                    cell_time(m, model, kind, batch.at[b], 1, context.at[c]);
        for (int k = 0; k < chunk.count; k++)
            for (int c = 0; c < past.count; c++)
                p->prefill[(kind * chunk.count + k) * past.count + c] =
                    cell_time(m, model, kind, 1, chunk.at[k], past.at[c]);
    }
    for (int kind = 0; kind < classes; kind++) {
        for (int b = 0; b < batch.count; b++)
            rise(&p->decode[(kind * batch.count + b) * context.count], context.count);
        for (int k = 0; k < chunk.count; k++)
            rise(&p->prefill[(kind * chunk.count + k) * past.count], past.count);
        for (int c = 0; c < context.count; c++)
            smooth(&p->decode[kind * batch.count * context.count + c], (size_t)context.count, batch.at, batch.count);
        for (int c = 0; c < past.count; c++)
            smooth(&p->prefill[kind * chunk.count * past.count + c], (size_t)past.count, chunk.at, chunk.count);
    }
    /* A head that was measured for one token only grows as a block does. */
    for (int b = 0; b < batch.count; b++) {
        p->head[b] = cell_time(m, model, KIND_HEAD, batch.at[b], 1, 0);
        if (!(p->head[b] > 0))
            p->head[b] = m->u.profile.head_seconds * p->decode[b * context.count] / p->decode[0];
    }
    smooth(p->head, 1, batch.at, batch.count);
    p->embedding_per_token = m->u.profile.embedding_seconds;
    device->profile = p;
    return 0;
}

/* ---- The problem ------------------------------------------------------------------------------------------------- */

static int fill_model(const struct planning_input *in, struct plan_problem *p)
{
    const struct model_info *info = model_info(in->model);
    struct block_cost head = model_head_cost(in->model);
    int classes = 0;
    p->model.hidden = info->width;
    p->model.embedding_bytes = (double)model_embedding_cost(in->model).weight_bytes;
    p->model.head_weight_bytes = (double)head.weight_bytes;
    p->model.head_flops_per_token = (double)head.flops_per_token;
    for (uint32_t b = 0; b < info->blocks; b++) {
        struct block_cost cost = model_block_cost(in->model, b, in->kv);
        p->model.block[b] = (struct plan_block){
            .weight_bytes = (double)cost.read_bytes,
            .resident_bytes = (double)cost.weight_bytes,
            .flops_per_token = (double)cost.flops_per_token,
            .attention_flops = (double)cost.attention_flops,
            .kv_bytes = (double)cost.kv_bytes_per_token,
            .measured_class = (int)cost.kind,
        };
        if ((int)cost.kind + 1 > classes)
            classes = (int)cost.kind + 1;
    }
    return classes;
}

/* Buffers of a stage that has everything: the most that any stage will need. */
static double buffer_bytes(const struct planning_input *in)
{
    struct stage_options o = {
        .last_block = model_info(in->model)->blocks - 1,
        .kv = in->kv,
        .kv_pages = (in->kv_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
        .max_tokens = in->max_tokens,
        .max_context = in->max_context,
    };
    struct stage_memory memory;
    stage_memory_need(in->model, &o, &memory);
    return (double)memory.buffers;
}

static void correct_profile(struct plan_device *d, double factor)
{
    struct plan_profile *f = d->profile;
    for (int i = 0; i < f->classes * f->batches * f->contexts; i++)
        f->decode[i] *= factor;
    for (int i = 0; i < f->classes * f->chunks * f->pasts; i++)
        f->prefill[i] *= factor;
    for (int i = 0; i < f->batches; i++)
        f->head[i] *= factor;
    f->embedding_per_token *= factor;
    d->read /= factor;
    d->compute /= factor;
}

static int fill_device(const struct planning_input *in, uint32_t i, int classes, struct plan_problem *p,
                       struct error *err)
{
    const struct planning_node *node = &in->nodes[i];
    struct plan_device *d = &p->device[i];
    if (!(d->name = mem_strdup(node->name)))
        return error_set(err, ERR_NOMEM, "out of memory for the plan");
    d->memory = (double)node->memory_bytes;
    d->buffers = buffer_bytes(in);
    d->host = (int)node->host;
    d->host_cores = node->cores;
    d->threads = node->threads;
    d->host_read = node->host_read_bytes_per_s;
    d->read = d->compute = 1e9; /* unused with a profile; without one nothing is predicted */
    if (!node->profile)
        return 0;
    if (node->profile->u.profile.read_bytes_per_s > 0)
        d->read = node->profile->u.profile.read_bytes_per_s;
    if (node->profile->u.profile.int8_macs_per_s > 0)
        d->compute = 2 * node->profile->u.profile.int8_macs_per_s;
    d->overhead_s = node->profile->u.profile.overhead_seconds;
    int rc = fill_profile(node->profile, &p->model, classes, d, err);
    if (!rc && node->correction > 0)
        correct_profile(d, node->correction);
    return rc;
}

double planning_expected(const struct plan_problem *p, const struct plan *plan, uint32_t stage,
                         const struct runner_stage *measured)
{
    const struct plan_stage *s = &plan->stage[stage];
    if (stage >= (uint32_t)plan->stages || plan->tpot_s <= 0 || !measured->decodes)
        return 0;
    /* Linear between whole numbers of sequences, as the grid is. */
    int batch = (int)measured->decode_sequences;
    batch = batch < 1 ? 1 : batch;
    double low = cost_stage_decode_at(p, s->device, s->first_block, s->last_block, batch, measured->decode_context);
    double high = cost_stage_decode_at(p, s->device, s->first_block, s->last_block, batch + 1, measured->decode_context);
    double part = measured->decode_sequences - batch;
    return low + (part > 0 ? part : 0) * (high - low) - p->device[s->device].overhead_s;
}

double planning_expected_of(const struct plan_problem *p, const struct plan *plan, uint32_t stage, uint32_t rows, uint32_t past)
{
    const struct plan_stage *s = &plan->stage[stage];
    return cost_stage_chunk(p, s->device, s->first_block, s->last_block, rows ? rows : 1, past, true);
}

double planning_correct(double before, const struct runner_stage *measured, double expected)
{
    double now = before > 0 ? before : 1, ratio = expected > 0 ? measured->decode_seconds / expected : 1;
    if (measured->decodes < CORRECT_LEAST || !(ratio > 0) || (ratio < CORRECT_BAND && ratio > 1 / CORRECT_BAND))
        return now;
    now *= ratio;
    return now > SLOWER_MOST ? SLOWER_MOST : now < 1 / FASTER_MOST ? 1 / FASTER_MOST : now;
}

int planning_problem(const struct planning_input *in, struct plan_problem **out, struct error *err)
{
    const struct model_info *info = model_info(in->model);
    uint32_t n = in->node_count;
    if (n > PLAN_MAX_DEVICES || info->blocks > PLAN_MAX_BLOCKS)
        return error_set(err, ERR_BOUND, "%u nodes and %u blocks; the planner takes at most %d and %d", n, info->blocks,
                         PLAN_MAX_DEVICES, PLAN_MAX_BLOCKS);
    struct plan_problem *p = plan_problem_new((int)info->blocks, (int)n);
    if (!p)
        return error_set(err, ERR_NOMEM, "out of memory for the plan");
    int classes = fill_model(in, p), rc = 0;
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = fill_device(in, i, classes, p, err);
    if (!rc && !(p->coordinator = mem_strdup(in->here ? in->nodes[0].name : "coordinator")))
        rc = error_set(err, ERR_NOMEM, "out of memory for the plan");
    if (rc) {
        plan_problem_free(p);
        return rc;
    }
    p->coordinator_device = in->here ? 0 : -1;
    for (uint32_t a = 0; a <= n; a++)
        for (uint32_t b = 0; b <= n; b++) {
            struct plan_link *link = &p->link[a * (n + 1) + b];
            *link = (struct plan_link){UNKNOWN_BYTES_PER_S, UNKNOWN_RTT_S, 0, NULL};
            if (in->here) { /* the same memory */
                *link = (struct plan_link){1e12, 0, 0, NULL};
            } else if (a == n || b == n) {
                double rtt = a == b ? 0 : in->nodes[a == n ? b : a].rtt_seconds;
                if (rtt > 0)
                    link->rtt_s = rtt;
            } else if (in->links && in->links[a * n + b].bytes_per_s > 0) {
                link->bandwidth = in->links[a * n + b].bytes_per_s;
                link->rtt_s = in->links[a * n + b].rtt_seconds;
            }
        }
    p->workload = (struct plan_workload){
        .prompt_tokens = (int)in->prompt_tokens,
        .output_tokens = (int)in->output_tokens,
        .concurrency = (int)in->concurrency,
        .context = in->prompt_tokens + in->output_tokens / 2.0, /* of a decoding sequence, on average */
        .kv_tokens = in->kv_tokens,
        .chunk = (int)in->chunk_tokens,
        .value_bytes = codec_value_bytes(in->codec),
    };
    p->objective = in->objective;
    p->pin_first = -1;
    p->may_round = in->may_round && !in->here && in->codec == CODEC_F32;
    *out = p;
    return 0;
}

/* ---- The plan ---------------------------------------------------------------------------------------------------- */

/* A token passes every stage, so on equal devices any split has the same TPOT: within what a measurement can tell, the
 * split whose prompts come through soonest is the better one. *plan keeps its bound, so that the gap stays honest. */
static void balance(const struct plan_problem *p, struct plan *plan)
{
    struct plan_problem *sooner = plan_problem_copy(p);
    struct plan found, here;
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    struct plan_options same = {.stages = plan->stages, .order = order};
    if (!sooner)
        return; /* the plan at hand is good */
    for (int s = 0; s < plan->stages; s++)
        order[s] = plan->stage[s].device;
    sooner->objective = PLAN_TTFT;
    if (!plan_solve(sooner, &same, &found, NULL)) {
        for (int s = 0; s < found.stages; s++)
            counts[s] = found.stage[s].last_block - found.stage[s].first_block + 1;
        if (!plan_evaluate(p, order, counts, found.stages, &here, NULL) && here.tpot_s <= plan->tpot_s * ALIKE &&
            here.ttft_s < plan->ttft_s) {
            here.bound_s = plan->bound_s;
            here.states = plan->states;
            here.given_up_ttft_s = plan->ttft_s;
            *plan = here;
        }
    }
    plan_problem_free(sooner);
}

/* What a person asked of the plan. */
struct wish {
    uint32_t stages, split_count;
    const uint32_t *split; /* or NULL */
};

static int solve(void *context, struct plan_problem *p, struct plan *out, struct error *err)
{
    const struct wish *wish = context;
    uint32_t stages = wish->stages, split_count = wish->split_count;
    const uint32_t *split = wish->split;
    struct plan_options options = {.stages = (int)stages};
    int counts[PLAN_MAX_DEVICES];
    uint64_t sum = 0;
    for (uint32_t i = 0; split && i < split_count; i++)
        sum += split[i];
    if (split && sum != (uint64_t)p->model.blocks)
        return error_set(err, ERR_USAGE, "the split adds up to %llu blocks, but the model has %d",
                         (unsigned long long)sum, p->model.blocks);
    if (stages && split && stages != split_count)
        return error_set(err, ERR_USAGE, "the split names %u stages, not %u", split_count, stages);
    if (split)
        stages = split_count;
    if (stages > (uint32_t)p->devices)
        return error_set(err, ERR_USAGE, "%u stages need %u nodes, but there are %d", stages, stages, p->devices);
    if (stages > (uint32_t)p->model.blocks)
        return error_set(err, ERR_USAGE, "%u stages are more than the model's %d blocks", stages, p->model.blocks);
    options.stages = (int)stages;
    if (split) {
        for (uint32_t i = 0; i < split_count; i++)
            counts[i] = (int)split[i];
        options.counts = counts;
    }
    int rc = plan_solve(p, &options, out, err);
    if (!rc && out->stages > 1) {
        p->workload.chunk = (int)scheduler_chunk((uint64_t)p->workload.prompt_tokens, (uint32_t)out->stages,
                                                 (uint32_t)p->workload.chunk);
        options.stages = out->stages;
        rc = plan_solve(p, &options, out, err);
    }
    if (!rc && p->objective == PLAN_LATENCY && !split && out->stages > 1)
        balance(p, out);
    return rc;
}

int planning_in_order(const struct plan_problem *p, const int *order, uint32_t stages, const uint32_t *split,
                      struct plan *out, struct error *err)
{
    int counts[PLAN_MAX_DEVICES];
    for (uint32_t i = 0; split && i < stages; i++)
        counts[i] = (int)split[i];
    struct plan_options options = {.stages = (int)stages, .order = order, .counts = split ? counts : NULL};
    int rc = plan_solve(p, &options, out, err);
    if (!rc && p->objective == PLAN_LATENCY && !split && out->stages > 1)
        balance(p, out);
    return rc;
}

int planning_solve(struct plan_problem *p, uint32_t stages, const uint32_t *split, uint32_t split_count,
                   struct plan *out, struct error *err)
{
    struct wish wish = {stages, split_count, split};
    int rc = solve(&wish, p, out, err);
    return rc || !p->may_round || p->devices < 2 ? rc : codecs_choose(p, solve, &wish, out, err);
}

void planning_unmeasured(const struct plan_problem *p, const uint32_t *split, uint32_t split_count, struct plan *out)
{
    memset(out, 0, sizeof *out);
    out->objective = p->objective;
    out->stages = (int)split_count;
    out->microbatches = (int)split_count;
    out->batch = 1;
    out->link_to = -1;
    for (uint32_t i = 0, first = 0; i < split_count; first += split[i++]) {
        struct plan_stage *stage = &out->stage[i];
        stage->device = (int)i;
        stage->first_block = (int)first;
        stage->last_block = (int)(first + split[i] - 1);
        stage->memory_bytes = cost_stage_memory(p, (int)i, stage->first_block, stage->last_block);
    }
}
