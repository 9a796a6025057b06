/* Tensor types: halves bit by bit, dequantisation against known sums, quantisation's error and its exact bytes. */
#include "tests/check.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/memory.h"
#include "engine/quant/dequantize.h"
#include "engine/quant/half.h"
#include "engine/quant/quantize.h"
#include "engine/quant/types.h"
#include "tests/engine/gguf_builder.h"

static void types_are_a_table(void)
{
    CHECK_INT(type_info(TYPE_Q6_K)->block_bytes, 210);
    CHECK(!type_info(4) && !type_info(TYPE_COUNT) && !type_info(UINT32_MAX));
    CHECK_TEXT(type_name(TYPE_MXFP4), "MXFP4");
    CHECK_TEXT(type_name(77), "type 77");
    CHECK_INT(type_parse("q4_k"), TYPE_Q4_K);
    CHECK_INT(type_parse("q9"), -1);
    for (uint32_t type = 0; type < TYPE_COUNT; type++)
        if (type_info(type))
            CHECK_INT(type_parse(type_name(type)), type);
    CHECK_INT(type_row_bytes(TYPE_Q4_0, 64), 36);
    CHECK_INT(type_row_bytes(TYPE_Q4_0, 65), 0);
    CHECK_INT(type_row_bytes(77, 64), 0);
    CHECK_INT(type_row_bytes(TYPE_F64, UINT64_MAX), 0);
}

/* What a binary16 is worth, by its definition. */
static double worth_f16(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double magnitude = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void halves_are_exact(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h), wide = bf16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00)
            CHECK(isnan(f) && (f32_to_f16(f) & 0x7e00) == 0x7e00);
        else if ((h & 0x7fff) == 0x7c00)
            CHECK(isinf(f) && (f > 0) == (h < 0x8000) && f32_to_f16(f) == h);
        else
            CHECK((double)f == worth_f16((uint16_t)h) && f32_to_f16(f) == h);
        if ((h & 0x7fff) > 0x7f80)
            CHECK(isnan(wide) && (f32_to_bf16(wide) & 0x7fff) > 0x7f80);
        else
            CHECK(f32_to_bf16(wide) == h);
    }
    CHECK_INT(f32_to_f16(65519.99f), 0x7bff);
    CHECK_INT(f32_to_f16(65520), 0x7c00);
    CHECK_INT(f32_to_f16(0x1p-25f), 0);
    CHECK_INT(f32_to_f16(0x1.000002p-25f), 1);
    CHECK_INT(f32_to_f16(-0.0f), 0x8000);
    CHECK_INT(f32_to_bf16(3.3895314e38f), 0x7f7f);
    CHECK_INT(f32_to_bf16(3.4e38f), 0x7f80); /* the largest floats round to infinity */
}

/* Between two neighbours the nearer is taken, and in the middle the even one. */
static void halves_round_to_nearest_even(void)
{
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double low = worth_f16((uint16_t)h), high = worth_f16((uint16_t)(h + 1)), middle = (low + high) / 2;
        CHECK_INT(f32_to_f16((float)middle), h + (h & 1));
        CHECK_INT(f32_to_f16(nextafterf((float)middle, 0)), h);
        CHECK_INT(f32_to_f16(nextafterf((float)middle, 1e9f)), h + 1);
        CHECK_INT(f32_to_f16(-(float)middle), 0x8000 + h + (h & 1));
    }
    for (uint32_t h = 0; h < 0x7f7f; h++) {
        CHECK_INT(f32_to_bf16(half_from_bits32(h << 16 | 0x8000)), h + (h & 1));
        CHECK_INT(f32_to_bf16(half_from_bits32(h << 16 | 0x7fff)), h);
        CHECK_INT(f32_to_bf16(half_from_bits32(h << 16 | 0x8001)), h + 1);
    }
}

/* CRC-32 of the floats that 512 blocks of pseudo-random bytes mean, blocks with a value that is not finite left out. */
static uint32_t dequantized_sum(uint32_t type)
{
    const struct type_info *info = type_info(type);
    unsigned char block[320];
    float values[256];
    uint32_t sum = 0;
    uint64_t state = (uint64_t)type << 32;
    for (int i = 0; i < 512; i++) {
        bool finite = true;
        for (uint32_t k = 0; k < info->block_bytes; k++)
            block[k] = (unsigned char)(hash_mix64(state++) >> 56);
        CHECK_INT(dequantize_row(type, block, values, info->block_values), 0);
        for (uint32_t k = 0; k < info->block_values; k++)
            finite &= isfinite(values[k]) != 0;
        if (finite)
            sum = hash_crc32(sum, values, info->block_values * sizeof *values);
    }
    return sum;
}

