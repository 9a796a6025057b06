/* Mixture of experts: a router chooses a few experts a token; each expert computes all its tokens at once. A token's
 * sum runs over its experts in rising number, so it does not depend on who else is in the batch. */
#include <string.h>

#include "engine/model/forward.h"

#include "engine/kernels/maths.h"

/* ---- Choosing --------------------------------------------------------------------------------------------------- */

/* Leaves only the best groups in `score` (DeepSeek-V3: a group is worth its two best); the rest become -inf. */
static void keep_best_groups(const struct model_shape *s, float *score)
{
    uint32_t size = s->experts / s->groups;
    float worth[EXPERTS_MAX];
    for (uint32_t g = 0; g < s->groups; g++) {
        float first = -__builtin_inff(), second = -__builtin_inff();
        for (uint32_t i = 0; i < size; i++) {
            float v = score[g * size + i];
            if (v > first) {
                second = first;
                first = v;
            } else if (v > second) {
                second = v;
            }
        }
        worth[g] = size > 1 ? first + second : first;
    }
    for (uint32_t dropped = s->groups_used; dropped < s->groups; dropped++) {
        uint32_t worst = UINT32_MAX;
        for (uint32_t g = 0; g < s->groups; g++) /* of equals the later one goes */
            if (worth[g] == worth[g] && (worst == UINT32_MAX || worth[g] <= worth[worst]))
                worst = g;
        if (worst == UINT32_MAX)
            return;
        worth[worst] = __builtin_nanf("");
        for (uint32_t i = 0; i < size; i++)
            score[worst * size + i] = -__builtin_inff();
    }
}

/* probability[experts] (or logits, for GATING_SOFTMAX_OF_CHOSEN) → experts_used chosen, in rising number. */
static void choose(const struct model_shape *s, const float *choice_bias, const float *probability, struct chosen *out)
{
    float score[EXPERTS_MAX];
    uint32_t used = s->experts_used;
    for (uint32_t e = 0; e < s->experts; e++) {
        score[e] = choice_bias ? probability[e] + choice_bias[e] : probability[e];
        if (!(score[e] == score[e]))
            score[e] = -__builtin_inff(); /* a broken model still chooses somebody */
    }
    if (s->groups > 1)
        keep_best_groups(s, score);
    bool taken[EXPERTS_MAX] = {false};
    for (uint32_t i = 0; i < used; i++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < s->experts; e++) /* of equals the lower number */
            if (!taken[e] && (best == UINT32_MAX || score[e] > score[best]))
                best = e;
        taken[best] = true;
    }
    for (uint32_t e = 0, i = 0; e < s->experts; e++)
        if (taken[e])
            out[i++] = (struct chosen){(uint16_t)e, probability[e]};

    if (s->gating == GATING_SOFTMAX_OF_CHOSEN) {
        float max = out[0].weight, sum = 0;
        for (uint32_t i = 1; i < used; i++)
            max = out[i].weight > max ? out[i].weight : max;
        for (uint32_t i = 0; i < used; i++)
            sum += out[i].weight = maths_exp(out[i].weight - max);
        for (uint32_t i = 0; i < used; i++)
            out[i].weight /= sum;
    }
    if (s->normalise_experts) {
        float sum = 0;
        for (uint32_t i = 0; i < used; i++)
            sum += out[i].weight;
        sum = sum > 6.103515625e-5f ? sum : 6.103515625e-5f; /* the least normal half-precision number */
        for (uint32_t i = 0; i < used; i++)
            out[i].weight /= sum;
    }
    for (uint32_t i = 0; s->expert_scale != 1 && i < used; i++)
        out[i].weight *= s->expert_scale;
}

static void route(struct forward *f, const struct block_weights *w, struct activations *h)
{
    const struct model_shape *s = f->shape;
    op_linear(f->pool, &w->matrix[ROUTER], h, f->router, s->experts);
    if (w->vector[ROUTER_BIAS])
        op_add_bias(f->pool, f->router, s->experts, f->n, s->experts, w->vector[ROUTER_BIAS]);
    if (s->gating == GATING_SOFTMAX)
        op_softmax(f->pool, f->router, s->experts, f->n, s->experts);
    else if (s->gating == GATING_SIGMOID)
        for (size_t i = 0; i < (size_t)f->n * s->experts; i++)
            f->router[i] = 1.0f / (1.0f + maths_exp(-f->router[i]));
    for (size_t t = 0; t < f->n; t++)
        choose(s, w->vector[ROUTER_CHOICE_BIAS], f->router + t * s->experts, f->chosen + t * s->experts_used);
}

/* ---- Computing -------------------------------------------------------------------------------------------------- */

static void add_row_bias(float *x, uint32_t rows, uint32_t cols, const float *bias)
{
    if (bias)
        op_add_bias(NULL, x, cols, rows, cols, bias);
}

static const float *bias_of(const struct block_weights *w, enum slot slot, uint32_t expert, uint32_t cols)
{
    return w->vector[slot] ? w->vector[slot] + (size_t)expert * cols : NULL;
}

