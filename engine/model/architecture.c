/* The table of architectures. Facts from each family's paper or published model code, and the names that GGUF gives
 * their tensors. Owns nothing; any thread. */
#include "engine/model/architecture.h"

#include <stdio.h>
#include <string.h>

const struct slot_info slots[SLOTS] = {
    [ATTN_NORM] = {"attn_norm.weight", SLOT_VECTOR, DIM_WIDTH},
    [ATTN_NORM_BIAS] = {"attn_norm.bias", SLOT_VECTOR, DIM_WIDTH},
    [ATTN_Q] = {"attn_q.weight", SLOT_MATRIX, DIM_WIDTH, DIM_Q},
    [ATTN_K] = {"attn_k.weight", SLOT_MATRIX, DIM_WIDTH, DIM_K},
    [ATTN_V] = {"attn_v.weight", SLOT_MATRIX, DIM_WIDTH, DIM_V},
    [ATTN_Q_BIAS] = {"attn_q.bias", SLOT_VECTOR, DIM_Q},
    [ATTN_K_BIAS] = {"attn_k.bias", SLOT_VECTOR, DIM_K},
    [ATTN_V_BIAS] = {"attn_v.bias", SLOT_VECTOR, DIM_V},
    [ATTN_QKV] = {"attn_qkv.weight", SLOT_MATRIX, DIM_WIDTH, DIM_QKV},
    [ATTN_QKV_BIAS] = {"attn_qkv.bias", SLOT_VECTOR, DIM_QKV},
    [ATTN_Q_NORM] = {"attn_q_norm.weight", SLOT_VECTOR, DIM_K_DIM},
    [ATTN_K_NORM] = {"attn_k_norm.weight", SLOT_VECTOR, DIM_K_DIM},
    [ATTN_Q_NORM_WIDE] = {"attn_q_norm.weight", SLOT_VECTOR, DIM_Q},
    [ATTN_K_NORM_WIDE] = {"attn_k_norm.weight", SLOT_VECTOR, DIM_K},
    [ATTN_OUT] = {"attn_output.weight", SLOT_MATRIX, DIM_O, DIM_WIDTH},
    [ATTN_OUT_BIAS] = {"attn_output.bias", SLOT_VECTOR, DIM_WIDTH},
    [ATTN_SINKS] = {"attn_sinks.weight", SLOT_VECTOR, DIM_HEADS},
    [ATTN_POST_NORM] = {"post_attention_norm.weight", SLOT_VECTOR, DIM_WIDTH},
    [ATTN_Q_A] = {"attn_q_a.weight", SLOT_MATRIX, DIM_WIDTH, DIM_Q_RANK},
    [ATTN_Q_A_NORM] = {"attn_q_a_norm.weight", SLOT_VECTOR, DIM_Q_RANK},
    [ATTN_Q_B] = {"attn_q_b.weight", SLOT_MATRIX, DIM_Q_RANK, DIM_Q},
    [ATTN_KV_A] = {"attn_kv_a_mqa.weight", SLOT_MATRIX, DIM_WIDTH, DIM_KV_A},
    [ATTN_KV_A_NORM] = {"attn_kv_a_norm.weight", SLOT_VECTOR, DIM_KV_RANK},
    [ATTN_KV_B] = {"attn_kv_b.weight", SLOT_MATRIX, DIM_KV_RANK, DIM_KV_B},
    [ATTN_K_B] = {"attn_k_b.weight", SLOT_STACK, DIM_NOPE, DIM_KV_RANK, DIM_HEADS},
    [ATTN_V_B] = {"attn_v_b.weight", SLOT_STACK, DIM_KV_RANK, DIM_V_DIM, DIM_HEADS},
    [FFN_NORM] = {"ffn_norm.weight", SLOT_VECTOR, DIM_WIDTH},
    [FFN_NORM_BIAS] = {"ffn_norm.bias", SLOT_VECTOR, DIM_WIDTH},
    [FFN_NORM_AFTER_ATTN] = {"post_attention_norm.weight", SLOT_VECTOR, DIM_WIDTH},
    [FFN_GATE] = {"ffn_gate.weight", SLOT_MATRIX, DIM_WIDTH, DIM_FF},
    [FFN_UP] = {"ffn_up.weight", SLOT_MATRIX, DIM_WIDTH, DIM_FF},
    [FFN_DOWN] = {"ffn_down.weight", SLOT_MATRIX, DIM_FF, DIM_WIDTH},
    [FFN_GATE_BIAS] = {"ffn_gate.bias", SLOT_VECTOR, DIM_FF},
    [FFN_UP_BIAS] = {"ffn_up.bias", SLOT_VECTOR, DIM_FF},
    [FFN_DOWN_BIAS] = {"ffn_down.bias", SLOT_VECTOR, DIM_WIDTH},
    [FFN_GATE_UP] = {"ffn_up.weight", SLOT_MATRIX, DIM_WIDTH, DIM_2FF},
    [FFN_POST_NORM] = {"post_ffw_norm.weight", SLOT_VECTOR, DIM_WIDTH},
    [ROUTER] = {"ffn_gate_inp.weight", SLOT_MATRIX, DIM_WIDTH, DIM_EXPERTS},
    [ROUTER_BIAS] = {"ffn_gate_inp.bias", SLOT_VECTOR, DIM_EXPERTS},
    [ROUTER_CHOICE_BIAS] = {"exp_probs_b.bias", SLOT_VECTOR, DIM_EXPERTS},
    [EXPERTS_GATE] = {"ffn_gate_exps.weight", SLOT_STACK, DIM_WIDTH, DIM_FF_EXPERT, DIM_EXPERTS},
    [EXPERTS_UP] = {"ffn_up_exps.weight", SLOT_STACK, DIM_WIDTH, DIM_FF_EXPERT, DIM_EXPERTS},
    [EXPERTS_DOWN] = {"ffn_down_exps.weight", SLOT_STACK, DIM_FF_EXPERT, DIM_WIDTH, DIM_EXPERTS},
    [EXPERTS_GATE_BIAS] = {"ffn_gate_exps.bias", SLOT_VECTORS, DIM_FF_EXPERT, DIM_EXPERTS},
    [EXPERTS_UP_BIAS] = {"ffn_up_exps.bias", SLOT_VECTORS, DIM_FF_EXPERT, DIM_EXPERTS},
    [EXPERTS_DOWN_BIAS] = {"ffn_down_exps.bias", SLOT_VECTORS, DIM_WIDTH, DIM_EXPERTS},
    [SHARED_GATE] = {"ffn_gate_shexp.weight", SLOT_MATRIX, DIM_WIDTH, DIM_FF_SHARED},
    [SHARED_UP] = {"ffn_up_shexp.weight", SLOT_MATRIX, DIM_WIDTH, DIM_FF_SHARED},
    [SHARED_DOWN] = {"ffn_down_shexp.weight", SLOT_MATRIX, DIM_FF_SHARED, DIM_WIDTH},
    [SHARED_ROUTER] = {"ffn_gate_inp_shexp.weight", SLOT_MATRIX, DIM_WIDTH, DIM_ONE},
};

