/* Matrix products: every level against the scalar oracle, bit for bit, for every type, kind of data, shape and batch;
 * the oracle itself against products in double of dequantized rows; rows given back as the file means them. */
#include "tests/check.h"
#include "tests/engine/kernels_data.h"

#include "base/clock.h"
#include "base/memory.h"
#include "engine/kernels/numerics.h"
#include "engine/kernels/ops.h"
#include "engine/quant/dequantize.h"

static const uint32_t types[] = {
    TYPE_F32,   TYPE_F16,   TYPE_BF16,   TYPE_Q8_0,   TYPE_Q4_0,    TYPE_Q4_1,   TYPE_Q5_0,  TYPE_Q5_1,  TYPE_Q2_K,
    TYPE_Q3_K,  TYPE_Q4_K,  TYPE_Q5_K,   TYPE_Q6_K,   TYPE_IQ2_XXS, TYPE_IQ2_XS, TYPE_IQ2_S, TYPE_IQ3_S, TYPE_IQ3_XXS,
    TYPE_IQ1_S, TYPE_IQ1_M, TYPE_IQ4_NL, TYPE_IQ4_XS, TYPE_TQ1_0,   TYPE_TQ2_0,  TYPE_MXFP4};
#define TYPES (sizeof types / sizeof *types)

static float *product(uint32_t type, uint32_t rows, uint32_t cols, const uint8_t *w, const float *x, uint32_t n,
                      struct pool *pool)
{
    struct matrix m = {0};
    struct activations a;
    float *y = calloc((size_t)n * rows, sizeof *y);
    void *scratch = mem_map(activations_bytes(n, cols));
    if (!y || !scratch || matrix_load(&m, pool, type, rows, cols, w, true, NULL))
        abort();
    activations_set(&a, pool, x, cols, n, cols, scratch, false);
    op_linear(pool, &m, &a, y, rows);
    matrix_free(&m);
    mem_unmap(scratch, activations_bytes(n, cols));
    return y;
}

static int is_float(uint32_t type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

/* Blocks taken apart mean what dequantize_row says, to one rounding. */
static void test_decode(void)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (is_float(types[i]))
            continue;
        CHECK(numerics_of(types[i]).groups > 0);
        for (int kind = 0; kind < DATA_KINDS; kind++) {
            uint32_t values = type_info(types[i])->block_values;
            uint8_t *w = data_weights(types[i], 1, values * 20, kind);
            for (uint32_t b = 0; b < 20; b++) {
                float want[256];
                struct block32 got[8];
                const uint8_t *block = w + b * type_info(types[i])->block_bytes;
                CHECK_INT(dequantize_row(types[i], block, want, values), 0);
                numerics_decode(types[i], block, got);
                int bad = 0;
                for (uint32_t c = 0; c < values; c++) {
                    const struct block32 *p = &got[c / 32];
                    int g = c % 32 / 16;
                    double exact = (double)p->scale[g] * p->q[c % 32] + p->offset[g];
                    double size = fabs((double)p->scale[g] * p->q[c % 32]) + fabs(p->offset[g]);
                    bad += !(fabs(exact - want[c]) <= size * 0x1p-22);
                }
                if (bad)
                    CHECK_FAIL("%s %s: %d values differ", type_name(types[i]), data_kind_names[kind], bad);
                struct numerics shape = numerics_of(types[i]);
                for (uint32_t s = 0; s < values / 32; s++) {
                    CHECK(shape.groups == 2 ||
                          (got[s].scale[0] == got[s].scale[1] && got[s].offset[0] == got[s].offset[1]));
                    CHECK(shape.offset || (got[s].offset[0] == 0 && got[s].offset[1] == 0));
                }
            }
            free(w);
        }
    }
}

/* The oracle is near the true product: within the rounding of activations to 8 bits. */
static void test_oracle(void)
{
    CHECK_INT(kernels_force("scalar", NULL), 0);
    const uint32_t rows = 5, cols = 512, n = 2;
    for (size_t i = 0; i < TYPES; i++) {
        uint8_t *w = data_weights(types[i], rows, cols, DATA_NORMAL);
        float *x = data_floats(n * cols, DATA_NORMAL), *y = product(types[i], rows, cols, w, x, n, NULL);
        float *row = malloc(cols * sizeof *row);
        for (uint32_t r = 0; row && r < rows; r++) {
            dequantize_row(types[i], w + r * type_row_bytes(types[i], cols), row, cols);
            for (uint32_t t = 0; t < n; t++) {
                double sum = 0, size = 0;
                for (uint32_t c = 0; c < cols; c++) {
                    sum += (double)row[c] * x[t * cols + c];
                    size += (double)row[c] * row[c];
                }
                double tolerance = is_float(types[i]) ? 1e-5 : 6 * sqrt(size) / 254;
                CHECK_NEAR(y[t * rows + r], sum, tolerance);
            }
        }
        free(row);
        free(w);
        free(x);
        free(y);
    }
}

