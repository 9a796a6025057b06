/* The functions of maths.h in sixteen lanes: the same sequence of operations, so the same bits. For ISA files. */
#ifndef BRIGADE_ENGINE_KERNELS_VEC_MATHS_H
#define BRIGADE_ENGINE_KERNELS_VEC_MATHS_H

#include "engine/kernels/maths_constants.h"
#include "engine/kernels/vec.h"

INLINE vf v_exp(vf x)
{
    vf shifted = v_fma(x, v_set1(EXP_LOG2E), v_set1(EXP_SHIFTER));
    vf n = v_sub(shifted, v_set1(EXP_SHIFTER));
    vf r = v_fma(n, v_set1(-EXP_LN2_HIGH), x);
    r = v_fma(n, v_set1(-EXP_LN2_LOW), r);
    vf p = v_fma(v_set1(EXP_P4), r, v_set1(EXP_P3));
    p = v_fma(p, r, v_set1(EXP_P2));
    p = v_fma(p, r, v_set1(EXP_P1));
    p = v_fma(p, r, v_set1(EXP_P0));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    p = v_add_exponent(p, shifted);
    p = v_if_less(v_set1(EXP_HIGHEST), x, v_set1(__builtin_inff()), p);
    return v_if_less(x, v_set1(EXP_LOWEST), v_zero(), p);
}

INLINE vf v_tanh(vf x)
{
    vf magnitude = v_and_bits(x, 0x7fffffff), square = v_mul(x, x);
    vf q = v_fma(v_set1(TANH_Q4), square, v_set1(TANH_Q3));
    q = v_fma(q, square, v_set1(TANH_Q2));
    q = v_fma(q, square, v_set1(TANH_Q1));
    q = v_fma(q, square, v_set1(TANH_Q0));
    vf small = v_fma(v_mul(q, square), x, x);
    vf large = v_add(v_exp(v_add(magnitude, magnitude)), v_set1(1.0f));
    large = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), large));
    large = v_or(large, v_and_bits(x, 0x80000000));
    return v_if_less(magnitude, v_set1(TANH_SMALL), small, large);
}

INLINE vf v_silu(vf x)
{
    vf minus = v_mul(x, v_set1(-1.0f)); /* a change of sign only */
    return v_div(x, v_add(v_set1(1.0f), v_exp(minus)));
}

INLINE vf v_gelu(vf x)
{
    vf cubic = v_mul(v_mul(v_set1(GELU_CUBIC), x), x);
    vf inner = v_mul(v_set1(GELU_ROOT), v_fma(cubic, x, x));
    return v_mul(v_mul(v_set1(0.5f), x), v_add(v_set1(1.0f), v_tanh(inner)));
}

#endif
