/* Attention over pages: the oracle against softmax in double; every level, thread count, grouping of queries and page
 * order against the oracle bit for bit. */
#include "tests/check.h"
#include "tests/engine/kernels_data.h"

#include "base/clock.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"

struct setting {
    enum kv_type type;
    uint32_t heads, kv_heads, k_dim, v_dim, window, positions, first; /* queries stand at first..positions-1 */
    float softcap;
    int sinks;
    enum data_kind kind;
};

static const struct setting settings[] = {
    {KV_F16, 8, 2, 64, 64, 0, 70, 40, 0, 0, DATA_NORMAL},
    {KV_F32, 8, 2, 64, 64, 0, 70, 0, 0, 0, DATA_NORMAL},
    {KV_Q8, 8, 2, 64, 64, 0, 70, 50, 0, 0, DATA_NORMAL},
    {KV_F16, 7, 1, 80, 48, 0, 33, 0, 0, 1, DATA_NORMAL},
    {KV_Q8, 6, 2, 72, 40, 17, 100, 60, 0, 1, DATA_NORMAL},
    {KV_F32, 5, 5, 24, 8, 9, 45, 0, 20.0f, 0, DATA_NORMAL},
    {KV_F16, 40, 2, 16, 32, 0, 34, 30, 30.0f, 0, DATA_NORMAL},
    {KV_F16, 4, 2, 128, 128, 0, 1100, 1097, 0, 0, DATA_NORMAL},
    {KV_Q8, 4, 1, 128, 128, 600, 1500, 1499, 0, 1, DATA_NORMAL},
    {KV_F32, 4, 1, 48, 16, 0, 1030, 1020, 0, 0, DATA_NORMAL},
    {KV_F16, 4, 2, 64, 64, 0, 40, 0, 0, 0, DATA_HUGE},
    {KV_Q8, 4, 2, 64, 64, 0, 40, 0, 0, 0, DATA_TINY},
    {KV_F32, 4, 2, 64, 64, 0, 40, 0, 0, 0, DATA_TINY},
    {KV_F16, 4, 2, 64, 64, 0, 40, 0, 0, 0, DATA_ZERO},
    {KV_Q8, 4, 2, 64, 64, 0, 40, 0, 0, 0, DATA_EDGE},
};

struct scene {
    struct attention_shape shape;
    float *k, *v, *q; /* by position */
    float sinks[64];
    uint32_t positions, first, pages, *table;
    size_t page_bytes;
    uint8_t *pool;
};