const struct slot_info global_slots[GLOBAL_SLOTS] = {
    [TOKEN_EMBEDDING] = {"token_embd.weight", SLOT_MATRIX, DIM_WIDTH, DIM_VOCABULARY},
    [POSITION_EMBEDDING] = {"position_embd.weight", SLOT_MATRIX, DIM_WIDTH, DIM_CONTEXT},
    [OUTPUT_NORM] = {"output_norm.weight", SLOT_VECTOR, DIM_WIDTH},
    [OUTPUT_NORM_BIAS] = {"output_norm.bias", SLOT_VECTOR, DIM_WIDTH},
    [OUTPUT] = {"output.weight", SLOT_MATRIX, DIM_WIDTH, DIM_VOCABULARY},
    [OUTPUT_BIAS] = {"output.bias", SLOT_VECTOR, DIM_VOCABULARY},
    [ROPE_FREQS] = {"rope_freqs.weight", SLOT_VECTOR, DIM_HALF_ROTARY},
    [ROPE_LONG] = {"rope_factors_long.weight", SLOT_VECTOR, DIM_HALF_ROTARY},
    [ROPE_SHORT] = {"rope_factors_short.weight", SLOT_VECTOR, DIM_HALF_ROTARY},
};

/* Common sets, so that a row names what is special about its family. */
#define QKV (SLOT(ATTN_Q) | SLOT(ATTN_K) | SLOT(ATTN_V))
#define QKV_BIASES (SLOT(ATTN_Q_BIAS) | SLOT(ATTN_K_BIAS) | SLOT(ATTN_V_BIAS))
#define FUSED_QKV SLOT(ATTN_QKV)
#define PRE_NORM SLOT(ATTN_NORM)
#define OUT SLOT(ATTN_OUT)
#define QK_NORM (SLOT(ATTN_Q_NORM) | SLOT(ATTN_K_NORM))
#define POST_NORMS (SLOT(ATTN_POST_NORM) | SLOT(FFN_POST_NORM))
#define GATED (SLOT(FFN_GATE) | SLOT(FFN_UP) | SLOT(FFN_DOWN))
#define PLAIN (SLOT(FFN_UP) | SLOT(FFN_DOWN))
#define FFN_BIASES (SLOT(FFN_GATE_BIAS) | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS))
#define MIXTURE (SLOT(FFN_NORM) | SLOT(ROUTER) | SLOT(EXPERTS_GATE) | SLOT(EXPERTS_UP) | SLOT(EXPERTS_DOWN))
#define SHARED (SLOT(SHARED_GATE) | SLOT(SHARED_UP) | SLOT(SHARED_DOWN))
#define EMBEDDING_AND_NORM (SLOT(TOKEN_EMBEDDING) | SLOT(OUTPUT_NORM))
#define HEAD SLOT(OUTPUT) /* optional: without it the head is the embedding */

