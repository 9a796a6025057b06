/* The sampler against a brute-force oracle that sorts everything, and what it promises about ties, seeds and bans. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"
#include "engine/model/sampler.h"

#define VOCABULARY_TOP 600

static float normal(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 6; i++)
        sum += (double)(hash_mix64((*state)++) >> 11) * 0x1p-53 - 0.5;
    return (float)(sum * 1.4142);
}

/* ---- The oracle: sorted list of all, one filter after the other, in double -------------------------------------- */

struct entry {
    int32_t id;
    float p;
};

static int by_probability(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->p > y->p ? -1 : x->p < y->p ? 1 : x->id - y->id;
}

static int32_t oracle(const struct sampling *s, const float *raw, uint32_t vocabulary, const int32_t *tokens,
                      uint32_t n)
{
    float l[VOCABULARY_TOP];
    struct entry e[VOCABULARY_TOP];
    memcpy(l, raw, vocabulary * sizeof *l);
    for (uint32_t i = 0; i < s->bias_count; i++)
        l[s->bias[i].token] = s->bias[i].bias <= -100 ? -INFINITY : l[s->bias[i].token] + s->bias[i].bias;
    for (uint32_t v = 0; v < vocabulary; v++) {
        bool seen = false;
        uint32_t made = 0;
        for (uint32_t i = 0; i < n; i++) {
            seen = seen || (tokens[i] == (int32_t)v && i + s->repeat_last >= n);
            made += tokens[i] == (int32_t)v && i >= s->prompt_tokens;
        }
        if (seen)
            l[v] = l[v] > 0 ? l[v] / s->repeat_penalty : l[v] * s->repeat_penalty;
        if (made)
            l[v] -= (float)made * s->frequency_penalty + s->presence_penalty;
    }
    float best = -INFINITY;
    int32_t arg = 0;
    for (uint32_t v = 0; v < vocabulary; v++)
        if (l[v] > best) {
            best = l[v];
            arg = (int32_t)v;
        }
    if (s->temperature == 0)
        return arg;
    for (uint32_t v = 0; v < vocabulary; v++)
        l[v] = (l[v] - best) / s->temperature;
    op_softmax(NULL, l, vocabulary, 1, vocabulary);
    for (uint32_t v = 0; v < vocabulary; v++)
        e[v] = (struct entry){(int32_t)v, l[v]};
    qsort(e, vocabulary, sizeof *e, by_probability);
    uint32_t keep = s->top_k && s->top_k < vocabulary ? s->top_k : vocabulary;
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < keep; i++)
        total += e[i].p;
    if (s->top_p < 1) {
        uint32_t k = 0;
        do
            sum += e[k++].p;
        while (k < keep && sum < s->top_p * total);
        keep = k;
    }
    uint32_t k = 1;
    while (k < keep && e[k].p >= s->min_p * e[0].p && e[k].p > 0)
        k++;
    keep = k;
    total = sum = 0;
    for (uint32_t i = 0; i < keep; i++)
        total += e[i].p;
    double target = sampling_uniform(s->seed, n) * total;
    for (uint32_t i = 0; i < keep; i++) {
        sum += e[i].p;
        if (sum > target)
            return e[i].id;
    }
    return e[keep - 1].id;
}

