/* Rows of the file to panels of 16 or 32 rows and back. Four columns of a row make one 32-bit word, so everything here moves
 * words; nothing is rounded, and unpack_block gives back the file's bytes. Layouts: table.h. Pure; any thread. */
#include <string.h>

#include "engine/kernels/numerics.h"
#include "engine/kernels/table.h"
#include "engine/quant/blocks.h"
#include "engine/quant/types.h"

/* One layout: what a block of `subs`·32 columns consists of, in order, in units of one row. */
struct shape {
    uint32_t type;
    uint32_t subs;       /* 1 or 8 */
    uint32_t header;     /* bytes of d (and dmin) before the sub-blocks */
    uint32_t words;      /* 32-bit words of quants a sub: 2 (pairs of bits), 4 (nibbles) or 8 */
    uint32_t high;       /* words of high bits a sub */
    uint32_t scales;     /* numbers behind them, of */
    uint32_t scale_size; /* bytes each; each number of all rows together */
};

static const struct shape shapes[LAYOUT_COUNT] = {
    [LAYOUT_Q8_0] = {TYPE_Q8_0, 1, 0, 8, 0, 1, 2},     [LAYOUT_Q4_0] = {TYPE_Q4_0, 1, 0, 4, 0, 1, 2},
    [LAYOUT_Q4_1] = {TYPE_Q4_1, 1, 0, 4, 0, 2, 2},     [LAYOUT_Q5_0] = {TYPE_Q5_0, 1, 0, 4, 1, 1, 2},
    [LAYOUT_Q5_1] = {TYPE_Q5_1, 1, 0, 4, 1, 2, 2},     [LAYOUT_IQ4_NL] = {TYPE_IQ4_NL, 1, 0, 4, 0, 1, 2},
    [LAYOUT_MXFP4] = {TYPE_MXFP4, 1, 0, 4, 0, 1, 1},   [LAYOUT_Q2_K] = {TYPE_Q2_K, 8, 4, 2, 0, 2, 1},
    [LAYOUT_Q3_K] = {TYPE_Q3_K, 8, 2, 2, 1, 2, 1},     [LAYOUT_Q4_K] = {TYPE_Q4_K, 8, 4, 4, 0, 2, 1},
    [LAYOUT_Q5_K] = {TYPE_Q5_K, 8, 4, 4, 1, 2, 1},     [LAYOUT_Q6_K] = {TYPE_Q6_K, 8, 2, 4, 2, 2, 1},
    [LAYOUT_IQ4_XS] = {TYPE_IQ4_XS, 8, 2, 4, 0, 1, 1},
};

/* One row's share of a sub-block. */
struct sub {
    uint32_t words[8], high[2];
    uint8_t scale[4];
};
/* One row's share of a block. */
struct row_block {
    uint16_t d, dmin;
    struct sub subs[8];
};

/* Bytes of one row. */
static size_t sub_bytes(const struct shape *s)
{
    return 4u * (s->words + s->high) + s->scales * s->scale_size;
}

static size_t block_bytes(const struct shape *s)
{
    return s->header + s->subs * sub_bytes(s);
}

size_t layout_panel_bytes(enum layout layout, uint32_t wide, uint32_t cols)
{
    const struct shape *s = &shapes[layout];
    return layout == LAYOUT_EXPANDED ? 0 : (size_t)wide * (cols / (32 * s->subs)) * block_bytes(s);
}

enum layout layout_of(uint32_t type)
{
    for (int l = LAYOUT_EXPANDED + 1; l < LAYOUT_COUNT; l++)
        if (shapes[l].type == type)
            return kernels->panel[l] ? (enum layout)l : LAYOUT_EXPANDED;
    return LAYOUT_EXPANDED;
}

