/* Opening models: what is told of them, and what is refused, in one line, before a weight is read. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/architecture.h"
#include "engine/model/model.h"
#include "tests/engine/model_builder.h"

/* Opens the builder's file; the message is in err. Closes and frees everything; 0 when the model opened. */
static int try_open(struct gguf_builder *b, struct model_info *info, struct error *err)
{
    size_t size;
    struct gguf *g = NULL;
    struct model *m = NULL;
    void *bytes = gguf_build_finish(b, &size);
    *err = (struct error){0};
    int failed = gguf_open_memory(bytes, size, "test.gguf", &g, err);
    if (!failed) {
        failed = model_from_gguf(g, &m, err);
        if (!failed && info)
            *info = *model_info(m);
        if (failed)
            gguf_close(g);
    }
    model_close(m);
    mem_free(bytes);
    CHECK(!failed == !err->text[0]);
    CHECK(!strchr(err->text, '\n'));
    return failed;
}

static void every_variant_opens_and_tells_of_itself(void)
{
    for (size_t i = 0; i < model_variant_count(); i++) {
        const struct model_variant *v = model_variant_at(i);
        struct gguf_builder b = {0};
        struct model_info info = {0};
        struct error err;
        model_build_into(&b, v, TYPE_F32);
        if (try_open(&b, &info, &err)) {
            CHECK_FAIL("%s: %s", v->name, err.text);
            continue;
        }
        CHECK_TEXT(info.architecture, v->architecture);
        CHECK_TEXT(info.name, v->name);
        CHECK_INT(info.blocks, v->blocks ? v->blocks : 3);
        CHECK_INT(info.width, 64);
        CHECK_INT(info.vocabulary, BUILT_VOCABULARY);
        CHECK_INT(info.context, BUILT_CONTEXT);
        CHECK_INT(info.heads, 4);
        CHECK_INT(info.experts, v->experts);
        CHECK_INT(info.experts_used, v->used);
        CHECK_INT(info.tied_head, v->tied);
        CHECK_INT(info.weight_bytes, info.parameters * 4);
        CHECK(info.fingerprint != 0);
    }
}

static void equal_files_share_a_fingerprint(void)
{
    uint64_t prints[8];
    for (int i = 0; i < 8; i++) {
        struct gguf_builder b = {0};
        struct model_info info = {0};
        struct error err;
        struct model_variant v = *model_variant_find("qwen2");
        const char *const words[2][2] = {{"a", "bc"}, {"ab", "c"}};
        if (i == 2)
            v.blocks = 2;
        if (i == 3)
            gguf_build_f32(&b, "qwen2.rope.freq_base", 20000);
        if (i >= 4 && i < 6)
            gguf_build_array(&b, "tokenizer.ggml.tokens", GGUF_STRING, words[i - 4], 2);
        model_build_into(&b, &v, i == 6 ? TYPE_Q8_0 : TYPE_F32);
        if (try_open(&b, &info, &err))
            CHECK_FAIL("%d: %s", i, err.text);
        prints[i] = info.fingerprint;
    }
    for (int i = 0; i < 7; i++)
        for (int j = i + 1; j < 7; j++)
            CHECK((prints[i] == prints[j]) == (i == 0 && j == 1));
    CHECK(prints[7] == prints[0]);
}