/* One token (decode): gate and up of all its experts in one go. */
static void experts_of_one(struct forward *f, const struct block_weights *w, struct activations *h)
{
    const struct model_shape *s = f->shape;
    uint32_t used = s->experts_used, ff = s->feed_forward_expert, width = s->width;
    for (uint32_t i = 0; i < used; i++) {
        uint32_t e = f->chosen[i].expert;
        f->jobs[2 * i] = (struct linear_job){&w->stack[EXPERTS_GATE][e], f->gate + (size_t)i * ff, ff};
        f->jobs[2 * i + 1] = (struct linear_job){&w->stack[EXPERTS_UP][e], f->up + (size_t)i * ff, ff};
    }
    op_linear_many(f->pool, f->jobs, 2 * used, h);
    for (uint32_t i = 0; i < used; i++) {
        add_row_bias(f->gate + (size_t)i * ff, 1, ff, bias_of(w, EXPERTS_GATE_BIAS, f->chosen[i].expert, ff));
        add_row_bias(f->up + (size_t)i * ff, 1, ff, bias_of(w, EXPERTS_UP_BIAS, f->chosen[i].expert, ff));
    }
    activate(f, true, f->gate, f->up, (size_t)used * ff);
    for (uint32_t i = 0; i < used; i++) {
        uint32_t e = f->chosen[i].expert;
        struct activations a;
        activations_set(&a, f->pool, f->gate + (size_t)i * ff, ff, 1, ff, f->activations[1], false);
        op_linear(f->pool, &w->stack[EXPERTS_DOWN][e], &a, f->expert_out, width);
        add_row_bias(f->expert_out, 1, width, bias_of(w, EXPERTS_DOWN_BIAS, e, width));
        op_fma(f->pool, f->y, f->expert_out, f->chosen[i].weight, width);
    }
}

struct scatter {
    const struct forward *f;
    const uint32_t *rows;
    const float *weights;
};

static void add_weighted_rows(void *context, size_t begin, size_t end, int thread)
{
    const struct scatter *c = context;
    size_t width = c->f->shape->width;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        op_fma(NULL, c->f->y + c->rows[i] * width, c->f->expert_out + i * width, c->weights[i], width);
}

/* Many tokens: expert after expert, each over the tokens that chose it. */
static void experts_of_many(struct forward *f, const struct block_weights *w, struct activations *h)
{
    const struct model_shape *s = f->shape;
    uint32_t used = s->experts_used, ff = s->feed_forward_expert, width = s->width;
    uint32_t first[EXPERTS_MAX + 1] = {0};
    for (size_t i = 0; i < (size_t)f->n * used; i++)
        first[f->chosen[i].expert + 1]++;
    for (uint32_t e = 0; e < s->experts; e++)
        first[e + 1] += first[e];
    for (uint32_t t = 0; t < f->n; t++)
        for (uint32_t i = 0; i < used; i++) {
            const struct chosen *c = &f->chosen[(size_t)t * used + i];
            uint32_t at = first[c->expert]++;
            f->rows_of[at] = t;
            f->weight_of[at] = c->weight;
        }
    for (uint32_t e = 0, at = 0; e < s->experts; at = first[e++]) {
        uint32_t m = first[e] - at;
        if (!m)
            continue;
        f->jobs[0] = (struct linear_job){&w->stack[EXPERTS_GATE][e], f->gate, ff};
        f->jobs[1] = (struct linear_job){&w->stack[EXPERTS_UP][e], f->up, ff};
        op_linear_gather(f->pool, f->jobs, 2, h, f->rows_of + at, m, f->activations[2]);
        add_row_bias(f->gate, m, ff, bias_of(w, EXPERTS_GATE_BIAS, e, ff));
        add_row_bias(f->up, m, ff, bias_of(w, EXPERTS_UP_BIAS, e, ff));
        activate(f, true, f->gate, f->up, (size_t)m * ff);
        struct activations a;
        activations_set(&a, f->pool, f->gate, ff, m, ff, f->activations[1], false);
        op_linear(f->pool, &w->stack[EXPERTS_DOWN][e], &a, f->expert_out, width);
        add_row_bias(f->expert_out, m, width, bias_of(w, EXPERTS_DOWN_BIAS, e, width));
        struct scatter c = {f, f->rows_of + at, f->weight_of + at};
        pool_for(f->pool, m, 4, add_weighted_rows, &c);
    }
}

/* Shared experts see every token; some families gate them by a number of their own. */
static void shared_experts(struct forward *f, const struct block_weights *w, struct activations *h)
{
    const struct model_shape *s = f->shape;
    uint32_t ff = s->feed_forward_shared, width = s->width;
    bool gated = w->matrix[SHARED_ROUTER].rows != 0;
    f->jobs[0] = (struct linear_job){&w->matrix[SHARED_GATE], f->gate, ff};
    f->jobs[1] = (struct linear_job){&w->matrix[SHARED_UP], f->up, ff};
    f->jobs[2] = (struct linear_job){&w->matrix[SHARED_ROUTER], f->shared_gate, 1};
    op_linear_many(f->pool, f->jobs, gated ? 3 : 2, h);
    activate(f, true, f->gate, f->up, (size_t)f->n * ff);
    struct activations a;
    activations_set(&a, f->pool, f->gate, ff, f->n, ff, f->activations[1], false);
    op_linear(f->pool, &w->matrix[SHARED_DOWN], &a, f->expert_out, width);
    for (uint32_t t = 0; t < f->n; t++) {
        float weight = gated ? 1.0f / (1.0f + maths_exp(-f->shared_gate[t])) : 1.0f;
        op_fma(NULL, f->y + (size_t)t * width, f->expert_out + (size_t)t * width, weight, width);
    }
}

void experts_forward(struct forward *f, const struct block_weights *w, uint32_t block)
{
    const struct model_shape *s = f->shape;
    struct activations h;
    (void)block;
    activations_set(&h, f->pool, f->h, s->width, f->n, s->width, f->activations[0], false);
    route(f, w, &h); /* chosen: n × experts_used */
    memset(f->y, 0, (size_t)f->n * s->width * sizeof *f->y);
    if (f->n == 1)
        experts_of_one(f, w, &h);
    else
        experts_of_many(f, w, &h);
    if (w->matrix[SHARED_GATE].rows)
        shared_experts(f, w, &h);
}
