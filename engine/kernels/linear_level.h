/* Products of quantised panels with a tile of tokens; compiled for each ISA. Weights of 16 columns are unpacked once
 * and used for every token of the tile; rows stay in their lanes from the first block to the last, so that each row is
 * one chain of fma whatever the tile. Layouts: table.h; order: numerics.h. Pure; any thread. */
#ifndef BRIGADE_ENGINE_KERNELS_LINEAR_LEVEL_H
#define BRIGADE_ENGINE_KERNELS_LINEAR_LEVEL_H

#include "engine/kernels/lanes.h"
#include "engine/kernels/table.h"
#include "engine/quant/codebook.h"

/* Tokens multiplied at a time. Whole bytes need no registers to be unpacked: in pairs of panels, eight tokens make one
 * stream over the weights, and what is too much for the registers waits in the nearest cache. */
#define RUN 4u
#ifdef PANEL_PAIRS
#define TILE 8u
#else
#define TILE RUN
#endif
#define SUBS (PANEL_ROWS / LANES)

/* What follows of a layout at compile time. */
INLINE bool in_256(enum layout l)
{
    return l >= LAYOUT_Q2_K;
}
INLINE bool has_codes(enum layout l)
{
    return l == LAYOUT_IQ4_NL || l == LAYOUT_MXFP4 || l == LAYOUT_IQ4_XS;
}
INLINE bool has_offset(enum layout l)
{
    return l == LAYOUT_Q4_1 || l == LAYOUT_Q5_1 || l == LAYOUT_Q2_K || l == LAYOUT_Q4_K || l == LAYOUT_Q5_K;
}
INLINE int groups_of(enum layout l)
{
    return l == LAYOUT_Q2_K || l == LAYOUT_Q3_K || l == LAYOUT_Q6_K ? 2 : 1;
}
/* Bytes of 16 rows. */
INLINE uint32_t header_bytes(enum layout l)
{
    return !in_256(l) ? 0 : has_offset(l) ? 64 : 32;
}
INLINE uint32_t quant_bytes(enum layout l)
{
    return l == LAYOUT_Q8_0 || l == LAYOUT_EXPANDED                   ? 512
           : l == LAYOUT_Q2_K                                         ? 128
           : l == LAYOUT_Q3_K                                         ? 192
           : l == LAYOUT_Q5_0 || l == LAYOUT_Q5_1 || l == LAYOUT_Q5_K ? 320
           : l == LAYOUT_Q6_K                                         ? 384
                                                                      : 256;
}
INLINE uint32_t sub_block_bytes(enum layout l)
{
    return quant_bytes(l) + (l == LAYOUT_MXFP4 || l == LAYOUT_IQ4_XS ? 16
                             : l == LAYOUT_Q4_1 || l == LAYOUT_Q5_1  ? 64
                                                                     : 32);
}
INLINE enum width width_of(enum layout l)
{
    return l == LAYOUT_Q5_0 || l == LAYOUT_Q5_1 || l == LAYOUT_Q5_K   ? WIDTH_5
           : l == LAYOUT_Q6_K                                         ? WIDTH_6
           : l == LAYOUT_Q8_0 || l == LAYOUT_EXPANDED || has_codes(l) ? WIDTH_8
                                                                      : WIDTH_4;
}
/* Weights are stored 2^shift too high; -1: not at all. */
INLINE int zero_shift(enum layout l)
{
    return l == LAYOUT_Q4_0                         ? 3
           : l == LAYOUT_Q5_0                       ? 4
           : l == LAYOUT_Q3_K                       ? 2
           : l == LAYOUT_Q6_K                       ? 5
           : width_of(l) == WIDTH_8 && DOT_UNSIGNED ? 7
                                                    : -1;
}

/* Bit g of each byte, moved to bit `to`. */
INLINE lb one_bit(lb bits, const int g, const int to)
{
    return lb_and(g > to ? lb_right(bits, g - to) : g < to ? lb_left(bits, to - g) : bits, 1 << to);
}

/* Where LANES rows of a sub-block lie: in a panel `wide` rows high, from row `row`. */
struct rows {
    const uint8_t *header, *q;
    uint32_t wide, row;
};

/* What stands before the scales of a sub-block, as it lies in memory, but for layouts of whole bytes. */
struct raw {
    lb q[4], high[2];
};

