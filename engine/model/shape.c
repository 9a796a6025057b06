/* Metadata to numbers. Every number is bounded before anyone multiplies it. Owns nothing; any thread. */
#include "engine/model/shape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/kernels/maths.h"
#include "engine/model/reader.h"

static int read_architecture(const struct gguf *g, const struct architecture **out, struct error *err)
{
    struct gguf_text text;
    int got = gguf_get_text(g, "general.architecture", &text, err);
    if (got < 0)
        return got;
    if (got == 0)
        return error_set(err, ERR_FORMAT, "%s: metadata lacks general.architecture; is it a model?", gguf_path(g));
    const struct architecture *a = architecture_find(text.data, text.size);
    if (!a) {
        char name[48], nearest[96];
        snprintf(name, sizeof name, "%.*s", (int)(text.size < 40 ? text.size : 40), text.data);
        for (char *c = name; *c; c++)
            if (*c < ' ' || *c > '~')
                *c = '?';
        architecture_nearest(name, nearest, sizeof nearest);
        return error_set(err, ERR_UNSUPPORTED, "%s: architecture \"%s\" is not supported; the nearest that are: %s",
                         gguf_path(g), name, nearest);
    }
    *out = a;
    return 0;
}

static int read_sizes(struct reader *r, struct model_shape *s)
{
    int got;
    if ((got = reader_need_u32(r, "block_count", 1, BLOCKS_MAX, &s->blocks)) < 0 ||
        (got = reader_need_u32(r, "embedding_length", 1, WIDTH_MAX, &s->width)) < 0 ||
        (got = reader_need_u32(r, "context_length", 1, CONTEXT_MAX, &s->context)) < 0)
        return got;
    if ((got = reader_u32(r, "nextn_predict_layers", 0, s->blocks - 1, &s->extra_blocks)) < 0)
        return got;
    s->blocks -= s->extra_blocks;
    const struct gguf_tensor *embedding = gguf_tensor_find(r->g, global_slots[TOKEN_EMBEDDING].name);
    if (!embedding)
        return error_set(r->err, ERR_FORMAT, "%s: tensor token_embd.weight is missing; is it a vocabulary-only file?",
                         gguf_path(r->g));
    if (embedding->shape[1] < 1 || embedding->shape[1] > VOCABULARY_MAX)
        return error_set(r->err, ERR_FORMAT, "%s: token_embd.weight has %llu rows, but a vocabulary has 1 to %u",
                         gguf_path(r->g), (unsigned long long)embedding->shape[1], VOCABULARY_MAX);
    s->vocabulary = (uint32_t)embedding->shape[1];

    const char *eps = s->arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    if ((got = reader_f32(r, eps, 0, 1, &s->eps)) < 0)
        return got;
    return got ? 0
               : error_set(r->err, ERR_FORMAT, "%s: metadata lacks %s; convert the model again", gguf_path(r->g),
                           r->key);
}

