/* The kernel table: one entry for each thing a level may do faster. scalar*.c fills it completely; an ISA file
 * overwrites entries. Entries work on one row, panel or page and know no threads; ops*.c split the work.
 * All entries give the bits that ops.h and numerics.h fix. Private to engine/kernels/. */
#ifndef BRIGADE_ENGINE_KERNELS_TABLE_H
#define BRIGADE_ENGINE_KERNELS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 32 activations in 8 bits. */
struct act_block {
    int8_t q[32];
    float d;           /* x ≈ d·q */
    float ds;          /* d·(float)Σ q */
    int32_t minus_sum; /* -Σ q */
    int32_t minus_low; /* -Σ q[0..15] */
};

#define PANEL_ROWS 16u
#define PAIR_ROWS 32u

/* How a quantised matrix lies in memory: panels of 16 rows; within a panel, blocks of 32 columns (of 256 for K-like
 * types) follow each other; within a block, groups of 4 columns: byte (row·4 + c) of a group's 64. Nibble layouts put
 * group g in the low and group g + 4 in the high nibbles. Scales of the rows stand behind their block.
 * Where a level takes panels in pairs (table->pairs), a pair is one panel of 32 rows, groups of 128 bytes; an odd last
 * panel stands alone. Kernels load what lies in a block in the order in which it lies: a core's own prefetching follows
 * one rising stream and loses two that take turns within a page. */
enum layout {
    LAYOUT_EXPANDED, /* struct panel32: any type, decoded on the fly from the file's own rows */
    /* 32 columns a block; bytes of 16 rows */
    LAYOUT_Q8_0,   /* 512 bytes q, 16 binary16 */
    LAYOUT_Q4_0,   /* 256 bytes of nibbles, 16 binary16 */
    LAYOUT_Q4_1,   /* as Q4_0, 16 minima behind */
    LAYOUT_Q5_0,   /* 256 bytes of nibbles, 64 bytes of fifth bits (bit g: group g), 16 binary16 */
    LAYOUT_Q5_1,   /* as Q5_0, 16 minima behind */
    LAYOUT_IQ4_NL, /* as Q4_0; nibbles are codes */
    LAYOUT_MXFP4,  /* 256 bytes of nibbles (codes), 16 exponents */
    /* 256 columns a block: first 16 d and, where there are minima, 16 dmin (binary16), then 8 times: */
    LAYOUT_Q2_K,   /* 128 bytes of 2 bits (group g: bits 2·(g mod 4) of half g / 4), 16 s|m<<4 of each half */
    LAYOUT_Q3_K,   /* 128 bytes of 2 bits, 64 bytes of third bits, 16 signed s of each half */
    LAYOUT_Q4_K,   /* 256 bytes of nibbles, 16 s, 16 m */
    LAYOUT_Q5_K,   /* 256 bytes of nibbles, 64 bytes of fifth bits, 16 s, 16 m */
    LAYOUT_Q6_K,   /* 256 bytes of nibbles, 128 bytes of high pairs, 16 signed s of each half */
    LAYOUT_IQ4_XS, /* 256 bytes of nibbles (codes), 16 signed s */
    LAYOUT_COUNT
};

/* Float matrices: groups of table->float_rows rows; within a group, 16 columns of each row in turn (the last filled up
 * with zeros), then the next 16. */

/* 32 columns of 16 rows in the expanded layout. q is xor table->flip (for unsigned-by-signed dot instructions). */
struct panel32 {
    uint8_t q[8][PANEL_ROWS][4];
    float scale[2][PANEL_ROWS];
    float offset[2][PANEL_ROWS];
};

/* Where next to nothing is computed to a line of weights, one line in some is fetched so many bytes ahead, to the second
 * cache: Zen 4 reads faster for it, likely since its own prefetching ends with each page of 4 KB. Into the first cache,
 * such lines take the place of loads (docs/speed.md). */