INLINE bool in_bytes(enum layout l)
{
    return l == LAYOUT_Q8_0 || l == LAYOUT_EXPANDED;
}
INLINE bool in_pairs(enum layout l) /* of bits; the two halves lie apart */
{
    return l == LAYOUT_Q2_K || l == LAYOUT_Q3_K;
}
INLINE int high_groups(enum layout l)
{
    return l == LAYOUT_Q6_K ? 2 : l == LAYOUT_Q3_K || width_of(l) == WIDTH_5 ? 1 : 0;
}
INLINE lb load_group(struct rows r, int group)
{
    return lb_load(r.q + 4 * (r.wide * (uint32_t)group + r.row));
}

/* Weights of columns 16·half + 4·j to 16·half + 4·j + 3. */
INLINE lb unpack4(enum layout l, struct rows r, const struct raw *raw, const int half, const int j, lb codes)
{
    if (in_bytes(l))
        return load_group(r, 4 * half + j);
    const lb high = raw->high[l == LAYOUT_Q6_K ? half : 0];
    lb w = in_pairs(l) ? lb_and(j ? lb_right(raw->q[half], 2 * j) : raw->q[half], 3)
                       : lb_and(half ? lb_right(raw->q[j], 4) : raw->q[j], 15);
    if (has_codes(l))
        w = lb_lookup(codes, w);
    if (l == LAYOUT_Q3_K || width_of(l) == WIDTH_5)
        w = lb_or(w, one_bit(high, 4 * half + j, l == LAYOUT_Q3_K ? 2 : 4));
    if (l == LAYOUT_Q6_K) /* bits 2j of a byte of the half's 64 */
        w = lb_or(w, lb_and(j < 2 ? lb_left(high, 4 - 2 * j) : j == 2 ? high : lb_right(high, 2), 48));
    return w;
}

/* Scales and offsets of LANES rows of a sub-block, by half where the layout has two groups. */
struct scales {
    lf scale[2], offset[2];
};

INLINE struct scales unpack_scales(enum layout l, struct rows r)
{
    const uint8_t *s = r.q + r.wide / PANEL_ROWS * quant_bytes(l);
    const uint32_t row = r.row, next = r.wide + r.row; /* of what stands behind the first number of every row */
    struct scales out;
    out.offset[0] = out.offset[1] = lf_set1(0);
    if (l == LAYOUT_MXFP4) {
        out.scale[0] = lf_load_e8m0_half(s + row);
    } else if (!in_256(l)) {
        out.scale[0] = lf_load_f16(s + 2 * row);
        if (has_offset(l))
            out.offset[0] = lf_load_f16(s + 2 * next);
    } else {
        lf d = lf_load_f16(r.header + 2 * row);
        if (l == LAYOUT_Q2_K) {
            lf dmin = lf_load_f16(r.header + 2 * next);
            out.scale[0] = lf_mul(d, lf_load_u4(s + row, 0));
            out.scale[1] = lf_mul(d, lf_load_u4(s + next, 0));
            out.offset[0] = lf_minus(lf_mul(dmin, lf_load_u4(s + row, 4)));
            out.offset[1] = lf_minus(lf_mul(dmin, lf_load_u4(s + next, 4)));
            return out;
        }
        if (has_offset(l)) { /* Q4_K, Q5_K */
            out.scale[0] = lf_mul(d, lf_load_u8(s + row));
            out.offset[0] = lf_minus(lf_mul(lf_load_f16(r.header + 2 * next), lf_load_u8(s + next)));
        } else { /* Q3_K, Q6_K, IQ4_XS */
            out.scale[0] = lf_mul(d, lf_load_i8(s + row));
            if (groups_of(l) == 2) {
                out.scale[1] = lf_mul(d, lf_load_i8(s + next));
                return out;
            }
        }
    }
    out.scale[1] = out.scale[0];
    return out;
}

