/* Architectures as data: one row of a table says what a family of models is made of, and one recipe (block.c) computes
 * them all. To add one: write its row in architecture.c; if it needs a piece that no other has, write the piece.
 * Pure data and look-ups; any thread. */
#ifndef BRIGADE_ENGINE_MODEL_ARCHITECTURE_H
#define BRIGADE_ENGINE_MODEL_ARCHITECTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a block may hold. Purposes, not names: two families may call the same thing differently (see slots[]). */
enum slot {
    ATTN_NORM, ATTN_NORM_BIAS,
    ATTN_Q, ATTN_K, ATTN_V, ATTN_Q_BIAS, ATTN_K_BIAS, ATTN_V_BIAS,
    ATTN_QKV, ATTN_QKV_BIAS,              /* the three above in one tensor, rows of q first */
    ATTN_Q_NORM, ATTN_K_NORM,             /* over each head */
    ATTN_Q_NORM_WIDE, ATTN_K_NORM_WIDE,   /* over all heads at once */
    ATTN_OUT, ATTN_OUT_BIAS,
    ATTN_SINKS,
    ATTN_POST_NORM,
    ATTN_Q_A, ATTN_Q_A_NORM, ATTN_Q_B,    /* latent attention: q through a low rank */
    ATTN_KV_A, ATTN_KV_A_NORM,            /* latent of k and v, and the rotated part of k */
    ATTN_KV_B,                            /* latent to k and v of all heads (older files) */
    ATTN_K_B, ATTN_V_B,                   /* the same, per head and ready to be absorbed */
    FFN_NORM, FFN_NORM_BIAS,
    FFN_NORM_AFTER_ATTN,                  /* the same purpose under gpt-oss's name */
    FFN_GATE, FFN_UP, FFN_DOWN, FFN_GATE_BIAS, FFN_UP_BIAS, FFN_DOWN_BIAS,
    FFN_GATE_UP,                          /* gate and up in one tensor, rows of gate first */
    FFN_POST_NORM,
    ROUTER, ROUTER_BIAS, ROUTER_CHOICE_BIAS, /* the last one steers the choice of experts, not their weights */
    EXPERTS_GATE, EXPERTS_UP, EXPERTS_DOWN, EXPERTS_GATE_BIAS, EXPERTS_UP_BIAS, EXPERTS_DOWN_BIAS,
    SHARED_GATE, SHARED_UP, SHARED_DOWN, SHARED_ROUTER,
    SLOTS
};

/* What a model holds once. */
enum global_slot {
    TOKEN_EMBEDDING, POSITION_EMBEDDING, OUTPUT_NORM, OUTPUT_NORM_BIAS, OUTPUT, OUTPUT_BIAS,
    ROPE_FREQS, ROPE_LONG, ROPE_SHORT,
    GLOBAL_SLOTS
};

/* Sizes that shapes are made of, resolved for each block. */
enum dim {
    DIM_ONE, DIM_WIDTH, DIM_Q, DIM_K, DIM_V, DIM_QKV, DIM_O, DIM_K_DIM, DIM_HEADS, DIM_FF, DIM_2FF,
    DIM_EXPERTS, DIM_FF_EXPERT, DIM_FF_SHARED, DIM_Q_RANK, DIM_KV_RANK, DIM_KV_A, DIM_KV_B, DIM_NOPE,
    DIM_V_DIM, DIM_VOCABULARY, DIM_CONTEXT, DIM_HALF_ROTARY, DIMS
};

enum slot_kind {
    SLOT_VECTOR,   /* shape {cols} */
    SLOT_MATRIX,   /* shape {cols, rows}: rows outputs by cols inputs */
    SLOT_STACK,    /* shape {cols, rows, depth}: depth matrices */
    SLOT_VECTORS,  /* shape {cols, rows}: rows vectors */
};

struct slot_info {
    const char *name;   /* after "blk.N.", or the whole name of a global */
    uint8_t kind;       /* enum slot_kind */
    uint8_t cols, rows, depth; /* enum dim */
};
extern const struct slot_info slots[SLOTS];
extern const struct slot_info global_slots[GLOBAL_SLOTS];

enum norm_kind { NORM_RMS, NORM_LAYER };
enum positions { ROPE_PAIRS, ROPE_HALVES, POSITIONS_LEARNED }; /* (2i, 2i+1) or (i, i + rotary/2) turn together */
enum activation { ACT_SILU, ACT_GELU, ACT_SWIGLU_CLAMPED };    /* gated when a gate is there */
enum gating { GATING_SOFTMAX = 1, GATING_SIGMOID = 2, GATING_SOFTMAX_OF_CHOSEN = 3 }; /* as GGUF numbers them */

#define SLOT(s) (UINT64_C(1) << (s))

struct architecture {
    const char *name;  /* general.architecture */
    const char *covers; /* for people */
    enum norm_kind norm;
    enum positions positions;
    enum activation activation;

    /* Sets of slots. Of each pair in `either` one side must be there, whole. */
    uint64_t attention, dense, experts, optional;
    uint64_t either[2][2];
    uint64_t globals, optional_globals;

    bool parallel;           /* feed-forward reads what attention reads; both are added at once */
    bool scaled_embedding;   /* × √width */
    bool granite_scales;     /* embedding, residual, logit and attention scales come from metadata */
    bool logit_factor;       /* logits are multiplied by metadata's logit_scale (granite divides) */
    bool rope_switch;        /* rope.scaling.finetuned = false means no rotation at all */
    bool rope_local_only;    /* blocks that see everything do not rotate */
    uint32_t no_rope_every;  /* of so many blocks the last does not rotate; 0: all do */
    bool latent;             /* latent attention (MLA) */
    bool ff_of_experts;      /* without expert_feed_forward_length, feed_forward_length is shared out */
    float attention_softcap, final_softcap; /* when metadata has none */

    /* Sliding windows: of `window_pattern` blocks the last sees everything; 0: every block has the window. */
    bool windows;
    uint32_t window, window_pattern; /* the window when metadata has none; 0: then none */
    float local_rope_base;           /* of windowed blocks; 0: as the others */
    bool local_rope_unscaled;        /* windowed blocks ignore rope scaling */
    uint32_t wide_scale_blocks;      /* a model of so many blocks scales scores by 1/√(width/heads) */

    enum gating gating;
    bool normalise_experts;  /* chosen experts' weights sum to 1 */
};

/* The row of a name, or NULL. */
const struct architecture *architecture_find(const char *name, size_t size);
size_t architecture_count(void);
const struct architecture *architecture_at(size_t i);

/* Edits (insert, delete, replace) from a to b, for "nearest" in messages. Texts past 63 bytes are cut. */
uint32_t edit_distance(const char *a, const char *b);
/* "qwen3, qwen2, qwen3moe": up to three nearest names into text. */
void architecture_nearest(const char *name, char *text, size_t size);

#endif