static void picks_what_brute_force_picks(void)
{
    static char scratch[VOCABULARY_TOP * 8];
    uint64_t state = 1;
    uint32_t distinct = 0;
    int32_t last = -1;
    for (int round = 0; round < 6000; round++) {
        float logits[VOCABULARY_TOP], copy[VOCABULARY_TOP];
        int32_t tokens[50];
        struct sampling s;
        struct sampled out;
        struct error err = {0};
        uint32_t vocabulary = 1 + (uint32_t)(hash_mix64(state++) % (round % 3 ? 40 : VOCABULARY_TOP));
        uint32_t n = (uint32_t)(hash_mix64(state++) % 50);
        for (uint32_t v = 0; v < vocabulary; v++)
            logits[v] =
                round % 5 == 0 ? (float)(int)(2 * normal(&state)) : 3 * normal(&state); /* ties in every fifth */
        for (uint32_t i = 0; i < n; i++)
            tokens[i] = (int32_t)(hash_mix64(state++) % vocabulary);
        sampling_default(&s);
        static const float temperatures[] = {0, 0.3f, 1, 2}, top_ps[] = {1, 0.95f, 0.5f, 0.01f},
                           min_ps[] = {0, 0, 0.05f, 0.5f};
        static const uint32_t top_ks[] = {0, 1, 5, 40};
        s.temperature = temperatures[hash_mix64(state++) % 4];
        s.top_p = top_ps[hash_mix64(state++) % 4];
        s.min_p = min_ps[hash_mix64(state++) % 4];
        s.top_k = top_ks[hash_mix64(state++) % 4];
        s.repeat_penalty = hash_mix64(state++) % 2 ? 1 : 1.3f;
        s.repeat_last = (uint32_t)(hash_mix64(state++) % 60);
        s.presence_penalty = hash_mix64(state++) % 2 ? 0 : 0.7f;
        s.frequency_penalty = hash_mix64(state++) % 2 ? 0 : 0.3f;
        s.prompt_tokens = n ? (uint32_t)(hash_mix64(state++) % n) : 0;
        s.seed = hash_mix64(state++);
        s.bias_count = (uint32_t)(hash_mix64(state++) % 4);
        for (uint32_t i = 0; i < s.bias_count; i++)
            s.bias[i] = (struct sampling_bias){(int32_t)(hash_mix64(state++) % vocabulary), i == 0 ? -100 : 2};
        if (vocabulary <= 4)
            s.bias_count = 0;
        CHECK_INT(sampling_check(&s, vocabulary, &err), 0);
        int32_t want = oracle(&s, logits, vocabulary, tokens, n);
        memcpy(copy, logits, sizeof copy);
        int failed = sampler_pick(&s, copy, vocabulary, tokens, n, scratch, &out, &err);
        if (failed || out.chosen.token != want)
            CHECK_FAIL("round %d: %d %s, token %d, not %d", round, failed, err.text, out.chosen.token, want);
        distinct += want != last;
        last = want;
    }
    CHECK(distinct > 5000);
}

/* Frequencies of many draws against the probabilities: chi-square over the tokens. */
static void draws_follow_the_distribution(void)
{
    enum { V = 12, DRAWS = 60000 };
    char scratch[V * 8];
    float base[V], p[V];
    uint64_t state = 99;
    for (int v = 0; v < V; v++)
        base[v] = normal(&state);
    for (int way = 0; way < 4; way++) {
        struct sampling s;
        struct error err = {0};
        int counts[V] = {0};
        sampling_default(&s);
        s.temperature = way == 0 ? 1 : 0.7f;
        s.top_k = way == 1 ? 5 : 0;
        s.top_p = way == 2 ? 0.8f : 1;
        s.min_p = way == 3 ? 0.2f : 0;
        s.seed = 7 + (uint64_t)way;
        for (int i = 0; i < DRAWS; i++) { /* positions count up, as in a long text */
            float logits[V];
            struct sampled out;
            memcpy(logits, base, sizeof logits);
            static int32_t tokens[DRAWS];
            if (sampler_pick(&s, logits, V, tokens, (uint32_t)i, scratch, &out, &err))
                CHECK_FAIL("%s", err.text);
            counts[out.chosen.token]++;
        }
        int order[V];
        double sum = 0, kept = 0, chi = 0;
        for (int v = 0; v < V; v++)
            sum += p[v] = expf((base[v]) / s.temperature);
        for (int v = 0; v < V; v++)
            order[v] = v;
        for (int i = 0; i < V; i++)
            for (int j = i + 1; j < V; j++)
                if (p[order[j]] > p[order[i]]) {
                    int t = order[i];
                    order[i] = order[j];
                    order[j] = t;
                }
        int keep = V;
        double run = 0;
        for (int i = 0; i < keep; i++) {
            if ((s.top_k && i >= (int)s.top_k) || (s.top_p < 1 && run >= s.top_p * sum) ||
                p[order[i]] < s.min_p * p[order[0]])
                keep = i;
            else
                run += p[order[i]];
        }
        for (int i = 0; i < keep; i++)
            kept += p[order[i]];
        for (int i = 0; i < V; i++) {
            double want = i < keep ? DRAWS * p[order[i]] / kept : 0;
            if (i >= keep)
                CHECK_INT(counts[order[i]], 0);
            else
                chi += (counts[order[i]] - want) * (counts[order[i]] - want) / want;
        }
        CHECK(keep >= 2);
        if (chi > 35) /* 11 degrees of freedom: one in four thousand */
            CHECK_FAIL("way %d: chi-square %.1f over %d tokens", way, chi, keep);
    }
}