/* Adds the whole-number products of one half to the sums of T tokens. */
INLINE void dot_half(enum layout l, struct rows r, const int half, const struct act_block *a, const uint32_t T,
                     lb codes, li sum[TILE])
{
    struct raw raw;
    lb w[4];
    uint32_t t = 0;
    for (int j = 0; j < 4 && !in_bytes(l); j++)
        if (!in_pairs(l) || j < 2)
            raw.q[j] = load_group(r, j);
    for (int j = 0; j < high_groups(l); j++)
        raw.high[j] = load_group(r, (in_pairs(l) ? 2 : 4) + j);
#ifdef LANES_DOT4
    li pairs[TILE];
    for (t = 0; t < T; t++)
        pairs[t] = li_zero(); /* written before they are read; gcc sees it only where it unrolls all loops */
    for (int j = 0; j < 4; j++) {
        lb group = unpack4(l, r, &raw, half, j, codes);
        for (t = 0; t < T; t++)
            li_dot4(width_of(l), j, &sum[t], &pairs[t], group, a[t].q + 16 * half + 4 * j);
    }
    return;
#endif
    for (int j = 0; j < 4; j++)
        w[j] = unpack4(l, r, &raw, half, j, codes);
#ifdef LANES_PAIRS
    if (T >= 2) {
        lp pairs = lp_from(w);
        for (; t + 2 <= T; t += 2)
            lp_dot16(&sum[t], &sum[t + 1], &pairs, a[t].q + 16 * half, a[t + 1].q + 16 * half);
    }
#endif
    for (; t < T; t++)
        sum[t] = li_dot16(width_of(l), sum[t], w, a[t].q + 16 * half);
}

#ifdef PANEL_PAIRS
/* Here loads keep the order in which they stand: left to itself, a compiler mixes them. */
#define IN_ORDER __asm__ volatile("" ::: "memory")

INLINE void load_raw_pair(enum layout l, const struct rows r[2], struct raw raw[2])
{
    const int low = in_bytes(l) ? 0 : in_pairs(l) ? 2 : 4;
    for (int j = 0; j < low + high_groups(l); j++)
        for (uint32_t i = 0; i < 2; i++) {
            *(j < low ? &raw[i].q[j] : &raw[i].high[j - low]) = load_group(r[i], j);
            IN_ORDER;
        }
}

/* Each broadcast of activations serves both panels; every chain goes on by one before any goes on by two. */
INLINE void dot_half_pair(enum layout l, const struct rows r[2], const struct raw raw[2], const int half,
                          const struct act_block *a, const uint32_t T, lb codes, li sum[2][TILE])
{
    for (int j = 0; j < 4; j++) {
        lb w = unpack4(l, r[0], &raw[0], half, j, codes);
        if (in_bytes(l))
            IN_ORDER;
        lb v = unpack4(l, r[1], &raw[1], half, j, codes);
        if (in_bytes(l))
            IN_ORDER;
        for (uint32_t t = 0; t < T; t++)
            li_dot4_pair(&sum[0][t], &sum[1][t], w, v, a[t].q + 16 * half + 4 * j);
    }
}
#endif

/* Where the sums of a sub-block start: 0, or what takes off the zero of the weights. part: which columns' Σ q. */
INLINE void start(enum layout l, int part, const struct act_block *a, const uint32_t T, li sum[TILE])
{
    const int shift = zero_shift(l);
    for (uint32_t t = 0; t < T; t++) {
        int32_t minus = part == 0 ? a[t].minus_sum : part == 1 ? a[t].minus_low : a[t].minus_sum - a[t].minus_low;
        sum[t] = shift < 0 ? li_zero() : li_set1_shifted(minus, shift);
    }
#ifdef LANES_PAIRS
    for (uint32_t t = 0; t + 2 <= T; t += 2)
        li_mix(&sum[t], &sum[t + 1]);
#endif
}

INLINE void accumulate(lf scale, const struct act_block *a, const uint32_t T, li sum[TILE], lf acc[TILE])
{
#ifdef LANES_PAIRS
    for (uint32_t t = 0; t + 2 <= T; t += 2)
        li_unmix(&sum[t], &sum[t + 1]);
#endif
    for (uint32_t t = 0; t < T; t++)
        acc[t] = lf_fma(lf_mul(scale, lf_set1(a[t].d)), lf_from(sum[t]), acc[t]);
}

INLINE void add_offsets(int groups, struct scales s, const struct act_block *a, const uint32_t T, lf acc[TILE])
{
    for (uint32_t t = 0; t < T; t++)
        if (groups == 1) {
            acc[t] = lf_fma(s.offset[0], lf_set1(a[t].ds), acc[t]);
        } else {
            acc[t] = lf_fma(s.offset[0], lf_set1(a[t].d * (float)-a[t].minus_low), acc[t]);
            acc[t] = lf_fma(s.offset[1], lf_set1(a[t].d * (float)(a[t].minus_low - a[t].minus_sum)), acc[t]);
        }
}

