/* What the quantised products need of an ISA: LANES rows side by side as floats (lf), whole numbers (li) and four bytes
 * each (lb), and the dot of four columns. DOT_UNSIGNED: 8-bit weights are stored xor 0x80 and multiplied unsigned (the
 * dot instruction wants that), and the 128 too many come off through the sum of the activations.
 * A file sets LANES_VNNI, LANES_DOTPROD or LANES_I8MM before including this, where it is compiled for that. */
#ifndef BRIGADE_ENGINE_KERNELS_LANES_H
#define BRIGADE_ENGINE_KERNELS_LANES_H

/* clang-format off: one operation a line reads better than five */
#include <stdbool.h>

#include "engine/kernels/vec.h"

/* How wide weights are: what may be added up in 16 bits where there is no dot instruction. */
enum width { WIDTH_4, WIDTH_5, WIDTH_6, WIDTH_8 };

#if defined(__AVX512F__)

#define LANES 16
#define DOT_UNSIGNED 1
typedef __m512 lf;
typedef __m512i li, lb;

INLINE lf lf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void lf_store(float *p, lf a) { _mm512_storeu_ps(p, a); }
INLINE lf lf_set1(float x) { return _mm512_set1_ps(x); }
INLINE lf lf_mul(lf a, lf b) { return _mm512_mul_ps(a, b); }
INLINE lf lf_fma(lf a, lf b, lf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE lf lf_minus(lf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
INLINE lf lf_from(li a) { return _mm512_cvtepi32_ps(a); }
INLINE lf lf_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE lf lf_load_u8(const void *p) { return lf_from(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE lf lf_load_i8(const void *p) { return lf_from(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE lf lf_load_u4(const void *p, int shift) /* a nibble of each byte */
{
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    return lf_from(_mm512_and_si512(_mm512_srli_epi32(bytes, (unsigned)shift), _mm512_set1_epi32(15)));
}
INLINE lf lf_load_e8m0_half(const void *p)
{
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), e);
    return _mm512_castsi512_ps(
        _mm512_mask_blend_epi32(_mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), normal, tiny));
}
INLINE li li_zero(void) { return _mm512_setzero_si512(); }
INLINE li li_set1_shifted(int32_t x, int shift) { return _mm512_slli_epi32(_mm512_set1_epi32(x), (unsigned)shift); }
INLINE lb lb_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE lb lb_and(lb a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi8((char)mask)); }
INLINE lb lb_or(lb a, lb b) { return _mm512_or_si512(a, b); }
INLINE lb lb_left(lb a, int n) { return _mm512_slli_epi16(a, (unsigned)n); }   /* bits cross bytes: mask after */
INLINE lb lb_right(lb a, int n) { return _mm512_srli_epi16(a, (unsigned)n); }
INLINE lb lb_codes(const int8_t table[16]) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)); }
INLINE lb lb_lookup(lb table, lb index) { return _mm512_shuffle_epi8(table, index); }
INLINE lb lb_flip(lb a) { return _mm512_xor_si512(a, _mm512_set1_epi8(-128)); }
INLINE li li_dot16(enum width width, li acc, const lb w[4], const int8_t *a)
{
    for (int j = 0; j < 4; j++) {
        int32_t four;
        memcpy(&four, a + 4 * j, sizeof four);
        acc = _mm512_dpbusd_epi32(acc, w[j], _mm512_set1_epi32(four));
    }
    return acc;
}

/* Four columns of two panels: the broadcast serves both. */
INLINE void li_dot4_pair(li *x, li *y, lb w, lb v, const int8_t *a)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
    __m512i broadcast = _mm512_set1_epi32(four);
    *x = _mm512_dpbusd_epi32(*x, w, broadcast);
    *y = _mm512_dpbusd_epi32(*y, v, broadcast);
}
INLINE void lb_opaque(lb *a) { __asm__ volatile("" : "+v"(*a)); }

#elif defined(__AVX2__)

