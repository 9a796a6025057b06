/* Variants and their weights. Shapes come from shape_read over the metadata alone. */
#include "tests/engine/model_builder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/shape.h"
#include "engine/kernels/ops.h"
#include "engine/quant/quantize.h"
#include "tests/engine/kernels_data.h"

static const char *key(const char *architecture, const char *name)
{
    static char text[8][128];
    static int next;
    char *t = text[next++ % 8];
    snprintf(t, sizeof text[0], "%s.%s", architecture, name);
    return t;
}

/* ---- Metadata of the variants ----------------------------------------------------------------------------------- */

static void linear(struct gguf_builder *b, const char *a)
{
    gguf_build_text(b, key(a, "rope.scaling.type"), "linear");
    gguf_build_f32(b, key(a, "rope.scaling.factor"), 4);
}

static void yarn(struct gguf_builder *b, const char *a)
{
    gguf_build_text(b, key(a, "rope.scaling.type"), "yarn");
    gguf_build_f32(b, key(a, "rope.scaling.factor"), 8);
    gguf_build_u32(b, key(a, "rope.scaling.original_context_length"), 32);
}

static void longrope(struct gguf_builder *b, const char *a)
{
    gguf_build_u32(b, key(a, "rope.scaling.original_context_length"), 64);
    gguf_build_f32(b, key(a, "rope.scaling.attn_factor"), 1.19f);
}

static void longrope_short(struct gguf_builder *b, const char *a)
{
    gguf_build_u32(b, key(a, "rope.scaling.original_context_length"), BUILT_CONTEXT);
    gguf_build_f32(b, key(a, "rope.scaling.attn_factor"), 1.19f);
}

static void partial_rotary(struct gguf_builder *b, const char *a)
{
    gguf_build_u32(b, key(a, "rope.dimension_count"), 6);
}

static void window(struct gguf_builder *b, const char *a)
{
    gguf_build_u32(b, key(a, "attention.sliding_window"), 20);
}

static void phi3_window(struct gguf_builder *b, const char *a)
{
    window(b, a);
    longrope(b, a);
}

static void gemma2_keys(struct gguf_builder *b, const char *a)
{
    window(b, a);
    gguf_build_f32(b, key(a, "attn_logit_softcapping"), 5);
    gguf_build_f32(b, key(a, "final_logit_softcapping"), 3);
}

static void gemma3_keys(struct gguf_builder *b, const char *a)
{
    window(b, a);
    gguf_build_f32(b, key(a, "rope.freq_base"), 1000000);
    linear(b, a);
}

static void olmo2_keys(struct gguf_builder *b, const char *a)
{
    window(b, a);
    yarn(b, a);
}

static void granite_keys(struct gguf_builder *b, const char *a)
{
    gguf_build_f32(b, key(a, "embedding_scale"), 12);
    gguf_build_f32(b, key(a, "residual_scale"), 0.22f);
    gguf_build_f32(b, key(a, "logit_scale"), 2);
    gguf_build_f32(b, key(a, "attention.scale"), 0.0625f);
}

static void granite_shared(struct gguf_builder *b, const char *a)
{
    granite_keys(b, a);
    gguf_build_u32(b, key(a, "expert_shared_feed_forward_length"), 32);
}

static void granite_no_rope(struct gguf_builder *b, const char *a)
{
    granite_keys(b, a);
    gguf_build_bool(b, key(a, "rope.scaling.finetuned"), false);
}

static void expert_ff(struct gguf_builder *b, const char *a)
{
    gguf_build_u32(b, key(a, "expert_feed_forward_length"), 32);
}

static void shared_ff(struct gguf_builder *b, const char *a)
{
    expert_ff(b, a);
    gguf_build_u32(b, key(a, "expert_shared_feed_forward_length"), 64);
}

static void gpt_oss_keys(struct gguf_builder *b, const char *a)
{
    window(b, a);
    expert_ff(b, a);
    yarn(b, a);
}