static void the_unknown_is_named_with_its_nearest(void)
{
    struct gguf_builder b = {0};
    struct error err;
    gguf_build_text(&b, "general.architecture", "qwen4moe");
    gguf_build_tensor(&b, "token_embd.weight", TYPE_F32, 2, (uint64_t[]){64, 8}, NULL);
    CHECK_INT(try_open(&b, NULL, &err), ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "\"qwen4moe\"") && strstr(err.text, "qwen3moe"));

    gguf_build_text(&b, "general.architecture", "evil\n\033[31march");
    CHECK_INT(try_open(&b, NULL, &err), ERR_UNSUPPORTED);
    CHECK(!strchr(err.text, '\033'));

    model_build_into(&b, model_variant_find("llama"), TYPE_F32);
    gguf_build_tensor(&b, "blk.1.ffn_upp.weight", TYPE_F32, 1, (uint64_t[]){64}, NULL);
    CHECK_INT(try_open(&b, NULL, &err), ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "blk.1.ffn_upp.weight") && strstr(err.text, "blk.1.ffn_up.weight"));

    model_build_into(&b, model_variant_find("llama"), TYPE_F32);
    gguf_build_tensor(&b, "blk.3.attn_norm.weight", TYPE_F32, 1, (uint64_t[]){64}, NULL);
    CHECK_INT(try_open(&b, NULL, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "block 3"));

    model_build_into(&b, model_variant_find("gpt2"), TYPE_F32);
    gguf_build_tensor(&b, "outputs.weight", TYPE_F32, 1, (uint64_t[]){64}, NULL);
    CHECK_INT(try_open(&b, NULL, &err), ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "outputs.weight") && strstr(err.text, "nearest: output.weight"));

    /* A tensor of another family's is unknown too: its meaning would be ignored. */
    model_build_into(&b, model_variant_find("qwen2"), TYPE_F32);
    gguf_build_tensor(&b, "blk.0.attn_q_norm.weight", TYPE_F32, 1, (uint64_t[]){16}, NULL);
    CHECK_INT(try_open(&b, NULL, &err), ERR_UNSUPPORTED);
}

static void nearest_names_are_near(void)
{
    CHECK_INT(edit_distance("kitten", "sitting"), 3);
    CHECK_INT(edit_distance("", "abc"), 3);
    CHECK_INT(edit_distance("abc", "abc"), 0);
    char text[96];
    architecture_nearest("lama", text, sizeof text);
    CHECK(!strncmp(text, "llama", 5));
    architecture_nearest("gemma4", text, sizeof text);
    CHECK(strstr(text, "gemma") && strstr(text, "gemma2") && strstr(text, "gemma3"));
}

/* All keys of g but `dropped` (NULL: none), for a file that differs in one thing. */
static void copy_keys(struct gguf_builder *b, const struct gguf *g, const char *dropped)
{
    for (size_t k = 0; k < gguf_key_count(g); k++) {
        const struct gguf_key *key = gguf_key_at(g, k);
        char name[128], value[64];
        struct gguf_text text;
        snprintf(name, sizeof name, "%.*s", (int)key->name.size, key->name.data);
        if (dropped && !strcmp(name, dropped))
            continue;
        if (key->type == GGUF_STRING && gguf_get_text(g, name, &text, NULL) > 0) {
            snprintf(value, sizeof value, "%.*s", (int)text.size, text.data);
            gguf_build_text(b, name, value);
        } else {
            gguf_build_scalar(b, name, key->type, key->data);
        }
    }
}

enum damage { ABSENT, ONE_ROW_MORE, WRONG_TYPE, DAMAGES };

static int open_damaged(const struct gguf *g, size_t victim, enum damage damage, struct error *err)
{
    struct gguf_builder b = {0};
    copy_keys(&b, g, NULL);
    for (size_t u = 0; u < gguf_tensor_count(g); u++) {
        const struct gguf_tensor *x = gguf_tensor_at(g, u);
        uint64_t shape[4];
        memcpy(shape, x->shape, sizeof shape);
        if (u != victim) {
            gguf_build_tensor(&b, x->name, x->type, x->dims, shape, x->data);
        } else if (damage == ONE_ROW_MORE) {
            shape[x->dims - 1]++;
            gguf_build_tensor(&b, x->name, x->type, x->dims, shape, NULL);
        } else if (damage == WRONG_TYPE) {
            gguf_build_tensor(&b, x->name, TYPE_I32, x->dims, shape, x->data);
        }
    }
    return try_open(&b, NULL, err);
}