/* Every level, batch and number of threads: the oracle's bits. */
static void check_levels(uint32_t type, uint32_t rows, uint32_t cols, enum data_kind kind, uint32_t most,
                         struct pool *pool)
{
    uint8_t *w = data_weights(type, rows, cols, kind);
    float *x = data_floats((size_t)most * cols, kind);
    kernels_force("scalar", NULL);
    float *want = product(type, rows, cols, w, x, most, NULL);
    for (const char *const *level = kernels_levels(); *level; level++) {
        kernels_force(*level, NULL);
        for (uint32_t n = 1; n <= most; n = n < 17 ? n + 1 : n + 23) {
            float *got = product(type, rows, cols, w, x, n, n % 2 ? pool : NULL);
            if (!data_same(got, want, (size_t)n * rows))
                CHECK_FAIL("%s %s %ux%u %s, %u tokens: other bits than scalar", *level, type_name(type), rows, cols,
                           data_kind_names[kind], n);
            free(got);
        }
    }
    free(w);
    free(x);
    free(want);
}

static void test_levels(void)
{
    struct pool *pool = NULL;
    struct pool_options options = {.threads = 3};
    REQUIRE(pool_create(&options, &pool, NULL) == 0);
    for (size_t i = 0; i < TYPES; i++) {
        uint32_t values = type_info(types[i])->block_values;
        for (int kind = 0; kind < DATA_KINDS; kind++) {
            if (values == 1) {
                check_levels(types[i], 19, 37, kind, 17, pool);
                check_levels(types[i], 5, 16, kind, 17, pool);
                check_levels(types[i], 33, 130, kind, 40, pool);
            } else {
                check_levels(types[i], 35, values == 32 ? 96 : 256, kind, 40, pool);
                check_levels(types[i], 1, values == 32 ? 32 : 512, kind, 17, pool);
            }
        }
        check_levels(types[i], 16, 768, DATA_NORMAL, 40, pool);
        check_levels(types[i], 83, 1024, DATA_NORMAL, 17,
                     pool); /* more than a strip of columns, pairs and an odd panel */
    }
    pool_destroy(pool);
}

/* Chosen tokens give the same numbers as all of them. */
static void test_gather(void)
{
    const uint32_t rows = 20, n = 21, chosen[] = {20, 0, 7, 7, 3, 19, 11, 12, 13, 1, 2, 4, 5, 6, 8, 9, 10, 14, 18};
    const uint32_t m = sizeof chosen / sizeof *chosen;
    for (const char *const *level = kernels_levels(); *level; level++) {
        kernels_force(*level, NULL);
        for (size_t i = 0; i < TYPES; i++) {
            const uint32_t cols = 768;
            uint8_t *w = data_weights(types[i], rows, cols, DATA_NORMAL);
            float *x = data_floats((size_t)n * cols, DATA_NORMAL), *all = product(types[i], rows, cols, w, x, n, NULL);
            float *y = calloc((size_t)m * rows, sizeof *y);
            void *scratch = mem_map(activations_bytes(n, cols)), *few = mem_map(activations_bytes(m, cols));
            struct matrix matrix;
            struct activations a;
            REQUIRE(y && scratch && few && !matrix_load(&matrix, NULL, types[i], rows, cols, w, false, NULL));
            activations_set(&a, NULL, x, cols, n, cols, scratch, true);
            op_linear_gather(NULL, &(struct linear_job){&matrix, y, rows}, 1, &a, chosen, m, few);
            for (uint32_t t = 0; t < m; t++)
                if (!data_same(y + t * rows, all + chosen[t] * rows, rows))
                    CHECK_FAIL("%s %s: chosen token %u differs", *level, type_name(types[i]), t);
            matrix_free(&matrix);
            mem_unmap(scratch, activations_bytes(n, cols));
            mem_unmap(few, activations_bytes(m, cols));
            free(w);
            free(x);
            free(y);
            free(all);
        }
    }
}

/* A row given back is dequantize_row of the file's row; what is owned is what was announced. */
static void test_rows(void)
{
    const uint32_t rows = 37, cols = 512;
    for (const char *const *level = kernels_levels(); *level; level++) {
        kernels_force(*level, NULL);
        for (size_t i = 0; i < TYPES; i++) {
            uint8_t *w = data_weights(types[i], rows, cols, DATA_NORMAL);
            float want[512], got[512];
            for (int borrow = 0; borrow < 2; borrow++) {
                struct matrix m;
                REQUIRE(!matrix_load(&m, NULL, types[i], rows, cols, w, borrow, NULL));
                CHECK(!borrow || m.bytes == matrix_bytes(types[i], rows, cols));
                for (uint32_t r = 0; r < rows; r++) {
                    dequantize_row(types[i], w + r * type_row_bytes(types[i], cols), want, cols);
                    matrix_row(&m, r, got);
                    if (!data_same(got, want, cols))
                        CHECK_FAIL("%s %s: row %u differs", *level, type_name(types[i]), r);
                }
                matrix_free(&m);
            }
            free(w);
        }
    }
}

