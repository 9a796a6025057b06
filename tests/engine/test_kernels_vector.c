/* Row ops and maths: the definitions against the C library, every level against the scalar oracle bit for bit. */
#include "tests/check.h"
#include "tests/engine/kernels_data.h"

#include "base/clock.h"
#include "engine/kernels/maths.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"

static double ulps(float got, double want)
{
    int exponent;
    frexp(want, &exponent);
    double ulp = ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
    return fabs(got - want) / ulp;
}

static void test_maths(void)
{
    double worst_exp = 0, worst_tanh = 0;
    for (float x = -87.2f; x < 88.6f; x += 0.0017f) {
        double e = ulps(maths_exp(x), exp((double)x)), t = ulps(maths_tanh(x / 8), tanh((double)(x / 8)));
        worst_exp = e > worst_exp ? e : worst_exp;
        worst_tanh = t > worst_tanh ? t : worst_tanh;
    }
    printf("    exp within %.2f ulp, tanh within %.2f ulp\n", worst_exp, worst_tanh);
    CHECK(worst_exp < 2);
    CHECK(worst_tanh < 4);
    CHECK(maths_exp(-88) == 0 && maths_exp(0) == 1 && isinf(maths_exp(89)) && isnan(maths_exp(NAN)));
    CHECK(maths_exp(-INFINITY) == 0 && isinf(maths_exp(INFINITY)));
    CHECK(maths_tanh(INFINITY) == 1 && maths_tanh(-INFINITY) == -1 && maths_tanh(-0.0f) == 0);
    CHECK_NEAR(maths_silu(1.5f), 1.5 / (1 + exp(-1.5)), 1e-6);
    CHECK_NEAR(maths_gelu(0.7f), 0.5 * 0.7 * (1 + tanh(sqrt(2 / M_PI) * (0.7 + 0.044715 * 0.343))), 1e-6);
    for (int i = 0; i < 20000; i++) {
        double x = fabs((double)data_unit()) * 100 + 1e-9, s, c, angle = (double)data_unit() * (i % 2 ? 1e6 : 10);
        CHECK_NEAR(maths_log(x), log(x), 4e-16 * (fabs(log(x)) + 1));
        CHECK_NEAR(maths_exp2(x / 3 - 16) / exp2(x / 3 - 16), 1, 4e-16);
        CHECK_NEAR(maths_pow(x + 1, -0.37) / pow(x + 1, -0.37), 1, 2e-15);
        maths_sincos(angle, &s, &c);
        CHECK_NEAR(s, sin(angle), 3e-16);
        CHECK_NEAR(c, cos(angle), 3e-16);
    }
    CHECK(maths_log(1) == 0 && maths_exp2(10) == 1024 && isinf(maths_exp2(1e9)) && maths_exp2(-1e9) == 0);
    CHECK_NEAR(maths_log(4.9e-324), log(4.9e-324), 1e-12);
    CHECK(isinf(maths_log(INFINITY)) && isinf(maths_exp2(1e308)) && isnan(maths_exp2(NAN)));
}

/* The op under test works on x (count floats) with help from y and z; cols is a row's length. */
struct ops_case {
    const char *name;
    void (*run)(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols);
};