#define FAR_AHEAD ((size_t)16 << 10)

/* Weights to be fetched into the caches meanwhile: `step` bytes with each block of 32 columns. Any address. */
struct fetch {
    const uint8_t *from;
    size_t step;
    bool far; /* to the second cache only */
};

/* Panels against a few tokens of one tile. Between two panels of one call memory hardly rests. */
struct panel_run {
    const uint8_t *panels; /* `count` panels, or pairs of panels, one right behind the other */
    uint32_t count;
    bool pair;
    bool goes_on;              /* sums go on from what stands in out, else from 0 */
    const struct act_block *a; /* the tokens' records of the first block, side by side */
    uint32_t step;             /* records to those of the next block: the tile's tokens */
    uint32_t blocks;           /* of 32 columns */
    uint32_t tokens;           /* ≤ run_tokens of the layout */
    float *out;                /* out[t·stride + r], r rising from panel to panel */
    size_t stride;
    struct fetch fetch;
};
typedef void kernel_panel(const struct panel_run *run);
/* One panel of the expanded layout, where the type's shape is an argument; acc as above. */
typedef void kernel_expanded(const struct panel32 *panel, const struct act_block *a, uint32_t blocks, uint32_t tokens,
                             int groups, bool offset, float *acc);
/* y[t·ldy + r] = dot16(w_r, x_t) for tokens ≤ tile_tokens. With float_rows, w is groups of so many rows `w_step` bytes
 * apart; else rows of the file `w_step` bytes apart, at any address. */
typedef void kernel_float(const void *w, size_t w_step, uint32_t rows, const float *x, size_t stride, uint32_t tokens,
                          uint32_t cols, float *y, size_t ldy);

/* Query rows that go together over a kv head. */
#define UNIT_ROWS 16u

/* Scores of 32 positions (one page) for `rows` query rows against one kv head, chain·scale: s[r·s_stride + slot].
 * q[d·rows + r]: the rows side by side. next: what comes next of K, to be fetched; any address. */
typedef void kernel_scores(const void *k, const void *next, uint32_t k_dim, const float *q, uint32_t rows, float scale,
                           float *s, size_t s_stride);
/* acc[r·acc_stride + d] goes on over slots [begin, end) of one page with weights e[r·e_stride + slot]. */
typedef void kernel_values(const void *v, const void *next, uint32_t v_dim, const float *e, size_t e_stride,
                           uint32_t rows, uint32_t begin, uint32_t end, float *acc, size_t acc_stride);

struct kernel_table {
    const char *name;
    uint8_t flip;         /* xor of stored int8 quants */
    uint32_t float_rows;  /* float matrices lie in groups of so many rows, one stream each; 0: as in the file */
    bool pairs;           /* panels lie and are multiplied two at a time */
    uint32_t tile_tokens; /* of a full tile: so many tokens' records of a block lie side by side */
    uint32_t run_tokens[LAYOUT_COUNT];   /* of those it has panels for: most tokens that are multiplied at a time */
    uint32_t fetch_tokens[LAYOUT_COUNT]; /* fewest that take longer than memory, so that fetching ahead helps */
    /* Linear. panel[layout] NULL: the type is decoded on the fly. */
    kernel_panel *panel[LAYOUT_COUNT];
    kernel_expanded *expanded;
    kernel_float *dot_f32, *dot_f16, *dot_bf16;
    void (*quantise)(const float *x, uint32_t cols, struct act_block *out,
                     size_t step); /* cols / 32 records, step apart */
    void (*widen_f16)(const void *in, float *out, size_t count);
    void (*narrow_f16)(const float *in, uint16_t *out, size_t count);
    /* One row each. */
    void (*rms_norm)(const float *x, uint32_t cols, const float *weight, float eps, float *y);
    void (*layer_norm)(const float *x, uint32_t cols, const float *weight, const float *bias, float eps, float *y);
    void (*add)(float *x, const float *y, size_t count);
    void (*scale)(float *x, float factor, size_t count);
    void (*fma)(float *x, const float *y, float factor, size_t count);
    void (*silu_mul)(const float *gate, const float *up, float *y, size_t count);
    void (*gelu_mul)(const float *gate, const float *up, float *y, size_t count);
    void (*gelu)(float *x, size_t count);
    void (*relu)(float *x, size_t count);
    void (*softcap)(float *x, float cap, size_t count);
    void (*softmax)(float *x, uint32_t cols);
    void (*rope)(float *head, uint32_t rotary, bool neox, const float *cosines, const float *sines);
    /* Attention: one page and one kv head. */
    kernel_scores *scores[3]; /* by enum kv_type */
    kernel_values *values[3];
    float (*maximum)(const float *s, uint32_t begin, uint32_t end); /* -inf when empty */
    /* s[i] = exp(s[i] - max) for i in [begin, end); returns the sum by lanes i mod 16 and tree16. */
    float (*exp_sum)(float *s, uint32_t begin, uint32_t end, float max);
    /* int8 multiply-accumulates done by `rounds` rounds of the level's own dot instruction, registers only. */
    uint64_t (*probe_dot)(uint64_t rounds);
    /* Sum of bytes read, so that reading cannot be optimised away. */
    uint64_t (*probe_read)(const void *data, size_t bytes);
};

