/* Activation codecs: known vectors, exhaustive halves, and the error each codec promises. */
#include "tests/check.h"

#include <float.h>

#include "base/hash.h"
#include "proto/activation.h"

static float random_float(uint64_t i, float scale)
{
    uint64_t r = hash_mix64(i);
    double u = (double)(r >> 11) / 9007199254740992.0;
    return (float)((u * 2 - 1) * scale * ldexp(1, (int)(r % 13) - 6));
}

static uint16_t half_bits(float x)
{
    uint16_t h;
    activation_encode(CODEC_F16, &x, 1, 1, &h);
    return h;
}

static float half_back(uint16_t h)
{
    float x;
    activation_decode(CODEC_F16, &h, 1, 1, &x);
    return x;
}

static void sizes_are_exact(void)
{
    CHECK_INT(activation_bytes(CODEC_F32, 3, 10), 120);
    CHECK_INT(activation_bytes(CODEC_F16, 3, 10), 60);
    CHECK_INT(activation_bytes(CODEC_BF16, 3, 10), 60);
    CHECK_INT(activation_bytes(CODEC_Q8, 3, 10), 108);
    CHECK_INT(activation_bytes(CODEC_Q8, 2, 64), 144);
    CHECK_INT(activation_bytes(CODEC_NONE, 3, 10), 0);
    CHECK_INT(activation_bytes((enum frame_codec)9, 3, 10), 0);
    for (int c = CODEC_F32; c < CODEC_COUNT; c++)
        CHECK_INT(codec_parse(codec_name((enum frame_codec)c)), c);
    CHECK_INT(codec_parse("none"), -1);
    CHECK_INT(codec_parse(NULL), -1);
    CHECK_TEXT(codec_name((enum frame_codec)77), "unknown");
}

static void halves_match_ieee(void)
{
    static const struct { float x; uint16_t h; } known[] = {
        {0.0f, 0x0000}, {-0.0f, 0x8000}, {1.0f, 0x3c00}, {-2.0f, 0xc000}, {65504.0f, 0x7bff}, {65519.0f, 0x7bff},
        {1e30f, 0x7bff}, {-1e30f, 0xfbff}, {6.103515625e-05f, 0x0400}, {6.097555160522461e-05f, 0x03ff},
        {5.960464477539063e-08f, 0x0001}, {2.98023223876953125e-08f, 0x0000},
        {2.9802322387695313e-08f * 1.001f, 0x0001},
        {8.940696716308594e-08f, 0x0002}, {0.333251953125f, 0x3555}, {1.0f / 3, 0x3555}, {2049.0f, 0x6800},
        {2051.0f, 0x6802}, {2050.0f, 0x6801}, {1.0009765625f, 0x3c01}, {1.00048828125f, 0x3c00},
        {1.00146484375f, 0x3c02},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK_INT(half_bits(known[i].x), known[i].h);
    CHECK_INT(half_bits(INFINITY), 0x7c00);
    CHECK_INT(half_bits(-INFINITY), 0xfc00);
    CHECK(isnan(half_back(half_bits(NAN))));
    /* Every half there is, against its value by definition, and back. */
    for (uint32_t h = 0; h < 65536; h++) {
        uint32_t e = h >> 10 & 31, m = h & 1023;
        double value = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24);
        if (h >> 15)
            value = -value;
        float got = half_back((uint16_t)h);
        if (e == 31 && m) {
            CHECK(isnan(got));
            continue;
        }
        CHECK((double)got == value);
        CHECK_INT(half_bits(got), h);
    }
}

static void halves_round_to_nearest_even(void)
{
    for (uint64_t i = 0; i < 200000; i++) {
        float x = random_float(i, i % 3 ? 30.0f : 1e-6f);
        uint16_t h = half_bits(x);
        double d = fabs((double)half_back(h) - x);
        double up = fabs((double)half_back((uint16_t)(h + 1)) - x);
        double down = h & 0x7fff ? fabs((double)half_back((uint16_t)(h - 1)) - x) : d;
        CHECK(d <= up && d <= down);
        if (d == up || (d == down && (h & 0x7fff)))
            CHECK(!(h & 1));
    }
}

