/* The two ends of a model: tokens to activations, activations to logits. */
#include <string.h>

#include "engine/model/forward.h"

struct lookup {
    struct forward *f;
    const struct embedding_weights *w;
};

static void look_up(void *context, size_t begin, size_t end, int thread)
{
    const struct lookup *c = context;
    struct forward *f = c->f;
    size_t width = f->shape->width;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *x = f->x + t * width;
        matrix_row(&c->w->tokens, (uint32_t)f->tokens[t], x);
        if (f->shape->embedding_scale != 1)
            op_scale(NULL, x, f->shape->embedding_scale, width);
        if (c->w->positions.rows) { /* h is free here: one row for the learned position */
            matrix_row(&c->w->positions, f->position[t], f->h + t * width);
            op_add(NULL, x, f->h + t * width, width);
        }
    }
}

void embed(struct forward *f, const struct embedding_weights *w)
{
    struct lookup c = {f, w};
    pool_for(f->pool, f->n, 8, look_up, &c);
}

void head_logits(struct forward *f, const struct head_weights *w, const struct head_output *outputs, uint32_t count)
{
    const struct model_shape *s = f->shape;
    uint32_t vocabulary = s->vocabulary;
    for (uint32_t i = 0; i < count; i++)
        memcpy(f->y + (size_t)i * s->width, f->x + (size_t)outputs[i].row * s->width, s->width * sizeof *f->y);
    normalise(f, f->y, count, s->width, w->norm, w->norm_bias, f->h);
    struct activations a;
    activations_set(&a, f->pool, f->h, s->width, count, s->width, f->activations[0], false);
    op_linear(f->pool, w->use, &a, f->logits, vocabulary); /* logits: count × vocabulary */
    if (w->bias)
        op_add_bias(f->pool, f->logits, vocabulary, count, vocabulary, w->bias);
    if (s->logit_scale != 1)
        op_scale(f->pool, f->logits, s->logit_scale, (size_t)count * vocabulary);
    if (s->final_softcap > 0)
        op_softcap(f->pool, f->logits, s->final_softcap, (size_t)count * vocabulary);
}
