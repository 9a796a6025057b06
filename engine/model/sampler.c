/* From logits to a token. Pure: everything it needs is in its arguments. Any thread.
 *
 * Candidates are ordered by falling probability, ties by rising id, and only as far as the draw goes: a heap gives them
 * one by one, so a vocabulary is never sorted. */
#include "engine/model/sampler.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "engine/kernels/maths.h"
#include "engine/kernels/ops.h"

void sampling_default(struct sampling *s)
{
    memset(s, 0, sizeof *s);
    s->top_p = 1;
    s->repeat_penalty = 1;
    s->repeat_last = 64;
}

static bool within(float x, float low, float high)
{
    return x >= low && x <= high;
}

int sampling_check(const struct sampling *s, uint32_t vocabulary, struct error *err)
{
    if (!within(s->temperature, 0, 100))
        return error_set(err, ERR_USAGE, "temperature %g is not within 0 to 100", s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return error_set(err, ERR_USAGE, "top_p %g is not above 0 and at most 1", s->top_p);
    if (!within(s->min_p, 0, 1))
        return error_set(err, ERR_USAGE, "min_p %g is not within 0 to 1", s->min_p);
    if (!(s->repeat_penalty > 0 && s->repeat_penalty <= 100))
        return error_set(err, ERR_USAGE, "repeat_penalty %g is not above 0 and at most 100", s->repeat_penalty);
    if (!within(s->presence_penalty, -100, 100))
        return error_set(err, ERR_USAGE, "presence_penalty %g is not within -100 to 100", s->presence_penalty);
    if (!within(s->frequency_penalty, -100, 100))
        return error_set(err, ERR_USAGE, "frequency_penalty %g is not within -100 to 100", s->frequency_penalty);
    if (s->top_logprobs > SAMPLING_TOP_MAX)
        return error_set(err, ERR_USAGE, "top_logprobs %u is above %d", s->top_logprobs, SAMPLING_TOP_MAX);
    if (s->bias_count > SAMPLING_BIAS_MAX)
        return error_set(err, ERR_USAGE, "%u biased tokens are above %d", s->bias_count, SAMPLING_BIAS_MAX);
    for (uint32_t i = 0; i < s->bias_count; i++) {
        if (s->bias[i].token < 0 || (uint32_t)s->bias[i].token >= vocabulary)
            return error_set(err, ERR_USAGE, "bias for token %d, which is not in a vocabulary of %u", s->bias[i].token,
                             vocabulary);
        if (!(s->bias[i].bias == s->bias[i].bias))
            return error_set(err, ERR_USAGE, "bias for token %d is not a number", s->bias[i].token);
    }
    return 0;
}

double sampling_uniform(uint64_t seed, uint32_t position)
{
    uint64_t key = hash_mix64(seed + UINT64_C(0x9e3779b97f4a7c15));
    uint64_t bits = hash_mix64(key ^ hash_mix64(((uint64_t)position + 1) * UINT64_C(0xd1342543de82ef95)));
    return (double)(bits >> 11) * 0x1p-53;
}

/* ---- What the model itself thinks ------------------------------------------------------------------------------- */

/* Checks the logits; *log_sum ← log Σ exp(logit). work: vocabulary floats. */
static int judge(const float *logits, uint32_t vocabulary, uint32_t position, float *work, double *log_sum,
                 struct error *err)
{
    uint32_t best = 0;
    bool broken = false;
    for (uint32_t v = 0; v < vocabulary; v++) {
        broken = broken || !(logits[v] < INFINITY); /* NaN or +inf */
        if (logits[v] > logits[best])
            best = v;
    }
    if (broken || logits[best] == -INFINITY)
        return error_set(err, ERR_FORMAT, "logits at position %u are %s; the model's weights are damaged", position,
                         broken ? "not finite" : "all minus infinity");
    memcpy(work, logits, (size_t)vocabulary * sizeof *work);
    op_softmax(NULL, work, vocabulary, 1, vocabulary);
    *log_sum = logits[best] - maths_log(work[best]);
    return 0;
}

/* The `count` largest logits, falling, ties by rising id. */
static void list_top(const float *logits, uint32_t vocabulary, uint32_t count, double log_sum, struct sampled *out)
{
    uint32_t n = 0;
    for (uint32_t v = 0; v < vocabulary; v++) {
        if (n == count && !(logits[v] > out->top[n - 1].logprob))
            continue;
        uint32_t at = n < count ? n++ : n - 1;
        while (at > 0 && logits[v] > out->top[at - 1].logprob) {
            out->top[at] = out->top[at - 1];
            at--;
        }
        out->top[at] = (struct token_logprob){(int32_t)v, logits[v]};
    }
    out->top_count = n;
    for (uint32_t i = 0; i < n; i++)
        out->top[i].logprob = (float)(out->top[i].logprob - log_sum);
}

/* ---- Bias and penalties ----------------------------------------------------------------------------------------- */

/* seen: vocabulary counters, zeroed and left zero. */
static void punish(const struct sampling *s, float *logits, uint32_t vocabulary, const int32_t *tokens, uint32_t n,
                   uint32_t *seen)
{
    if (s->repeat_penalty != 1) {
        uint32_t from = s->repeat_last < n ? n - s->repeat_last : 0;
        for (uint32_t i = from; i < n; i++) {
            uint32_t t = (uint32_t)tokens[i];
            if (t >= vocabulary || seen[t]++)
                continue;
            logits[t] = logits[t] > 0 ? logits[t] / s->repeat_penalty : logits[t] * s->repeat_penalty;
        }
        for (uint32_t i = from; i < n; i++)
            if ((uint32_t)tokens[i] < vocabulary)
                seen[tokens[i]] = 0;
    }
    if (s->presence_penalty != 0 || s->frequency_penalty != 0) {
        for (uint32_t i = s->prompt_tokens; i < n; i++)
            if ((uint32_t)tokens[i] < vocabulary)
                seen[tokens[i]]++;
        for (uint32_t i = s->prompt_tokens; i < n; i++) {
            uint32_t t = (uint32_t)tokens[i];
            if (t >= vocabulary || !seen[t])
                continue;
            logits[t] -= (float)seen[t] * s->frequency_penalty + s->presence_penalty;
            seen[t] = 0;
        }
    }
}

static int best_of(const float *logits, uint32_t vocabulary, uint32_t position, uint32_t *out, struct error *err)
{
    uint32_t best = 0;
    for (uint32_t v = 1; v < vocabulary; v++)
        if (logits[v] > logits[best])
            best = v;
    if (!(logits[best] > -INFINITY))
        return error_set(err, ERR_FORMAT, "every token is banned at position %u; drop a bias", position);
    *out = best;
    return 0;
}

/* ---- Candidates ------------------------------------------------------------------------------------------------- */

/* Candidates in order, as far as anybody asks. The likely ones (above `cut`) are given out first from a small heap;
 * only when they are used up are the others heaped. Candidate i, once given out, is id[vocabulary - 1 - i]. */
struct candidates {
    const float *p; /* probability of each id */
    int32_t *id;    /* vocabulary of them: the heap at the front, those given out at the back */
    uint32_t vocabulary, heaped, given, total;
    float cut;
    bool rest; /* the unlikely ones are heaped, too */
};

static bool before(const struct candidates *c, int32_t a, int32_t b)
{
    return c->p[a] > c->p[b] || (c->p[a] == c->p[b] && a < b);
}

static void sift_down(struct candidates *c, uint32_t at)
{
    int32_t id = c->id[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= c->heaped)
            break;
        if (child + 1 < c->heaped && before(c, c->id[child + 1], c->id[child]))
            child++;
        if (!before(c, c->id[child], id))
            break;
        c->id[at] = c->id[child];
        at = child;
    }
    c->id[at] = id;
}