static void bfloats_round_to_nearest_even(void)
{
    static const struct { uint32_t x; uint16_t b; } known[] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x80000000, 0x8000},
        {0x7f7fffff, 0x7f7f}, {0xff7fffff, 0xff7f}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f800001, 0x7fc0},
        {0x00008000, 0x0000}, {0x00018000, 0x0002},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        float x, back;
        uint16_t b;
        memcpy(&x, &known[i].x, 4);
        activation_encode(CODEC_BF16, &x, 1, 1, &b);
        CHECK_INT(b, known[i].b);
        activation_decode(CODEC_BF16, &b, 1, 1, &back);
        CHECK(isnan(x) ? isnan(back) : fabsf(back - x) <= fabsf(x) / 256 + FLT_MIN || isinf(x));
    }
}

#define ROWS 5
#define WIDTH 100 /* not a whole number of q8 blocks */

static void errors_stay_within_their_bounds(void)
{
    static float x[ROWS * WIDTH], y[ROWS * WIDTH];
    static const double relative[CODEC_COUNT] = {[CODEC_F32] = 0, [CODEC_F16] = 1.0 / 2048, [CODEC_BF16] = 1.0 / 256};
    unsigned char *bytes = malloc(activation_bytes(CODEC_F32, ROWS, WIDTH));
    REQUIRE(bytes);
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        x[i] = random_float(i, 8.0f);
    for (int c = CODEC_F32; c < CODEC_COUNT; c++) {
        activation_encode((enum frame_codec)c, x, ROWS, WIDTH, bytes);
        memset(y, 0xff, sizeof y);
        activation_decode((enum frame_codec)c, bytes, ROWS, WIDTH, y);
        double worst = 0;
        for (size_t r = 0; r < ROWS; r++)
            for (size_t k = 0; k < WIDTH; k++) {
                size_t i = r * WIDTH + k;
                double allowed = relative[c] * fabs(x[i]) + (c == CODEC_F16 ? ldexp(1, -25) : 0);
                if (c == CODEC_Q8) {
                    double top = 0;
                    for (size_t j = k / 32 * 32; j < k / 32 * 32 + 32 && j < WIDTH; j++)
                        top = fmax(top, fabs(x[r * WIDTH + j]));
                    allowed = top / 254 * 1.00001;
                }
                CHECK(fabs((double)y[i] - x[i]) <= allowed);
                worst = fmax(worst, fabs((double)y[i] - x[i]));
            }
        CHECK(c == CODEC_F32 ? worst == 0 : worst > 0);
    }
    free(bytes);
}

static void q8_has_a_fixed_layout(void)
{
    float x[64] = {0};
    unsigned char bytes[72];
    x[0] = 127.0f;
    x[1] = -127.0f;
    x[2] = 0.5f;
    x[3] = 63.4f;
    x[31] = -0.49f;
    x[32] = 1e-40f; /* a block of nothing but dust */
    activation_encode(CODEC_Q8, x, 1, 64, bytes);
    static const unsigned char want[] = {0, 0, 0x80, 0x3f, 127, 0x81, 1, 63};
    CHECK(!memcmp(bytes, want, sizeof want));
    CHECK_INT(bytes[4 + 31], 0);
    for (int i = 36; i < 72; i++)
        CHECK_INT(bytes[i], 0);
    /* What is no number stays no number: it must not turn into a quiet zero. */
    x[5] = INFINITY;
    activation_encode(CODEC_Q8, x, 1, 64, bytes);
    float y[64];
    activation_decode(CODEC_Q8, bytes, 1, 64, y);
    for (int i = 0; i < 32; i++)
        CHECK(isnan(y[i]));
    CHECK(y[40] == 0);
}

static const struct check_test tests[] = {
    {"sizes are exact", sizes_are_exact},
    {"halves match IEEE", halves_match_ieee},
    {"halves round to nearest even", halves_round_to_nearest_even},
    {"bfloats round to nearest even", bfloats_round_to_nearest_even},
    {"errors stay within their bounds", errors_stay_within_their_bounds},
    {"q8 has a fixed layout", q8_has_a_fixed_layout},
};

CHECK_MAIN(tests)
