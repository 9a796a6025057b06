/* Frequencies of the rotary positions, in double, with our own pow and log: the same bits on every machine. */
#include "engine/model/rope.h"

#include <math.h>

#include "base/memory.h"
#include "engine/kernels/maths.h"
#include "engine/model/weights.h"

static const double pi = 3.14159265358979323846;

/* YaRN: the pair whose wavelength makes `turns` turns within the original context. */
static double pair_of_turns(const struct rope_shape *p, uint32_t rotary, double turns)
{
    return rotary * maths_log(p->original_context / (turns * 2 * pi)) / (2 * maths_log(p->base));
}

/* YaRN: 1 where a pair keeps its frequency (it turns often), 0 where it is stretched, a ramp between. */
static double kept(const struct rope_shape *p, uint32_t rotary, uint32_t pair)
{
    double low = floor(pair_of_turns(p, rotary, p->beta_fast)), high = ceil(pair_of_turns(p, rotary, p->beta_slow));
    low = low > 0 ? low : 0;
    high = high < rotary - 1 ? high : rotary - 1;
    double width = high - low > 0.001 ? high - low : 0.001;
    double ramp = (pair - low) / width;
    return (1 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp)) * p->extrapolation;
}

int rope_create(const struct model *m, enum rope_use use, uint32_t max_context, struct rope *out, struct error *err)
{
    const struct rope_shape *p = &m->shape.rope;
    const struct architecture *a = m->shape.arch;
    uint32_t half = m->shape.rotary / 2;
    bool scaled = use == ROPE_GLOBAL || !a->local_rope_unscaled;
    double base = use == ROPE_LOCAL ? p->local_base : p->base;
    float *factors = NULL;
    int failed = 0;
    double *f = mem_alloc(half * sizeof *f);
    if (!f)
        return error_set(err, ERR_NOMEM, "no memory for %u rotary frequencies", half);

    const struct gguf_tensor *t = m->global[ROPE_FREQS];
    if (m->global[ROPE_LONG])
        t = m->global[max_context > p->original_context ? ROPE_LONG : ROPE_SHORT];
    if (t && scaled && (failed = weights_load_vector(m, t, &factors, err)) < 0)
        goto done;

    out->magnitude = scaled ? (float)p->attention_factor : 1;
    if (scaled && p->scaling == SCALING_YARN && p->extrapolation > 0)
        out->magnitude = (float)(p->attention_factor * (1 + 0.1 * maths_log(p->factor)));
    for (uint32_t i = 0; i < half; i++) {
        f[i] = maths_pow(base, -2.0 * i / m->shape.rotary);
        if (factors) {
            if (!(factors[i] > 0)) {
                failed = error_set(err, ERR_FORMAT, "%s: %s holds %g, but a rotary factor is above 0", gguf_path(m->g),
                                   t->name, factors[i]);
                goto done;
            }
            f[i] /= factors[i];
        }
        double keep = scaled && p->scaling == SCALING_YARN ? kept(p, m->shape.rotary, i) : 0;
        double stretch = scaled && p->scaling != SCALING_LONGROPE ? p->factor : 1;
        f[i] = f[i] / stretch * (1 - keep) + f[i] * keep;
    }
    out->half = half;
    out->inverse_frequency = f;
    f = NULL;
done:
    mem_free(f);
    mem_free(factors);
    return failed;
}

void rope_free(struct rope *r)
{
    mem_free(r->inverse_frequency);
    *r = (struct rope){0};
}
