/* Building, copying and checking problems. Owns no plan; pure. */
#include "planner/problem.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

static const char *const objective_names[PLAN_OBJECTIVES] = {"latency", "throughput", "ttft"};

const char *plan_objective_name(enum plan_objective objective)
{
    return objective_names[objective];
}

int plan_objective_parse(const char *name, enum plan_objective *out, struct error *e)
{
    for (int i = 0; i < PLAN_OBJECTIVES; i++)
        if (!strcmp(name, objective_names[i])) {
            *out = (enum plan_objective)i;
            return 0;
        }
    return error_set(e, ERR_USAGE, "unknown objective \"%.40s\"; known: latency, throughput, ttft", name);
}

struct plan_problem *plan_problem_new(int blocks, int devices)
{
    if (blocks < 1 || blocks > PLAN_MAX_BLOCKS || devices < 1 || devices > PLAN_MAX_DEVICES)
        return NULL;
    struct plan_problem *p = mem_zalloc(1, sizeof *p);
    if (!p)
        return NULL;
    size_t nodes = (size_t)devices + 1;
    p->model.block = mem_zalloc((size_t)blocks, sizeof *p->model.block);
    p->device = mem_zalloc((size_t)devices, sizeof *p->device);
    p->link = mem_zalloc(nodes * nodes, sizeof *p->link);
    if (!p->model.block || !p->device || !p->link) {
        plan_problem_free(p);
        return NULL;
    }
    p->model.blocks = blocks;
    p->devices = devices;
    p->coordinator_device = p->pin_first = -1;
    p->workload = (struct plan_workload){512, 128, 1, 1024, 1024, 256, 4};
    return p;
}

void plan_problem_free(struct plan_problem *p)
{
    if (!p)
        return;
    for (int i = 0; p->device && i < p->devices; i++) {
        mem_free(p->device[i].name);
        plan_profile_free(p->device[i].profile);
    }
    mem_free(p->device);
    mem_free(p->model.block);
    mem_free(p->link);
    mem_free(p->coordinator);
    mem_free(p);
}

struct plan_profile *plan_profile_new(int classes, int batches, int contexts, int chunks, int pasts)
{
    if (classes < 1 || batches < 1 || contexts < 1 || chunks < 1 || pasts < 1)
        return NULL;
    struct plan_profile *p = mem_zalloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->classes = classes;
    p->batches = batches;
    p->contexts = contexts;
    p->chunks = chunks;
    p->pasts = pasts;
    p->batch = mem_zalloc((size_t)batches, sizeof(double));
    p->context = mem_zalloc((size_t)contexts, sizeof(double));
    p->chunk = mem_zalloc((size_t)chunks, sizeof(double));
    p->past = mem_zalloc((size_t)pasts, sizeof(double));
    p->decode = mem_zalloc((size_t)classes * (size_t)batches, (size_t)contexts * sizeof(double));
    p->prefill = mem_zalloc((size_t)classes * (size_t)chunks, (size_t)pasts * sizeof(double));
    p->head = mem_zalloc((size_t)batches, sizeof(double));
    if (!p->batch || !p->context || !p->chunk || !p->past || !p->decode || !p->prefill || !p->head) {
        plan_profile_free(p);
        return NULL;
    }
    return p;
}

void plan_profile_free(struct plan_profile *p)
{
    if (!p)
        return;
    mem_free(p->batch);
    mem_free(p->context);
    mem_free(p->chunk);
    mem_free(p->past);
    mem_free(p->decode);
    mem_free(p->prefill);
    mem_free(p->head);
    mem_free(p);
}

static struct plan_profile *copy_profile(const struct plan_profile *p)
{
    struct plan_profile *q = plan_profile_new(p->classes, p->batches, p->contexts, p->chunks, p->pasts);
    if (!q)
        return NULL;
    size_t decode = (size_t)p->classes * (size_t)p->batches * (size_t)p->contexts;
    size_t prefill = (size_t)p->classes * (size_t)p->chunks * (size_t)p->pasts;
    memcpy(q->batch, p->batch, (size_t)p->batches * sizeof(double));
    memcpy(q->context, p->context, (size_t)p->contexts * sizeof(double));
    memcpy(q->chunk, p->chunk, (size_t)p->chunks * sizeof(double));
    memcpy(q->past, p->past, (size_t)p->pasts * sizeof(double));
    memcpy(q->decode, p->decode, decode * sizeof(double));
    memcpy(q->prefill, p->prefill, prefill * sizeof(double));
    memcpy(q->head, p->head, (size_t)p->batches * sizeof(double));
    q->embedding_per_token = p->embedding_per_token;
    return q;
}