/* The sums were taken from an independent implementation of the format (ggml of November 2025) over the same bytes. */
static void dequantisation_matches_known_sums(void)
{
    static const struct {
        uint32_t type, sum;
    } known[] = {
        {TYPE_F16, 0xe6047d8e},    {TYPE_Q4_0, 0x577f481b},    {TYPE_Q4_1, 0xfdaff9c0},   {TYPE_Q5_0, 0x109460bc},
        {TYPE_Q5_1, 0xed22a932},   {TYPE_Q8_0, 0xae156974},    {TYPE_Q2_K, 0x40eb47a6},   {TYPE_Q3_K, 0xe4187734},
        {TYPE_Q4_K, 0xd98a65cd},   {TYPE_Q5_K, 0x5d4938c8},    {TYPE_Q6_K, 0x064aa7ea},   {TYPE_IQ2_XXS, 0x8cc996e5},
        {TYPE_IQ2_XS, 0x5c4d5b25}, {TYPE_IQ3_XXS, 0x1e756a3c}, {TYPE_IQ1_S, 0x74f6f304},  {TYPE_IQ4_NL, 0xbb744148},
        {TYPE_IQ3_S, 0xa199b518},  {TYPE_IQ2_S, 0x4357fcfe},   {TYPE_IQ4_XS, 0xe84f5819}, {TYPE_IQ1_M, 0x40a79559},
        {TYPE_BF16, 0x804b6c43},   {TYPE_TQ1_0, 0xe08c70cb},   {TYPE_TQ2_0, 0xcdf95d8f},  {TYPE_MXFP4, 0xf99fd0fa},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t sum = dequantized_sum(known[i].type);
        if (sum != known[i].sum)
            CHECK_FAIL("%s gives 0x%08x, not 0x%08x", type_name(known[i].type), sum, known[i].sum);
    }
    float out[1] = {7};
    CHECK_INT(dequantize_row(TYPE_Q8_K, "", out, 0), ERR_UNSUPPORTED);
    CHECK_INT(dequantize_row(TYPE_I8, "", out, 1), ERR_UNSUPPORTED);
    CHECK_INT(dequantize_row(TYPE_Q4_0, "", out, 31), ERR_FORMAT);
    double third = 1.0 / 3;
    CHECK_INT(dequantize_row(TYPE_F64, &third, out, 1), 0);
    CHECK(out[0] == (float)third);
}

enum { SAMPLE = 64 * 256 };

static float *normal_sample(uint64_t seed)
{
    float *x = mem_zalloc(SAMPLE, sizeof *x);
    for (int i = 0; x && i < SAMPLE; i++)
        x[i] = gguf_build_normal(&seed);
    return x;
}

/* Root of the mean squared error over that of the values; quantises n values into bytes. */
static double relative_error(uint32_t type, const float *x, int n, void *bytes)
{
    float *y = mem_zalloc((size_t)n, sizeof *y);
    double error = 0, square = 0;
    CHECK_INT(quantize_row(type, x, bytes, (uint64_t)n), 0);
    CHECK_INT(dequantize_row(type, bytes, y, (uint64_t)n), 0);
    for (int i = 0; i < n; i++) {
        error += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        square += (double)x[i] * x[i];
        CHECK(isfinite(y[i]));
    }
    mem_free(y);
    return square > 0 ? sqrt(error / square) : sqrt(error);
}

static const struct {
    uint32_t type;
    double error; /* at most, on values of about a normal distribution */
    uint32_t sum; /* CRC-32 of the bytes: the same from every compiler on every machine */
} written[] = {
    {TYPE_F32, 0, 0xf6582d48},          {TYPE_F16, 0.0002121, 0xd931e27f}, {TYPE_BF16, 0.001687, 0x98a1b462},
    {TYPE_Q8_0, 0.005131, 0x154b5b6d},  {TYPE_Q6_K, 0.01632, 0x55127ccb},  {TYPE_Q5_K, 0.03367, 0xe7692e92},
    {TYPE_Q5_1, 0.03268, 0xc94e7ed1},   {TYPE_Q5_0, 0.03838, 0x18c50be5},  {TYPE_Q4_K, 0.0689, 0x55636890},
    {TYPE_IQ4_NL, 0.07174, 0x566b96a8}, {TYPE_Q4_1, 0.06811, 0x6d04ccc4},  {TYPE_Q4_0, 0.07777, 0x5a0ad099},
};