static void uniform_numbers_are_uniform_and_keyed(void)
{
    enum { N = 100000 };
    double mean = 0, square = 0, serial = 0, before = sampling_uniform(5, 0);
    for (uint32_t i = 1; i <= N; i++) {
        double u = sampling_uniform(5, i);
        CHECK(u >= 0 && u < 1);
        mean += u;
        square += u * u;
        serial += (u - 0.5) * (before - 0.5);
        before = u;
    }
    CHECK_NEAR(mean / N, 0.5, 0.004);
    CHECK_NEAR(square / N, 1.0 / 3, 0.004);
    CHECK_NEAR(serial / N, 0, 0.001);
    /* Neighbouring seeds and positions are strangers; the same key is the same number. */
    CHECK(sampling_uniform(5, 6) != sampling_uniform(6, 5));
    CHECK(sampling_uniform(0, 1) != sampling_uniform(1, 0));
    CHECK(sampling_uniform(5, 6) == sampling_uniform(5, 6));
    CHECK(fabs(sampling_uniform(1, 1) - sampling_uniform(1, 2)) > 1e-6);
}

static struct sampled pick(const struct sampling *s, const float *logits, uint32_t vocabulary, const int32_t *tokens,
                           uint32_t n)
{
    char scratch[VOCABULARY_TOP * 8];
    float copy[VOCABULARY_TOP];
    struct sampled out = {.chosen.token = -1};
    struct error err = {0};
    memcpy(copy, logits, vocabulary * sizeof *copy);
    if (sampler_pick(s, copy, vocabulary, tokens, n, scratch, &out, &err))
        CHECK_FAIL("%s", err.text);
    return out;
}

static void ties_go_to_the_lower_id(void)
{
    struct sampling s;
    const float logits[] = {1, 3, 3, 2, 3};
    sampling_default(&s);
    s.top_logprobs = 4;
    struct sampled out = pick(&s, logits, 5, NULL, 0);
    CHECK_INT(out.chosen.token, 1);
    CHECK_INT(out.top_count, 4);
    const int32_t order[] = {1, 2, 4, 3};
    for (int i = 0; i < 4; i++)
        CHECK_INT(out.top[i].token, order[i]);
    s.temperature = 1;
    s.top_k = 1;
    CHECK_INT(pick(&s, logits, 5, NULL, 0).chosen.token, 1);
    s.top_k = 2;
    for (uint64_t seed = 0; seed < 50; seed++) {
        s.seed = seed;
        int32_t token = pick(&s, logits, 5, NULL, 0).chosen.token;
        CHECK(token == 1 || token == 2);
    }
}

static void logprobs_are_the_models_own(void)
{
    struct sampling s;
    const float logits[] = {0.5f, -1, 2, 0};
    double sum = 0;
    sampling_default(&s);
    for (int i = 0; i < 4; i++)
        sum += exp(logits[i]);
    s.temperature = 0.1f; /* filters and bias change the choice, not what is reported */
    s.top_k = 1;
    s.top_logprobs = SAMPLING_TOP_MAX;
    s.bias_count = 1;
    s.bias[0] = (struct sampling_bias){1, 10};
    struct sampled out = pick(&s, logits, 4, NULL, 0);
    CHECK_INT(out.chosen.token, 1);
    CHECK_NEAR(out.chosen.logprob, -1 - log(sum), 1e-6);
    CHECK_INT(out.top_count, 4);
    CHECK_INT(out.top[0].token, 2);
    CHECK_NEAR(out.top[0].logprob, 2 - log(sum), 1e-6);
    CHECK_NEAR(out.top[3].logprob, -1 - log(sum), 1e-6);
}

static void penalties_reach_what_they_should(void)
{
    struct sampling s;
    const float logits[] = {1.0f, 0.9f, 0.8f, -5};
    const int32_t tokens[] = {0, 0, 1, 0}; /* the last two were generated */
    sampling_default(&s);
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 0);
    s.repeat_penalty = 2;
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 2);
    s.repeat_last = 0;
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 0);
    s.repeat_last = 1; /* only token 0 is that recent */
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 1);
    sampling_default(&s);
    s.presence_penalty = 0.15f;
    s.prompt_tokens = 3;
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 1);
    s.prompt_tokens = 4; /* nothing generated yet */
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 0);
    s.presence_penalty = 0;
    s.frequency_penalty = 0.06f;
    s.prompt_tokens = 0; /* 0 three times, 1 once: 0.82, 0.84, 0.8 */
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 1);
    s.frequency_penalty = -1; /* a reward is allowed */
    CHECK_INT(pick(&s, logits, 4, tokens, 4).chosen.token, 0);
}