static void rms(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_rms_norm(pool, x, cols, n, cols, y, 1e-5f, x, cols);
}
static void rms_plain(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_rms_norm(pool, x, cols, n, cols, NULL, 1e-6f, x, cols);
}
static void layer(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_layer_norm(pool, x, cols, n, cols, y, z, 1e-5f, x, cols);
}
static void adds(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_add(pool, x, y, (size_t)n * cols);
}
static void bias(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_add_bias(pool, x, cols, n, cols, y);
}
static void scales(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_scale(pool, x, 0.37f, (size_t)n * cols);
}
static void fmas(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_fma(pool, x, y, -1.3f, (size_t)n * cols);
}
static void silus(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_silu_mul(pool, y, z, x, (size_t)n * cols);
}
static void silus_wide(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_scale(pool, x, 90.0f, (size_t)n * cols);
    op_silu_mul(pool, x, z, x, (size_t)n * cols);
}
static void gelus(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_gelu_mul(pool, y, z, x, (size_t)n * cols);
}
static void gelus_wide(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_scale(pool, x, 9.0f, (size_t)n * cols);
    op_gelu(pool, x, (size_t)n * cols);
}
static void relus(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_relu(pool, x, (size_t)n * cols);
}
static void caps(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_softcap(pool, x, 0.8f, (size_t)n * cols);
}
static void softmaxes(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    op_scale(pool, x, 20.0f, (size_t)n * cols);
    op_softmax(pool, x, cols, n, cols);
}
static void ropes(struct pool *pool, float *x, const float *y, const float *z, uint32_t n, uint32_t cols)
{
    uint32_t rotary = cols / 2 * 2;
    op_rope(pool, x, cols, n, 1, cols, rotary, true, y, z);
    op_rope(pool, x, cols, n, 1, cols, rotary / 4 * 2, false, y, z);
}

static const struct ops_case cases[] = {
    {"rms_norm", rms},
    {"rms_norm plain", rms_plain},
    {"layer_norm", layer},
    {"add", adds},
    {"add_bias", bias},
    {"scale", scales},
    {"fma", fmas},
    {"silu_mul", silus},
    {"silu wide", silus_wide},
    {"gelu_mul", gelus},
    {"gelu wide", gelus_wide},
    {"relu", relus},
    {"softcap", caps},
    {"softmax", softmaxes},
    {"rope", ropes},
};

static void test_levels(void)
{
    static const uint32_t sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 511, 2048};
    struct pool *pool = NULL;
    struct pool_options options = {.threads = 3};
    REQUIRE(pool_create(&options, &pool, NULL) == 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int kind = 0; kind < DATA_KINDS; kind++) {
                const uint32_t n = 9, cols = sizes[s];
                size_t count = (size_t)n * cols;
                float *x = data_floats(count, kind), *y = data_floats(count, kind), *z = data_floats(count, kind);
                float *want = malloc(count * sizeof *want), *got = malloc(count * sizeof *got);
                REQUIRE(want && got);
                memcpy(want, x, count * sizeof *x);
                kernels_force("scalar", NULL);
                cases[i].run(NULL, want, y, z, n, cols);
                for (const char *const *level = kernels_levels() + 1; *level; level++) {
                    kernels_force(*level, NULL);
                    memcpy(got, x, count * sizeof *x);
                    cases[i].run(s % 2 ? pool : NULL, got, y, z, n, cols);
                    if (!data_same(got, want, count))
                        CHECK_FAIL("%s %s %u %s: other bits than scalar", *level, cases[i].name, cols,
                                   data_kind_names[kind]);
                }
                free(x);
                free(y);
                free(z);
                free(want);
                free(got);
            }
    pool_destroy(pool);
}

static void test_quantise(void)
{
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        enum { COLS = 320 };
        float *x = data_floats(COLS, kind);
        struct act_block want[COLS / 32], got[COLS / 32];
        kernels_force("scalar", NULL);
        kernels->quantise(x, COLS, want, 1);
        for (const char *const *level = kernels_levels() + 1; *level; level++) {
            kernels_force(*level, NULL);
            memset(got, 0x55, sizeof got);
            kernels->quantise(x, COLS, got, 1);
            for (int b = 0; b < COLS / 32; b++)
                if (memcmp(&got[b], &want[b], sizeof *got))
                    CHECK_FAIL("%s %s: block %d differs", *level, data_kind_names[kind], b);
        }
        if (kind == DATA_NORMAL)
            for (int c = 0; c < COLS; c++)
                CHECK_NEAR(want[c / 32].d * (float)want[c / 32].q[c % 32], x[c], want[c / 32].d * 0.5001f);
        free(x);
    }
}