/* Each tensor left out, misshapen or of a wrong type in turn: refused, by its name. */
static void each_tensor_is_checked(void)
{
    static const char *const names[] = {"llama-tied-bare", "mixtral", "gemma3",           "phi3", "gpt2", "gpt-oss",
                                        "deepseek3",       "olmo2",   "granitemoe-shared"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size;
        struct gguf *g = NULL;
        struct error err = {0};
        const struct model_variant *v = model_variant_find(names[i]);
        void *bytes = model_build(v, TYPE_F32, &size);
        REQUIRE(!gguf_open_memory(bytes, size, "whole", &g, &err));
        for (size_t t = 0; t < gguf_tensor_count(g); t++)
            for (enum damage damage = ABSENT; damage < DAMAGES; damage++) {
                const char *name = gguf_tensor_at(g, t)->name;
                int failed = open_damaged(g, t, damage, &err);
                /* what the table calls optional may be absent, and a tied embedding may have any number of rows */
                bool fine = (damage == ABSENT && (!strcmp(name, "output.weight") || strstr(name, "exp_probs_b") ||
                                                  (!strcmp(v->name, "granitemoe-shared") && strstr(name, ".bias")))) ||
                            (damage == ONE_ROW_MORE && v->tied && strstr(name, "token_embd"));
                /* an either-or names its other side, an untied embedding the head that no longer fits */
                bool elsewhere = (damage == ABSENT &&
                                  (strstr(name, "attn_q_a") || strstr(name, "attn_q_b") || strstr(name, "_b.weight") ||
                                   strstr(name, "shexp") || strstr(name, "attn_qkv"))) ||
                                 (damage == ONE_ROW_MORE && strstr(name, "token_embd"));
                if (fine ? failed : !failed || (!elsewhere && !strstr(err.text, name)))
                    CHECK_FAIL("%s, %s, damage %d: %d %s", v->name, name, (int)damage, failed, err.text);
            }
        gguf_close(g);
        mem_free(bytes);
    }
}

/* ---- Hostile metadata ---------------------------------------------------------------------------------------- */

/* The variant's file with one number in place of what it had. */
static int with_key(const char *variant, const char *name, uint32_t value, struct error *err)
{
    const struct model_variant *v = model_variant_find(variant);
    struct gguf_builder b = {0};
    struct gguf *g = NULL;
    size_t size;
    char key[128];
    void *bytes = model_build(v, TYPE_F32, &size);
    if (gguf_open_memory(bytes, size, "whole", &g, err))
        return 0;
    snprintf(key, sizeof key, "%s.%s", v->architecture, name);
    copy_keys(&b, g, key);
    gguf_build_u32(&b, key, value);
    for (size_t u = 0; u < gguf_tensor_count(g); u++) {
        const struct gguf_tensor *x = gguf_tensor_at(g, u);
        gguf_build_tensor(&b, x->name, x->type, x->dims, x->shape, x->data);
    }
    int failed = try_open(&b, NULL, err);
    gguf_close(g);
    mem_free(bytes);
    return failed;
}