struct plan_problem *plan_problem_subset(const struct plan_problem *p, const int *devices, int count)
{
    struct plan_problem *q = plan_problem_new(p->model.blocks, count);
    if (!q)
        return NULL;
    struct plan_block *block = q->model.block;
    memcpy(block, p->model.block, (size_t)p->model.blocks * sizeof *block);
    q->model = p->model;
    q->model.block = block;
    q->workload = p->workload;
    q->objective = p->objective;
    bool ok = !p->coordinator || (q->coordinator = mem_strdup(p->coordinator));
    for (int i = 0; ok && i < count; i++) {
        const struct plan_device *from = &p->device[devices[i]];
        q->device[i] = *from;
        q->device[i].name = from->name ? mem_strdup(from->name) : NULL;
        q->device[i].profile = from->profile ? copy_profile(from->profile) : NULL;
        ok = (!from->name || q->device[i].name) && (!from->profile || q->device[i].profile);
        if (devices[i] == p->pin_first)
            q->pin_first = i;
        if (devices[i] == p->coordinator_device)
            q->coordinator_device = i;
    }
    for (int i = 0; i <= count; i++)
        for (int k = 0; k <= count; k++) {
            const struct plan_link *l = plan_problem_link(p, i < count ? devices[i] : p->devices,
                                                          k < count ? devices[k] : p->devices);
            if (l)
                q->link[i * (count + 1) + k] = *l;
        }
    if (!ok) {
        plan_problem_free(q);
        return NULL;
    }
    return q;
}

struct plan_problem *plan_problem_copy(const struct plan_problem *p)
{
    int all[PLAN_MAX_DEVICES];
    for (int i = 0; i < p->devices; i++)
        all[i] = i;
    return plan_problem_subset(p, all, p->devices);
}

int plan_problem_device(const struct plan_problem *p, const char *name)
{
    for (int i = 0; i < p->devices; i++)
        if (p->device[i].name && !strcmp(p->device[i].name, name))
            return i;
    return -1;
}

const struct plan_link *plan_problem_link(const struct plan_problem *p, int from, int to)
{
    if (from == p->devices && p->coordinator_device >= 0)
        from = p->coordinator_device;
    if (to == p->devices && p->coordinator_device >= 0)
        to = p->coordinator_device;
    return from == to ? NULL : &p->link[from * (p->devices + 1) + to];
}

/* Checking */

/* Large enough for any real number, small enough that no sum or product of ours overflows a double. */
#define MOST 1e30

static bool amount(double v)
{
    return isfinite(v) && v >= 0 && v <= MOST;
}

static bool rate(double v)
{
    return isfinite(v) && v > 0 && v <= MOST;
}

static bool rises(const double *grid, int n)
{
    for (int i = 0; i < n; i++)
        if (!amount(grid[i]) || (i && grid[i] <= grid[i - 1]))
            return false;
    return true;
}

static bool amounts(const double *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!amount(v[i]))
            return false;
    return true;
}

static int check_profile(const struct plan_problem *p, const struct plan_device *d, struct error *e)
{
    const struct plan_profile *f = d->profile;
    if (!rises(f->batch, f->batches) || !rises(f->context, f->contexts) || !rises(f->chunk, f->chunks) ||
        !rises(f->past, f->pasts))
        return error_set(e, ERR_USAGE, "device %s: a grid of its measured profile does not rise; measure it again",
                         d->name);
    if (!amounts(f->decode, (size_t)f->classes * (size_t)f->batches * (size_t)f->contexts) ||
        !amounts(f->prefill, (size_t)f->classes * (size_t)f->chunks * (size_t)f->pasts) ||
        !amounts(f->head, (size_t)f->batches) || !amount(f->embedding_per_token))
        return error_set(e, ERR_USAGE, "device %s: its measured profile holds a time that is negative or not a number",
                         d->name);
    for (int k = 0; k < p->model.blocks; k++)
        if (p->model.block[k].measured_class < 0 || p->model.block[k].measured_class >= f->classes)
            return error_set(e, ERR_USAGE, "device %s: its measured profile lacks the class of block %d", d->name, k);
    return 0;
}