#define LANES 16 /* two registers: a broadcast of four activations serves both */
typedef struct {
    __m256 a, b;
} lf;
typedef struct {
    __m256i a, b;
} li, lb;

INLINE lf lf_load(const float *p) { return (lf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void lf_store(float *p, lf x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE lf lf_set1(float x) { return (lf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE lf lf_mul(lf x, lf y) { return (lf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE lf lf_fma(lf x, lf y, lf z) { return (lf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
INLINE lf lf_minus(lf x)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (lf){_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
}
INLINE lf lf_from(li x) { return (lf){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE lf lf_load_f16(const void *p)
{
    const __m128i *h = p;
    return (lf){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
INLINE li li_load_u8(const void *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return (li){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
INLINE lf lf_load_u8(const void *p) { return lf_from(li_load_u8(p)); }
INLINE lf lf_load_i8(const void *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return lf_from((li){_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
}
INLINE lf lf_load_u4(const void *p, int shift)
{
    __m128i bytes = _mm_srli_epi16(_mm_loadu_si128((const __m128i *)p), shift);
    bytes = _mm_and_si128(bytes, _mm_set1_epi8(15));
    return lf_from((li){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
}
INLINE __m256 e8m0_half8(__m256i e)
{
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}
INLINE lf lf_load_e8m0_half(const void *p)
{
    li e = li_load_u8(p);
    return (lf){e8m0_half8(e.a), e8m0_half8(e.b)};
}
INLINE li li_zero(void) { return (li){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE li li_set1_shifted(int32_t x, int shift)
{
    __m256i v = _mm256_slli_epi32(_mm256_set1_epi32(x), shift);
    return (li){v, v};
}
INLINE lb lb_load(const void *p)
{
    const __m256i *v = p;
    return (lb){_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}
INLINE lb lb_and(lb x, int mask)
{
    __m256i m = _mm256_set1_epi8((char)mask);
    return (lb){_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
INLINE lb lb_or(lb x, lb y) { return (lb){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
INLINE lb lb_left(lb x, int n) { return (lb){_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)}; }
INLINE lb lb_right(lb x, int n) { return (lb){_mm256_srli_epi16(x.a, n), _mm256_srli_epi16(x.b, n)}; }
INLINE lb lb_codes(const int8_t table[16])
{
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (lb){v, v};
}
INLINE lb lb_lookup(lb table, lb index)
{
    return (lb){_mm256_shuffle_epi8(table.a, index.a), _mm256_shuffle_epi8(table.b, index.b)};
}
INLINE lb lb_flip(lb x)
{
    __m256i m = _mm256_set1_epi8(-128);
    return (lb){_mm256_xor_si256(x.a, m), _mm256_xor_si256(x.b, m)};
}
INLINE __m256i broadcast4(const int8_t *a)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
    return _mm256_set1_epi32(four);
}
INLINE void lb_opaque(lb *x) { __asm__ volatile("" : "+x"(x->a), "+x"(x->b)); }

#ifdef LANES_VNNI
#define DOT_UNSIGNED 1
INLINE li li_dot16(enum width width, li acc, const lb w[4], const int8_t *a)
{
    for (int j = 0; j < 4; j++) {
        __m256i four = broadcast4(a + 4 * j);
        acc.a = _mm256_dpbusd_avx_epi32(acc.a, w[j].a, four);
        acc.b = _mm256_dpbusd_avx_epi32(acc.b, w[j].b, four);
    }
    return acc;
}
#else
#define DOT_UNSIGNED 0
/* Pairs of products in 16 bits, which must not saturate: |w| ≤ 128 with signs moved to a: 2·128·127 = 32512. Narrower
 * weights leave room for more pairs: 5 bits 4·2·31·127 = 31496, 6 bits 2·2·63·127 = 32004. */
INLINE __m256i multiply_pairs(enum width width, __m256i w, __m256i a)
{
    return width == WIDTH_8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
                            : _mm256_maddubs_epi16(w, a);
}
/* After which of four groups of columns the pairs are full and go to the sum. */
INLINE bool pairs_full(enum width width, const int j) { return width == WIDTH_8 || j == 3 || (width == WIDTH_6 && j == 1); }
/* Whole numbers may be added in any order, and a compiler that knows it keeps all the products, more than there are
 * registers, and adds last. */
INLINE void li_opaque(li *x) { __asm__("" : "+x"(x->a), "+x"(x->b)); }
/* Group j of four: with one group of weights at a time, what four tokens have of pairs or of sums stays in registers. */
#define LANES_DOT4 1
INLINE void li_dot4(enum width width, const int j, li *sum, li *pairs, lb w, const int8_t *a)
{
    const __m256i ones = _mm256_set1_epi16(1), four = broadcast4(a);
    li m = {multiply_pairs(width, w.a, four), multiply_pairs(width, w.b, four)};
    if (j > 0 && !pairs_full(width, j - 1))
        m = (li){_mm256_add_epi16(pairs->a, m.a), _mm256_add_epi16(pairs->b, m.b)};
    if (pairs_full(width, j)) {
        sum->a = _mm256_add_epi32(sum->a, _mm256_madd_epi16(m.a, ones));
        sum->b = _mm256_add_epi32(sum->b, _mm256_madd_epi16(m.b, ones));
        li_opaque(sum);
    } else {
        *pairs = m;
        li_opaque(pairs);
    }
}
INLINE li li_dot16(enum width width, li acc, const lb w[4], const int8_t *a)
{
    li pairs;
    for (int j = 0; j < 4; j++)
        li_dot4(width, j, &acc, &pairs, w[j], a + 4 * j);
    return acc;
}
#endif

#elif defined(__aarch64__)

#define LANES 8
#define DOT_UNSIGNED 0
typedef struct {
    float32x4_t a, b;
} lf;
typedef struct {
    int32x4_t a, b;
} li;
typedef struct {
    int8x16_t a, b;
} lb;

INLINE lf lf_load(const float *p) { return (lf){vld1q_f32(p), vld1q_f32(p + 4)}; }
INLINE void lf_store(float *p, lf x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
}
INLINE lf lf_set1(float x) { return (lf){vdupq_n_f32(x), vdupq_n_f32(x)}; }
INLINE lf lf_mul(lf x, lf y) { return (lf){vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b)}; }
INLINE lf lf_fma(lf x, lf y, lf z) { return (lf){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b)}; }
INLINE lf lf_minus(lf x) { return (lf){vnegq_f32(x.a), vnegq_f32(x.b)}; }
INLINE lf lf_from(li x) { return (lf){vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b)}; }
INLINE lf lf_load_f16(const void *p)
{
    uint16x8_t h = vreinterpretq_u16_u8(vld1q_u8(p));
    return (lf){vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(h))),
                vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(h)))};
}
INLINE lf lf_load_u8(const void *p)
{
    uint16x8_t h = vmovl_u8(vld1_u8(p));
    return (lf){vcvtq_f32_u32(vmovl_u16(vget_low_u16(h))), vcvtq_f32_u32(vmovl_high_u16(h))};
}
INLINE lf lf_load_i8(const void *p)
{
    int16x8_t h = vmovl_s8(vld1_s8(p));
    return (lf){vcvtq_f32_s32(vmovl_s16(vget_low_s16(h))), vcvtq_f32_s32(vmovl_high_s16(h))};
}
INLINE lf lf_load_u4(const void *p, int shift)
{
    uint8x8_t nibbles = vand_u8(vshl_u8(vld1_u8(p), vdup_n_s8((int8_t)-shift)), vdup_n_u8(15));
    uint16x8_t h = vmovl_u8(nibbles);
    return (lf){vcvtq_f32_u32(vmovl_u16(vget_low_u16(h))), vcvtq_f32_u32(vmovl_high_u16(h))};
}
INLINE float32x4_t e8m0_half4(uint32x4_t e)
{
    uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x200000), vreinterpretq_s32_u32(vandq_u32(e, vdupq_n_u32(1))));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), tiny, normal));
}
INLINE lf lf_load_e8m0_half(const void *p)
{
    uint16x8_t h = vmovl_u8(vld1_u8(p));
    return (lf){e8m0_half4(vmovl_u16(vget_low_u16(h))), e8m0_half4(vmovl_high_u16(h))};
}
INLINE li li_zero(void) { return (li){vdupq_n_s32(0), vdupq_n_s32(0)}; }
INLINE li li_set1_shifted(int32_t x, int shift)
{
    int32x4_t v = vdupq_n_s32((int32_t)((uint32_t)x << shift));
    return (li){v, v};
}
INLINE lb lb_load(const void *p) { return (lb){vld1q_s8(p), vld1q_s8((const int8_t *)p + 16)}; }
INLINE lb lb_and(lb x, int mask)
{
    int8x16_t m = vdupq_n_s8((int8_t)mask);
    return (lb){vandq_s8(x.a, m), vandq_s8(x.b, m)};
}
INLINE lb lb_or(lb x, lb y) { return (lb){vorrq_s8(x.a, y.a), vorrq_s8(x.b, y.b)}; }
INLINE lb lb_left(lb x, int n)
{
    int8x16_t by = vdupq_n_s8((int8_t)n);
    return (lb){vshlq_s8(x.a, by), vshlq_s8(x.b, by)};
}
INLINE lb lb_right(lb x, int n) /* unsigned */
{
    int8x16_t by = vdupq_n_s8((int8_t)-n);
    return (lb){vreinterpretq_s8_u8(vshlq_u8(vreinterpretq_u8_s8(x.a), by)),
                vreinterpretq_s8_u8(vshlq_u8(vreinterpretq_u8_s8(x.b), by))};
}
INLINE lb lb_codes(const int8_t table[16]) { return (lb){vld1q_s8(table), vld1q_s8(table)}; }
INLINE lb lb_lookup(lb table, lb index)
{
    return (lb){vqtbl1q_s8(table.a, vreinterpretq_u8_s8(index.a)), vqtbl1q_s8(table.a, vreinterpretq_u8_s8(index.b))};
}
INLINE lb lb_flip(lb x) { return x; }

INLINE void lb_opaque(lb *x) { __asm__ volatile("" : "+w"(x->a), "+w"(x->b)); }

#ifdef LANES_I8MM
#define LANES_DOTPROD
/* Two rows by eight columns times two tokens by eight columns is one instruction. The sums of a pair of tokens are kept
 * mixed, as it leaves them: four registers, each [row 2i token 0, row 2i token 1, row 2i+1 token 0, row 2i+1 token 1]. */
#define LANES_PAIRS 1
typedef struct {
    int8x16_t rows[2][4]; /* by eight columns, by pair of rows */
} lp;

INLINE lp lp_from(const lb w[4]) /* 16 columns */
{
    lp out;
    for (int p = 0; p < 2; p++) {
        int32x4_t a0 = vreinterpretq_s32_s8(w[2 * p].a), a1 = vreinterpretq_s32_s8(w[2 * p + 1].a);
        int32x4_t b0 = vreinterpretq_s32_s8(w[2 * p].b), b1 = vreinterpretq_s32_s8(w[2 * p + 1].b);
        out.rows[p][0] = vreinterpretq_s8_s32(vzip1q_s32(a0, a1));
        out.rows[p][1] = vreinterpretq_s8_s32(vzip2q_s32(a0, a1));
        out.rows[p][2] = vreinterpretq_s8_s32(vzip1q_s32(b0, b1));
        out.rows[p][3] = vreinterpretq_s8_s32(vzip2q_s32(b0, b1));
    }
    return out;
}
INLINE void li_mix(li *x, li *y) /* both hold one number in all lanes */
{
    int32x4_t both = vzip1q_s32(x->a, y->a);
    *x = *y = (li){both, both};
}
INLINE void li_unmix(li *x, li *y)
{
    li first = {vuzp1q_s32(x->a, x->b), vuzp1q_s32(y->a, y->b)}, second = {vuzp2q_s32(x->a, x->b), vuzp2q_s32(y->a, y->b)};
    *x = first;
    *y = second;
}
INLINE void lp_dot16(li *x, li *y, const lp *w, const int8_t *a, const int8_t *b)
{
    for (int p = 0; p < 2; p++) {
        int8x16_t tokens = vcombine_s8(vld1_s8(a + 8 * p), vld1_s8(b + 8 * p));
        x->a = vmmlaq_s32(x->a, w->rows[p][0], tokens);
        x->b = vmmlaq_s32(x->b, w->rows[p][1], tokens);
        y->a = vmmlaq_s32(y->a, w->rows[p][2], tokens);
        y->b = vmmlaq_s32(y->b, w->rows[p][3], tokens);
    }
}
#endif

#ifdef LANES_DOTPROD
INLINE li li_dot16(enum width width, li acc, const lb w[4], const int8_t *a)
{
    int8x16_t v = vld1q_s8(a);
    acc.a = vdotq_laneq_s32(acc.a, w[0].a, v, 0);
    acc.b = vdotq_laneq_s32(acc.b, w[0].b, v, 0);
    acc.a = vdotq_laneq_s32(acc.a, w[1].a, v, 1);
    acc.b = vdotq_laneq_s32(acc.b, w[1].b, v, 1);
    acc.a = vdotq_laneq_s32(acc.a, w[2].a, v, 2);
    acc.b = vdotq_laneq_s32(acc.b, w[2].b, v, 2);
    acc.a = vdotq_laneq_s32(acc.a, w[3].a, v, 3);
    acc.b = vdotq_laneq_s32(acc.b, w[3].b, v, 3);
    return acc;
}
#else
/* Four rows: products of two groups of columns fit 16 bits at any width (2·128·127 = 32512), of four up to 6 bits
 * (4·63·127 = 32004). Each row's four columns stand side by side: two pairwise sums make one number a row. */
INLINE int32x4_t dot16_rows4(enum width width, int32x4_t acc, const int8x16_t w[4], const int8x8_t a[4])
{
    int16x8_t low = vmull_s8(vget_low_s8(w[0]), a[0]), high = vmull_s8(vget_high_s8(w[0]), a[0]);
    low = vmlal_s8(low, vget_low_s8(w[1]), a[1]);
    high = vmlal_s8(high, vget_high_s8(w[1]), a[1]);
    if (width == WIDTH_8) {
        int16x8_t low2 = vmull_s8(vget_low_s8(w[2]), a[2]), high2 = vmull_s8(vget_high_s8(w[2]), a[2]);
        low2 = vmlal_s8(low2, vget_low_s8(w[3]), a[3]);
        high2 = vmlal_s8(high2, vget_high_s8(w[3]), a[3]);
        int32x4_t first = vpadalq_s16(vpaddlq_s16(low), low2), second = vpadalq_s16(vpaddlq_s16(high), high2);
        return vaddq_s32(acc, vpaddq_s32(first, second));
    }
    low = vmlal_s8(vmlal_s8(low, vget_low_s8(w[2]), a[2]), vget_low_s8(w[3]), a[3]);
    high = vmlal_s8(vmlal_s8(high, vget_high_s8(w[2]), a[2]), vget_high_s8(w[3]), a[3]);
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
INLINE li li_dot16(enum width width, li acc, const lb w[4], const int8_t *a)
{
    int8x16_t first[4], second[4];
    int8x8_t fours[4];
    for (int j = 0; j < 4; j++) {
        int32_t four;
        memcpy(&four, a + 4 * j, sizeof four);
        fours[j] = vreinterpret_s8_s32(vdup_n_s32(four));
        first[j] = w[j].a;
        second[j] = w[j].b;
    }
    acc.a = dot16_rows4(width, acc.a, first, fours);
    acc.b = dot16_rows4(width, acc.b, second, fours);
    return acc;
}

#endif

#endif

#endif