/* One sub-block of LANES rows against T tokens. Scales are loaded behind the quants, as they lie; NULL: not given. */
INLINE void multiply_sub(enum layout l, struct rows r, const struct scales *given, int groups, bool offset,
                         const struct act_block *a, const uint32_t T, lb codes, lf acc[TILE])
{
    struct scales s;
    li sum[TILE];
    start(l, groups == 1 ? 0 : 1, a, T, sum);
    dot_half(l, r, 0, a, T, codes, sum);
    if (groups == 2) {
        s = given ? *given : unpack_scales(l, r);
        accumulate(s.scale[0], a, T, sum, acc);
        start(l, 2, a, T, sum);
    }
    dot_half(l, r, 1, a, T, codes, sum);
    if (groups == 1)
        s = given ? *given : unpack_scales(l, r);
    accumulate(s.scale[1], a, T, sum, acc);
    if (offset)
        add_offsets(groups, s, a, T, acc);
}

#ifdef PANEL_PAIRS
/* One sub-block of a pair. */
INLINE void multiply_pair(enum layout l, const struct rows r[2], const struct act_block *a, const uint32_t T, lb codes,
                          lf acc[2][TILE])
{
    const int groups = groups_of(l);
    struct scales s[2];
    struct raw raw[2];
    li sum[2][TILE];
    load_raw_pair(l, r, raw);
    start(l, groups == 1 ? 0 : 1, a, T, sum[0]);
    for (uint32_t t = 0; t < T; t++)
        sum[1][t] = sum[0][t];
    dot_half_pair(l, r, raw, 0, a, T, codes, sum);
    if (groups == 2) {
        for (uint32_t i = 0; i < 2; i++) {
            s[i] = unpack_scales(l, r[i]);
            accumulate(s[i].scale[0], a, T, sum[i], acc[i]);
        }
        start(l, 2, a, T, sum[0]);
        for (uint32_t t = 0; t < T; t++)
            sum[1][t] = sum[0][t];
    }
    dot_half_pair(l, r, raw, 1, a, T, codes, sum);
    for (uint32_t i = 0; i < 2; i++) {
        if (groups == 1)
            s[i] = unpack_scales(l, r[i]);
        accumulate(s[i].scale[1], a, T, sum[i], acc[i]);
        if (has_offset(l))
            add_offsets(groups, s[i], a, T, acc[i]);
    }
}
#endif

#ifdef PANEL_PAIRS
/* Tokens for which one line of weights a block, of nine or seventeen, fetched FAR_AHEAD gained; with more to compute to a
 * line it costs (docs/speed.md). */
INLINE uint32_t far_tokens(enum layout l)
{
    return l == LAYOUT_Q8_0 ? 4 : l == LAYOUT_Q4_0 ? 2 : 0;
}
#endif

INLINE void panel_tile(enum layout l, const uint32_t panels, const struct panel_run *run, const uint32_t T)
{
    const uint32_t subs = in_256(l) ? 8 : 1;
    const uint8_t *p = run->panels;
    struct fetch fetch = run->fetch;
    float *out = run->out;
    lb codes = lb_codes(l == LAYOUT_MXFP4 ? codebook_mxfp4 : codebook_iq4);
    codes = DOT_UNSIGNED ? lb_flip(codes) : codes;
    for (uint32_t k = 0; k < run->count; k++, out += panels * PANEL_ROWS) {
        const struct act_block *a = run->a;
        lf acc[2 * SUBS][TILE];
        for (uint32_t t = 0; t < T; t++)
            for (uint32_t i = 0; i < panels * SUBS; i++)
                acc[i][t] = run->goes_on ? lf_load(out + t * run->stride + i * LANES) : lf_set1(0);
        for (uint32_t b = 0; b < run->blocks; b += subs) {
            const uint8_t *header = p;
            p += panels * header_bytes(l);
            for (uint32_t g = 0; g < subs; g++, p += panels * sub_block_bytes(l), a += run->step) {
                for (uint32_t line = 0; line < fetch.step; line += 64)
                    if (fetch.far)
                        __builtin_prefetch(fetch.from + line, 0, 2);
                    else
                        __builtin_prefetch(fetch.from + line);
                if (fetch.step) /* else there is nothing to fetch from */
                    fetch.from += fetch.step;
#ifdef PANEL_PAIRS
                if (panels == 2 && T <= far_tokens(l))
                    __builtin_prefetch(p + FAR_AHEAD, 0, 1);
#endif
                const struct rows r[2] = {{header, p, panels * PANEL_ROWS, 0}, {header, p, panels * PANEL_ROWS, LANES}};
#ifdef PANEL_PAIRS
                if (panels == 2) {
                    multiply_pair(l, r, a, T, codes, acc);
                    continue;
                }
#endif
                for (uint32_t i = 0; i < SUBS; i++)
                    multiply_sub(l, r[i], NULL, groups_of(l), has_offset(l), a, T, codes, acc[i]);
            }
        }
        for (uint32_t t = 0; t < T; t++)
            for (uint32_t i = 0; i < panels * SUBS; i++)
                lf_store(out + t * run->stride + i * LANES, acc[i][t]);
    }
}