static void a_seed_and_a_position_decide(void)
{
    struct sampling s;
    float logits[200];
    static int32_t tokens[300];
    int32_t first[300];
    uint64_t state = 3;
    for (int v = 0; v < 200; v++)
        logits[v] = normal(&state);
    sampling_default(&s);
    s.temperature = 1;
    s.seed = 1234;
    uint32_t changed = 0;
    for (uint32_t n = 0; n < 300; n++)
        first[n] = pick(&s, logits, 200, tokens, n).chosen.token;
    for (uint32_t n = 300; n-- > 0;) /* in any order */
        CHECK_INT(pick(&s, logits, 200, tokens, n).chosen.token, first[n]);
    s.seed = 1235;
    for (uint32_t n = 0; n < 300; n++)
        changed += pick(&s, logits, 200, tokens, n).chosen.token != first[n];
    CHECK(changed > 250);
}

static void broken_models_are_told(void)
{
    struct sampling s;
    struct sampled out = {.chosen.token = 77};
    struct error err = {0};
    char scratch[4 * 8];
    sampling_default(&s);
    float bad[][4] = {
        {1, NAN, 0, 0}, {NAN, NAN, NAN, NAN}, {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, {0, INFINITY, 0, 0}};
    for (int i = 0; i < 4; i++) {
        CHECK_INT(sampler_pick(&s, bad[i], 4, NULL, 0, scratch, &out, &err), ERR_FORMAT);
        CHECK(strstr(err.text, "position 0"));
    }
    float banned[] = {1, 2, 3, 4};
    s.bias_count = 4;
    for (int i = 0; i < 4; i++)
        s.bias[i] = (struct sampling_bias){i, -100};
    CHECK_INT(sampler_pick(&s, banned, 4, NULL, 0, scratch, &out, &err), ERR_FORMAT);
    CHECK_INT(out.chosen.token, 77);
    float some[] = {1, -INFINITY, -INFINITY, -INFINITY};
    s.bias_count = 0;
    s.temperature = 1;
    CHECK_INT(sampler_pick(&s, some, 4, NULL, 0, scratch, &out, &err), 0);
    CHECK_INT(out.chosen.token, 0);
    float far[] = {3e38f, -3e38f, 0, 1}; /* differences overflow, choices do not */
    s.temperature = 1e-3f;
    CHECK_INT(sampler_pick(&s, far, 4, NULL, 0, scratch, &out, &err), 0);
    CHECK_INT(out.chosen.token, 0);
}

static void settings_are_checked(void)
{
    struct sampling s;
    struct error err = {0};
    sampling_default(&s);
    CHECK_INT(sampling_check(&s, 10, &err), 0);
#define REFUSED(field, value, word)                         \
    do {                                                    \
        sampling_default(&s);                               \
        s.field = value;                                    \
        CHECK_INT(sampling_check(&s, 10, &err), ERR_USAGE); \
        CHECK(strstr(err.text, word));                      \
    } while (0)
    REFUSED(temperature, -1, "temperature");
    REFUSED(temperature, NAN, "temperature");
    REFUSED(temperature, INFINITY, "temperature");
    REFUSED(top_p, 0, "top_p");
    REFUSED(top_p, 1.1f, "top_p");
    REFUSED(top_p, NAN, "top_p");
    REFUSED(min_p, -0.1f, "min_p");
    REFUSED(min_p, 2, "min_p");
    REFUSED(repeat_penalty, 0, "repeat_penalty");
    REFUSED(presence_penalty, NAN, "presence_penalty");
    REFUSED(frequency_penalty, 1e9f, "frequency_penalty");
    REFUSED(top_logprobs, SAMPLING_TOP_MAX + 1, "top_logprobs");
    REFUSED(bias_count, SAMPLING_BIAS_MAX + 1, "biased");
    sampling_default(&s);
    s.bias_count = 1;
    s.bias[0].token = 10;
    CHECK_INT(sampling_check(&s, 10, &err), ERR_USAGE);
    s.bias[0] = (struct sampling_bias){3, NAN};
    CHECK_INT(sampling_check(&s, 10, &err), ERR_USAGE);
}

static const struct check_test tests[] = {
    {"picks_what_brute_force_picks", picks_what_brute_force_picks},
    {"draws_follow_the_distribution", draws_follow_the_distribution},
    {"uniform_numbers_are_uniform_and_keyed", uniform_numbers_are_uniform_and_keyed},
    {"ties_go_to_the_lower_id", ties_go_to_the_lower_id},
    {"logprobs_are_the_models_own", logprobs_are_the_models_own},
    {"penalties_reach_what_they_should", penalties_reach_what_they_should},
    {"a_seed_and_a_position_decide", a_seed_and_a_position_decide},
    {"broken_models_are_told", broken_models_are_told},
    {"settings_are_checked", settings_are_checked},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    if (kernels_init(&err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
