/* Sixteen float lanes, whatever the machine calls them: one 512-bit register, two of 256 or four of 128. What is written
 * with these once is compiled for each ISA and gives the same bits, for every operation is one IEEE operation a lane.
 * Included only by files compiled for an ISA level. */
#ifndef BRIGADE_ENGINE_KERNELS_VEC_H
#define BRIGADE_ENGINE_KERNELS_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* clang-format off: one operation a line reads better than five */
#define INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__)

#include <immintrin.h>

#define VEC_REGISTERS 1 /* registers a vf takes */
typedef __m512 vf;
typedef __m512i vi;

INLINE vf v_set1(float x) { return _mm512_set1_ps(x); }
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf v_if_less(vf a, vf b, vf yes, vf no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
INLINE vf v_and_bits(vf a, uint32_t bits)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)bits)));
}
INLINE vf v_or(vf a, vf b)
{
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
/* a's bits plus b's bits shifted left by 23. */
INLINE vf v_add_exponent(vf a, vf b)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(_mm512_castps_si512(b), 23)));
}
INLINE vf v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void v_store_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE vf v_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vf v_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* The low byte of each lane's bits, and the sum of these as int8. */
INLINE int32_t v_store_low_bytes(int8_t *p, vf a)
{
    __m128i bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(a));
    _mm_storeu_si128((__m128i *)p, bytes);
    return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(bytes));
}
INLINE float v_tree(vf a)
{
    __m256 l8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 l4 = _mm_add_ps(_mm256_castps256_ps128(l8), _mm256_extractf128_ps(l8, 1));
    __m128 l2 = _mm_add_ps(l4, _mm_movehl_ps(l4, l4));
    return _mm_cvtss_f32(_mm_add_ss(l2, _mm_movehdup_ps(l2)));
}
/* Sixteen trees at once, each as v_tree does it: lane r of the result is that of x[r]. */
INLINE vf v_tree16(const vf x[16])
{
    vf l8[8], l4[4], l2[2];
    for (int i = 0; i < 8; i++) /* two rows side by side */
        l8[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x44),
                              _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xee));
    for (int i = 0; i < 4; i++) /* four */
        l4[i] = _mm512_add_ps(_mm512_shuffle_f32x4(l8[2 * i], l8[2 * i + 1], 0x88),
                              _mm512_shuffle_f32x4(l8[2 * i], l8[2 * i + 1], 0xdd));
    for (int i = 0; i < 2; i++)
        l2[i] = _mm512_add_ps(_mm512_shuffle_ps(l4[2 * i], l4[2 * i + 1], 0x44),
                              _mm512_shuffle_ps(l4[2 * i], l4[2 * i + 1], 0xee));
    vf l1 = _mm512_add_ps(_mm512_shuffle_ps(l2[0], l2[1], 0x88), _mm512_shuffle_ps(l2[0], l2[1], 0xdd));
    /* rows 0, 4, 8, 12, 1, 5, … */
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), l1);
}
INLINE float v_highest(vf a) { return _mm512_reduce_max_ps(a); }

#elif defined(__AVX2__)

#include <immintrin.h>

#define VEC_REGISTERS 2
typedef struct {
    __m256 a, b;
} vf;