static void scene_make(struct scene *s, const struct setting *t)
{
    *s = (struct scene){
        .shape = {.kv = {t->type, t->kv_heads, t->k_dim, t->v_dim},
                  .heads = t->heads,
                  .scale = 1.0f / sqrtf((float)t->k_dim) * 4,
                  .softcap = t->softcap,
                  .window = t->window},
        .positions = t->positions,
        .first = t->first,
        .pages = (t->positions + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
    };
    s->k = data_floats((size_t)t->positions * t->kv_heads * t->k_dim, t->kind);
    s->v = data_floats((size_t)t->positions * t->kv_heads * t->v_dim, t->kind);
    s->q = data_floats((size_t)t->positions * t->heads * t->k_dim, t->kind);
    for (uint32_t h = 0; h < t->heads; h++)
        s->sinks[h] = data_unit() * 3;
    s->shape.sinks = t->sinks ? s->sinks : NULL;
    s->page_bytes = kv_page_bytes(&s->shape.kv);
    s->pool = mem_map(s->page_bytes * (s->pages + 3));
    s->table = malloc(s->pages * sizeof *s->table);
    if (!s->pool || !s->table)
        abort();
    CHECK_INT(s->page_bytes % 64, 0);
}

/* Fills the pages, which lie in reverse order behind rubbish; another page order gives the same numbers. */
static void scene_fill(struct scene *s, int order)
{
    memset(s->pool, order ? 0xff : 0x3c, s->page_bytes * (s->pages + 3));
    for (uint32_t i = 0; i < s->pages; i++)
        s->table[i] = order ? s->pages + 1 - i : i;
    const struct kv_shape *kv = &s->shape.kv;
    for (uint32_t p = 0; p < s->positions; p++)
        kv_store(kv, s->pool + s->table[p / KV_PAGE_TOKENS] * s->page_bytes, p % KV_PAGE_TOKENS,
                 s->k + (size_t)p * kv->kv_heads * kv->k_dim, s->v + (size_t)p * kv->kv_heads * kv->v_dim);
}

static void scene_free(struct scene *s)
{
    free(s->k);
    free(s->v);
    free(s->q);
    free(s->table);
    mem_unmap(s->pool, s->page_bytes * (s->pages + 3));
}

/* Outputs of all queries; `together`: in one call, else one by one. */
static float *scene_run(struct scene *s, struct pool *pool, int together)
{
    const struct attention_shape *shape = &s->shape;
    uint32_t n = s->positions - s->first;
    size_t width = (size_t)shape->heads * shape->kv.v_dim;
    float *out = malloc(n * width * sizeof *out);
    struct attention_query *queries = malloc(n * sizeof *queries);
    size_t bytes = attention_scratch_bytes(shape, pool_threads(pool), s->positions);
    void *scratch = mem_map(bytes);
    if (!out || !queries || !scratch)
        abort();
    for (uint32_t i = 0; i < n; i++)
        queries[i] = (struct attention_query){s->q + (size_t)(s->first + i) * shape->heads * shape->kv.k_dim,
                                              out + i * width, s->first + i, s->table};
    if (together)
        op_attention(pool, shape, s->pool, s->page_bytes, queries, n, scratch, s->positions);
    else
        for (uint32_t i = 0; i < n; i++)
            op_attention(pool, shape, s->pool, s->page_bytes, queries + i, 1, scratch, s->positions);
    mem_unmap(scratch, bytes);
    free(queries);
    return out;
}

static void check_true_softmax(const struct scene *s, const float *out, double tolerance)
{
    const struct attention_shape *a = &s->shape;
    double *e = malloc(s->positions * sizeof *e);
    for (uint32_t p = s->first; e && p < s->positions; p++)
        for (uint32_t h = 0; h < a->heads; h++) {
            uint32_t g = h / (a->heads / a->kv.kv_heads), low = a->window && p + 1 > a->window ? p + 1 - a->window : 0;
            double max = a->sinks ? a->sinks[h] : -1e300, sum = 0;
            for (uint32_t i = low; i <= p; i++) {
                e[i] = 0;
                for (uint32_t d = 0; d < a->kv.k_dim; d++)
                    e[i] += (double)s->q[((size_t)p * a->heads + h) * a->kv.k_dim + d] *
                            s->k[((size_t)i * a->kv.kv_heads + g) * a->kv.k_dim + d];
                e[i] *= a->scale;
                e[i] = a->softcap != 0 ? a->softcap * tanh(e[i] / a->softcap) : e[i];
                max = e[i] > max ? e[i] : max;
            }
            for (uint32_t i = low; i <= p; i++)
                sum += e[i] = exp(e[i] - max);
            sum += a->sinks ? exp(a->sinks[h] - max) : 0;
            for (uint32_t d = 0; d < a->kv.v_dim; d++) {
                double want = 0;
                for (uint32_t i = low; i <= p; i++)
                    want += e[i] / sum * s->v[((size_t)i * a->kv.kv_heads + g) * a->kv.v_dim + d];
                CHECK_NEAR(out[((size_t)(p - s->first) * a->heads + h) * a->kv.v_dim + d], want, tolerance);
            }
        }
    free(e);
}

static void test_all(void)
{
    struct pool *pools[3] = {NULL};
    for (int i = 1; i < 3; i++) {
        struct pool_options options = {.threads = i == 1 ? 3 : 16};
        REQUIRE(pool_create(&options, &pools[i], NULL) == 0);
    }
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *t = &settings[i];
        struct scene s;
        scene_make(&s, t);
        kernels_force("scalar", NULL);
        scene_fill(&s, 0);
        float *want = scene_run(&s, NULL, 0);
        size_t count = (size_t)(s.positions - s.first) * t->heads * t->v_dim;
        if (t->kind == DATA_NORMAL)
            check_true_softmax(&s, want, t->type == KV_F32 ? 1e-5 : t->type == KV_F16 ? 4e-3 : 5e-2);
        for (const char *const *level = kernels_levels(); *level; level++) {
            kernels_force(*level, NULL);
            scene_fill(&s, 1);
            for (int p = 0; p < 3; p++) {
                float *got = scene_run(&s, pools[p], p != 1);
                if (!data_same(got, want, count))
                    CHECK_FAIL("%s, setting %zu, %d threads: other bits than scalar", *level, i,
                               pool_threads(pools[p]));
                free(got);
            }
        }
        free(want);
        scene_free(&s);
    }
    pool_destroy(pools[1]);
    pool_destroy(pools[2]);
}

