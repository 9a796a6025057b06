/* The recipes and their rules. Pure; owns nothing; any thread. */
#include "engine/quant/recipe.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum mix { MIX_FLOAT, MIX_PLAIN, MIX_SMALL, MIX_MEDIUM, MIX_NONLINEAR };

struct row {
    struct recipe recipe;
    enum mix mix;
};

static const struct row recipes[] = {
    {{"Q8_0", TYPE_Q8_0, 7, "8.5 bits a weight, as good as the original"}, MIX_PLAIN},
    {{"Q6_K", TYPE_Q6_K, 18, "6.6 bits, hardly any loss"}, MIX_PLAIN},
    {{"Q5_K_M", TYPE_Q5_K, 17, "5.7 bits, little loss"}, MIX_MEDIUM},
    {{"Q5_K_S", TYPE_Q5_K, 16, "5.5 bits"}, MIX_PLAIN},
    {{"Q5_1", TYPE_Q5_1, 9, "6.0 bits, simple blocks with a minimum"}, MIX_PLAIN},
    {{"Q5_0", TYPE_Q5_0, 8, "5.5 bits, simple blocks"}, MIX_PLAIN},
    {{"Q4_K_M", TYPE_Q4_K, 15, "4.8 bits, the usual choice"}, MIX_MEDIUM},
    {{"Q4_K_S", TYPE_Q4_K, 14, "4.6 bits"}, MIX_SMALL},
    {{"IQ4_NL", TYPE_IQ4_NL, 25, "4.5 bits, uneven steps"}, MIX_NONLINEAR},
    {{"Q4_1", TYPE_Q4_1, 3, "5.0 bits, simple blocks with a minimum"}, MIX_PLAIN},
    {{"Q4_0", TYPE_Q4_0, 2, "4.5 bits, simple blocks, the fastest"}, MIX_PLAIN},
    {{"F16", TYPE_F16, 1, "16 bits"}, MIX_FLOAT},
    {{"BF16", TYPE_BF16, 32, "16 bits with the range of 32"}, MIX_FLOAT},
    {{"F32", TYPE_F32, 0, "32 bits"}, MIX_FLOAT},
};

const struct recipe *recipe_find(const char *name)
{
    if (!strcasecmp(name, "Q4_K") || !strcasecmp(name, "Q5_K"))
        name = name[1] == '4' ? "Q4_K_M" : "Q5_K_M";
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (!strcasecmp(recipes[i].recipe.name, name))
            return &recipes[i].recipe;
    return NULL;
}

const struct recipe *recipe_at(size_t i)
{
    return i < sizeof recipes / sizeof *recipes ? &recipes[i].recipe : NULL;
}

/* What of the model's shape the rules look at. */
struct shape {
    int64_t blocks, experts, heads_per_kv;
    bool tied;
};

/* An integer of the architecture's own metadata; of an array its first element. */
static int64_t architecture_int(const struct gguf *g, const char *key, int64_t absent)
{
    struct gguf_text architecture = {0};
    if (gguf_get_text(g, "general.architecture", &architecture, NULL) != 1 || architecture.size > 64)
        return absent;
    char name[128];
    snprintf(name, sizeof name, "%.*s.%s", (int)architecture.size, architecture.data, key);
    const struct gguf_key *found = gguf_find(g, name);
    return found && found->count ? gguf_array_int(found, 0) : absent;
}

static struct shape model_shape(const struct gguf *g)
{
    int64_t heads = architecture_int(g, "attention.head_count", 1);
    int64_t kv = architecture_int(g, "attention.head_count_kv", heads);
    return (struct shape){
        .blocks = architecture_int(g, "block_count", 1),
        .experts = architecture_int(g, "expert_count", 0),
        .heads_per_kv = kv > 0 ? heads / kv : 1,
        .tied = !gguf_tensor_find(g, "output.weight"),
    };
}

