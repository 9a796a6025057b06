/* Machines with queues and a heap of events. Time only comes from the jobs; nothing here knows a clock. Pure. */
#include "planner/flow.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"

struct visit {
    struct flow_job job;
    int machine; /* where it is going or being served; flow->machines: home */
};

struct event {
    double time;
    uint64_t order; /* ties go to the older event */
    struct visit visit;
    bool leaves;    /* served, rather than arriving */
};

struct machine {
    struct flow_job *queue; /* ring of those waiting */
    size_t head, count, capacity;
    bool serving;
    double busy;
};

struct flow {
    const struct plan_problem *p;
    const struct plan *plan;
    flow_trace *trace;
    void *context;
    int machines;
    struct machine machine[2 * PLAN_MAX_DEVICES];
    struct event *heap;
    size_t count, capacity;
    uint64_t order;
};

struct flow *flow_new(const struct plan_problem *p, const struct plan *plan, flow_trace *trace, void *context)
{
    struct flow *f = mem_zalloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->p = p;
    f->plan = plan;
    f->trace = trace;
    f->context = context;
    f->machines = 2 * plan->stages - 1;
    return f;
}

void flow_free(struct flow *f)
{
    if (!f)
        return;
    for (int i = 0; i < f->machines; i++)
        mem_free(f->machine[i].queue);
    mem_free(f->heap);
    mem_free(f);
}

static bool sooner(const struct event *a, const struct event *b)
{
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

static int push(struct flow *f, double time, const struct visit *visit, bool leaves)
{
    if (f->count == f->capacity) {
        size_t more = f->capacity ? 2 * f->capacity : 64;
        struct event *grown = mem_resize(f->heap, more, sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        f->heap = grown;
        f->capacity = more;
    }
    struct event e = {time, f->order++, *visit, leaves};
    size_t i = f->count++;
    for (; i && sooner(&e, &f->heap[(i - 1) / 2]); i = (i - 1) / 2)
        f->heap[i] = f->heap[(i - 1) / 2];
    f->heap[i] = e;
    return 0;
}

static struct event pop(struct flow *f)
{
    struct event top = f->heap[0], e = f->heap[--f->count];
    size_t i = 0;
    while (2 * i + 1 < f->count) {
        size_t down = 2 * i + 1;
        if (down + 1 < f->count && sooner(&f->heap[down + 1], &f->heap[down]))
            down++;
        if (!sooner(&f->heap[down], &e))
            break;
        f->heap[i] = f->heap[down];
        i = down;
    }
    f->heap[i] = e;
    return top;
}

static int device_at(const struct flow *f, int stage)
{
    return f->plan->stage[stage].device;
}

static double service_time(const struct flow *f, int machine, const struct flow_job *j)
{
    int s = machine / 2;
    const struct plan_stage *g = &f->plan->stage[s];
    if (machine % 2)
        return cost_transfer(f->p, g->device, device_at(f, s + 1), j->kind == FLOW_DECODE ? j->batch : j->tokens);
    if (j->kind == FLOW_DECODE)
        return cost_stage_decode_at(f->p, g->device, g->first_block, g->last_block, j->batch, j->context);
    return cost_stage_chunk(f->p, g->device, g->first_block, g->last_block, j->tokens, j->past, j->last_chunk);
}

/* After being served: the wire's delay comes after a link, the token's way home after the last stage. */
static double delay_after(const struct flow *f, int machine)
{
    int s = machine / 2;
    if (machine % 2)
        return cost_token_hop(f->p, device_at(f, s), device_at(f, s + 1));
    return machine == f->machines - 1 ? cost_token_hop(f->p, device_at(f, s), f->p->devices) : 0;
}

int flow_submit(struct flow *f, double now, const struct flow_job *job)
{
    return push(f, now + cost_token_hop(f->p, f->p->devices, device_at(f, 0)), &(struct visit){*job, 0}, false);
}

double flow_next_time(const struct flow *f)
{
    return f->count ? f->heap[0].time : INFINITY;
}

static int serve(struct flow *f, int machine, const struct flow_job *job, double now)
{
    struct machine *m = &f->machine[machine];
    double end = now + service_time(f, machine, job);
    m->serving = true;
    m->busy += end - now;
    if (f->trace)
        f->trace(f->context, machine, job, now, end);
    return push(f, end, &(struct visit){*job, machine}, true);
}

static int wait_in_line(struct machine *m, const struct flow_job *job)
{
    if (m->count == m->capacity) {
        size_t more = m->capacity ? 2 * m->capacity : 16;
        struct flow_job *grown = mem_alloc(more * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        for (size_t i = 0; i < m->count; i++)
            grown[i] = m->queue[(m->head + i) % m->capacity];
        mem_free(m->queue);
        m->queue = grown;
        m->head = 0;
        m->capacity = more;
    }
    m->queue[(m->head + m->count++) % m->capacity] = *job;
    return 0;
}

int flow_advance(struct flow *f, struct flow_job *done)
{
    if (!f->count)
        return 0;
    struct event e = pop(f);
    if (e.visit.machine == f->machines) {
        *done = e.visit.job;
        return 1;
    }
    struct machine *m = &f->machine[e.visit.machine];
    if (!e.leaves)
        return m->serving ? wait_in_line(m, &e.visit.job) : serve(f, e.visit.machine, &e.visit.job, e.time);
    m->serving = false;
    if (m->count) {
        struct flow_job next = m->queue[m->head];
        m->head = (m->head + 1) % m->capacity;
        m->count--;
        int rc = serve(f, e.visit.machine, &next, e.time);
        if (rc)
            return rc;
    }
    struct visit onward = {e.visit.job, e.visit.machine + 1};
    return push(f, e.time + delay_after(f, e.visit.machine), &onward, false);
}

int flow_machines(const struct flow *f)
{
    return f->machines;
}

double flow_busy(const struct flow *f, int machine)
{
    return f->machine[machine].busy;
}