static void heap_up(struct candidates *c)
{
    for (uint32_t v = 0; v < c->vocabulary; v++)
        if (c->rest ? c->p[v] > 0 && c->p[v] < c->cut : c->p[v] >= c->cut)
            c->id[c->heaped++] = (int32_t)v;
    for (uint32_t i = c->heaped / 2; i-- > 0;)
        sift_down(c, i);
}

/* Candidate i; all before it must have been given out, or it be the next. i < total. */
static int32_t candidate(struct candidates *c, uint32_t i)
{
    if (i == c->given) {
        if (!c->heaped) {
            c->rest = true;
            heap_up(c);
        }
        int32_t top = c->id[0];
        c->id[0] = c->id[--c->heaped];
        c->id[c->vocabulary - 1 - c->given++] = top;
        if (c->heaped)
            sift_down(c, 0);
    }
    return c->id[c->vocabulary - 1 - i];
}

/* Draws from p (which sums to one but for rounding) by top-k, top-p and min-p, in that order: each keeps a front part
 * of the candidates. ids: vocabulary of them. */
static int32_t draw(const struct sampling *s, const float *p, uint32_t vocabulary, double uniform, int32_t *ids)
{
    struct candidates c = {.p = p, .id = ids, .vocabulary = vocabulary};
    double mass = 0, kept_mass = 0, sum = 0;
    for (uint32_t v = 0; v < vocabulary; v++) {
        mass += p[v];
        c.total += p[v] > 0;
        c.cut = p[v] > c.cut ? p[v] : c.cut;
    }
    c.cut *= 1.0f / 256;
    heap_up(&c);

    bool top_k = s->top_k && s->top_k < c.total;
    uint32_t limit = top_k ? s->top_k : c.total, kept = 0, i = 0;
    if (!top_k && s->top_p >= 1 && s->min_p <= 0) { /* no filter: only as far as the draw */
        for (; i + 1 < limit; i++) {
            sum += p[candidate(&c, i)];
            if (sum > uniform * mass)
                break;
        }
        return candidate(&c, i);
    }
    if (top_k) { /* top-p is a part of the top-k's mass */
        mass = 0;
        for (uint32_t k = 0; k < limit; k++)
            mass += p[candidate(&c, k)];
    }
    float least = s->min_p * p[candidate(&c, 0)];
    for (; kept < limit; kept++) {
        float next = p[candidate(&c, kept)];
        if (kept && (next < least || (s->top_p < 1 && kept_mass >= s->top_p * mass)))
            break;
        kept_mass += next;
    }
    for (; i + 1 < kept; i++) {
        sum += p[candidate(&c, i)];
        if (sum > uniform * kept_mass)
            break;
    }
    return candidate(&c, i);
}