/* clang-format off */
static const struct architecture table[] = {
    {
        .name = "llama", .covers = "Llama 1-3.3, Mistral, Mixtral, TinyLlama, Yi, SmolLM, DeepSeek LLM and Coder",
        .positions = ROPE_PAIRS,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED, .experts = MIXTURE,
        .optional = QKV_BIASES | SLOT(ATTN_OUT_BIAS) | FFN_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD | SLOT(ROPE_FREQS) | SLOT(ROPE_LONG) | SLOT(ROPE_SHORT),
        .gating = GATING_SOFTMAX, .normalise_experts = true,
    },
    {
        .name = "qwen2", .covers = "Qwen2, Qwen2.5, QwQ",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .optional = QKV_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD | SLOT(OUTPUT_BIAS),
    },
    {
        .name = "qwen2moe", .covers = "Qwen1.5-MoE, Qwen2-57B-A14B",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | OUT, .experts = MIXTURE | SHARED | SLOT(SHARED_ROUTER),
        .optional = QKV_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .gating = GATING_SOFTMAX, .ff_of_experts = true,
    },
    {
        .name = "qwen3", .covers = "Qwen3",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | QK_NORM | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "qwen3moe", .covers = "Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | QK_NORM | OUT, .experts = MIXTURE,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .gating = GATING_SOFTMAX, .normalise_experts = true, .ff_of_experts = true,
    },
    {
        .name = "gemma", .covers = "Gemma 1, CodeGemma",
        .positions = ROPE_HALVES, .activation = ACT_GELU, .scaled_embedding = true,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "gemma2", .covers = "Gemma 2",
        .positions = ROPE_HALVES, .activation = ACT_GELU, .scaled_embedding = true,
        .attention = PRE_NORM | QKV | OUT | SLOT(ATTN_POST_NORM),
        .dense = SLOT(FFN_NORM) | GATED | SLOT(FFN_POST_NORM),
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .attention_softcap = 50, .final_softcap = 30,
        .windows = true, .window = 4096, .window_pattern = 2, .wide_scale_blocks = 46,
    },
    {
        .name = "gemma3", .covers = "Gemma 3 (text)",
        .positions = ROPE_HALVES, .activation = ACT_GELU, .scaled_embedding = true,
        .attention = PRE_NORM | QKV | QK_NORM | OUT | SLOT(ATTN_POST_NORM),
        .dense = SLOT(FFN_NORM) | GATED | SLOT(FFN_POST_NORM),
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .windows = true, .window = 1024, .window_pattern = 6,
        .local_rope_base = 10000, .local_rope_unscaled = true, .wide_scale_blocks = 62,
    },
    {
        .name = "phi2", .covers = "Phi-1, Phi-1.5, Phi-2",
        .norm = NORM_LAYER, .positions = ROPE_HALVES, .activation = ACT_GELU, .parallel = true,
        .attention = PRE_NORM | SLOT(ATTN_NORM_BIAS) | OUT | SLOT(ATTN_OUT_BIAS),
        .either = {{QKV | QKV_BIASES, FUSED_QKV | SLOT(ATTN_QKV_BIAS)}},
        .dense = PLAIN | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS),
        .globals = EMBEDDING_AND_NORM | SLOT(OUTPUT_NORM_BIAS) | SLOT(OUTPUT) | SLOT(OUTPUT_BIAS),
    },
    {
        .name = "phi3", .covers = "Phi-3, Phi-3.5, Phi-4",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | OUT, .either = {{FUSED_QKV, QKV}},
        .dense = SLOT(FFN_NORM) | SLOT(FFN_GATE_UP) | SLOT(FFN_DOWN),
        .optional = QKV_BIASES | SLOT(ATTN_OUT_BIAS),
        .globals = EMBEDDING_AND_NORM,
        .optional_globals = HEAD | SLOT(OUTPUT_BIAS) | SLOT(ROPE_LONG) | SLOT(ROPE_SHORT),
        .windows = true,
    },
    {
        .name = "gpt2", .covers = "GPT-2, DistilGPT-2",
        .norm = NORM_LAYER, .positions = POSITIONS_LEARNED, .activation = ACT_GELU,
        .attention = PRE_NORM | SLOT(ATTN_NORM_BIAS) | FUSED_QKV | SLOT(ATTN_QKV_BIAS) | OUT | SLOT(ATTN_OUT_BIAS),
        .dense = SLOT(FFN_NORM) | SLOT(FFN_NORM_BIAS) | PLAIN | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS),
        .globals = EMBEDDING_AND_NORM | SLOT(OUTPUT_NORM_BIAS) | SLOT(POSITION_EMBEDDING), .optional_globals = HEAD,
    },
    {
        .name = "starcoder2", .covers = "StarCoder2",
        .norm = NORM_LAYER, .positions = ROPE_HALVES, .activation = ACT_GELU,
        .attention = PRE_NORM | SLOT(ATTN_NORM_BIAS) | QKV | OUT,
        .dense = SLOT(FFN_NORM) | SLOT(FFN_NORM_BIAS) | PLAIN,
        .optional = QKV_BIASES | SLOT(ATTN_OUT_BIAS) | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS),
        .globals = EMBEDDING_AND_NORM | SLOT(OUTPUT_NORM_BIAS), .optional_globals = HEAD,
    },
    {
        .name = "olmo2", .covers = "OLMo 2, OLMo 3",
        .positions = ROPE_HALVES,
        .attention = QKV | SLOT(ATTN_Q_NORM_WIDE) | SLOT(ATTN_K_NORM_WIDE) | OUT | SLOT(ATTN_POST_NORM),
        .dense = GATED | SLOT(FFN_POST_NORM),
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .windows = true, .window_pattern = 4, .local_rope_unscaled = true,
    },
    {
        .name = "granite", .covers = "Granite 3 (dense)",
        .positions = ROPE_PAIRS, .granite_scales = true, .rope_switch = true,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .optional = QKV_BIASES | SLOT(ATTN_OUT_BIAS) | FFN_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD | SLOT(ROPE_FREQS),
    },
    {
        .name = "granitemoe", .covers = "Granite 3 (mixture of experts)",
        .positions = ROPE_PAIRS, .granite_scales = true, .rope_switch = true,
        .attention = PRE_NORM | QKV | OUT, .experts = MIXTURE,
        .optional = QKV_BIASES | SLOT(ATTN_OUT_BIAS) | SHARED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD | SLOT(ROPE_FREQS),
        .gating = GATING_SOFTMAX, .normalise_experts = true,
    },
    {
        .name = "glm4", .covers = "GLM-4 (0414), GLM-Z1",
        .positions = ROPE_PAIRS,
        .attention = PRE_NORM | QKV | OUT | SLOT(ATTN_POST_NORM),
        .dense = SLOT(FFN_NORM) | SLOT(FFN_GATE_UP) | SLOT(FFN_DOWN) | SLOT(FFN_POST_NORM),
        .optional = QKV_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "glm4moe", .covers = "GLM-4.5, GLM-4.5-Air, GLM-4.6",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM_AFTER_ATTN) | GATED,
        .experts = SLOT(FFN_NORM_AFTER_ATTN) | SLOT(ROUTER) | SLOT(EXPERTS_GATE) | SLOT(EXPERTS_UP) | SLOT(EXPERTS_DOWN) |
                   SHARED,
        .optional = QKV_BIASES | QK_NORM | SLOT(ROUTER_CHOICE_BIAS),
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .gating = GATING_SIGMOID,
    },
    {
        .name = "seed_oss", .covers = "Seed-OSS",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM_AFTER_ATTN) | GATED,
        .optional = QKV_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "smollm3", .covers = "SmolLM3",
        .positions = ROPE_PAIRS, .no_rope_every = 4,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "command-r", .covers = "Command R, Aya",
        .norm = NORM_LAYER, .positions = ROPE_PAIRS, .parallel = true, .logit_factor = true,
        .attention = PRE_NORM | QKV | OUT, .dense = GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "cohere2", .covers = "Command R7B, Command A",
        .norm = NORM_LAYER, .positions = ROPE_PAIRS, .parallel = true, .logit_factor = true,
        .attention = PRE_NORM | QKV | OUT, .dense = GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .windows = true, .window = 4096, .window_pattern = 4, .rope_local_only = true,
    },
    {
        .name = "internlm2", .covers = "InternLM2, InternLM2.5, InternLM3",
        .positions = ROPE_PAIRS,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "exaone", .covers = "EXAONE 3",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD | SLOT(ROPE_FREQS),
    },
    {
        .name = "ernie4_5", .covers = "ERNIE 4.5 (dense)",
        .positions = ROPE_PAIRS,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED,
        .optional = QKV_BIASES,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
    },
    {
        .name = "orion", .covers = "Orion",
        .norm = NORM_LAYER, .positions = ROPE_HALVES,
        .attention = PRE_NORM | SLOT(ATTN_NORM_BIAS) | QKV | OUT,
        .dense = SLOT(FFN_NORM) | SLOT(FFN_NORM_BIAS) | GATED,
        .globals = EMBEDDING_AND_NORM | SLOT(OUTPUT_NORM_BIAS), .optional_globals = HEAD,
    },
    {
        .name = "starcoder", .covers = "StarCoder, SantaCoder",
        .norm = NORM_LAYER, .positions = POSITIONS_LEARNED, .activation = ACT_GELU,
        .attention = PRE_NORM | SLOT(ATTN_NORM_BIAS) | FUSED_QKV | SLOT(ATTN_QKV_BIAS) | OUT | SLOT(ATTN_OUT_BIAS),
        .dense = SLOT(FFN_NORM) | SLOT(FFN_NORM_BIAS) | PLAIN | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS),
        .globals = EMBEDDING_AND_NORM | SLOT(OUTPUT_NORM_BIAS) | SLOT(POSITION_EMBEDDING), .optional_globals = HEAD,
    },
    {
        .name = "olmoe", .covers = "OLMoE",
        .positions = ROPE_HALVES,
        .attention = PRE_NORM | QKV | SLOT(ATTN_Q_NORM_WIDE) | SLOT(ATTN_K_NORM_WIDE) | OUT, .experts = MIXTURE,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .gating = GATING_SOFTMAX,
    },
    {
        .name = "deepseek", .covers = "DeepSeek-MoE 16B",
        .positions = ROPE_PAIRS,
        .attention = PRE_NORM | QKV | OUT, .dense = SLOT(FFN_NORM) | GATED, .experts = MIXTURE | SHARED,
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .gating = GATING_SOFTMAX,
    },
    {
        .name = "gpt-oss", .covers = "gpt-oss-20b, gpt-oss-120b",
        .positions = ROPE_HALVES, .activation = ACT_SWIGLU_CLAMPED,
        .attention = PRE_NORM | QKV | QKV_BIASES | OUT | SLOT(ATTN_OUT_BIAS) | SLOT(ATTN_SINKS),
        .experts = SLOT(FFN_NORM_AFTER_ATTN) | SLOT(ROUTER) | SLOT(ROUTER_BIAS) | SLOT(EXPERTS_GATE) |
                   SLOT(EXPERTS_UP) | SLOT(EXPERTS_DOWN) | SLOT(EXPERTS_GATE_BIAS) | SLOT(EXPERTS_UP_BIAS) |
                   SLOT(EXPERTS_DOWN_BIAS),
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .windows = true, .window = 128, .window_pattern = 2, .gating = GATING_SOFTMAX_OF_CHOSEN,
    },
    {
        .name = "deepseek2", .covers = "DeepSeek V2, V2-Lite, V2.5, V3, R1",
        .positions = ROPE_PAIRS, .latent = true,
        .attention = PRE_NORM | SLOT(ATTN_KV_A) | SLOT(ATTN_KV_A_NORM) | OUT,
        .either = {{SLOT(ATTN_Q), SLOT(ATTN_Q_A) | SLOT(ATTN_Q_A_NORM) | SLOT(ATTN_Q_B)},
                   {SLOT(ATTN_K_B) | SLOT(ATTN_V_B), SLOT(ATTN_KV_B)}},
        .dense = SLOT(FFN_NORM) | GATED, .experts = MIXTURE | SHARED, .optional = SLOT(ROUTER_CHOICE_BIAS),
        .globals = EMBEDDING_AND_NORM, .optional_globals = HEAD,
        .gating = GATING_SOFTMAX,
    },
};
/* clang-format on */