static int read_attention(struct reader *r, struct model_shape *s)
{
    const size_t stride = sizeof s->block[0];
    int got = reader_per_block(r, "attention.head_count", 1, HEADS_MAX, s->blocks, &s->block[0].heads, stride);
    if (got == 0)
        return error_set(r->err, ERR_FORMAT, "%s: metadata lacks %s; convert the model again", gguf_path(r->g), r->key);
    if (got < 0)
        return got;
    for (uint32_t b = 0; b < s->blocks; b++)
        s->block[b].kv_heads = s->block[b].heads;
    if ((got = reader_per_block(r, "attention.head_count_kv", 1, HEADS_MAX, s->blocks, &s->block[0].kv_heads, stride)) <
        0)
        return got;
    for (uint32_t b = 0; b < s->blocks; b++)
        if (s->block[b].heads % s->block[b].kv_heads)
            return error_set(r->err, ERR_FORMAT, "%s: block %u has %u heads over %u kv heads, which does not divide",
                             gguf_path(r->g), b, s->block[b].heads, s->block[b].kv_heads);

    int has_k = reader_u32(r, "attention.key_length", 1, HEAD_DIM_MAX, &s->k_dim);
    int has_v = has_k < 0 ? has_k : reader_u32(r, "attention.value_length", 1, HEAD_DIM_MAX, &s->v_dim);
    if (has_v < 0)
        return has_v;
    if ((!has_k || !has_v) && s->width % s->block[0].heads)
        return error_set(r->err, ERR_FORMAT,
                         "%s: %u heads do not divide a width of %u, and %s.attention.key_length is absent",
                         gguf_path(r->g), s->block[0].heads, s->width, r->arch);
    uint32_t natural = s->width / s->block[0].heads;
    if ((!has_k && natural > HEAD_DIM_MAX) || (!has_v && natural > HEAD_DIM_MAX))
        return error_set(r->err, ERR_FORMAT, "%s: a head of %u values is over the limit of %u", gguf_path(r->g),
                         natural, HEAD_DIM_MAX);
    if (!has_k)
        s->k_dim = natural;
    if (!has_v)
        s->v_dim = natural;

    if (s->arch->latent) {
        uint32_t rank = 0;
        if ((got = reader_need_u32(r, "attention.kv_lora_rank", 1, WIDTH_MAX, &s->kv_rank)) < 0 ||
            (got = reader_u32(r, "attention.q_lora_rank", 0, WIDTH_MAX, &rank)) < 0)
            return got;
        s->q_rank = rank; /* 0: the lite models project queries at once */
        if ((got = reader_u32(r, "attention.key_length_mla", 1, HEAD_DIM_MAX, &s->k_dim)) < 0 ||
            (got = reader_u32(r, "attention.value_length_mla", 1, HEAD_DIM_MAX, &s->v_dim)) < 0)
            return got;
        for (uint32_t b = 0; b < s->blocks; b++)
            s->block[b].kv_heads = s->block[b].heads; /* of the uncompressed form */
    }

    s->rotary = s->k_dim;
    if ((got = reader_u32(r, "rope.dimension_count", 2, HEAD_DIM_MAX, &s->rotary)) < 0)
        return got;
    if (s->arch->positions != POSITIONS_LEARNED &&
        (s->rotary > s->k_dim || s->rotary % 2 || (s->arch->latent && s->rotary == s->k_dim)))
        return error_set(r->err, ERR_FORMAT, "%s: %u of a head's %u values cannot turn in pairs (%s)", gguf_path(r->g),
                         s->rotary, s->k_dim, r->key);

    s->attention_softcap = s->arch->attention_softcap;
    s->final_softcap = s->arch->final_softcap;
    if ((got = reader_f32(r, "attn_logit_softcapping", 0, 1e6, &s->attention_softcap)) < 0 ||
        (got = reader_f32(r, "final_logit_softcapping", 0, 1e6, &s->final_softcap)) < 0)
        return got;
    bool wide = s->arch->wide_scale_blocks && s->arch->wide_scale_blocks == s->blocks;
    s->attention_scale = 1.0f / sqrtf((float)(wide ? s->width / s->block[0].heads : s->k_dim));
    return 0;
}

static int read_scales(struct reader *r, struct model_shape *s)
{
    int got;
    s->embedding_scale = s->arch->scaled_embedding ? sqrtf((float)s->width) : 1.0f;
    s->residual_scale = s->logit_scale = 1.0f;
    if (s->arch->logit_factor) {
        got = reader_f32(r, "logit_scale", 0, 1e6, &s->logit_scale);
        s->logit_scale = s->logit_scale == 0 ? 1 : s->logit_scale;
        return got < 0 ? got : 0;
    }
    if (!s->arch->granite_scales)
        return 0;
    float divisor = 0, scale = 0;
    if ((got = reader_f32(r, "embedding_scale", 0, 1e6, &s->embedding_scale)) < 0 ||
        (got = reader_f32(r, "residual_scale", 0, 1e6, &s->residual_scale)) < 0 ||
        (got = reader_f32(r, "logit_scale", 0, 1e6, &divisor)) < 0 ||
        (got = reader_f32(r, "attention.scale", 0, 1e6, &scale)) < 0)
        return got;
    if (divisor > 0)
        s->logit_scale = 1.0f / divisor;
    if (scale > 0)
        s->attention_scale = scale;
    if (s->embedding_scale == 0)
        s->embedding_scale = 1;
    if (s->residual_scale == 0)
        s->residual_scale = 1;
    return 0;
}

