/* Rows of floats to bytes and back. Every conversion is integer arithmetic on the bits or single IEEE operations, so
 * both ends of a link agree on any machine; the loops have no branches a compiler could not turn into vectors. */
#include "proto/activation.h"

#include <float.h>
#include <string.h>

#define Q8_VALUES 32u
#define Q8_BYTES 36u

static const char *const names[CODEC_COUNT] = {"none", "f32", "f16", "bf16", "q8"};

const char *codec_name(enum frame_codec codec)
{
    return (unsigned)codec < CODEC_COUNT ? names[codec] : "unknown";
}

int codec_parse(const char *name)
{
    for (int i = CODEC_F32; i < CODEC_COUNT; i++)
        if (name && !strcmp(name, names[i]))
            return i;
    return -1;
}

size_t activation_bytes(enum frame_codec codec, uint32_t rows, uint32_t width)
{
    size_t row, total;
    switch (codec) {
    case CODEC_F32:
        row = (size_t)width * 4;
        break;
    case CODEC_F16:
    case CODEC_BF16:
        row = (size_t)width * 2;
        break;
    case CODEC_Q8:
        row = ((size_t)width + Q8_VALUES - 1) / Q8_VALUES * Q8_BYTES;
        break;
    default:
        return 0;
    }
    return __builtin_mul_overflow(row, (size_t)rows, &total) ? 0 : total;
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* Nearest half, ties to even; finite values beyond the range become the largest half, so that finite stays finite. */
static uint16_t half_of(float x)
{
    uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    /* Normal: drop 13 bits with rounding, rebias the exponent by 112. Too large: clamp before rounding. */
    uint32_t clamped = a > 0x477fe000u ? 0x477fe000u : a;
    uint32_t normal = (clamped + 0xfffu + (clamped >> 13 & 1u) - 0x38000000u) >> 13;
    /* Subnormal (below 2^-14): adding 0.5 makes the float adder shift and round the mantissa into the low bits. */
    uint32_t tiny = bits_of(float_of(a < 0x38800000u ? a : 0) + 0.5f) - 0x3f000000u;
    uint32_t special = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t h = a < 0x38800000u ? tiny : normal;
    return (uint16_t)(sign | (a >= 0x7f800000u ? special : h));
}

static float half_value(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, a = h & 0x7fffu;
    uint32_t normal = (a << 13) + 0x38000000u;
    /* Subnormal: the mantissa over 0.5's, then 0.5 taken away again, exactly. */
    uint32_t tiny = bits_of(float_of(0x3f000000u + (a < 0x400u ? a : 0)) - 0.5f);
    uint32_t special = 0x7f800000u | (a & 0x3ffu) << 13;
    return float_of(sign | (a >= 0x7c00u ? special : a < 0x400u ? tiny : normal));
}

static uint16_t bfloat_of(float x)
{
    uint32_t u = bits_of(x), a = u & 0x7fffffffu;
    uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    uint32_t largest = (u >> 16 & 0x8000u) | 0x7f7fu; /* where rounding would make a finite value infinite */
    uint32_t finite = a > 0x7f7f0000u ? largest : rounded;
    uint32_t special = a > 0x7f800000u ? u >> 16 | 0x40u : u >> 16;
    return (uint16_t)(a >= 0x7f800000u ? special : finite);
}

/* One block of up to 32 values; missing ones are stored as 0. A block with a NaN or an infinity decodes to NaN. */
static void q8_encode_block(const float *x, uint32_t n, uint8_t *out)
{
    uint32_t top = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = bits_of(x[i]) & 0x7fffffffu;
        top = a > top ? a : top;
    }
    float largest = float_of(top), scale = largest / 127.0f, inverse;
    int8_t q[Q8_VALUES] = {0};
    if (top >= 0x7f800000u) {
        scale = float_of(0x7fc00000u);
    } else if (scale < FLT_MIN) {
        scale = 0;
    } else {
        inverse = 127.0f / largest;
        for (uint32_t i = 0; i < n; i++) {
            float v = x[i] * inverse;
            v += float_of(0x3f000000u | (bits_of(v) & 0x80000000u)); /* half away from zero, then cut */
            v = v > 127.0f ? 127.0f : v;
            v = v < -127.0f ? -127.0f : v;
            q[i] = (int8_t)(int32_t)v;
        }
    }
    memcpy(out, &scale, 4);
    memcpy(out + 4, q, Q8_VALUES);
}

void activation_encode(enum frame_codec codec, const float *values, uint32_t rows, uint32_t width, void *bytes)
{
    size_t count = (size_t)rows * width;
    if (codec == CODEC_F32) {
        if (count)
            memcpy(bytes, values, count * 4);
    } else if (codec == CODEC_F16) {
        uint16_t *out = bytes;
        for (size_t i = 0; i < count; i++)
            out[i] = half_of(values[i]);
    } else if (codec == CODEC_BF16) {
        uint16_t *out = bytes;
        for (size_t i = 0; i < count; i++)
            out[i] = bfloat_of(values[i]);
    } else if (codec == CODEC_Q8) {
        uint8_t *out = bytes;
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < width; c += Q8_VALUES, out += Q8_BYTES)
                q8_encode_block(values + (size_t)r * width + c, width - c < Q8_VALUES ? width - c : Q8_VALUES, out);
    }
}

static void q8_decode_block(const uint8_t *in, uint32_t n, float *x)
{
    float scale;
    int8_t q[Q8_VALUES];
    memcpy(&scale, in, 4);
    memcpy(q, in + 4, Q8_VALUES);
    for (uint32_t i = 0; i < n; i++)
        x[i] = scale * (float)q[i];
}

void activation_decode(enum frame_codec codec, const void *bytes, uint32_t rows, uint32_t width, float *values)
{
    size_t count = (size_t)rows * width;
    if (codec == CODEC_F32) {
        if (count)
            memcpy(values, bytes, count * 4);
    } else if (codec == CODEC_F16) {
        const uint16_t *in = bytes;
        for (size_t i = 0; i < count; i++)
            values[i] = half_value(in[i]);
    } else if (codec == CODEC_BF16) {
        const uint16_t *in = bytes;
        for (size_t i = 0; i < count; i++)
            values[i] = float_of((uint32_t)in[i] << 16);
    } else if (codec == CODEC_Q8) {
        const uint8_t *in = bytes;
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < width; c += Q8_VALUES, in += Q8_BYTES)
                q8_decode_block(in, width - c < Q8_VALUES ? width - c : Q8_VALUES, values + (size_t)r * width + c);
    }
}