/* A core asks memory for what it finds in the few hundred instructions that it looks ahead, so whoever has little to
 * compute must not spend them on the loop. One token of whole bytes: nothing to fetch, and of the run a copy that no
 * store can change, or every block would read it again. */
INLINE void panel_few(enum layout l, const uint32_t panels, const struct panel_run *run, const uint32_t T)
{
    if (T == 1 && in_bytes(l) && !run->fetch.step) {
        struct panel_run own = *run;
        own.fetch = (struct fetch){0};
        panel_tile(l, panels, &own, T);
    } else {
        panel_tile(l, panels, run, T);
    }
}

/* The expanded layout: the type's shape comes as arguments, alike for all blocks. */
INLINE void expanded_tile(const struct panel32 *p, const struct act_block *a, uint32_t blocks, const uint32_t T,
                          int groups, bool offset, float *out)
{
    lb codes = lb_codes(codebook_iq4); /* not used by this layout */
    for (uint32_t b = 0; b < blocks; b++, p++, a += T)
        for (uint32_t i = 0; i < SUBS; i++) {
            lf acc[TILE];
            uint32_t row = i * LANES;
            struct scales s = {{lf_load(p->scale[0] + row), lf_load(p->scale[1] + row)},
                               {lf_load(p->offset[0] + row), lf_load(p->offset[1] + row)}};
            for (uint32_t t = 0; t < T; t++)
                acc[t] = lf_load(out + t * PAIR_ROWS + row);
            const struct rows r = {NULL, p->q[0][0], PANEL_ROWS, row};
            if (groups == 1)
                multiply_sub(LAYOUT_EXPANDED, r, &s, 1, offset, a, T, codes, acc);
            else
                multiply_sub(LAYOUT_EXPANDED, r, &s, 2, offset, a, T, codes, acc);
            for (uint32_t t = 0; t < T; t++)
                lf_store(out + t * PAIR_ROWS + row, acc[t]);
        }
}

/* One function a layout: the number of tokens becomes a constant. */
#define TOKENS_CASE(n, call) \
    case n:                  \
        call(n);             \
        break;
#define FOR_FEW(tokens, call) \
    switch (tokens) {         \
        TOKENS_CASE(1, call)  \
        TOKENS_CASE(2, call)  \
        TOKENS_CASE(3, call)  \
        TOKENS_CASE(4, call)  \
    default:                  \
        break;                \
    }
#ifdef PANEL_PAIRS
#define FOR_TOKENS(tokens, call)               \
    if (layout == LAYOUT_Q8_0 && tokens > 4) { \
        switch (tokens) {                      \
            TOKENS_CASE(5, call)               \
            TOKENS_CASE(6, call)               \
            TOKENS_CASE(7, call)               \
            TOKENS_CASE(8, call)               \
        default:                               \
            break;                             \
        }                                      \
    } else                                     \
        FOR_FEW(tokens, call)
#else
#define FOR_TOKENS FOR_FEW
#endif

#define ONE_PANEL(T) panel_few(layout, 1, run, T)
#ifdef PANEL_PAIRS
#define TWO_PANELS(T) panel_few(layout, 2, run, T)
#define HAS_PAIRS true
#else
#define TWO_PANELS(T) ONE_PANEL(T)
#define HAS_PAIRS false
#endif
#define PANEL_OF(name, which)                             \
    static void panel_##name(const struct panel_run *run) \
    {                                                     \
        const enum layout layout = which;                 \
        if (HAS_PAIRS && run->pair) {                     \
            FOR_TOKENS(run->tokens, TWO_PANELS)           \
        } else {                                          \
            FOR_TOKENS(run->tokens, ONE_PANEL)            \
        }                                                 \
    }