static int check_device(const struct plan_problem *p, int i, struct error *e)
{
    const struct plan_device *d = &p->device[i];
    if (!d->name || !*d->name)
        return error_set(e, ERR_USAGE, "device %d has no name", i);
    for (int k = 0; k < i; k++)
        if (!strcmp(p->device[k].name, d->name))
            return error_set(e, ERR_USAGE, "two devices are named %s; give each its own name", d->name);
    if (!amount(d->memory) || !amount(d->buffers) || !amount(d->overhead_s))
        return error_set(e, ERR_BOUND, "device %s: memory, buffers and overhead must not be negative", d->name);
    if (d->profile)
        return check_profile(p, d, e);
    if (!rate(d->read) || !rate(d->compute))
        return error_set(e, ERR_BOUND, "device %s: read and compute must be above zero", d->name);
    return 0;
}

static int check_links(const struct plan_problem *p, struct error *e)
{
    for (int i = 0; i <= p->devices; i++)
        for (int k = 0; k <= p->devices; k++) {
            const struct plan_link *l = plan_problem_link(p, i, k);
            if (l && (!rate(l->bandwidth) || !amount(l->rtt_s) || !amount(l->value_bytes)))
                return error_set(e, ERR_BOUND, "the link from %s to %s has no bandwidth or a negative round trip",
                                 i < p->devices ? p->device[i].name : p->coordinator,
                                 k < p->devices ? p->device[k].name : p->coordinator);
        }
    return 0;
}

int plan_problem_check(const struct plan_problem *p, struct error *e)
{
    const struct plan_model *m = &p->model;
    const struct plan_workload *w = &p->workload;
    if (m->blocks < 1 || m->blocks > PLAN_MAX_BLOCKS)
        return error_set(e, ERR_BOUND, "%d blocks; from 1 to %d can be planned", m->blocks, PLAN_MAX_BLOCKS);
    if (p->devices < 1 || p->devices > PLAN_MAX_DEVICES)
        return error_set(e, ERR_BOUND, "%d devices; from 1 to %d can be planned", p->devices, PLAN_MAX_DEVICES);
    if (!amount(m->hidden) || !amount(m->embedding_bytes) || !amount(m->head_weight_bytes) ||
        !amount(m->head_flops_per_token))
        return error_set(e, ERR_BOUND, "model: hidden, embedding_bytes and head must not be negative");
    for (int k = 0; k < m->blocks; k++) {
        const struct plan_block *b = &m->block[k];
        if (!amount(b->weight_bytes) || !amount(b->resident_bytes) || !amount(b->flops_per_token) ||
            !amount(b->attention_flops) || !amount(b->kv_bytes))
            return error_set(e, ERR_BOUND, "model: block %d holds a negative number", k);
    }
    if (!p->coordinator || !*p->coordinator)
        return error_set(e, ERR_USAGE, "the coordinator has no name");
    if (p->coordinator_device < -1 || p->coordinator_device >= p->devices || p->pin_first < -1 ||
        p->pin_first >= p->devices)
        return error_set(e, ERR_USAGE, "coordinator or pin_first names no device");
    if (w->prompt_tokens < 1 || w->output_tokens < 0 || w->chunk < 1)
        return error_set(e, ERR_BOUND, "workload: prompt_tokens and chunk must be at least 1, output_tokens 0");
    if (w->concurrency < 1 || w->concurrency > PLAN_MAX_CONCURRENCY)
        return error_set(e, ERR_BOUND, "workload: concurrency must be from 1 to %d", PLAN_MAX_CONCURRENCY);
    if ((w->prompt_tokens - 1) / w->chunk >= PLAN_MAX_CHUNKS)
        return error_set(e, ERR_BOUND, "workload: the prompt makes more than %d chunks; use larger chunks",
                         PLAN_MAX_CHUNKS);
    if (!amount(w->context) || !amount(w->kv_tokens) || !amount(w->value_bytes))
        return error_set(e, ERR_BOUND, "workload: context, kv_tokens and value_bytes must not be negative");
    for (int i = 0; i < p->devices; i++) {
        int rc = check_device(p, i, e);
        if (rc)
            return rc;
    }
    return check_links(p, e);
}