static void deepseek_keys(struct gguf_builder *b, const char *a)
{
    expert_ff(b, a);
    gguf_build_u32(b, key(a, "leading_dense_block_count"), 1);
    gguf_build_u32(b, key(a, "attention.kv_lora_rank"), 32);
    gguf_build_u32(b, key(a, "rope.dimension_count"), 8);
    gguf_build_u32(b, key(a, "expert_shared_count"), 2);
    gguf_build_f32(b, key(a, "expert_weights_scale"), 2.5f);
}

static void deepseek_yarn(struct gguf_builder *b, const char *a)
{
    deepseek_keys(b, a);
    yarn(b, a);
    gguf_build_f32(b, key(a, "rope.scaling.yarn_log_multiplier"), 0.0707f);
}

static void deepseek_low_rank(struct gguf_builder *b, const char *a)
{
    deepseek_yarn(b, a);
    gguf_build_u32(b, key(a, "attention.q_lora_rank"), 48);
}

static void deepseek1_keys(struct gguf_builder *b, const char *a)
{
    expert_ff(b, a);
    gguf_build_u32(b, key(a, "leading_dense_block_count"), 1);
    gguf_build_u32(b, key(a, "expert_shared_count"), 2);
    gguf_build_f32(b, key(a, "expert_weights_scale"), 1);
}

static void glm4moe_keys(struct gguf_builder *b, const char *a)
{
    expert_ff(b, a);
    gguf_build_u32(b, key(a, "leading_dense_block_count"), 1);
    gguf_build_u32(b, key(a, "expert_shared_count"), 1);
    gguf_build_f32(b, key(a, "expert_weights_scale"), 1.5f);
    gguf_build_bool(b, key(a, "expert_weights_norm"), true);
    gguf_build_u32(b, key(a, "rope.dimension_count"), 8);
}

static void cohere_keys(struct gguf_builder *b, const char *a)
{
    gguf_build_f32(b, key(a, "logit_scale"), 0.25f);
}

static void cohere2_keys(struct gguf_builder *b, const char *a)
{
    cohere_keys(b, a);
    window(b, a);
}

/* As DeepSeek-V3: absorbed, sigmoid gates with a choice bias, groups, normalised. */
static void deepseek_v3(struct gguf_builder *b, const char *a)
{
    deepseek_low_rank(b, a);
    gguf_build_u32(b, key(a, "attention.key_length_mla"), 24);
    gguf_build_u32(b, key(a, "attention.value_length_mla"), 16);
    gguf_build_u32(b, key(a, "expert_gating_func"), 2);
    gguf_build_bool(b, key(a, "expert_weights_norm"), true);
    gguf_build_u32(b, key(a, "expert_group_count"), 4);
    gguf_build_u32(b, key(a, "expert_group_used_count"), 2);
}

#define G(slot) SLOT(slot)