int sampler_pick(const struct sampling *s, float *logits, uint32_t vocabulary, const int32_t *tokens, uint32_t n,
                 void *scratch, struct sampled *out, struct error *err)
{
    float *p = scratch;
    int32_t *ids = (int32_t *)scratch + vocabulary;
    struct sampled result = {0};
    double log_sum = 0;
    uint32_t chosen = 0;
    int failed = judge(logits, vocabulary, n, p, &log_sum, err);
    if (failed)
        return failed;
    if (s->top_logprobs)
        list_top(logits, vocabulary, s->top_logprobs, log_sum, &result);

    memcpy(p, logits, (size_t)vocabulary * sizeof *p); /* from here on p is punished, filtered and drawn from */
    for (uint32_t i = 0; i < s->bias_count; i++) {
        if (s->bias[i].bias <= -100)
            p[s->bias[i].token] = -INFINITY;
        else
            p[s->bias[i].token] += s->bias[i].bias;
    }
    memset(ids, 0, (size_t)vocabulary * sizeof *ids);
    punish(s, p, vocabulary, tokens, n, (uint32_t *)ids);
    if ((failed = best_of(p, vocabulary, n, &chosen, err)) < 0)
        return failed;
    if (s->temperature > 0) {
        /* Scaled after the largest is taken off, so that a tiny temperature cannot overflow. */
        float largest = p[chosen];
        for (uint32_t v = 0; v < vocabulary; v++)
            p[v] = (p[v] - largest) / s->temperature;
        op_softmax(NULL, p, vocabulary, 1, vocabulary);
        chosen = (uint32_t)draw(s, p, vocabulary, sampling_uniform(s->seed, n), ids);
    }
    result.chosen = (struct token_logprob){(int32_t)chosen, (float)(logits[chosen] - log_sum)};
    *out = result;
    return 0;
}