static void test_half(void)
{
    enum { COUNT = 65536 + 7 };
    static uint16_t bits[COUNT], narrow[2][COUNT];
    static float wide[2][COUNT];
    for (int i = 0; i < COUNT; i++)
        bits[i] = (uint16_t)((i & 0x7c00) == 0x7c00 ? i & 0x83ff : i); /* all numbers, no NaN */
    float *x = data_floats(COUNT, DATA_NORMAL);
    for (int i = 0; i < COUNT; i++)
        x[i] *= i % 3 ? 1e5f : 1e-6f;
    kernels_force("scalar", NULL);
    kernels->widen_f16(bits, wide[0], COUNT);
    kernels->narrow_f16(x, narrow[0], COUNT);
    for (const char *const *level = kernels_levels() + 1; *level; level++) {
        kernels_force(*level, NULL);
        kernels->widen_f16(bits, wide[1], COUNT);
        kernels->narrow_f16(x, narrow[1], COUNT);
        CHECK(!memcmp(wide[0], wide[1], sizeof wide[0]));
        CHECK(!memcmp(narrow[0], narrow[1], sizeof narrow[0]));
    }
    free(x);
}

/* What no number comes of must not stop the program at any level, nor touch the rows beside it. */
static void test_not_finite(void)
{
    static const float odd[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 0, -0.0f, 1e-45f};
    enum { ROWS = 3, COLS = 32, COUNT = ROWS * COLS };
    float *plain = data_floats(COUNT, DATA_NORMAL), *z = data_floats(COUNT, DATA_NORMAL);
    float y[COUNT], x[COUNT], want[COUNT];
    memcpy(y, plain, sizeof y);
    for (int i = 0; i < COLS; i++) /* the middle row is odd */
        y[COLS + i] = odd[i % 8];
    for (const char *const *level = kernels_levels(); *level; level++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            kernels_force("scalar", NULL);
            memcpy(want, plain, sizeof want);
            cases[i].run(NULL, want, plain, z, ROWS, COLS);
            kernels_force(*level, NULL);
            memcpy(x, y, sizeof x);
            cases[i].run(NULL, x, plain, z, ROWS, COLS);
            CHECK(data_same(x, want, COLS) && data_same(x + 2 * COLS, want + 2 * COLS, COLS));
            memcpy(x, plain, sizeof x); /* oddness in the other operand */
            cases[i].run(NULL, x, y, z, ROWS, COLS);
            struct act_block q[ROWS], same[ROWS];
            kernels->quantise(y, COUNT, q, 1);
            kernels_force("scalar", NULL);
            kernels->quantise(y, COUNT, same, 1);
            CHECK(!memcmp(&q[0], &same[0], sizeof *q) && !memcmp(&q[2], &same[2], sizeof *q));
        }
    free(plain);
    free(z);
}

static void test_speed(void)
{
    enum { ROWS = 64, COLS = 2048 };
    for (const char *const *level = kernels_levels(); *level; level++) {
        kernels_force(*level, NULL);
        float *x = data_floats((size_t)ROWS * COLS, DATA_NORMAL), *y = data_floats((size_t)ROWS * COLS, DATA_NORMAL);
        float *z = data_floats((size_t)ROWS * COLS, DATA_NORMAL);
        printf("    %-8s", *level);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            double best = 1e9;
            for (int round = 0; round < 3; round++) {
                int64_t t0 = clock_ns();
                cases[i].run(NULL, x, y, z, ROWS, COLS);
                double seconds = (double)(clock_ns() - t0) * 1e-9;
                best = seconds < best ? seconds : best;
            }
            printf(" %s %.2f", cases[i].name, ROWS * COLS / best * 1e-9);
        }
        printf(" Gvalues/s\n");
        free(x);
        free(y);
        free(z);
    }
}

static const struct check_test tests[] = {
    {"maths", test_maths}, {"levels", test_levels},         {"quantise", test_quantise},
    {"half", test_half},   {"not finite", test_not_finite}, {"speed", test_speed},
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