static const struct model_variant table[] = {
    {.name = "llama", .architecture = "llama"},
    {.name = "llama-tied-bare", .architecture = "llama", .tied = true, .bare = true},
    {.name = "llama-rope-freqs", .architecture = "llama", .bare = true, .globals = G(ROPE_FREQS)},
    {.name = "llama-linear", .architecture = "llama", .bare = true, .keys = linear},
    {.name = "llama-yarn", .architecture = "llama", .bare = true, .keys = yarn},
    {.name = "llama-wide-heads", .architecture = "llama", .bare = true, .k_dim = 24, .v_dim = 24},
    {.name = "mixtral", .architecture = "llama", .bare = true, .experts = 6, .used = 2},
    {.name = "qwen2", .architecture = "qwen2"},
    {.name = "qwen2moe", .architecture = "qwen2moe", .experts = 6, .used = 2, .keys = shared_ff},
    {.name = "qwen3", .architecture = "qwen3", .k_dim = 24, .v_dim = 24, .tied = true},
    {.name = "qwen3moe", .architecture = "qwen3moe", .experts = 8, .used = 3, .keys = expert_ff},
    {.name = "gemma", .architecture = "gemma", .k_dim = 24, .v_dim = 24, .kv_heads = 1, .tied = true},
    {.name = "gemma2", .architecture = "gemma2", .blocks = 4, .tied = true, .keys = gemma2_keys},
    {.name = "gemma2-wide-scale",
     .architecture = "gemma2",
     .blocks = 46,
     .k_dim = 8,
     .v_dim = 8,
     .tied = true,
     .keys = gemma2_keys},
    {.name = "gemma3", .architecture = "gemma3", .blocks = 7, .tied = true, .keys = gemma3_keys},
    {.name = "phi2", .architecture = "phi2", .kv_heads = 4, .second_side = {true}, .keys = partial_rotary},
    {.name = "phi2-split", .architecture = "phi2", .kv_heads = 4, .keys = partial_rotary},
    {.name = "phi3", .architecture = "phi3", .bare = true},
    {.name = "phi3-longrope",
     .architecture = "phi3",
     .bare = true,
     .keys = longrope,
     .globals = G(ROPE_LONG) | G(ROPE_SHORT)},
    {.name = "phi3-longrope-short",
     .architecture = "phi3",
     .bare = true,
     .keys = longrope_short,
     .globals = G(ROPE_LONG) | G(ROPE_SHORT)},
    {.name = "phi3-window",
     .architecture = "phi3",
     .bare = true,
     .keys = phi3_window,
     .globals = G(ROPE_LONG) | G(ROPE_SHORT),
     .ours_only = true},
    {.name = "gpt2", .architecture = "gpt2", .kv_heads = 4, .tied = true},
    {.name = "starcoder2", .architecture = "starcoder2", .tied = true},
    {.name = "olmo2", .architecture = "olmo2", .kv_heads = 4},
    {.name = "olmo3", .architecture = "olmo2", .blocks = 5, .keys = olmo2_keys},
    {.name = "granite", .architecture = "granite", .bare = true, .tied = true, .keys = granite_keys},
    {.name = "granite-no-rope", .architecture = "granite", .bare = true, .tied = true, .keys = granite_no_rope},
    {.name = "granitemoe",
     .architecture = "granitemoe",
     .bare = true,
     .tied = true,
     .experts = 6,
     .used = 2,
     .keys = granite_keys},
    {.name = "granitemoe-shared",
     .architecture = "granitemoe",
     .tied = true,
     .experts = 6,
     .used = 2,
     .keys = granite_shared},
    {.name = "gpt-oss",
     .architecture = "gpt-oss",
     .blocks = 4,
     .k_dim = 24,
     .v_dim = 24,
     .experts = 6,
     .used = 3,
     .keys = gpt_oss_keys},
    {.name = "glm4", .architecture = "glm4", .keys = partial_rotary},
    {.name = "glm4moe", .architecture = "glm4moe", .experts = 6, .used = 2, .keys = glm4moe_keys},
    {.name = "seed_oss", .architecture = "seed_oss", .k_dim = 24, .v_dim = 24},
    {.name = "smollm3", .architecture = "smollm3", .blocks = 5, .tied = true},
    {.name = "command-r", .architecture = "command-r", .tied = true, .keys = cohere_keys},
    {.name = "cohere2", .architecture = "cohere2", .blocks = 5, .tied = true, .keys = cohere2_keys},
    {.name = "internlm2", .architecture = "internlm2"},
    {.name = "exaone", .architecture = "exaone", .globals = G(ROPE_FREQS)},
    {.name = "ernie4_5", .architecture = "ernie4_5", .tied = true},
    {.name = "orion", .architecture = "orion"},
    {.name = "starcoder", .architecture = "starcoder", .kv_heads = 1, .tied = true},
    {.name = "olmoe", .architecture = "olmoe", .kv_heads = 4, .experts = 6, .used = 2},
    {.name = "deepseek", .architecture = "deepseek", .experts = 6, .used = 2, .keys = deepseek1_keys},
    {.name = "deepseek2-lite",
     .architecture = "deepseek2",
     .blocks = 27,
     .bare = true,
     .k_dim = 24,
     .v_dim = 16,
     .kv_heads = 4,
     .experts = 6,
     .used = 2,
     .second_side = {false, true},
     .keys = deepseek_yarn},
    {.name = "deepseek2",
     .architecture = "deepseek2",
     .bare = true,
     .k_dim = 24,
     .v_dim = 16,
     .kv_heads = 4,
     .experts = 6,
     .used = 2,
     .second_side = {true, true},
     .keys = deepseek_low_rank},
    {.name = "deepseek3",
     .architecture = "deepseek2",
     .k_dim = 40,
     .v_dim = 32,
     .kv_heads = 1,
     .experts = 16,
     .used = 3,
     .second_side = {true, false},
     .keys = deepseek_v3},
};