static void hostile_numbers_are_refused(void)
{
    static const struct {
        const char *variant, *key;
        uint32_t value;
    } cases[] = {
        {"llama", "attention.head_count", 0},
        {"llama", "attention.head_count", 3},
        {"llama", "attention.head_count", 1000000000},
        {"llama", "attention.head_count_kv", 0},
        {"llama", "attention.head_count_kv", 3},
        {"llama", "attention.head_count_kv", 8},
        {"llama", "block_count", 0},
        {"llama", "block_count", 1000000000},
        {"llama", "block_count", 4},
        {"llama", "block_count", 2},
        {"llama", "embedding_length", 0},
        {"llama", "embedding_length", 65},
        {"llama", "embedding_length", 0xffffffff},
        {"llama", "context_length", 0},
        {"llama", "context_length", 0xffffffff},
        {"llama", "feed_forward_length", 0},
        {"llama", "feed_forward_length", 95},
        {"llama", "feed_forward_length", 0xffffffff},
        {"llama", "attention.key_length", 0},
        {"llama", "attention.key_length", 15},
        {"llama", "attention.key_length", 0x7fffffff},
        {"llama", "attention.value_length", 0},
        {"llama", "rope.dimension_count", 3},
        {"llama", "rope.dimension_count", 18},
        {"llama", "rope.dimension_count", 0},
        {"llama", "expert_count", 4},
        {"llama", "expert_count", 0x80000000},
        {"mixtral", "expert_used_count", 0},
        {"mixtral", "expert_used_count", 7},
        {"mixtral", "expert_used_count", 0xffffffff},
        {"mixtral", "expert_count", 5},
        {"qwen3", "expert_count", 2},
        {"qwen3moe", "expert_feed_forward_length", 0},
        {"qwen3moe", "expert_feed_forward_length", 0xffffffff},
        {"qwen2moe", "expert_shared_feed_forward_length", 1},
        {"deepseek3", "attention.kv_lora_rank", 0},
        {"deepseek3", "attention.kv_lora_rank", 0xffffffff},
        {"deepseek3", "attention.q_lora_rank", 47},
        {"deepseek3", "attention.key_length_mla", 8},
        {"deepseek3", "attention.key_length_mla", 0xffffffff},
        {"deepseek3", "expert_group_count", 3},
        {"deepseek3", "expert_group_used_count", 0},
        {"deepseek3", "expert_group_used_count", 5},
        {"deepseek3", "expert_shared_count", 0xffffffff},
        {"deepseek3", "leading_dense_block_count", 2},
        {"deepseek3", "expert_gating_func", 9},
        {"gemma2", "attention.sliding_window", 0xffffffff},
        {"gpt2", "context_length", 255},
        {"phi2", "rope.dimension_count", 17},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        if (!with_key(cases[i].variant, cases[i].key, cases[i].value, &err))
            CHECK_FAIL("%s with %s = %u opened", cases[i].variant, cases[i].key, cases[i].value);
        CHECK(!err.text[0] || strstr(err.text, "test.gguf"));
    }
    struct error err = {0};
    CHECK_INT(with_key("llama", "context_length", 4096, &err), 0); /* the harness itself lets good files through */
}

static void other_flaws_are_told(void)
{
    struct gguf_builder b = {0};
    struct error err;
    CHECK(try_open(&b, NULL, &err) < 0);
    gguf_build_u32(&b, "general.architecture", 3);
    CHECK(try_open(&b, NULL, &err) < 0);
    gguf_build_text(&b, "general.architecture", "llama");
    CHECK(try_open(&b, NULL, &err) < 0);
    CHECK(strstr(err.text, "llama.block_count"));
    gguf_build_text(&b, "llama.rope.scaling.type", "spiral");
    model_build_into(&b, model_variant_find("llama"), TYPE_F32);
    CHECK_INT(try_open(&b, NULL, &err), ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "spiral"));
    static const float bad[] = {NAN, -1, 0, 1e30f, INFINITY};
    for (int i = 0; i < 5; i++) {
        gguf_build_f32(&b, "llama.rope.freq_base", bad[i]);
        model_build_into(&b, model_variant_find("llama"), TYPE_F32);
        CHECK_INT(try_open(&b, NULL, &err), ERR_FORMAT);
    }
    gguf_build_text(&b, "llama.attention.value_length", "ten");
    model_build_into(&b, model_variant_find("llama"), TYPE_F32);
    CHECK_INT(try_open(&b, NULL, &err), ERR_FORMAT);
    /* One head count a block, but too few of them. */
    uint32_t heads[2] = {4, 4};
    gguf_build_array(&b, "gemma2.attention.sliding_window_pattern", GGUF_U32, heads, 2);
    model_build_into(&b, model_variant_find("gemma2"), TYPE_F32);
    CHECK_INT(try_open(&b, NULL, &err), ERR_FORMAT);
    /* Only one of longrope's two tables. */
    struct model_variant v = *model_variant_find("phi3-longrope");
    v.globals = SLOT(ROPE_LONG);
    model_build_into(&b, &v, TYPE_F32);
    CHECK_INT(try_open(&b, NULL, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "rope_factors_short"));
}