/* Tensors that are not quantised, whatever their shape: too small to matter or too delicate. */
static bool stays(const struct gguf_tensor *t)
{
    static const char *const delicate[] = {
        "_norm.weight",
        "ffn_gate_inp.weight",
        "position_embd",
        "token_types.weight",
        "attn_rel_b.weight",
        "ssm_conv1d.weight",
        "shortconv.conv.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "time_mix_",
    };
    size_t n = strlen(t->name);
    if (n < 6 || strcmp(t->name + n - 6, "weight") || (t->shape[1] == 1 && t->shape[2] == 1 && t->shape[3] == 1))
        return true;
    for (size_t i = 0; i < sizeof delicate / sizeof *delicate; i++)
        if (strstr(t->name, delicate[i]))
            return true;
    return false;
}

/* Blocks where an M mix spends more bits: the first and the last eighth, and each third one between. */
static bool favoured(int64_t block, int64_t blocks)
{
    return block < blocks / 8 || block >= 7 * blocks / 8 || (block - blocks / 8) % 3 == 2;
}

static uint32_t medium_type(uint32_t type, const char *name, int64_t block, const struct shape *shape)
{
    if (strstr(name, "attn_v.weight") || strstr(name, "ffn_down"))
        return favoured(block, shape->blocks) ? TYPE_Q6_K : type;
    if (strstr(name, "attn_qkv.weight"))
        return type == TYPE_Q4_K ? TYPE_Q5_K : TYPE_Q6_K;
    if (strstr(name, "attn_output.weight") && shape->experts == 8 && type == TYPE_Q4_K)
        return TYPE_Q5_K;
    return type;
}

static uint32_t small_type(uint32_t type, const char *name, int64_t block, const struct shape *shape)
{
    if ((strstr(name, "attn_v.weight") && block < 4) || (strstr(name, "ffn_down") && block < shape->blocks / 8) ||
        (strstr(name, "attn_output.weight") && shape->experts == 8))
        return TYPE_Q5_K;
    return type;
}

static uint32_t nonlinear_type(uint32_t type, const char *name, int64_t block, const struct shape *shape)
{
    if ((strstr(name, "attn_v.weight") && shape->heads_per_kv >= 4) ||
        (strstr(name, "ffn_down") && block < shape->blocks / 8) ||
        (strstr(name, "attn_output.weight") && shape->experts == 8))
        return TYPE_Q5_K;
    return type;
}

static uint32_t mixed_type(const struct row *row, const struct gguf_tensor *t, const struct shape *shape)
{
    uint32_t type = row->recipe.type;
    const char *name = t->name;
    if (!strcmp(name, "output.weight") || (shape->tied && !strcmp(name, "token_embd.weight")))
        return type == TYPE_Q8_0 || t->shape[0] % 256 ? TYPE_Q8_0 : TYPE_Q6_K;
    long block = 0;
    if (sscanf(name, "blk.%ld.", &block) != 1)
        return type;
    if (row->mix == MIX_MEDIUM)
        type = medium_type(type, name, block, shape);
    else if (row->mix == MIX_SMALL)
        type = small_type(type, name, block, shape);
    else if (row->mix == MIX_NONLINEAR)
        type = nonlinear_type(type, name, block, shape);
    if (strstr(name, "attn_v.weight") && shape->blocks == 80 && shape->heads_per_kv > 1 && type == TYPE_Q4_K)
        type = TYPE_Q5_K;
    if ((strstr(name, "attn_v.weight") || strstr(name, "attn_k.weight")) && shape->experts == 8)
        type = TYPE_Q8_0;
    return type;
}

/* A type whose blocks the row can be cut into. */
static uint32_t fitting_type(uint32_t type, uint64_t columns)
{
    if (columns % type_info(type)->block_values == 0)
        return type;
    uint32_t other = type == TYPE_Q4_K ? TYPE_Q5_0 : type == TYPE_Q5_K ? TYPE_Q5_1 : TYPE_Q8_0;
    return columns % 32 == 0 ? other : TYPE_F16;
}

uint32_t recipe_tensor_type(const struct recipe *recipe, const struct gguf *g, const struct gguf_tensor *t)
{
    const struct row *row = recipes;
    while (&row->recipe != recipe)
        row++;
    if (stays(t))
        return t->type;
    if (row->mix == MIX_FLOAT)
        return recipe->type;
    struct shape shape = model_shape(g);
    return fitting_type(mixed_type(row, t, &shape), t->shape[0]);
}
