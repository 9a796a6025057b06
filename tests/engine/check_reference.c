/* Compares this engine with an independent one: for each model of a directory that the expected JSON names, logits,
 * negative log-likelihoods and the greedy continuation. For hand use:
 *   check_reference [--stages K] [--kv f16|f32|q8] [--only NAME] [--logits T] [--nll T] [--threads N] DIR EXPECTED.json
 * One line a case; exits 1 when a case is off. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/local.h"

struct settings {
    const char *directory, *expected, *only;
    uint32_t stages;
    enum kv_type kv;
    int threads;
    double logit_tolerance, nll_tolerance;
};

struct verdict {
    double worst_logit; /* of the 32 largest, in standard deviations of the reference */
    double mean_nll, worst_nll;
    uint32_t greedy, greedy_same;
    double first_flip_margin;
    uint32_t crc; /* of the logits after the last id: to compare machines */
};

static int run_case(const struct settings *s, struct pool *pool, const char *name, const json_t *want,
                    struct verdict *out, struct error *err)
{
    char path[4096];
    struct model *m = NULL;
    struct local *l = NULL;
    float *scores = NULL;
    int32_t *ids = NULL;
    struct span_result r;
    struct verdict v = {0};
    const json_t *jids = json_object_get(want, "ids"), *jnll = json_object_get(want, "nll");
    const json_t *jtop = json_object_get(want, "top"), *jgreedy = json_object_get(want, "greedy");
    uint32_t n = (uint32_t)json_array_size(jids);

    snprintf(path, sizeof path, "%s/%s", s->directory, name);
    int failed = model_open(path, &m, err);
    if (failed)
        return failed;
    uint32_t context = model_info(m)->context < 512 ? model_info(m)->context : 512;
    struct local_options o = {.stages = s->stages, .kv = s->kv, .max_context = context, .pool = pool};
    if ((failed = local_open(m, &o, &l, err)) < 0)
        goto done;
    ids = mem_zalloc(n, sizeof *ids);
    scores = mem_zalloc(n, sizeof *scores);
    if (!ids || !scores || !n) {
        failed = error_set(err, ERR_NOMEM, "no memory or no ids");
        goto done;
    }
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(jids, i));
    if ((failed = local_feed(l, 1, ids, n, WANT_SCORES, -1, NULL, scores, &r, err)) < 0)
        goto done;
    double ours = 0, theirs = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        double w = json_number_value(json_array_get(jnll, i));
        ours += scores[i];
        theirs += w;
        v.worst_nll = fmax(v.worst_nll, fabs(scores[i] - w));
    }
    v.mean_nll = n > 1 ? (ours - theirs) / (n - 1) : 0;
    local_release(l, 1);

    if ((failed = local_feed(l, 2, ids, n, WANT_LOGITS, -1, NULL, NULL, &r, err)) < 0)
        goto done;
    v.crc = hash_crc32(0, r.logits, model_info(m)->vocabulary * sizeof *r.logits);
    double std = json_number_value(json_object_get(want, "std"));
    for (uint32_t i = 0; i < 32 && i < json_array_size(jtop); i++) {
        const json_t *pair = json_array_get(jtop, i);
        uint32_t id = (uint32_t)json_integer_value(json_array_get(pair, 0));
        double w = json_number_value(json_array_get(pair, 1));
        v.worst_logit = fmax(v.worst_logit, id < model_info(m)->vocabulary ? fabs(r.logits[id] - w) / std : INFINITY);
    }
    v.first_flip_margin = -1;
    for (uint32_t i = 0; i < json_array_size(jgreedy); i++, v.greedy++) {
        const json_t *pair = json_array_get(jgreedy, i);
        int32_t best = 0;
        for (uint32_t t = 1; t < model_info(m)->vocabulary; t++)
            if (r.logits[t] > r.logits[best])
                best = (int32_t)t;
        if (best != json_integer_value(json_array_get(pair, 0))) {
            v.first_flip_margin = json_number_value(json_array_get(pair, 1));
            v.greedy = (uint32_t)json_array_size(jgreedy);
            break;
        }
        v.greedy_same++;
        if ((failed = local_feed(l, 2, &best, 1, WANT_LOGITS, -1, NULL, NULL, &r, err)) < 0)
            goto done;
    }
    *out = v;
done:
    local_close(l);
    model_close(m);
    mem_free(ids);
    mem_free(scores);
    return failed;
}

int main(int argc, char **argv)
{
    struct settings s = {.kv = KV_F32, .threads = 1, .logit_tolerance = 0.02, .nll_tolerance = 0.02};
    const char *places[2] = {NULL, NULL};
    int place = 0, bad = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--stages"))
            s.stages = (uint32_t)atoi(value), i++;
        else if (!strcmp(argv[i], "--threads"))
            s.threads = atoi(value), i++;
        else if (!strcmp(argv[i], "--only"))
            s.only = value, i++;
        else if (!strcmp(argv[i], "--logits"))
            s.logit_tolerance = atof(value), i++;
        else if (!strcmp(argv[i], "--nll"))
            s.nll_tolerance = atof(value), i++;
        else if (!strcmp(argv[i], "--kv"))
            s.kv = !strcmp(value, "f16") ? KV_F16 : !strcmp(value, "q8") ? KV_Q8 : KV_F32, i++;
        else if (place < 2)
            places[place++] = argv[i];
    }
    if (place != 2) {
        fprintf(stderr, "usage: check_reference [--stages K] [--kv f16|f32|q8] [--only NAME] [--logits T] [--nll T] "
                        "[--threads N] DIR EXPECTED.json\n");
        return 2;
    }
    s.directory = places[0];
    s.expected = places[1];
    json_error_t je;
    json_t *all = json_load_file(s.expected, 0, &je);
    struct error err = {0};
    struct pool *pool = NULL;
    if (!all) {
        fprintf(stderr, "%s: %s\n", s.expected, je.text);
        return 1;
    }
    struct pool_options po = {.threads = s.threads};
    if (kernels_init(&err) || (s.threads > 1 && pool_create(&po, &pool, &err))) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const char *name;
    json_t *want;
    json_object_foreach(all, name, want)
    {
        struct verdict v = {0};
        if ((s.only && strcmp(s.only, name)) || !json_object_get(want, "ids"))
            continue;
        if (run_case(&s, pool, name, want, &v, &err) < 0) {
            printf("FAIL %-18s %s\n", name, err.text);
            bad++;
            continue;
        }
        int ok = v.worst_logit <= s.logit_tolerance && fabs(v.mean_nll) <= s.nll_tolerance;
        bad += !ok;
        printf("%s %-18s top-32 logits off by %.5f std, mean NLL by %+.6f (worst %.5f), greedy %u of %u same",
               ok ? "ok  " : "FAIL", name, v.worst_logit, v.mean_nll, v.worst_nll, v.greedy_same, v.greedy);
        if (v.first_flip_margin >= 0)
            printf(" (flip at margin %.4f)", v.first_flip_margin);
        printf(", crc32 %08x\n", v.crc);
    }
    json_decref(all);
    pool_destroy(pool);
    return bad != 0;
}