/* Several sequences in one call: each as if it were alone. */
static void test_mixed(void)
{
    struct scene a, b;
    scene_make(&a, &settings[0]);
    scene_make(&b, &settings[0]);
    for (const char *const *level = kernels_levels(); *level; level++) {
        kernels_force(*level, NULL);
        const struct attention_shape *shape = &a.shape;
        size_t width = (size_t)shape->heads * shape->kv.v_dim, bytes = attention_scratch_bytes(shape, 1, a.positions);
        scene_fill(&a, 0);
        scene_fill(&b, 0);
        /* b's pages behind a's in one pool */
        uint8_t *both = mem_map(a.page_bytes * 2 * a.pages);
        void *scratch = mem_map(bytes);
        float *out = malloc(4 * width * sizeof *out);
        REQUIRE(both && scratch && out);
        memcpy(both, a.pool, a.page_bytes * a.pages);
        memcpy(both + a.page_bytes * a.pages, b.pool, b.page_bytes * b.pages);
        float *alone[2] = {scene_run(&a, NULL, 0), scene_run(&b, NULL, 0)};
        for (uint32_t i = 0; i < b.pages; i++)
            b.table[i] += a.pages;
        struct attention_query queries[4];
        struct scene *of[4] = {&a, &b, &b, &a};
        uint32_t position[4] = {69, 50, 51, 45};
        for (int i = 0; i < 4; i++)
            queries[i] = (struct attention_query){of[i]->q + (size_t)position[i] * shape->heads * shape->kv.k_dim,
                                                  out + i * width, position[i], of[i]->table};
        op_attention(NULL, shape, both, a.page_bytes, queries, 4, scratch, a.positions);
        for (int i = 0; i < 4; i++)
            CHECK(data_same(out + i * width, alone[of[i] == &b] + (position[i] - a.first) * width, width));
        mem_unmap(both, a.page_bytes * 2 * a.pages);
        mem_unmap(scratch, bytes);
        free(out);
        free(alone[0]);
        free(alone[1]);
    }
    scene_free(&a);
    scene_free(&b);
}

/* GB/s of K and V read by one query of 32 heads on 4, far more of it than the caches hold. */
static void test_speed(void)
{
    if (check_step() > 1)
        SKIP("where programs are slow by themselves, it says nothing");
    const struct attention_shape shape = {.kv = {KV_F16, 4, 64, 64}, .heads = 32, .scale = 0.125f};
    const uint32_t positions = 4096, pages = positions / KV_PAGE_TOKENS, layers = 16;
    size_t page_bytes = kv_page_bytes(&shape.kv), layer_bytes = page_bytes * pages;
    uint8_t *pool = mem_map(layer_bytes * layers);
    void *scratch = mem_map(attention_scratch_bytes(&shape, 1, positions));
    float *q = data_floats(32 * 64, DATA_NORMAL), *out = malloc(32 * 64 * sizeof *out);
    uint32_t *table = malloc(pages * sizeof *table);
    REQUIRE(pool && scratch && out && table);
    for (uint32_t i = 0; i < pages; i++)
        table[i] = i;
    for (size_t i = 0; i < layer_bytes * layers; i += 2)
        memcpy(pool + i, &(uint16_t){0x3000}, 2);
    for (const char *const *level = kernels_levels() + 1; *level; level++) {
        kernels_force(*level, NULL);
        double best = 1e9;
        for (int round = 0; round < 3; round++) {
            int64_t t0 = clock_ns();
            for (uint32_t l = 0; l < layers; l++)
                op_attention(NULL, &shape, pool + l * layer_bytes, page_bytes,
                             &(struct attention_query){q, out, positions - 1, table}, 1, scratch, positions);
            double seconds = (double)(clock_ns() - t0) * 1e-9;
            best = seconds < best ? seconds : best;
        }
        printf("    %-8s f16, 32 heads on 4, %u positions: %.1f GB/s\n", *level, positions,
               (double)(layer_bytes * layers) / best * 1e-9);
    }
    mem_unmap(pool, layer_bytes * layers);
    mem_unmap(scratch, attention_scratch_bytes(&shape, 1, positions));
    free(q);
    free(out);
    free(table);
}

static const struct check_test tests[] = {
    {"all", test_all},
    {"mixed", test_mixed},
    {"speed", test_speed},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    if (kernels_init(&err)) {
        printf("%s\n", err.text);
        return 1;
    }
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