static int read_experts(struct reader *r, struct model_shape *s)
{
    int got;
    uint32_t ff_used = 1, leading = 0, shared_count = 0, func = 0;
    s->groups = s->groups_used = 1;
    s->gating = s->arch->gating;
    s->normalise_experts = s->arch->normalise_experts;
    s->expert_scale = 1;
    if ((got = reader_u32(r, "expert_count", 0, EXPERTS_MAX, &s->experts)) < 0)
        return got;
    if (s->experts && !s->arch->experts)
        return error_set(r->err, ERR_UNSUPPORTED, "%s: %s with experts is not supported", gguf_path(r->g), r->arch);
    if (!s->experts) {
        if (!s->arch->dense)
            return error_set(r->err, ERR_FORMAT, "%s: metadata lacks %s, which %s needs", gguf_path(r->g), r->key,
                             r->arch);
        return reader_per_block(r, "feed_forward_length", 1, FEED_FORWARD_MAX, s->blocks, &s->block[0].feed_forward,
                                sizeof s->block[0]) > 0
                   ? 0
                   : error_set(r->err, ERR_FORMAT, "%s: metadata lacks a sensible %s", gguf_path(r->g), r->key);
    }
    if ((got = reader_need_u32(r, "expert_used_count", 1, EXPERTS_USED_MAX, &s->experts_used)) < 0)
        return got;
    if (s->experts_used > s->experts)
        return error_set(r->err, ERR_FORMAT, "%s: %u of %u experts cannot be used", gguf_path(r->g), s->experts_used,
                         s->experts);
    if ((got = reader_u32(r, "leading_dense_block_count", 0, BLOCKS_MAX, &leading)) < 0)
        return got;
    if (!s->arch->dense)
        leading = 0;
    got = reader_per_block(r, "feed_forward_length", 0, FEED_FORWARD_MAX, s->blocks, &s->block[0].feed_forward,
                           sizeof s->block[0]);
    if (got < 0)
        return got;
    uint32_t ff = got ? s->block[0].feed_forward : 0;
    if (s->arch->ff_of_experts)
        ff_used = s->experts_used;
    s->feed_forward_expert = ff / ff_used;
    if ((got = reader_u32(r, "expert_feed_forward_length", 1, FEED_FORWARD_MAX, &s->feed_forward_expert)) < 0)
        return got;
    if (!s->feed_forward_expert)
        return error_set(r->err, ERR_FORMAT, "%s: metadata lacks %s; convert the model again", gguf_path(r->g), r->key);
    for (uint32_t b = 0; b < s->blocks; b++) {
        s->block[b].mixture = b >= leading;
        if (s->block[b].mixture)
            s->block[b].feed_forward = 0;
        else if (!s->block[b].feed_forward)
            return error_set(r->err, ERR_FORMAT,
                             "%s: metadata lacks %s.feed_forward_length, which the dense block %u needs",
                             gguf_path(r->g), r->arch, b);
    }
    if ((got = reader_u32(r, "expert_shared_count", 0, EXPERTS_MAX, &shared_count)) < 0)
        return got;
    s->feed_forward_shared = shared_count ? shared_count * s->feed_forward_expert : s->arch->ff_of_experts ? ff : 0;
    if ((got = reader_u32(r, "expert_shared_feed_forward_length", 0, FEED_FORWARD_MAX, &s->feed_forward_shared)) < 0)
        return got;
    if (s->feed_forward_shared > FEED_FORWARD_MAX)
        return error_set(r->err, ERR_FORMAT, "%s: %u shared experts of %u values are over the limit of %u",
                         gguf_path(r->g), shared_count, s->feed_forward_expert, FEED_FORWARD_MAX);

    if ((got = reader_u32(r, "expert_gating_func", 0, 3, &func)) < 0 ||
        (got = reader_f32(r, "expert_weights_scale", 0, 1e6, &s->expert_scale)) < 0 ||
        (got = gguf_get_bool(r->g, reader_key(r, "expert_weights_norm"), &s->normalise_experts, r->err)) < 0 ||
        (got = reader_u32(r, "expert_group_count", 0, EXPERTS_MAX, &s->groups)) < 0 ||
        (got = reader_u32(r, "expert_group_used_count", 0, EXPERTS_MAX, &s->groups_used)) < 0)
        return got;
    if (func)
        s->gating = (enum gating)func;
    if (s->expert_scale == 0)
        s->expert_scale = 1;
    if (s->groups < 2)
        s->groups = s->groups_used = 1;
    if (s->experts % s->groups || s->groups_used < 1 || s->groups_used > s->groups ||
        s->experts / s->groups * s->groups_used < s->experts_used)
        return error_set(r->err, ERR_FORMAT, "%s: %u experts in %u groups of which %u are used cannot give %u experts",
                         gguf_path(r->g), s->experts, s->groups, s->groups_used, s->experts_used);
    return 0;
}