size_t architecture_count(void)
{
    return sizeof table / sizeof *table;
}

const struct architecture *architecture_at(size_t i)
{
    return &table[i];
}

const struct architecture *architecture_find(const char *name, size_t size)
{
    for (size_t i = 0; i < architecture_count(); i++)
        if (strlen(table[i].name) == size && !memcmp(table[i].name, name, size))
            return &table[i];
    return NULL;
}

uint32_t edit_distance(const char *a, const char *b)
{
    uint32_t row[64];
    size_t la = strnlen(a, 63), lb = strnlen(b, 63);
    for (size_t j = 0; j <= lb; j++)
        row[j] = (uint32_t)j;
    for (size_t i = 1; i <= la; i++) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= lb; j++) {
            uint32_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

void architecture_nearest(const char *name, char *text, size_t size)
{
    bool used[sizeof table / sizeof *table] = {false};
    size_t at = 0;
    text[0] = 0;
    for (int round = 0; round < 3; round++) {
        size_t best = 0;
        uint32_t best_distance = UINT32_MAX;
        for (size_t i = 0; i < architecture_count(); i++) {
            uint32_t d = used[i] ? UINT32_MAX : edit_distance(name, table[i].name);
            if (d < best_distance) {
                best = i;
                best_distance = d;
            }
        }
        used[best] = true;
        int n = snprintf(text + at, size - at, "%s%s", round ? ", " : "", table[best].name);
        if (n < 0 || (size_t)n >= size - at)
            break;
        at += (size_t)n;
    }
}