static void quantisation_errs_little_and_always_alike(void)
{
    float *x = normal_sample(1);
    void *bytes = mem_alloc(SAMPLE * sizeof *x);
    REQUIRE(x && bytes);
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        uint32_t type = written[i].type;
        double error = relative_error(type, x, SAMPLE, bytes);
        uint32_t sum = hash_crc32(0, bytes, type_row_bytes(type, SAMPLE));
        if (!(error <= written[i].error) || sum != written[i].sum)
            CHECK_FAIL("%s errs by %.5f (bound %.5f), bytes sum to 0x%08x", type_name(type), error, written[i].error,
                       sum);
    }
    mem_free(x);
    mem_free(bytes);
}

/* Rows that a scale search could stumble over. */
static void odd_rows_are_kept(void)
{
    static float x[256];
    unsigned char bytes[1024];
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        uint32_t type = written[i].type;
        double exact = type == TYPE_Q8_0 ? 0.004 : written[i].error + 0.01;
        memset(x, 0, sizeof x);
        CHECK_NEAR(relative_error(type, x, 256, bytes), 0, 0);
        x[77] = 3; /* alone */
        CHECK(relative_error(type, x, 256, bytes) <= exact);
        x[77] = -3;
        CHECK(relative_error(type, x, 256, bytes) <= exact);
        for (int k = 0; k < 256; k++)
            x[k] = 0.7f; /* all alike */
        CHECK(relative_error(type, x, 256, bytes) <= exact);
        for (int k = 0; k < 256; k++)
            x[k] = -0.7f;
        CHECK(relative_error(type, x, 256, bytes) <= exact);
        for (int k = 0; k < 256; k++)
            x[k] = (float)(k % 32) * 1e-9f; /* scales under what a half can hold */
        CHECK(relative_error(type, x, 256, bytes) <= 1);
        for (int k = 0; k < 256; k++)
            x[k] = (float)(k - 128) * 1e30f; /* and over: clipped, but finite */
        relative_error(type, x, 256, bytes);
        for (int k = 0; k < 256; k++)
            x[k] = k % 2 ? 3e38f : -3e38f; /* sums of squares overflow */
        relative_error(type, x, 256, bytes);
        for (int k = 0; k < 256; k++)
            x[k] = k % 2 ? 1e-44f : -1e-44f; /* denormals */
        relative_error(type, x, 256, bytes);
    }
    CHECK_INT(quantize_row(TYPE_Q4_0, x, bytes, 31), ERR_FORMAT);
    CHECK_INT(quantize_row(TYPE_Q2_K, x, bytes, 256), ERR_UNSUPPORTED);
    CHECK(!quantize_known(TYPE_COUNT) && !quantize_known(TYPE_MXFP4));
}

/* A row's blocks do not see each other, so rows may be cut anywhere between blocks. */
static void blocks_are_independent(void)
{
    float *x = normal_sample(9);
    unsigned char whole[2048], parts[2048];
    REQUIRE(x);
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        uint32_t type = written[i].type;
        size_t half = type_row_bytes(type, 256);
        quantize_row(type, x, whole, 512);
        quantize_row(type, x, parts + 1, 256); /* out needs no alignment */
        CHECK(!memcmp(whole, parts + 1, half));
        quantize_row(type, x + 256, parts + 3, 256);
        CHECK(!memcmp(whole + half, parts + 3, half));
    }
    mem_free(x);
}

static const struct check_test tests[] = {
    {"types are a table", types_are_a_table},
    {"halves are exact", halves_are_exact},
    {"halves round to nearest even", halves_round_to_nearest_even},
    {"dequantisation matches known sums", dequantisation_matches_known_sums},
    {"quantisation errs little and always alike", quantisation_errs_little_and_always_alike},
    {"odd rows are kept", odd_rows_are_kept},
    {"blocks are independent", blocks_are_independent},
};
CHECK_MAIN(tests)