static int read_rope(struct reader *r, struct model_shape *s)
{
    struct rope_shape *p = &s->rope;
    struct gguf_text text;
    int got;
    *p = (struct rope_shape){.base = 10000,
                             .factor = 1,
                             .original_context = s->context,
                             .attention_factor = 1,
                             .beta_fast = 32,
                             .beta_slow = 1,
                             .extrapolation = 1};
    if ((got = reader_double(r, "rope.freq_base", 1, 1e12, &p->base)) < 0 ||
        (got = reader_u32(r, "rope.scaling.original_context_length", 0, CONTEXT_MAX, &p->original_context)) < 0)
        return got;
    if (!p->original_context)
        p->original_context = s->context;
    p->local_base = s->arch->local_rope_base > 0 ? s->arch->local_rope_base : p->base;
    if ((got = reader_double(r, "rope.freq_base_swa", 1, 1e12, &p->local_base)) < 0)
        return got;

    p->scaling = SCALING_LINEAR;
    if ((got = gguf_get_text(r->g, reader_key(r, "rope.scaling.type"), &text, r->err)) < 0)
        return got;
    if (got) {
        static const struct {
            const char *name;
            enum rope_scaling scaling;
        } known[] = {
            {"none", SCALING_NONE}, {"linear", SCALING_LINEAR}, {"yarn", SCALING_YARN}, {"longrope", SCALING_LONGROPE}};
        size_t i = 0, n = sizeof known / sizeof *known;
        while (i < n && (strlen(known[i].name) != text.size || memcmp(known[i].name, text.data, text.size)))
            i++;
        if (i == n)
            return error_set(r->err, ERR_UNSUPPORTED,
                             "%s: %s \"%.*s\" is not supported; none, linear, yarn and longrope are", gguf_path(r->g),
                             r->key, (int)(text.size < 32 ? text.size : 32), text.data);
        p->scaling = known[i].scaling;
    }
    double factor = 0;
    if ((got = reader_double(r, "rope.scaling.factor", 0, 1e6, &factor)) == 0)
        got = reader_double(r, "rope.scale_linear", 0, 1e6, &factor);
    if (got < 0)
        return got;
    if (factor > 0 && p->scaling != SCALING_NONE)
        p->factor = factor;
    if ((got = reader_double(r, "rope.scaling.attn_factor", 0, 1e3, &p->attention_factor)) < 0 ||
        (got = reader_double(r, "rope.scaling.yarn_attn_factor", 0, 1e3, &p->attention_factor)) < 0 ||
        (got = reader_double(r, "rope.scaling.yarn_ext_factor", 0, 1, &p->extrapolation)) < 0 ||
        (got = reader_double(r, "rope.scaling.yarn_beta_fast", 0, 1e4, &p->beta_fast)) < 0 ||
        (got = reader_double(r, "rope.scaling.yarn_beta_slow", 0, 1e4, &p->beta_slow)) < 0 ||
        (got = reader_double(r, "rope.scaling.yarn_log_multiplier", 0, 10, &p->log_multiplier)) < 0)
        return got;
    if (p->attention_factor == 0)
        p->attention_factor = 1;
    bool on = true;
    if (s->arch->rope_switch && (got = gguf_get_bool(r->g, reader_key(r, "rope.scaling.finetuned"), &on, r->err)) < 0)
        return got;
    s->rope_off = !on;

    /* DeepSeek: YaRN's magnitude is moved from the vectors into the scale of the scores. */
    if (s->arch->latent && p->scaling == SCALING_YARN && p->factor > 1) {
        double stretch = maths_log(p->factor);
        double magnitude = p->attention_factor * (1 + p->log_multiplier * stretch);
        s->attention_scale = (float)(magnitude * magnitude / sqrt((double)s->k_dim));
        p->attention_factor = 1 / (1 + 0.1 * stretch);
    }
    return 0;
}