#define EXPANDED_CALL(T) expanded_tile(p, a, blocks, T, groups, offset, acc)

PANEL_OF(q8_0, LAYOUT_Q8_0)
PANEL_OF(q4_0, LAYOUT_Q4_0)
PANEL_OF(q4_1, LAYOUT_Q4_1)
PANEL_OF(q5_0, LAYOUT_Q5_0)
PANEL_OF(q5_1, LAYOUT_Q5_1)
PANEL_OF(q2_k, LAYOUT_Q2_K)
PANEL_OF(q3_k, LAYOUT_Q3_K)
PANEL_OF(iq4_nl, LAYOUT_IQ4_NL)
PANEL_OF(mxfp4, LAYOUT_MXFP4)
PANEL_OF(q4_k, LAYOUT_Q4_K)
PANEL_OF(q5_k, LAYOUT_Q5_K)
PANEL_OF(q6_k, LAYOUT_Q6_K)
PANEL_OF(iq4_xs, LAYOUT_IQ4_XS)

static void expanded(const struct panel32 *p, const struct act_block *a, uint32_t blocks, uint32_t tokens, int groups,
                     bool offset, float *acc)
{
    FOR_FEW(tokens, EXPANDED_CALL)
}

/* Chains enough to hide the latency of the dot instruction, all in registers. */
static uint64_t probe_dot(uint64_t rounds)
{
    enum { CHAINS = 8 };
    static const int8_t sixteen[16] = {1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4};
    static const int8_t bytes[64] = {1, 2, 3};
    li sum[CHAINS];
    lb w[4];
    w[0] = w[1] = w[2] = w[3] = lb_load(bytes);
#pragma GCC unroll 8
    for (int i = 0; i < CHAINS; i++)
        sum[i] = li_set1_shifted(i, 1); /* each its own, or the compiler would keep one */
    for (uint64_t r = 0; r < rounds; r++)
#pragma GCC unroll 8
        for (int i = 0; i < CHAINS; i++) {
            for (int j = 0; j < 4; j++)
                lb_opaque(&w[j]); /* nothing of one chain may serve another */
            sum[i] = li_dot16(WIDTH_4, sum[i], w, sixteen);
        }
    float kept[LANES];
    lf all = lf_from(sum[0]);
#pragma GCC unroll 8
    for (int i = 1; i < CHAINS; i++)
        all = lf_mul(all, lf_from(sum[i]));
    lf_store(kept, all);
    return rounds * CHAINS * 16 * LANES + (kept[0] == 0.5f);
}

/* Measured, see docs/speed.md: the wider the registers and the more bytes, the more tokens it takes. */
INLINE uint32_t fetch_tokens(enum layout l)
{
    if (!HAS_PAIRS)
        return in_bytes(l) ? TILE + 1 : RUN; /* bytes: never */
    return in_bytes(l) ? 6 : in_256(l) || has_codes(l) ? 2 : 3;
}

INLINE void fill_linear(struct kernel_table *table)
{
    table->flip = DOT_UNSIGNED ? 0x80 : 0;
    table->pairs = HAS_PAIRS;
    table->tile_tokens = TILE;
    for (int i = 0; i < LAYOUT_COUNT; i++) {
        table->run_tokens[i] = i == LAYOUT_Q8_0 ? TILE : RUN;
        table->fetch_tokens[i] = fetch_tokens((enum layout)i);
    }
    table->panel[LAYOUT_Q8_0] = panel_q8_0;
    table->panel[LAYOUT_Q4_0] = panel_q4_0;
    table->panel[LAYOUT_Q4_1] = panel_q4_1;
    table->panel[LAYOUT_Q5_0] = panel_q5_0;
    table->panel[LAYOUT_Q5_1] = panel_q5_1;
    table->panel[LAYOUT_Q2_K] = panel_q2_k;
    table->panel[LAYOUT_Q3_K] = panel_q3_k;
    table->panel[LAYOUT_IQ4_NL] = panel_iq4_nl;
    table->panel[LAYOUT_MXFP4] = panel_mxfp4;
    table->panel[LAYOUT_Q4_K] = panel_q4_k;
    table->panel[LAYOUT_Q5_K] = panel_q5_k;
    table->panel[LAYOUT_Q6_K] = panel_q6_k;
    table->panel[LAYOUT_IQ4_XS] = panel_iq4_xs;
    table->expanded = expanded;
    table->probe_dot = probe_dot;
}

#endif
