/* The request simulation: a continuous-batching scheduler in front of the discrete-event core. Pure. */
#include "planner/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "planner/flow.h"

enum state { WAITING, PREFILLING, READY, DECODING, FINISHED, REFUSED };

struct sequence {
    struct plan_request request;
    enum state state;
    int sent, produced;      /* prompt tokens submitted, output tokens received */
    int chunks_out;          /* in flight */
    double admitted_s, first_s, end_s;
    size_t group;            /* micro-batch it decodes in */
};

struct simulation {
    const struct plan_problem *p;
    const struct plan *plan;
    struct flow *flow;
    struct sequence *all;
    size_t count, arrived, admitted_to; /* requests [admitted_to, arrived) wait */
    size_t *active;                     /* indices, oldest first */
    size_t active_count;
    double kv_used;
    int batches_out, chunks_out, decoding; /* decoding: sequences READY or DECODING */
    int next_group;
    size_t longest_queue;
    double batches, batched; /* decode micro-batches made, sequences in them */
};

static double kv_need(const struct plan_request *r)
{
    return (double)r->prompt_tokens + r->output_tokens;
}

static void drop_active(struct simulation *s, size_t index)
{
    size_t at = 0;
    while (s->active[at] != index)
        at++;
    memmove(&s->active[at], &s->active[at + 1], (s->active_count - at - 1) * sizeof *s->active);
    s->active_count--;
}

/* Admits whom concurrency and cache allow, in order of arrival. */
static void admit(struct simulation *s, double now)
{
    double kv = s->p->workload.kv_tokens;
    while (s->admitted_to < s->arrived) {
        struct sequence *q = &s->all[s->admitted_to];
        double need = kv_need(&q->request);
        if (kv > 0 && need > kv) {
            q->state = REFUSED;
            s->admitted_to++;
            continue;
        }
        if (s->active_count >= (size_t)s->p->workload.concurrency || (kv > 0 && s->kv_used + need > kv))
            return;
        q->state = PREFILLING;
        q->admitted_s = now;
        s->kv_used += need;
        s->active[s->active_count++] = s->admitted_to++;
    }
}

static int send_decode(struct simulation *s, double now)
{
    int m = s->plan->microbatches, share = (s->decoding + m - 1) / m;
    while (s->batches_out < m) {
        struct flow_job job = {.kind = FLOW_DECODE, .number = s->next_group};
        for (size_t i = 0; i < s->active_count && job.batch < share; i++) {
            struct sequence *q = &s->all[s->active[i]];
            if (q->state != READY)
                continue;
            q->state = DECODING;
            q->group = (size_t)job.number;
            job.context += q->request.prompt_tokens + q->produced;
            job.batch++;
        }
        if (!job.batch)
            return 0;
        job.context /= job.batch;
        s->batches++;
        s->batched += job.batch;
        s->batches_out++;
        s->next_group = (s->next_group + 1) & 0x3fffffff;
        int rc = flow_submit(s->flow, now, &job);
        if (rc)
            return rc;
    }
    return 0;
}