static int read_windows(struct reader *r, struct model_shape *s)
{
    const struct architecture *a = s->arch;
    uint32_t window = a->window, pattern = a->window_pattern;
    uint32_t windowed[BLOCKS_MAX];
    int got, listed = 0;
    if (a->windows) {
        if ((got = reader_u32(r, "attention.sliding_window", 0, CONTEXT_MAX, &window)) < 0)
            return got;
        const struct gguf_key *k = gguf_find(r->g, reader_key(r, "attention.sliding_window_pattern"));
        if (k && k->type == GGUF_ARRAY)
            listed = got =
                reader_per_block(r, "attention.sliding_window_pattern", 0, 1, s->blocks, windowed, sizeof *windowed);
        else
            got = reader_u32(r, "attention.sliding_window_pattern", 0, BLOCKS_MAX, &pattern);
        if (got < 0)
            return got;
    }
    for (uint32_t b = 0; b < s->blocks; b++) {
        bool local = window && (listed ? windowed[b] : !pattern || b % pattern < pattern - 1);
        s->block[b].window = local ? window : 0;
        bool turns = a->positions != POSITIONS_LEARNED && !s->rope_off && !(a->rope_local_only && !local) &&
                     !(a->no_rope_every && (b + 1) % a->no_rope_every == 0);
        bool own = local && (a->local_rope_base > 0 || a->local_rope_unscaled);
        s->block[b].rope = !turns ? ROPE_NOT : own ? ROPE_LOCAL : ROPE_GLOBAL;
    }
    return 0;
}

int shape_read(const struct gguf *g, struct model_shape *out, struct error *err)
{
    struct model_shape *s = out;
    memset(s, 0, sizeof *s);
    int got = read_architecture(g, &s->arch, err);
    if (got < 0)
        return got;
    struct reader r = {.g = g, .arch = s->arch->name, .err = err};
    if ((got = read_sizes(&r, s)) < 0 || (got = read_attention(&r, s)) < 0 || (got = read_scales(&r, s)) < 0 ||
        (got = read_experts(&r, s)) < 0 || (got = read_rope(&r, s)) < 0 || (got = read_windows(&r, s)) < 0)
        return got;
    return 0;
}

uint64_t shape_size(const struct model_shape *s, uint32_t b, enum dim dim)
{
    const struct block_shape *k = &s->block[b];
    uint64_t q = (uint64_t)k->heads * s->k_dim, kk = (uint64_t)k->kv_heads * s->k_dim,
             v = (uint64_t)k->kv_heads * s->v_dim;
    switch (dim) {
    case DIM_ONE:
        return 1;
    case DIM_WIDTH:
        return s->width;
    case DIM_Q:
        return q;
    case DIM_K:
        return kk;
    case DIM_V:
        return v;
    case DIM_QKV:
        return q + kk + v;
    case DIM_O:
        return (uint64_t)k->heads * s->v_dim;
    case DIM_K_DIM:
        return s->k_dim;
    case DIM_V_DIM:
        return s->v_dim;
    case DIM_HEADS:
        return k->heads;
    case DIM_FF:
        return k->feed_forward;
    case DIM_2FF:
        return 2 * (uint64_t)k->feed_forward;
    case DIM_EXPERTS:
        return s->experts;
    case DIM_FF_EXPERT:
        return s->feed_forward_expert;
    case DIM_FF_SHARED:
        return s->feed_forward_shared;
    case DIM_Q_RANK:
        return s->q_rank;
    case DIM_KV_RANK:
        return s->kv_rank;
    case DIM_KV_A:
        return (uint64_t)s->kv_rank + s->rotary;
    case DIM_NOPE:
        return s->k_dim - s->rotary;
    case DIM_KV_B:
        return (uint64_t)k->heads * (s->k_dim - s->rotary + s->v_dim);
    case DIM_VOCABULARY:
        return s->vocabulary;
    case DIM_CONTEXT:
        return s->context;
    case DIM_HALF_ROTARY:
        return s->rotary / 2;
    case DIMS:
        break;
    }
    return 0;
}

struct kv_shape shape_kv(const struct model_shape *s, uint32_t b, enum kv_type type)
{
    const struct block_shape *k = &s->block[b];
    if (k->absorbed)
        return (struct kv_shape){.type = type, .kv_heads = 1, .k_dim = s->kv_rank + s->rotary, .v_dim = s->kv_rank};
    return (struct kv_shape){.type = type, .kv_heads = k->kv_heads, .k_dim = s->k_dim, .v_dim = s->v_dim};
}