INLINE vf v_set1(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vf v_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void v_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE vf v_add(vf x, vf y) { return (vf){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE vf v_sub(vf x, vf y) { return (vf){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE vf v_mul(vf x, vf y) { return (vf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE vf v_div(vf x, vf y) { return (vf){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE vf v_fma(vf x, vf y, vf z) { return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
INLINE vf v_max(vf x, vf y) { return (vf){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE vf v_if_less(vf x, vf y, vf yes, vf no)
{
    return (vf){_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
                _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
INLINE vf v_and_bits(vf x, uint32_t bits)
{
    __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32((int)bits));
    return (vf){_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask)};
}
INLINE vf v_or(vf x, vf y) { return (vf){_mm256_or_ps(x.a, y.a), _mm256_or_ps(x.b, y.b)}; }
INLINE __m256 v_add_exponent8(__m256 a, __m256 b)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(b), 23)));
}
INLINE vf v_add_exponent(vf x, vf y) { return (vf){v_add_exponent8(x.a, y.a), v_add_exponent8(x.b, y.b)}; }
INLINE vf v_load_f16(const void *p)
{
    const __m128i *h = p;
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
INLINE void v_store_f16(uint16_t *p, vf x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE __m256 v_load_bf16_8(const __m128i *h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(h)), 16));
}
INLINE vf v_load_bf16(const void *p)
{
    const __m128i *h = p;
    return (vf){v_load_bf16_8(h), v_load_bf16_8(h + 1)};
}
INLINE vf v_load_i8(const void *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return (vf){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
INLINE int32_t v_store_low_bytes(int8_t *p, vf x)
{
    const __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1,
                                          -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i a = _mm256_shuffle_epi8(_mm256_castps_si256(x.a), pick);
    __m256i b = _mm256_shuffle_epi8(_mm256_castps_si256(x.b), pick);
    __m128i low = _mm_unpacklo_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i high = _mm_unpacklo_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    __m128i bytes = _mm_unpacklo_epi64(low, high);
    _mm_storeu_si128((__m128i *)p, bytes);
    __m128i sums = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128()); /* of q + 128 */
    return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_srli_si128(sums, 8))) - 16 * 128;
}
INLINE float v_tree(vf x)
{
    __m256 l8 = _mm256_add_ps(x.a, x.b);
    __m128 l4 = _mm_add_ps(_mm256_castps256_ps128(l8), _mm256_extractf128_ps(l8, 1));
    __m128 l2 = _mm_add_ps(l4, _mm_movehl_ps(l4, l4));
    return _mm_cvtss_f32(_mm_add_ss(l2, _mm_movehdup_ps(l2)));
}
INLINE float v_highest(vf x)
{
    __m256 l8 = _mm256_max_ps(x.a, x.b);
    __m128 l4 = _mm_max_ps(_mm256_castps256_ps128(l8), _mm256_extractf128_ps(l8, 1));
    __m128 l2 = _mm_max_ps(l4, _mm_movehl_ps(l4, l4));
    return _mm_cvtss_f32(_mm_max_ss(l2, _mm_movehdup_ps(l2)));
}

#elif defined(__aarch64__)

#include <arm_neon.h>

#define VEC_REGISTERS 4
typedef struct {
    float32x4_t v[4];
} vf;

#define VEC_EACH(expression)                                                                                          \
    vf r;                                                                                                             \
    for (int i = 0; i < 4; i++)                                                                                       \
        r.v[i] = (expression);                                                                                        \
    return r

INLINE vf v_set1(float x) { VEC_EACH(vdupq_n_f32(x)); }
INLINE vf v_load(const float *p) { VEC_EACH(vld1q_f32(p + 4 * i)); }
INLINE void v_store(float *p, vf a)
{
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, a.v[i]);
}
INLINE vf v_add(vf a, vf b) { VEC_EACH(vaddq_f32(a.v[i], b.v[i])); }
INLINE vf v_sub(vf a, vf b) { VEC_EACH(vsubq_f32(a.v[i], b.v[i])); }
INLINE vf v_mul(vf a, vf b) { VEC_EACH(vmulq_f32(a.v[i], b.v[i])); }
INLINE vf v_div(vf a, vf b) { VEC_EACH(vdivq_f32(a.v[i], b.v[i])); }
INLINE vf v_fma(vf a, vf b, vf c) { VEC_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
INLINE vf v_max(vf a, vf b) { VEC_EACH(vmaxq_f32(a.v[i], b.v[i])); }
INLINE vf v_if_less(vf a, vf b, vf yes, vf no)
{
    VEC_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), yes.v[i], no.v[i]));
}
INLINE vf v_and_bits(vf a, uint32_t bits)
{
    VEC_EACH(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.v[i]), vdupq_n_u32(bits))));
}
INLINE vf v_or(vf a, vf b)
{
    VEC_EACH(vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a.v[i]), vreinterpretq_u32_f32(b.v[i]))));
}
INLINE vf v_add_exponent(vf a, vf b)
{
    VEC_EACH(vreinterpretq_f32_u32(
        vaddq_u32(vreinterpretq_u32_f32(a.v[i]), vshlq_n_u32(vreinterpretq_u32_f32(b.v[i]), 23))));
}
INLINE vf v_load_f16(const void *p)
{
    VEC_EACH(vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p + 8 * i))));
}
INLINE void v_store_f16(uint16_t *p, vf a)
{
    for (int i = 0; i < 4; i++)
        vst1_u8((uint8_t *)(p + 4 * i), vreinterpret_u8_f16(vcvt_f16_f32(a.v[i])));
}
INLINE vf v_load_bf16(const void *p)
{
    VEC_EACH(vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 8 * i)), 16)));
}
INLINE vf v_load_i8(const void *p)
{
    int8x16_t bytes = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return (vf){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
                 vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}
INLINE int32_t v_store_low_bytes(int8_t *p, vf a)
{
    uint16x8_t low = vcombine_u16(vmovn_u32(vreinterpretq_u32_f32(a.v[0])), vmovn_u32(vreinterpretq_u32_f32(a.v[1])));
    uint16x8_t high = vcombine_u16(vmovn_u32(vreinterpretq_u32_f32(a.v[2])), vmovn_u32(vreinterpretq_u32_f32(a.v[3])));
    int8x16_t bytes = vreinterpretq_s8_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
    vst1q_s8(p, bytes);
    return vaddlvq_s8(bytes);
}
INLINE float v_tree(vf a)
{
    float32x4_t l4 = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    float32x2_t l2 = vadd_f32(vget_low_f32(l4), vget_high_f32(l4));
    return vget_lane_f32(l2, 0) + vget_lane_f32(l2, 1);
}
INLINE float v_highest(vf a)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}

#endif

INLINE vf v_zero(void) { return v_set1(0.0f); }

/* The first n (< 16) elements, zeros behind; and back. */
INLINE vf v_load_part(const float *p, size_t n)
{
    float part[16] = {0};
    memcpy(part, p, n * sizeof *p);
    return v_load(part);
}
INLINE void v_store_part(float *p, size_t n, vf a)
{
    float part[16];
    v_store(part, a);
    memcpy(p, part, n * sizeof *p);
}

#endif