/* Of a page of the KV cache (kv.h): blocks of 32 dims, which in Q8 have a scale, and the length of a row of V. */
static inline uint32_t kv_blocks(uint32_t dim)
{
    return (dim + 31) / 32;
}
static inline uint32_t kv_v_step(uint32_t v_dim)
{
    return (v_dim + 15) / 16 * 16;
}

extern const struct kernel_table *kernels; /* the chosen level; set by kernels_init */

/* One a file family: overwrite entries. */
void kernels_fill_scalar(struct kernel_table *table);
void kernels_fill_scalar_vector(struct kernel_table *table);
void kernels_fill_scalar_attention(struct kernel_table *table);

/* pack.c: bytes of a group of float rows of `each` bytes a value, and laying one out of `rows` (≤ float_rows) rows. */
size_t float_group_bytes(uint32_t each, uint32_t cols);
void pack_floats(uint32_t each, uint32_t cols, const uint8_t *source, uint32_t rows, uint8_t *group);

/* pack.c: the panel layout of a type at this level, LAYOUT_EXPANDED when it has none; columns of one of its blocks;
 * bytes that `cols` columns, a whole number of blocks, take in a panel `wide` (16 or 32) rows high. */
enum layout layout_of(uint32_t type);
uint32_t layout_block_cols(enum layout layout);
size_t layout_panel_bytes(enum layout layout, uint32_t wide, uint32_t cols);
/* Lays out `rows` (≤ wide; the rest become zeros) rows of the file as one panel, and takes one row's part of one block
 * out again. */
void pack_panel(enum layout layout, uint32_t wide, uint32_t cols, const uint8_t *source, size_t row_bytes,
                uint32_t rows, uint8_t flip, uint8_t *panel);
void unpack_block(enum layout layout, uint32_t wide, const uint8_t *block, uint32_t row, uint8_t flip, uint8_t *out);

/* Tokens of activations lie in tiles: tile j of n tokens holds `size` tokens from `first`. */
struct tiles {
    uint32_t count, tokens, most; /* all tiles but the last have `most` tokens */
};
static inline struct tiles tiles_of(uint32_t n, uint32_t most)
{
    return (struct tiles){(n + most - 1) / most, n, most};
}
static inline uint32_t tile_first(struct tiles t, uint32_t j)
{
    return j < t.count ? j * t.most : t.tokens;
}
static inline uint32_t tile_size(struct tiles t, uint32_t j)
{
    return tile_first(t, j + 1) - tile_first(t, j);
}

#endif