/* Where determinism is given up, OpenBLAS's products of float matrices are near the oracle's; the rest stays exact. */
static void test_blas(void)
{
    static const uint32_t few[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0};
    const uint32_t rows = 300, cols = 160, n = 33;
    for (size_t i = 0; i < 4; i++) {
        uint8_t *w = data_weights(few[i], rows, cols, DATA_NORMAL);
        float *x = data_floats((size_t)n * cols, DATA_NORMAL), *want = product(few[i], rows, cols, w, x, n, NULL);
        kernels_set_deterministic(false);
        float *got = product(few[i], rows, cols, w, x, n, NULL), *one = product(few[i], rows, cols, w, x, 1, NULL);
        kernels_set_deterministic(true);
        double worst = 0;
        for (uint32_t k = 0; k < n * rows; k++)
            if (!(fabs((double)got[k] - want[k]) <= worst))
                worst = fabs((double)got[k] - want[k]);
        CHECK(worst < 1e-5);
        CHECK(data_same(one, want, rows)); /* decode never goes that way */
        CHECK(few[i] != TYPE_Q8_0 || data_same(got, want, (size_t)n * rows));
        free(w);
        free(x);
        free(want);
        free(got);
        free(one);
    }
}

static void test_refusals(void)
{
    struct matrix m = {.rows = 77};
    struct error err = {0};
    CHECK_INT(matrix_load(&m, NULL, TYPE_Q4_0, 4, 33, NULL, true, &err), ERR_UNSUPPORTED);
    CHECK_INT(m.rows, 77);
    CHECK_INT(matrix_load(&m, NULL, TYPE_I32, 4, 32, NULL, true, &err), ERR_UNSUPPORTED);
    CHECK_INT(matrix_load(&m, NULL, 1000, 4, 32, NULL, true, &err), ERR_UNSUPPORTED);
    CHECK(!matrix_supported(TYPE_Q4_K, 128) && matrix_supported(TYPE_Q4_K, 256));
    CHECK_INT(kernels_force("abacus", &err), ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "scalar"));
}

/* Short and informational: GB/s of one token, G multiply-accumulates/s of 64 tokens. */
static void test_speed(void)
{
    if (check_step() > 1)
        SKIP("where programs are slow by themselves, it says nothing");
    const uint32_t rows = 512, cols = 2048;
    static const uint32_t shown[] = {TYPE_F32,  TYPE_F16,  TYPE_BF16,   TYPE_Q8_0,   TYPE_Q4_0,  TYPE_Q4_K,
                                     TYPE_Q5_K, TYPE_Q6_K, TYPE_IQ4_XS, TYPE_IQ4_NL, TYPE_MXFP4, TYPE_Q2_K};
    for (const char *const *level = kernels_levels(); *level; level++) {
        if (!strcmp(*level, "scalar"))
            continue;
        kernels_force(*level, NULL);
        for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
            uint8_t *w = data_weights(shown[i], rows, cols, DATA_NORMAL);
            float *x = data_floats((size_t)64 * cols, DATA_NORMAL), *y = malloc((size_t)64 * rows * sizeof *y);
            void *scratch = mem_map(activations_bytes(64, cols));
            struct matrix m;
            REQUIRE(y && scratch && !matrix_load(&m, NULL, shown[i], rows, cols, w, true, NULL));
            double best[2] = {1e9, 1e9};
            for (int batch = 0; batch < 2; batch++)
                for (int round = 0; round < 3; round++) {
                    struct activations a;
                    activations_set(&a, NULL, x, cols, batch ? 64 : 1, cols, scratch, false);
                    int64_t t0 = clock_ns();
                    op_linear(NULL, &m, &a, y, rows);
                    double seconds = (double)(clock_ns() - t0) * 1e-9;
                    best[batch] = seconds < best[batch] ? seconds : best[batch];
                }
            printf("    %-8s %-8s %6.1f GB/s cached, 64 tokens %6.1f GMAC/s\n", *level, type_name(shown[i]),
                   (double)rows * (double)type_row_bytes(shown[i], cols) / best[0] * 1e-9,
                   64.0 * rows * cols / best[1] * 1e-9);
            matrix_free(&m);
            mem_unmap(scratch, activations_bytes(64, cols));
            free(w);
            free(x);
            free(y);
        }
    }
}

static const struct check_test tests[] = {
    {"decode", test_decode}, {"oracle", test_oracle}, {"levels", test_levels},     {"gather", test_gather},
    {"rows", test_rows},     {"blas", test_blas},     {"refusals", test_refusals}, {"speed", test_speed},
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
