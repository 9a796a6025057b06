/* Chooses codecs for the links of a plan: first whether fewer bytes are worth the loss of exactness at all, then for each
 * link the most exact codec that costs next to nothing, then less of it until the errors together are small. Pure. */
#include "coordinator/core/codecs.h"

#include "proto/activation.h"

/* From exact to coarse. bf16 takes the bytes of f16 and rounds eight times as coarsely: it is for a person to choose. */
static const enum frame_codec steps[] = {CODEC_F32, CODEC_F16, CODEC_Q8};
enum { STEPS = sizeof steps / sizeof *steps };

double codec_error(enum frame_codec codec)
{
    switch (codec) {
    case CODEC_F16:
        return 1.0 / 2048;
    case CODEC_BF16:
        return 1.0 / 256;
    case CODEC_Q8:
        return 1.0 / 254;
    default:
        return 0;
    }
}

double codec_value_bytes(enum frame_codec codec)
{
    return (double)activation_bytes(codec, 1, 1024) / 1024;
}

static struct plan_link *link_of(struct plan_problem *p, const struct plan *plan, int s)
{
    return &p->link[plan->stage[s].device * (p->devices + 1) + plan->stage[s + 1].device];
}

static void set(struct plan_link *l, enum frame_codec codec)
{
    l->value_bytes = codec == CODEC_F32 ? 0 : codec_value_bytes(codec);
    l->codec = codec == CODEC_F32 ? NULL : codec_name(codec);
}

static void set_all(struct plan_problem *p, enum frame_codec codec)
{
    for (int i = 0; i <= p->devices; i++)
        for (int k = 0; k <= p->devices; k++)
            set(&p->link[i * (p->devices + 1) + k], codec);
}

struct choice {
    struct plan_problem *p;
    const struct plan *plan; /* the sequence and split */
    int step[PLAN_MAX_DEVICES];
};

static double value_of(const struct choice *c, struct plan *out)
{
    int order[PLAN_MAX_DEVICES], counts[PLAN_MAX_DEVICES];
    struct plan plan;
    for (int s = 0; s < c->plan->stages; s++) {
        order[s] = c->plan->stage[s].device;
        counts[s] = c->plan->stage[s].last_block - c->plan->stage[s].first_block + 1;
        if (s + 1 < c->plan->stages)
            set(link_of(c->p, c->plan, s), steps[c->step[s]]);
    }
    if (plan_evaluate(c->p, order, counts, c->plan->stages, &plan, NULL))
        return c->plan->value_s; /* it was feasible before; bytes on a link do not change that */
    if (out)
        *out = plan;
    return plan.value_s;
}

/* The most exact step of each link that the objective hardly feels. */
static void refine(struct choice *c)
{
    double value = value_of(c, NULL);
    for (int s = 0; s + 1 < c->plan->stages; s++)
        for (int step = 0; step < STEPS - 1; step++) {
            int before = c->step[s];
            c->step[s] = step;
            double now = value_of(c, NULL);
            if (now <= value * (1 + CODECS_STEP)) {
                value = now;
                break;
            }
            c->step[s] = before;
        }
}

/* Takes back a step where that costs least, until the errors of all links together stay within the bound. */
static void bound_error(struct choice *c)
{
    for (;;) {
        double error = 0, least = 0;
        int cheapest = -1;
        for (int s = 0; s + 1 < c->plan->stages; s++)
            error += codec_error(steps[c->step[s]]);
        if (error <= CODECS_ERROR)
            return;
        for (int s = 0; s + 1 < c->plan->stages; s++) {
            if (!c->step[s])
                continue;
            c->step[s]--;
            double now = value_of(c, NULL);
            c->step[s]++;
            if (cheapest < 0 || now < least) {
                cheapest = s;
                least = now;
            }
        }
        c->step[cheapest]--;
    }
}

int codecs_choose(struct plan_problem *p, codecs_solve *solve, void *context, struct plan *plan, struct error *err)
{
    struct plan rounded, chosen;
    struct plan_problem *all = plan_problem_copy(p);
    if (!all)
        return error_set(err, ERR_NOMEM, "out of memory for the plan");
    set_all(all, steps[STEPS - 1]);
    all->workload.chunk = p->workload.chunk;
    int rc = solve(context, all, &rounded, err);
    if (rc)
        goto done;
    plan->exact_s = plan->value_s;
    plan->rounded_s = rounded.value_s;
    if (rounded.value_s > plan->exact_s * (1 - CODECS_GAIN))
        goto done;
    struct choice c = {.p = all, .plan = &rounded};
    for (int s = 0; s + 1 < rounded.stages; s++)
        c.step[s] = STEPS - 1;
    refine(&c);
    bound_error(&c);
    set_all(all, CODEC_F32);
    if (value_of(&c, &chosen) > plan->exact_s * (1 - CODECS_GAIN))
        goto done;
    chosen.bound_s = rounded.bound_s < chosen.value_s ? rounded.bound_s : chosen.value_s; /* no codec is below the coarsest */
    chosen.states = plan->states + rounded.states;
    chosen.exact_s = plan->exact_s;
    chosen.rounded_s = rounded.value_s;
    for (int s = 0; s + 1 < chosen.stages; s++)
        *link_of(p, &chosen, s) = *link_of(all, &chosen, s);
    p->workload.chunk = all->workload.chunk;
    *plan = chosen;
done:
    plan_problem_free(all);
    return rc;
}

enum frame_codec codecs_of_link(const struct plan_problem *p, int from, int to, enum frame_codec otherwise)
{
    const struct plan_link *l = plan_problem_link(p, from, to);
    int codec = l && l->codec ? codec_parse(l->codec) : -1;
    return codec < 0 ? otherwise : (enum frame_codec)codec;
}