static void costs_follow_from_shapes(void)
{
    size_t size;
    struct gguf *g = NULL;
    struct model *m = NULL;
    struct error err = {0};
    void *bytes = model_build(model_variant_find("gemma3"), TYPE_F32, &size);
    REQUIRE(!gguf_open_memory(bytes, size, "g", &g, &err) && !model_from_gguf(g, &m, &err));
    struct block_cost windowed = model_block_cost(m, 0, KV_F16), full = model_block_cost(m, 5, KV_F16);
    CHECK(windowed.kind == 0 && full.kind == 1 && model_block_cost(m, 6, KV_F16).kind == 0);
    CHECK_INT(full.flops_per_token, 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96));
    CHECK_INT(full.attention_flops, 2 * 4 * (16 + 16));
    CHECK_INT(full.kv_bytes_per_token, 2 * (16 + 16) * 2);
    CHECK_INT(model_block_cost(m, 7, KV_F16).weight_bytes, 0);
    CHECK_INT(model_embedding_cost(m).read_bytes, 64 * 4);
    CHECK_INT(model_head_cost(m).flops_per_token, 2 * 64 * BUILT_VOCABULARY);
    CHECK_INT(model_head_cost(m).weight_bytes, model_embedding_cost(m).weight_bytes + 64 * 4);
    model_close(m);
    mem_free(bytes);

    bytes = model_build(model_variant_find("mixtral"), TYPE_F32, &size);
    REQUIRE(!gguf_open_memory(bytes, size, "g", &g, &err) && !model_from_gguf(g, &m, &err));
    struct block_cost c = model_block_cost(m, 1, KV_F32);
    CHECK_INT(c.flops_per_token, 2 * (64 * 64 * 2 + 2 * 64 * 32 + 64 * 6 + 2 * 3 * 64 * 96));
    CHECK(c.read_bytes < c.weight_bytes / 2);
    model_close(m);
    mem_free(bytes);
}

/* Blocks for multi-token prediction come last in the file; they are left alone. */
static void prediction_blocks_are_left_out(void)
{
    struct model_variant v = *model_variant_find("glm4moe");
    struct gguf_builder b = {0};
    struct model_info info = {0};
    struct error err;
    v.blocks = 4;
    for (uint32_t block = 3; block < 5; block++) {
        char name[64];
        gguf_build_u32(&b, "glm4moe.nextn_predict_layers", 1);
        model_build_into(&b, &v, TYPE_F32);
        snprintf(name, sizeof name, "blk.%u.nextn.eh_proj.weight", block);
        gguf_build_tensor(&b, name, TYPE_F32, 2, (uint64_t[]){128, 64}, NULL);
        int failed = try_open(&b, &info, &err);
        CHECK_INT(failed, block == 3 ? 0 : ERR_FORMAT);
    }
    CHECK_INT(info.blocks, 3);
}

static const struct check_test tests[] = {
    {"every_variant_opens_and_tells_of_itself", every_variant_opens_and_tells_of_itself},
    {"equal_files_share_a_fingerprint", equal_files_share_a_fingerprint},
    {"the_unknown_is_named_with_its_nearest", the_unknown_is_named_with_its_nearest},
    {"nearest_names_are_near", nearest_names_are_near},
    {"each_tensor_is_checked", each_tensor_is_checked},
    {"hostile_numbers_are_refused", hostile_numbers_are_refused},
    {"other_flaws_are_told", other_flaws_are_told},
    {"prediction_blocks_are_left_out", prediction_blocks_are_left_out},
    {"costs_follow_from_shapes", costs_follow_from_shapes},
};
CHECK_MAIN(tests)
