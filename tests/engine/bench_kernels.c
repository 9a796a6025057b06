/* Kernels against what the machine can do, for hands and docs/speed.md; no test. One decode step of a Llama-shaped
 * model (dim 2048, feed-forward 5632, 32 heads on 4) over enough blocks to leave the caches, prefill, batches,
 * attention, load: each beside the read bandwidth or int8 peak measured in the same minute. bench_kernels [what
 * [type]]: what is decode, prefill, batch, float, attention, load, vector or all. BRIGADE_ISA applies; BENCH_THREADS=n
 * for more than one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"
#include "tests/engine/kernels_data.h"

#define DIM 2048u
#define KV_DIM 256u
#define HIDDEN 5632u
#define MATRICES 7
#define HEADS 32u

static const uint32_t shapes[MATRICES][2] = {{DIM, DIM},    {KV_DIM, DIM}, {KV_DIM, DIM}, {DIM, DIM},
                                             {HIDDEN, DIM}, {HIDDEN, DIM}, {DIM, HIDDEN}};

struct block {
    struct matrix w[MATRICES];
};

static struct pool *pool;
static double bandwidth, peak;

/* On a machine with other work, one thread's own time says more than the clock on the wall. */
static int64_t now_ns(void)
{
    struct timespec t;
    if (pool_threads(pool) > 1)
        return clock_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double seconds_since(int64_t t0)
{
    return (double)(now_ns() - t0) * 1e-9;
}

static void measure_limits(void)
{
    bandwidth = probe_read_bandwidth(pool, 300);
    peak = probe_int8_peak(pool, 200);
}

/* Random weights are made once and laid out `blocks` times. */
static struct block *load(uint32_t type, int blocks, double *seconds, size_t *file_bytes)
{
    struct block *b = calloc((size_t)blocks, sizeof *b);
    *seconds = 0;
    *file_bytes = 0;
    for (int m = 0; b && m < MATRICES; m++) {
        uint8_t *w = data_weights(type, shapes[m][0], shapes[m][1], DATA_NORMAL);
        for (int i = 0; i < blocks; i++) {
            int64_t t0 = now_ns();
            if (matrix_load(&b[i].w[m], pool, type, shapes[m][0], shapes[m][1], w, false, NULL))
                abort();
            *seconds += seconds_since(t0);
            *file_bytes += shapes[m][0] * type_row_bytes(type, shapes[m][1]);
        }
        free(w);
    }
    return b;
}

static void unload(struct block *b, int blocks)
{
    for (int i = 0; i < blocks; i++)
        for (int m = 0; m < MATRICES; m++)
            matrix_free(&b[i].w[m]);
    free(b);
}

/* All products of n tokens through all blocks; seconds. */
static double step(struct block *b, int blocks, uint32_t n)
{
    static float *x, *y, *y2, *hidden;
    static void *scratch;
    if (!x) {
        x = data_floats((size_t)512 * HIDDEN, DATA_NORMAL);
        y = calloc((size_t)512 * HIDDEN, sizeof *y);
        y2 = calloc((size_t)512 * HIDDEN, sizeof *y2);
        hidden = data_floats((size_t)512 * HIDDEN, DATA_NORMAL);
        scratch = mem_map(activations_bytes(512, HIDDEN));
    }
    struct activations a;
    int64_t t0 = now_ns();
    for (int i = 0; i < blocks; i++) {
        struct matrix *w = b[i].w;
        activations_set(&a, pool, x, DIM, n, DIM, scratch, false);
        const struct linear_job qkv[] = {{&w[0], y, DIM}, {&w[1], y2, KV_DIM}, {&w[2], y2, KV_DIM}};
        op_linear_many(pool, qkv, 3, &a);
        activations_set(&a, pool, x, DIM, n, DIM, scratch, false);
        op_linear(pool, &w[3], &a, y, DIM);
        activations_set(&a, pool, x, DIM, n, DIM, scratch, false);
        const struct linear_job up[] = {{&w[4], y, HIDDEN}, {&w[5], y2, HIDDEN}};
        op_linear_many(pool, up, 2, &a);
        activations_set(&a, pool, hidden, HIDDEN, n, HIDDEN, scratch, false);
        op_linear(pool, &w[6], &a, y, DIM);
    }
    return seconds_since(t0);
}

static void bench_type(uint32_t type, const char *what)
{
    int blocks = strcmp(what, "prefill") ? 4 : 1;
    double load_seconds;
    size_t bytes;
    struct block *b = load(type, blocks, &load_seconds, &bytes);
    if (!strcmp(what, "load") || !strcmp(what, "all")) { /* again: a virtual machine's first touch of memory is slow */
        unload(b, blocks);
        b = load(type, blocks, &load_seconds, &bytes);
    }
    double macs = (double)blocks * (2.0 * DIM * DIM + 2.0 * KV_DIM * DIM + 3.0 * DIM * HIDDEN);
    int all = !strcmp(what, "all");
    printf("%-8s", type_name(type));
    if (all || !strcmp(what, "load"))
        printf(" load %.2f GB/s", (double)bytes / load_seconds * 1e-9);
    if (all || !strcmp(what, "decode")) {
        double best = 0, ratio = 0;
        for (int round = 0; round < 8; round++) { /* the probe beside each step: the machine is shared */
            double rate = (double)bytes / step(b, blocks, 1);
            double limit = probe_read_bandwidth(pool, 20);
            best = rate > best ? rate : best;
            bandwidth = limit > bandwidth ? limit : bandwidth;
            (void)ratio;
        }
        printf(" decode %.2f GB/s, %.2f of read bandwidth %.2f;", best * 1e-9, best / bandwidth, bandwidth * 1e-9);
    }
    if (all || !strcmp(what, "prefill"))
        for (uint32_t n = 128; n <= 128; n *= 4) {
            double best = 1e9;
            for (int round = 0; round < 4; round++) {
                double s = step(b, blocks, n), p = probe_int8_peak(pool, 20);
                best = s < best ? s : best;
                peak = p > peak ? p : peak;
            }
            printf(" prefill %u: %.0f GMAC/s, %.2f of peak %.0f;", n, macs * n / best * 1e-9, macs * n / best / peak,
                   peak * 1e-9);
        }
    if (all || !strcmp(what, "batch")) {
        double one = 0;
        for (uint32_t n = 1; n <= 16; n = n < 4 ? n + 1 : n < 8 ? n + 2 : n + 4) {
            double best = 1e9;
            for (int round = 0; round < 6; round++) {
                double s = step(b, blocks, n);
                best = s < best ? s : best;
            }
            one = n == 1 ? best : one;
            printf(" %u:%.2fx", n, one * n / best);
        }
    }
    printf("\n");
    unload(b, blocks);
}

/* One query over a cache of `layers` layers; GB/s of K and V. */
static void bench_attention(enum kv_type type, const char *name, uint32_t heads, uint32_t kv_heads, uint32_t dim,
                            uint32_t positions)
{
    struct attention_shape shape = {.kv = {type, kv_heads, dim, dim}, .heads = heads, .scale = 0.125f};
    uint32_t pages = positions / KV_PAGE_TOKENS;
    size_t page_bytes = kv_page_bytes(&shape.kv), layer_bytes = page_bytes * pages;
    uint32_t layers = (uint32_t)(((size_t)192 << 20) / layer_bytes) + 1;
    uint8_t *data = mem_map(layer_bytes * layers);
    size_t scratch_bytes = attention_scratch_bytes(&shape, pool_threads(pool), positions);
    void *scratch = mem_map(scratch_bytes);
    float *k = data_floats((size_t)kv_heads * dim, DATA_NORMAL),
          *q = data_floats((size_t)64 * heads * dim, DATA_NORMAL);
    float *out = calloc((size_t)64 * heads * dim, sizeof *out);
    uint32_t *table = malloc(pages * sizeof *table);
    if (!data || !scratch || !out || !table)
        abort();
    for (uint32_t i = 0; i < pages; i++)
        table[i] = i;
    for (uint32_t slot = 0; slot < KV_PAGE_TOKENS; slot++)
        kv_store(&shape.kv, data, slot, k, k);
    for (size_t i = 1; i < (size_t)pages * layers; i++)
        memcpy(data + i * page_bytes, data, page_bytes);
    struct attention_query queries[64];
    for (uint32_t i = 0; i < 64; i++)
        queries[i] = (struct attention_query){q + (size_t)i * heads * dim, out + (size_t)i * heads * dim,
                                              positions - 64 + i, table};
    double best = 0, chunk = 1e9;
    for (int round = 0; round < 8; round++) {
        int64_t t0 = now_ns();
        for (uint32_t l = 0; l < layers; l++)
            op_attention(pool, &shape, data + l * layer_bytes, page_bytes, queries + 63, 1, scratch, positions);
        double rate = (double)(layer_bytes * layers) / seconds_since(t0), limit = probe_read_bandwidth(pool, 20);
        best = rate > best ? rate : best;
        bandwidth = limit > bandwidth ? limit : bandwidth;
    }
    for (int round = 0; round < 3; round++) {
        int64_t t0 = now_ns();
        op_attention(pool, &shape, data, page_bytes, queries, 64, scratch, positions);
        double s = seconds_since(t0);
        chunk = s < chunk ? s : chunk;
    }
    printf(
        "attention %s %u heads on %u of %u, %u positions: %.2f GB/s, %.2f of read bandwidth; 64 queries %.1f GFMA/s\n",
        name, heads, kv_heads, dim, positions, best * 1e-9, best / bandwidth,
        64.0 * heads * positions * 2 * dim / chunk * 1e-9);
    mem_unmap(data, layer_bytes * layers);
    mem_unmap(scratch, scratch_bytes);
    free(k);
    free(q);
    free(out);
    free(table);
}

int main(int argc, char **argv)
{
    static const uint32_t types[] = {TYPE_Q8_0,   TYPE_Q4_0,  TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K,
                                     TYPE_IQ4_XS, TYPE_MXFP4, TYPE_F16,  TYPE_BF16, TYPE_F32};
    const char *what = argc > 1 ? argv[1] : "all", *threads = getenv("BENCH_THREADS");
    struct pool_options options = {.threads = threads ? atoi(threads) : 1, .bind = false};
    struct error err = {0};
    if (kernels_init(&err) || pool_create(&options, &pool, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (argc > 2 && !matrix_supported((uint32_t)type_parse(argv[2]), 256)) {
        fprintf(stderr, "no kernel multiplies \"%s\"\n", argv[2]);
        return 1;
    }
    measure_limits();
    printf("%s, %d threads: read %.2f GB/s, int8 %.0f GMAC/s\n", kernels_isa(), pool_threads(pool), bandwidth * 1e-9,
           peak * 1e-9);
    if (strcmp(what, "attention"))
        for (size_t i = 0; i < (argc > 2 ? 1 : sizeof types / sizeof *types); i++)
            bench_type(argc > 2 ? (uint32_t)type_parse(argv[2]) : types[i], what);
    if (!strcmp(what, "all") || !strcmp(what, "attention")) {
        bench_attention(KV_F16, "f16", 32, 4, 64, 4096);
        bench_attention(KV_F16, "f16", 32, 4, 64, 16384);
        bench_attention(KV_F16, "f16", 32, 8, 128, 4096);
        bench_attention(KV_F16, "f16", 16, 8, 128, 4096);
        bench_attention(KV_F16, "f16", 8, 8, 128, 4096);
        bench_attention(KV_Q8, "q8", 32, 8, 128, 4096);
    }
    pool_destroy(pool);
    return 0;
}
