/* The definition of every transcendental brigade uses. IEEE operations and fma only, so the same bits everywhere; fma
 * from the C library is one correctly rounded operation by its standard, with or without the instruction. Pure. */
#include "engine/kernels/maths.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernels/maths_constants.h"

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint64_t bits_of64(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double double_of(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

float maths_exp(float x)
{
    float shifted = fmaf(x, EXP_LOG2E, EXP_SHIFTER);
    float n = shifted - EXP_SHIFTER;
    float r = fmaf(n, -EXP_LN2_HIGH, x);
    r = fmaf(n, -EXP_LN2_LOW, r);
    float p = fmaf(EXP_P4, r, EXP_P3);
    p = fmaf(p, r, EXP_P2);
    p = fmaf(p, r, EXP_P1);
    p = fmaf(p, r, EXP_P0);
    float square = r * r;
    p = fmaf(p, square, r) + 1.0f;
    p = float_of(bits_of(p) + (bits_of(shifted) << 23));
    if (x > EXP_HIGHEST)
        p = float_of(0x7f800000);
    if (x < EXP_LOWEST)
        p = 0.0f;
    return x != x ? x : p;
}

float maths_tanh(float x)
{
    float magnitude = float_of(bits_of(x) & 0x7fffffff);
    float square = x * x;
    float q = fmaf(TANH_Q4, square, TANH_Q3);
    q = fmaf(q, square, TANH_Q2);
    q = fmaf(q, square, TANH_Q1);
    q = fmaf(q, square, TANH_Q0);
    float small = fmaf(q * square, x, x);
    float large = 1.0f - 2.0f / (maths_exp(magnitude + magnitude) + 1.0f);
    large = float_of(bits_of(large) | (bits_of(x) & 0x80000000));
    return magnitude < TANH_SMALL ? small : large;
}

float maths_silu(float x)
{
    return x / (1.0f + maths_exp(-x));
}

float maths_gelu(float x)
{
    float cubic = GELU_CUBIC * x * x;
    float inner = GELU_ROOT * fmaf(cubic, x, x);
    return 0.5f * x * (1.0f + maths_tanh(inner));
}

#define LN2_HIGH 0x1.62e42fefa39efp-1
#define LN2_LOW 0x1.abc9e3b39803fp-56
#define LOG2E 0x1.71547652b82fep+0
#define SHIFTER 6755399441055744.0 /* 1.5·2⁵² */

double maths_log(double x)
{
    if (!(x > 0))
        return x == 0 ? -double_of(UINT64_C(0x7ff0000000000000)) : x - x;
    int64_t exponent = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        exponent = -54;
    }
    uint64_t bits = bits_of64(x);
    if (bits >= UINT64_C(0x7ff0000000000000))
        return x;
    exponent += (int64_t)(bits >> 52) - 1023;
    double m = double_of((bits & UINT64_C(0xfffffffffffff)) | UINT64_C(0x3ff0000000000000));
    if (m > 0x1.6a09e667f3bcdp+0) { /* √2 */
        m *= 0.5;
        exponent++;
    }
    /* log m = 2·atanh(s), s = (m - 1)/(m + 1), |s| < 0.172: the odd series to s^23 */
    double s = (m - 1) / (m + 1), z = s * s, p = 1.0 / 23;
    for (int k = 21; k >= 3; k -= 2)
        p = fma(p, z, 1.0 / k);
    double tail = 2 * s * z * p, n = (double)exponent;
    return fma(n, LN2_HIGH, 2 * s + fma(n, LN2_LOW, tail));
}

double maths_exp2(double x)
{
    if (x != x)
        return x;
    if (x >= 1024)
        return double_of(UINT64_C(0x7ff0000000000000));
    if (x < -1022)
        return 0;
    double shifted = x + SHIFTER, n = shifted - SHIFTER, r = (x - n) * LN2_HIGH;
    double p = 1;
    for (int k = 14; k >= 1; k--)
        p = fma(p, r / k, 1.0);
    int64_t exponent = (int64_t)n;
    if (exponent > 1023) /* x in [1023.5, 1024) */
        return p * 0x1p1023 * 2;
    return exponent < -1022 ? 0 : p * double_of((uint64_t)(exponent + 1023) << 52);
}

double maths_pow(double base, double exponent)
{
    return maths_exp2(exponent * (maths_log(base) * LOG2E));
}

#define HALF_PI_1 0x1.921fb54442d18p+0
#define HALF_PI_2 0x1.1a62633145c07p-54
#define HALF_PI_3 -0x1.f1976b7ed8fbcp-110

void maths_sincos(double angle, double *sine, double *cosine)
{
    /* quarter turns off in three parts; beyond 2⁵⁰ nothing of the angle is left that is worth having */
    if (!(angle < 0x1p50 && angle > -0x1p50))
        angle = 0;
    double n = angle * (2 / 3.14159265358979323846) + SHIFTER - SHIFTER;
    double r = fma(-n, HALF_PI_1, angle);
    r = fma(-n, HALF_PI_2, r);
    r = fma(-n, HALF_PI_3, r);
    double z = r * r;
    static const double s_terms[] = {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800,
                                     1.0 / 362880,          -1.0 / 5040,          1.0 / 120,        -1.0 / 6};
    static const double c_terms[] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800,
                                     1.0 / 40320,          -1.0 / 720,         1.0 / 24,        -0.5};
    double s = s_terms[0], c = c_terms[0];
    for (int k = 1; k < 8; k++) {
        s = fma(s, z, s_terms[k]);
        c = fma(c, z, c_terms[k]);
    }
    s = fma(s * z, r, r);
    c = fma(c, z, 1.0);
    switch ((int64_t)n & 3) {
    case 0:
        *sine = s;
        *cosine = c;
        break;
    case 1:
        *sine = c;
        *cosine = -s;
        break;
    case 2:
        *sine = -s;
        *cosine = -c;
        break;
    default:
        *sine = -c;
        *cosine = s;
        break;
    }
}