size_t model_variant_count(void)
{
    return sizeof table / sizeof *table;
}

const struct model_variant *model_variant_at(size_t i)
{
    return &table[i];
}

const struct model_variant *model_variant_find(const char *name)
{
    for (size_t i = 0; i < model_variant_count(); i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    fprintf(stderr, "model_builder: no variant %s\n", name);
    exit(1);
}

int32_t model_built_token(uint32_t i)
{
    return (int32_t)(hash_mix64(i + 77) % BUILT_VOCABULARY);
}

/* ---- Building --------------------------------------------------------------------------------------------------- */

static void build_keys(struct gguf_builder *b, const struct model_variant *v)
{
    const char *a = v->architecture;
    const struct architecture *arch = architecture_find(a, strlen(a));
    uint32_t heads = v->heads ? v->heads : 4, width = v->width ? v->width : 64;
    gguf_build_text(b, "general.architecture", a);
    gguf_build_text(b, "general.name", v->name);
    gguf_build_text(b, "tokenizer.ggml.model", "none");
    gguf_build_u32(b, key(a, "vocab_size"), BUILT_VOCABULARY);
    gguf_build_u32(b, key(a, "block_count"), v->blocks ? v->blocks : 3);
    gguf_build_u32(b, key(a, "context_length"), BUILT_CONTEXT);
    gguf_build_u32(b, key(a, "embedding_length"), width);
    gguf_build_u32(b, key(a, "feed_forward_length"), width + width / 2);
    gguf_build_u32(b, key(a, "attention.head_count"), heads);
    gguf_build_u32(b, key(a, "attention.head_count_kv"), v->kv_heads ? v->kv_heads : heads / 2);
    gguf_build_f32(
        b, key(a, arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"), 1e-5f);
    if (v->k_dim) {
        gguf_build_u32(b, key(a, "attention.key_length"), v->k_dim);
        gguf_build_u32(b, key(a, "attention.value_length"), v->v_dim);
    }
    if (v->experts) {
        gguf_build_u32(b, key(a, "expert_count"), v->experts);
        gguf_build_u32(b, key(a, "expert_used_count"), v->used);
    }
    if (v->keys)
        v->keys(b, a);
}

/* Values that keep activations near one: norms about 1, biases small, matrices 1/√cols. */
static void build_tensor(struct gguf_builder *b, const char *name, const struct slot_info *info,
                         const struct model_shape *s, uint32_t block, uint32_t type)
{
    uint64_t shape[3] = {shape_size(s, block, info->cols), 1, 1};
    uint32_t dims = 1;
    if (info->kind != SLOT_VECTOR && info->rows != DIM_ONE)
        shape[dims++] = shape_size(s, block, info->rows);
    if (info->kind == SLOT_STACK)
        shape[dims++] = shape_size(s, block, info->depth);
    size_t cols = shape[0], rows = shape[1] * shape[2], count = cols * rows;
    bool matrix = info->kind == SLOT_MATRIX || info->kind == SLOT_STACK;
    bool norm = strstr(name, "norm.weight") != NULL, factor = strstr(name, "rope_f") != NULL;
    double scale = matrix ? 1.0 / sqrt((double)cols) : norm ? 0.1 : 0.3;
    if (!strcmp(name, "token_embd.weight"))
        scale = 1;
    if (!strcmp(name, "output.weight"))
        scale = 3 / sqrt((double)cols);
    uint64_t state = HASH_TOKENS_START;
    for (const char *c = name; *c; c++)
        state = hash_token(state, *c);
    float *x = mem_alloc(count * sizeof *x);
    size_t row_bytes = type_row_bytes(type, cols);
    void *packed = NULL;
    if (!x)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        double n = gguf_build_normal(&state);
        x[i] = (float)(factor ? 1 + fabs(n) : (norm ? 1 : 0) + scale * n);
    }
    if (matrix && type != TYPE_F32 && row_bytes && quantize_known(type) && dims > 1) {
        packed = mem_alloc(rows * row_bytes);
        for (size_t r = 0; packed && r < rows; r++)
            quantize_row(type, x + r * cols, (char *)packed + r * row_bytes, cols);
        if (!packed)
            exit(1);
    } else if (matrix && dims > 1 && !quantize_known(type) && matrix_supported(type, (uint32_t)cols)) {
        data_seed = state; /* types that we only read: blocks of random bits with sane scales */
        uint8_t *blocks = data_weights(type, (uint32_t)rows, (uint32_t)cols, DATA_NORMAL);
        packed = mem_alloc(rows * row_bytes);
        if (!packed)
            exit(1);
        memcpy(packed, blocks, rows * row_bytes);
        free(blocks);
    }
    gguf_build_tensor(b, name, packed ? type : TYPE_F32, dims, shape, packed ? packed : x);
    mem_free(packed);
    mem_free(x);
}

static void read_shape(const struct model_variant *v, struct model_shape *out)
{
    struct gguf_builder b = {0};
    struct gguf *g;
    struct error err = {0};
    size_t size;
    build_keys(&b, v);
    gguf_build_tensor(&b, "token_embd.weight", TYPE_F32, 2, (uint64_t[]){v->width ? v->width : 64, BUILT_VOCABULARY},
                      NULL);
    void *bytes = gguf_build_finish(&b, &size);
    if (gguf_open_memory(bytes, size, v->name, &g, &err) || shape_read(g, out, &err)) {
        fprintf(stderr, "model_builder: %s: %s\n", v->name, err.text);
        exit(1);
    }
    gguf_close(g);
    mem_free(bytes);
}

void model_build_into(struct gguf_builder *b, const struct model_variant *v, uint32_t type)
{
    struct model_shape *s = mem_zalloc(1, sizeof *s);
    if (!s)
        exit(1);
    read_shape(v, s);
    const struct architecture *a = s->arch;
    build_keys(b, v);
    uint64_t globals = a->globals | v->globals | (v->tied ? 0 : a->optional_globals & SLOT(OUTPUT));
    if (!v->bare)
        globals |= a->optional_globals & SLOT(OUTPUT_BIAS);
    for (int slot = 0; slot < GLOBAL_SLOTS; slot++)
        if (globals & SLOT(slot))
            build_tensor(b, global_slots[slot].name, &global_slots[slot], s, 0, type);
    for (uint32_t block = 0; block < s->blocks; block++) {
        bool mixture = s->block[block].mixture;
        uint64_t set = a->attention | (mixture ? a->experts : a->dense) | (v->bare ? 0 : a->optional);
        for (int i = 0; i < 2; i++)
            set |= a->either[i][v->second_side[i]];
        if (mixture)
            set &= ~(SLOT(FFN_GATE_BIAS) | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS));
        else
            set &= ~(SLOT(ROUTER_CHOICE_BIAS) | SLOT(SHARED_GATE) | SLOT(SHARED_UP) | SLOT(SHARED_DOWN));
        for (int slot = 0; slot < SLOTS; slot++) {
            char name[128];
            snprintf(name, sizeof name, "blk.%u.%s", block, slots[slot].name);
            if (set & SLOT(slot))
                build_tensor(b, name, &slots[slot], s, block, type);
        }
    }
    mem_free(s);
}

void *model_build(const struct model_variant *v, uint32_t type, size_t *size)
{
    struct gguf_builder b = {0};
    model_build_into(&b, v, type);
    return gguf_build_finish(&b, size);
}