static int send_prefill(struct simulation *s, double now)
{
    for (size_t i = 0; i < s->active_count; i++) {
        struct sequence *q = &s->all[s->active[i]];
        while (q->state == PREFILLING && q->sent < q->request.prompt_tokens && s->chunks_out <= s->plan->stages) {
            int left = q->request.prompt_tokens - q->sent, chunk = s->p->workload.chunk;
            int tokens = left < chunk ? left : chunk;
            struct flow_job job = {.kind = FLOW_PREFILL, .number = (int)s->active[i], .tokens = tokens, .past = q->sent,
                                   .last_chunk = tokens == left};
            q->sent += tokens;
            s->chunks_out++;
            int rc = flow_submit(s->flow, now, &job);
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* A token for a sequence; it may be its last. */
static void receive(struct simulation *s, size_t index, double now)
{
    struct sequence *q = &s->all[index];
    if (q->produced++ == 0) {
        q->first_s = now;
        s->decoding++;
    }
    q->state = READY;
    if (q->produced < q->request.output_tokens)
        return;
    q->state = FINISHED;
    q->end_s = now;
    s->decoding--;
    s->kv_used -= kv_need(&q->request);
    drop_active(s, index);
}

static void take_back(struct simulation *s, const struct flow_job *job, double now)
{
    if (job->kind == FLOW_PREFILL) {
        s->chunks_out--;
        if (job->last_chunk)
            receive(s, (size_t)job->number, now);
        return;
    }
    s->batches_out--;
    for (size_t i = s->active_count; i-- > 0;) {
        size_t index = s->active[i];
        if (s->all[index].state == DECODING && s->all[index].group == (size_t)job->number)
            receive(s, index, now);
    }
}

static int run(struct simulation *s, bool (*expired)(void *context), void *context)
{
    for (uint64_t events = 0;; events++) {
        double next = flow_next_time(s->flow);
        double arrival = s->arrived < s->count ? s->all[s->arrived].request.arrival_s : INFINITY;
        if (!isfinite(next) && !isfinite(arrival))
            return 0;
        if (expired && events % 4096 == 0 && expired(context))
            return ERR_CANCELLED;
        double now = arrival <= next ? arrival : next;
        struct flow_job done;
        if (arrival <= next) {
            s->arrived++;
        } else {
            int rc = flow_advance(s->flow, &done);
            if (rc < 0)
                return rc;
            if (rc == 0)
                continue;
            take_back(s, &done, now);
        }
        admit(s, now);
        if (s->arrived - s->admitted_to > s->longest_queue)
            s->longest_queue = s->arrived - s->admitted_to;
        int rc = send_decode(s, now);
        if (!rc)
            rc = send_prefill(s, now);
        if (rc)
            return rc;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct plan_spread spread_of(double *samples, size_t n)
{
    struct plan_spread out = {0};
    if (!n)
        return out;
    qsort(samples, n, sizeof *samples, by_value);
    for (size_t i = 0; i < n; i++)
        out.mean += samples[i] / (double)n;
    const double rank[] = {0.5, 0.9, 0.95, 0.99};
    double *to[] = {&out.p50, &out.p90, &out.p95, &out.p99};
    for (int i = 0; i < 4; i++) {
        size_t at = (size_t)ceil(rank[i] * (double)n);
        *to[i] = samples[at ? at - 1 : 0];
    }
    out.most = samples[n - 1];
    return out;
}

static double tpot_of(const struct sequence *q)
{
    return (q->end_s - q->first_s) / (q->request.output_tokens - 1);
}

static void summarise(const struct simulation *s, const struct plan_slo *slo, double *samples,
                      struct plan_simulation *out)
{
    size_t n = 0, tpots = 0;
    double begin = s->all[0].request.arrival_s, end = begin, tokens = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct sequence *q = &s->all[i];
        out->refused += q->state == REFUSED;
        if (q->state != FINISHED)
            continue;
        double ttft = q->first_s - q->request.arrival_s, tpot = q->request.output_tokens > 1 ? tpot_of(q) : 0;
        samples[n] = ttft;
        samples[s->count + n] = q->end_s - q->request.arrival_s;
        samples[2 * s->count + n++] = q->admitted_s - q->request.arrival_s;
        if (q->request.output_tokens > 1)
            samples[3 * s->count + tpots++] = tpot;
        end = fmax(end, q->end_s);
        tokens += q->produced;
        out->good += !slo || (ttft <= slo->ttft_s && tpot <= slo->tpot_s);
    }
    out->requests = s->count;
    out->finished = n;
    out->ttft = spread_of(samples, n);
    out->e2el = spread_of(samples + s->count, n);
    out->queued = spread_of(samples + 2 * s->count, n);
    out->tpot = spread_of(samples + 3 * s->count, tpots);
    out->duration_s = end - begin;
    double per_second = out->duration_s > 0 ? 1 / out->duration_s : 0;
    out->tokens_per_s = tokens * per_second;
    out->requests_per_s = (double)n * per_second;
    out->goodput = (double)out->good * per_second;
    out->mean_batch = s->batches > 0 ? s->batched / s->batches : 0;
    out->longest_queue = s->longest_queue;
    out->machines = flow_machines(s->flow);
    for (int i = 0; i < out->machines; i++)
        out->utilisation[i] = flow_busy(s->flow, i) * per_second;
}

static int check_amount(const struct plan_problem *p, const struct plan_request *r, size_t n, struct error *e)
{
    double work = 0;
    for (size_t i = 0; i < n; i++)
        work += r[i].output_tokens + ceil((double)r[i].prompt_tokens / p->workload.chunk);
    if (n < 1 || n > PLAN_MAX_REQUESTS)
        return error_set(e, ERR_BOUND, "%zu requests; from 1 to %d can be simulated", n, PLAN_MAX_REQUESTS);
    if (work > PLAN_MAX_SIMULATED_TOKENS)
        return error_set(e, ERR_BOUND, "the requests make %.0f steps; at most %d can be simulated", work,
                         PLAN_MAX_SIMULATED_TOKENS);
    return 0;
}

int plan_simulate(struct plan_simulation *out, const struct plan_problem *p, const struct plan *plan,
                  const struct plan_request *requests, size_t count, const struct plan_slo *slo,
                  bool (*expired)(void *context), void *context, struct error *e)
{
    struct plan_simulation result = {0};
    int rc = check_amount(p, requests, count, e);
    if (rc)
        return rc;
    struct simulation s = {.p = p, .plan = plan, .count = count};
    double *samples = mem_zalloc(4 * count, sizeof *samples);
    s.all = mem_zalloc(count, sizeof *s.all);
    s.active = mem_zalloc((size_t)p->workload.concurrency, sizeof *s.active);
    s.flow = flow_new(p, plan, NULL, NULL);
    rc = samples && s.all && s.active && s.flow ? 0 : ERR_NOMEM;
    for (size_t i = 0; i < count && !rc; i++) {
        s.all[i].request = requests[i];
        if (requests[i].prompt_tokens < 1 || requests[i].output_tokens < 1 ||
            (i && requests[i].arrival_s < requests[i - 1].arrival_s))
            rc = ERR_USAGE;
    }
    if (!rc)
        rc = run(&s, expired, context);
    if (!rc) {
        summarise(&s, slo, samples, &result);
        *out = result;
    } else {
        error_set(e, rc, rc == ERR_USAGE ? "requests must be in order of arrival and have tokens: %s"
                                         : "the simulation ended early: %s",
                  error_name(rc));
    }
    flow_free(s.flow);
    mem_free(s.active);
    mem_free(s.all);
    mem_free(samples);
    return rc;
}