static uint32_t word_at(const uint8_t *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static void word_to(uint8_t *p, uint32_t w)
{
    memcpy(p, &w, sizeof w);
}

#define LOW4 UINT32_C(0x0f0f0f0f)
#define LOW2 UINT32_C(0x03030303)
#define LOW1 UINT32_C(0x01010101)

/* ---- The file's block of one row, apart and together --------------------------------------------------------- */

/* Blocks of 32: scales, fifth bits if any (bit i of a word: value i), then quants in the order of the panel. */
static void take_32(const struct shape *s, const uint8_t *block, struct row_block *out)
{
    struct sub *sub = out->subs;
    uint32_t bytes = s->scales * s->scale_size;
    memcpy(sub->scale, block, bytes);
    block += bytes;
    if (s->high) {
        uint32_t bits = word_at(block);
        sub->high[0] = 0;
        for (int g = 0; g < 8; g++) /* four bits become the lowest bits of four bytes */
            sub->high[0] |= ((bits >> 4 * g & 15) * 0x204081 & LOW1) << g;
        block += 4;
    }
    for (uint32_t j = 0; j < s->words; j++)
        sub->words[j] = word_at(block + 4 * j);
}

static void give_32(const struct shape *s, const struct row_block *in, uint8_t *block)
{
    const struct sub *sub = in->subs;
    uint32_t bytes = s->scales * s->scale_size;
    memcpy(block, sub->scale, bytes);
    block += bytes;
    if (s->high) {
        uint32_t bits = 0;
        for (int g = 0; g < 8; g++)
            bits |= ((sub->high[0] >> g & LOW1) * 0x1020408 >> 24 & 15) << 4 * g;
        word_to(block, bits);
        block += 4;
    }
    for (uint32_t j = 0; j < s->words; j++)
        word_to(block + 4 * j, sub->words[j]);
}

/* Nibble k of 32 bytes as 4 words: columns 0..15 low, 16..31 high. */
static void gather_nibbles(const uint8_t *bytes, int k, uint32_t words[4])
{
    for (int j = 0; j < 4; j++)
        words[j] = (word_at(bytes + 4 * j) >> 4 * k & LOW4) | (word_at(bytes + 16 + 4 * j) >> 4 * k & LOW4) << 4;
}

static void scatter_nibbles(uint8_t *bytes, int k, const uint32_t words[4])
{
    for (int j = 0; j < 4; j++) {
        word_to(bytes + 4 * j, word_at(bytes + 4 * j) | (words[j] & LOW4) << 4 * k);
        word_to(bytes + 16 + 4 * j, word_at(bytes + 16 + 4 * j) | (words[j] >> 4 & LOW4) << 4 * k);
    }
}

static void take_q45(const struct shape *s, const uint8_t *block, struct row_block *out)
{
    struct block_q5_k b;
    if (s->high) {
        memcpy(&b, block, sizeof b);
    } else {
        memcpy(&b, block, offsetof(struct block_q5_k, high));
        memcpy(b.q, block + offsetof(struct block_q4_k, q), sizeof b.q);
    }
    out->d = b.scale;
    out->dmin = b.minimum;
    for (int g = 0; g < 8; g++) {
        struct sub *sub = &out->subs[g];
        unsigned scale, minimum;
        block_scales_k4(b.scales, g, &scale, &minimum);
        sub->scale[0] = (uint8_t)scale;
        sub->scale[1] = (uint8_t)minimum;
        gather_nibbles(b.q + g / 2 * 32, g % 2, sub->words);
        sub->high[0] = 0;
        for (int j = 0; s->high && j < 8; j++)
            sub->high[0] |= (word_at(b.high + 4 * j) >> g & LOW1) << j;
    }
}

static void give_q45(const struct shape *s, const struct row_block *in, uint8_t *block)
{
    struct block_q5_k b = {.scale = in->d, .minimum = in->dmin};
    for (int g = 0; g < 8; g++) {
        const struct sub *sub = &in->subs[g];
        unsigned scale = sub->scale[0], minimum = sub->scale[1];
        if (g < 4) {
            b.scales[g] |= (uint8_t)scale;
            b.scales[g + 4] |= (uint8_t)minimum;
        } else {
            b.scales[g + 4] |= (uint8_t)((scale & 15) | (minimum & 15) << 4);
            b.scales[g - 4] |= (uint8_t)(scale >> 4 << 6);
            b.scales[g] |= (uint8_t)(minimum >> 4 << 6);
        }
        scatter_nibbles(b.q + g / 2 * 32, g % 2, sub->words);
        for (int j = 0; s->high && j < 8; j++)
            word_to(b.high + 4 * j, word_at(b.high + 4 * j) | (sub->high[0] >> j & LOW1) << g);
    }
    if (s->high) {
        memcpy(block, &b, sizeof b);
    } else {
        memcpy(block, &b, offsetof(struct block_q5_k, high));
        memcpy(block + offsetof(struct block_q4_k, q), b.q, sizeof b.q);
    }
}

static void take_q6(const uint8_t *block, struct row_block *out)
{
    struct block_q6_k b;
    memcpy(&b, block, sizeof b);
    out->d = b.scale;
    for (int g = 0; g < 8; g++) {
        struct sub *sub = &out->subs[g];
        memcpy(sub->scale, b.scales + 2 * g, 2);
        gather_nibbles(b.low + g / 4 * 64 + g % 2 * 32, g % 4 / 2, sub->words);
        sub->high[0] = sub->high[1] = 0;
        for (int j = 0; j < 8; j++)
            sub->high[j / 4] |= (word_at(b.high + g / 4 * 32 + 4 * j) >> 2 * (g % 4) & LOW2) << 2 * (j % 4);
    }
}

static void give_q6(const struct row_block *in, uint8_t *block)
{
    struct block_q6_k b = {.scale = in->d};
    for (int g = 0; g < 8; g++) {
        const struct sub *sub = &in->subs[g];
        memcpy(b.scales + 2 * g, sub->scale, 2);
        scatter_nibbles(b.low + g / 4 * 64 + g % 2 * 32, g % 4 / 2, sub->words);
        for (int j = 0; j < 8; j++) {
            uint8_t *high = b.high + g / 4 * 32 + 4 * j;
            word_to(high, word_at(high) | (sub->high[j / 4] >> 2 * (j % 4) & LOW2) << 2 * (g % 4));
        }
    }
    memcpy(block, &b, sizeof b);
}

static void take_xs(const uint8_t *block, struct row_block *out)
{
    struct block_iq4_xs b;
    memcpy(&b, block, sizeof b);
    out->d = b.scale;
    for (int g = 0; g < 8; g++) {
        struct sub *sub = &out->subs[g];
        int scale = (b.scales_low[g / 2] >> g % 2 * 4 & 15) | (b.scales_high >> 2 * g & 3) << 4;
        sub->scale[0] = (uint8_t)(scale - 32);
        for (int j = 0; j < 4; j++)
            sub->words[j] = word_at(b.q + 16 * g + 4 * j);
    }
}

static void give_xs(const struct row_block *in, uint8_t *block)
{
    struct block_iq4_xs b = {.scale = in->d};
    for (int g = 0; g < 8; g++) {
        const struct sub *sub = &in->subs[g];
        unsigned scale = (unsigned)((int8_t)sub->scale[0] + 32);
        b.scales_low[g / 2] |= (uint8_t)((scale & 15) << g % 2 * 4);
        b.scales_high |= (uint16_t)((scale >> 4 & 3) << 2 * g);
        for (int j = 0; j < 4; j++)
            word_to(b.q + 16 * g + 4 * j, sub->words[j]);
    }
    memcpy(block, &b, sizeof b);
}

/* Bits 2·pair of 32 bytes as 2 words: group g's in bits 2·(g mod 4) of word g / 4. */
static void gather_pairs(const uint8_t *bytes, int pair, uint32_t words[2])
{
    words[0] = words[1] = 0;
    for (int j = 0; j < 8; j++)
        words[j / 4] |= (word_at(bytes + 4 * j) >> 2 * pair & LOW2) << 2 * (j % 4);
}

static void scatter_pairs(uint8_t *bytes, int pair, const uint32_t words[2])
{
    for (int j = 0; j < 8; j++)
        word_to(bytes + 4 * j, word_at(bytes + 4 * j) | (words[j / 4] >> 2 * (j % 4) & LOW2) << 2 * pair);
}

static void take_q2(const uint8_t *block, struct row_block *out)
{
    struct block_q2_k b;
    memcpy(&b, block, sizeof b);
    out->d = b.scale;
    out->dmin = b.minimum;
    for (int g = 0; g < 8; g++) {
        memcpy(out->subs[g].scale, b.scales + 2 * g, 2);
        gather_pairs(b.q + g / 4 * 32, g % 4, out->subs[g].words);
    }
}

static void give_q2(const struct row_block *in, uint8_t *block)
{
    struct block_q2_k b = {.scale = in->d, .minimum = in->dmin};
    for (int g = 0; g < 8; g++) {
        memcpy(b.scales + 2 * g, in->subs[g].scale, 2);
        scatter_pairs(b.q + g / 4 * 32, g % 4, in->subs[g].words);
    }
    memcpy(block, &b, sizeof b);
}

static void take_q3(const uint8_t *block, struct row_block *out)
{
    struct block_q3_k b;
    memcpy(&b, block, sizeof b);
    out->d = b.scale;
    for (int g = 0; g < 8; g++) {
        struct sub *sub = &out->subs[g];
        sub->scale[0] = (uint8_t)(block_scale_q3(b.scales, 2 * g) - 32);
        sub->scale[1] = (uint8_t)(block_scale_q3(b.scales, 2 * g + 1) - 32);
        gather_pairs(b.q + g / 4 * 32, g % 4, sub->words);
        sub->high[0] = 0;
        for (int j = 0; j < 8; j++)
            sub->high[0] |= (word_at(b.high + 4 * j) >> g & LOW1) << j;
    }
}

static void give_q3(const struct row_block *in, uint8_t *block)
{
    struct block_q3_k b = {.scale = in->d};
    for (int g = 0; g < 16; g++) {
        unsigned s = (unsigned)(uint8_t)(in->subs[g / 2].scale[g % 2] + 32);
        b.scales[g % 8] |= (uint8_t)((s & 15) << g / 8 * 4);
        b.scales[8 + g % 4] |= (uint8_t)((s >> 4 & 3) << 2 * (g / 4));
    }
    for (int g = 0; g < 8; g++) {
        const struct sub *sub = &in->subs[g];
        scatter_pairs(b.q + g / 4 * 32, g % 4, sub->words);
        for (int j = 0; j < 8; j++)
            word_to(b.high + 4 * j, word_at(b.high + 4 * j) | (sub->high[0] >> j & LOW1) << g);
    }
    memcpy(block, &b, sizeof b);
}

static void take(enum layout layout, const uint8_t *block, struct row_block *out)
{
    const struct shape *s = &shapes[layout];
    if (layout == LAYOUT_Q4_K || layout == LAYOUT_Q5_K)
        take_q45(s, block, out);
    else if (layout == LAYOUT_Q6_K)
        take_q6(block, out);
    else if (layout == LAYOUT_IQ4_XS)
        take_xs(block, out);
    else if (layout == LAYOUT_Q2_K)
        take_q2(block, out);
    else if (layout == LAYOUT_Q3_K)
        take_q3(block, out);
    else
        take_32(s, block, out);
}

static void give(enum layout layout, const struct row_block *in, uint8_t *block)
{
    const struct shape *s = &shapes[layout];
    if (layout == LAYOUT_Q4_K || layout == LAYOUT_Q5_K)
        give_q45(s, in, block);
    else if (layout == LAYOUT_Q6_K)
        give_q6(in, block);
    else if (layout == LAYOUT_IQ4_XS)
        give_xs(in, block);
    else if (layout == LAYOUT_Q2_K)
        give_q2(in, block);
    else if (layout == LAYOUT_Q3_K)
        give_q3(in, block);
    else
        give_32(s, in, block);
}

/* ---- Panels -------------------------------------------------------------------------------------------------- */

/* wide: the rows of the panel, 16 or 32. */
static void put_row(const struct shape *s, const struct row_block *in, uint32_t wide, uint32_t row, uint32_t flip,
                    uint8_t *p)
{
    if (s->header >= 2)
        memcpy(p + 2 * row, &in->d, 2);
    if (s->header >= 4)
        memcpy(p + 2 * (wide + row), &in->dmin, 2);
    p += wide * s->header;
    for (uint32_t g = 0; g < s->subs; g++, p += wide * sub_bytes(s)) {
        const struct sub *sub = &in->subs[g];
        for (uint32_t j = 0; j < s->words; j++)
            word_to(p + 4 * (j * wide + row), sub->words[j] ^ (s->words == 8 ? flip : 0));
        for (uint32_t j = 0; j < s->high; j++)
            word_to(p + 4 * ((s->words + j) * wide + row), sub->high[j]);
        uint8_t *scales = p + 4 * wide * (s->words + s->high);
        for (uint32_t j = 0; j < s->scales; j++)
            if (s->scale_size == 2)
                memcpy(scales + 2 * (j * wide + row), sub->scale + 2 * j, 2);
            else
                scales[j * wide + row] = sub->scale[j];
    }
}

static void get_row(const struct shape *s, const uint8_t *p, uint32_t wide, uint32_t row, uint32_t flip,
                    struct row_block *out)
{
    if (s->header >= 2)
        memcpy(&out->d, p + 2 * row, 2);
    if (s->header >= 4)
        memcpy(&out->dmin, p + 2 * (wide + row), 2);
    p += wide * s->header;
    for (uint32_t g = 0; g < s->subs; g++, p += wide * sub_bytes(s)) {
        struct sub *sub = &out->subs[g];
        for (uint32_t j = 0; j < s->words; j++)
            sub->words[j] = word_at(p + 4 * (j * wide + row)) ^ (s->words == 8 ? flip : 0);
        for (uint32_t j = 0; j < s->high; j++)
            sub->high[j] = word_at(p + 4 * ((s->words + j) * wide + row));
        const uint8_t *scales = p + 4 * wide * (s->words + s->high);
        for (uint32_t j = 0; j < s->scales; j++)
            if (s->scale_size == 2)
                memcpy(sub->scale + 2 * j, scales + 2 * (j * wide + row), 2);
            else
                sub->scale[j] = scales[j * wide + row];
    }
}

uint32_t layout_block_cols(enum layout layout)
{
    return 32 * shapes[layout].subs;
}

void pack_panel(enum layout layout, uint32_t wide, uint32_t cols, const uint8_t *source, size_t row_bytes,
                uint32_t rows, uint8_t flip, uint8_t *panel)
{
    const struct shape *s = &shapes[layout];
    size_t from = type_info(s->type)->block_bytes, step = wide * block_bytes(s);
    uint32_t blocks = cols / (32 * s->subs), flips = flip * LOW1;
    for (uint32_t b = 0; b < blocks; b++, panel += step) {
        struct row_block row;
        for (uint32_t r = 0; r < rows; r++) {
            take(layout, source + r * row_bytes + b * from, &row);
            put_row(s, &row, wide, r, flips, panel);
        }
        memset(&row, 0, sizeof row);
        for (uint32_t r = rows; r < wide; r++)
            put_row(s, &row, wide, r, flips, panel);
    }
}

void unpack_block(enum layout layout, uint32_t wide, const uint8_t *block, uint32_t row, uint8_t flip, uint8_t *out)
{
    struct row_block parts;
    get_row(&shapes[layout], block, wide, row, flip * LOW1, &parts);
    give(layout, &parts, out);
}

/* ---- Float rows ------------------------------------------------------------------------------------------------ */

size_t float_group_bytes(uint32_t each, uint32_t cols)
{
    return (size_t)kernels->float_rows * ((cols + 15) / 16 * 16) * each;
}

void pack_floats(uint32_t each, uint32_t cols, const uint8_t *source, uint32_t rows, uint8_t *group)
{
    size_t row_bytes = (size_t)cols * each;
    for (uint32_t i = 0; i < cols; i += 16)
        for (uint32_t r = 0; r < kernels->float_rows; r++, group += 16 * each) {
            size_t bytes = r < rows ? (cols - i < 16 ? cols - i : 16) * each : 0;
            if (bytes)
                memcpy(group, source + r * row_bytes + i * each, bytes);
            memset(group + bytes, 0, 16 * each - bytes);
        }
}
