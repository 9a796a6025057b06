/* Quantising whole models: which tensor gets which type, the same bytes for any number of threads, refusals. */
#include "tests/check.h"

#include <unistd.h>

#include "base/memory.h"
#include "engine/files/inspect.h"
#include "engine/quant/dequantize.h"
#include "engine/quant/quantize_model.h"
#include "tests/engine/gguf_builder.h"

static char folder[256];

static const char *in_folder(const char *name)
{
    static char paths[4][512];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static struct gguf *open_built(struct gguf_builder *b, const char *name)
{
    struct gguf *g = NULL;
    struct error err = {0};
    gguf_build_write(b, in_folder(name));
    if (gguf_open(in_folder(name), &g, &err))
        CHECK_FAIL("%s", err.text);
    return g;
}

static uint32_t type_of(const struct gguf *g, const char *name)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    return t ? t->type : TYPE_COUNT;
}

/* A model of `blocks` blocks whose tensors are all 256 wide but for those named; only types matter here. */
static struct gguf *shaped_model(const char *name, uint32_t blocks, uint32_t experts, uint32_t heads, bool head)
{
    struct gguf_builder b = {0};
    char tensor[64];
    static const char *const weights[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                          "attn_qkv", "ffn_up", "ffn_down"};
    gguf_build_text(&b, "general.architecture", "llama");
    gguf_build_u32(&b, "llama.block_count", blocks);
    gguf_build_u32(&b, "llama.expert_count", experts);
    gguf_build_u32(&b, "llama.attention.head_count", heads);
    gguf_build_u32(&b, "llama.attention.head_count_kv", 2);
    for (uint32_t i = 0; i < blocks; i++)
        for (size_t k = 0; k < sizeof weights / sizeof *weights; k++) {
            snprintf(tensor, sizeof tensor, "blk.%u.%s.weight", i, weights[k]);
            gguf_build_tensor(&b, tensor, TYPE_F16, 2, (uint64_t[]){256, 2}, NULL);
        }
    gguf_build_tensor(&b, "token_embd.weight", TYPE_F16, 2, (uint64_t[]){256, 2}, NULL);
    if (head)
        gguf_build_tensor(&b, "output.weight", TYPE_F16, 2, (uint64_t[]){256, 2}, NULL);
    gguf_build_tensor(&b, "output_norm.weight", TYPE_F32, 1, (uint64_t[]){256}, NULL);
    gguf_build_tensor(&b, "blk.0.ffn_gate_inp.weight", TYPE_F32, 2, (uint64_t[]){256, 8}, NULL);
    gguf_build_tensor(&b, "blk.0.attn_q.bias", TYPE_F32, 1, (uint64_t[]){256}, NULL);
    gguf_build_tensor(&b, "blk.0.narrow.weight", TYPE_F16, 2, (uint64_t[]){96, 2}, NULL);
    gguf_build_tensor(&b, "blk.0.odd.weight", TYPE_F32, 2, (uint64_t[]){20, 2}, NULL);
    return open_built(&b, name);
}

static uint32_t planned(const struct gguf *g, const char *recipe, const char *tensor)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, tensor);
    return t ? recipe_tensor_type(recipe_find(recipe), g, t) : TYPE_COUNT;
}

static void recipes_have_names(void)
{
    CHECK_TEXT(recipe_find("q4_k")->name, "Q4_K_M");
    CHECK_TEXT(recipe_find("Q5_K")->name, "Q5_K_M");
    CHECK(!recipe_find("Q7_0") && !recipe_find(""));
    size_t count = 0;
    for (const struct recipe *r; (r = recipe_at(count)); count++)
        CHECK(recipe_find(r->name) == r);
    CHECK(count >= 8);
}

static void recipes_choose_types(void)
{
    struct gguf *g = shaped_model("sixteen.gguf", 16, 0, 8, true);
    REQUIRE(g);
    /* First and last eighth of 16 blocks are 0, 1 and 14, 15; between them each third from 4 on. */
    for (int block = 0; block < 16; block++) {
        char name[64];
        bool more = block < 2 || block >= 14 || block % 3 == 1;
        snprintf(name, sizeof name, "blk.%d.ffn_down.weight", block);
        CHECK_INT(planned(g, "Q4_K_M", name), more ? TYPE_Q6_K : TYPE_Q4_K);
        CHECK_INT(planned(g, "Q5_K_M", name), more ? TYPE_Q6_K : TYPE_Q5_K);
        CHECK_INT(planned(g, "Q4_K_S", name), block < 2 ? TYPE_Q5_K : TYPE_Q4_K);
        CHECK_INT(planned(g, "Q4_0", name), TYPE_Q4_0);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", block);
        CHECK_INT(planned(g, "Q4_K_M", name), more ? TYPE_Q6_K : TYPE_Q4_K);
        CHECK_INT(planned(g, "Q4_K_S", name), block < 4 ? TYPE_Q5_K : TYPE_Q4_K);
    }
    CHECK_INT(planned(g, "Q4_K_M", "blk.3.attn_qkv.weight"), TYPE_Q5_K);
    CHECK_INT(planned(g, "Q5_K_M", "blk.3.attn_qkv.weight"), TYPE_Q6_K);
    CHECK_INT(planned(g, "Q4_K_M", "blk.3.attn_q.weight"), TYPE_Q4_K);
    CHECK_INT(planned(g, "Q4_0", "output.weight"), TYPE_Q6_K);
    CHECK_INT(planned(g, "Q8_0", "output.weight"), TYPE_Q8_0);
    CHECK_INT(planned(g, "Q4_0", "token_embd.weight"), TYPE_Q4_0);
    CHECK_INT(planned(g, "BF16", "output.weight"), TYPE_BF16);
    static const char *const all[] = {"Q4_0", "Q4_K_M", "Q6_K", "F16"};
    for (int i = 0; i < 4; i++) {
        CHECK_INT(planned(g, all[i], "output_norm.weight"), TYPE_F32);
        CHECK_INT(planned(g, all[i], "blk.0.ffn_gate_inp.weight"), TYPE_F32);
        CHECK_INT(planned(g, all[i], "blk.0.attn_q.bias"), TYPE_F32);
        CHECK_INT(planned(g, all[i], "blk.0.odd.weight"), TYPE_F16);
    }
    CHECK_INT(planned(g, "Q4_K_M", "blk.0.narrow.weight"), TYPE_Q5_0);
    CHECK_INT(planned(g, "Q5_K_M", "blk.0.narrow.weight"), TYPE_Q5_1);
    CHECK_INT(planned(g, "Q6_K", "blk.0.narrow.weight"), TYPE_Q8_0);
    gguf_close(g);
    g = shaped_model("experts.gguf", 2, 8, 8, false);
    REQUIRE(g);
    CHECK_INT(planned(g, "Q4_K_M", "blk.1.attn_v.weight"), TYPE_Q8_0);
    CHECK_INT(planned(g, "Q4_K_M", "blk.1.attn_k.weight"), TYPE_Q8_0);
    CHECK_INT(planned(g, "Q4_K_M", "blk.1.attn_output.weight"), TYPE_Q5_K);
    CHECK_INT(planned(g, "Q4_0", "token_embd.weight"), TYPE_Q6_K); /* no head of its own */
    gguf_close(g);
}

static long file_sum(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    unsigned long sum = 0;
    int c;
    *size = 0;
    for (; f && (c = getc(f)) != EOF; ++*size)
        sum = sum * 31 + (unsigned long)c;
    if (f)
        fclose(f);
    return (long)(sum & 0x7fffffff);
}

static int count_calls(void *context, const struct quantize_progress *p)
{
    ++*(int *)context;
    return p->done_values > p->values || p->index >= p->count;
}

static void threads_change_no_byte(void)
{
    static const char *const recipes[] = {"Q8_0", "Q4_K_M", "F16"};
    struct gguf_builder b = {0};
    gguf_build_llama(&b, TYPE_F32);
    struct gguf *g = open_built(&b, "llama.gguf"), *made = NULL;
    REQUIRE(g);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        struct error err = {0};
        struct quantize_result one, five;
        size_t size_one, size_five;
        int calls = 0;
        const struct recipe *r = recipe_find(recipes[i]);
        CHECK_INT(quantize_model(g, in_folder("one.gguf"), r, 1, count_calls, &calls, &one, &err), 0);
        CHECK_INT(quantize_model(g, in_folder("five.gguf"), r, 5, NULL, NULL, &five, &err), 0);
        CHECK(calls >= (int)gguf_tensor_count(g));
        CHECK_INT(file_sum(in_folder("one.gguf"), &size_one), file_sum(in_folder("five.gguf"), &size_five));
        CHECK(size_one == size_five && size_one == one.bytes && five.bytes == one.bytes);
        CHECK_INT(gguf_open(in_folder("five.gguf"), &made, &err), 0);
        REQUIRE(made);
        uint32_t file_type = 99, version = 0;
        CHECK_INT(gguf_get_u32(made, "general.file_type", &file_type, &err), 1);
        CHECK_INT(file_type, r->file_type);
        CHECK_INT(gguf_get_u32(made, "general.quantization_version", &version, &err), 1);
        CHECK_INT(version, 2);
        CHECK_INT(gguf_key_count(made), gguf_key_count(g) + 1);
        CHECK_INT(type_of(made, "blk.0.attn_norm.weight"), TYPE_F32);
        CHECK_INT(type_of(made, "blk.1.attn_q.weight"), r->type);
        CHECK_INT(one.parameters, 2 * (2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * 96 + 2 * 256) + 96 * 256 + 256);
        CHECK(one.bits_per_weight > (double)type_info(r->type)->block_bytes * 8 / type_info(r->type)->block_values);
        gguf_close(made);
        made = NULL;
    }
    gguf_close(g);
}

static void values_stay_close(void)
{
    struct error err = {0};
    struct gguf *g = NULL, *made = NULL;
    struct gguf_builder b = {0};
    static float x[256 * 256], y[256 * 256];
    gguf_build_llama(&b, TYPE_BF16);
    g = open_built(&b, "llama.gguf");
    REQUIRE(g);
    CHECK_INT(quantize_model(g, in_folder("made.gguf"), recipe_find("Q5_0"), 2, NULL, NULL, NULL, &err), 0);
    CHECK_INT(gguf_open(in_folder("made.gguf"), &made, &err), 0);
    REQUIRE(made);
    const struct gguf_tensor *from = gguf_tensor_find(g, "blk.1.attn_q.weight");
    const struct gguf_tensor *to = gguf_tensor_find(made, "blk.1.attn_q.weight");
    CHECK_INT(dequantize_row(from->type, from->data, x, 256 * 256), 0);
    CHECK_INT(dequantize_row(to->type, to->data, y, 256 * 256), 0);
    double error = 0, square = 0;
    for (int i = 0; i < 256 * 256; i++) {
        error += (double)(x[i] - y[i]) * (double)(x[i] - y[i]);
        square += (double)x[i] * (double)x[i];
    }
    CHECK_NEAR(sqrt(error / square), 0.038, 0.002);
    CHECK(access(in_folder("made.gguf"), F_OK) == 0);
    /* What is quantised already is refused, and nothing is written. */
    CHECK_INT(quantize_model(made, in_folder("again.gguf"), recipe_find("Q4_0"), 1, NULL, NULL, NULL, &err),
              ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "quantising twice loses quality"));
    CHECK(access(in_folder("again.gguf"), F_OK) != 0);
    gguf_close(made);
    gguf_close(g);
}

static int stop_at_third(void *context, const struct quantize_progress *p)
{
    return p->index == 2;
}

static void trouble_writes_nothing(void)
{
    static float values[4 * 32];
    struct gguf_builder b = {0};
    struct error err = {0};
    gguf_build_llama(&b, TYPE_F32);
    struct gguf *g = open_built(&b, "llama.gguf");
    REQUIRE(g);
    CHECK_INT(quantize_model(g, in_folder("out.gguf"), recipe_find("Q8_0"), 2, stop_at_third, NULL, NULL, &err),
              ERR_CANCELLED);
    CHECK(access(in_folder("out.gguf"), F_OK) != 0);
    gguf_close(g);
    values[3 * 32 + 5] = INFINITY;
    gguf_build_tensor(&b, "blk.0.ffn_up.weight", TYPE_F32, 2, (uint64_t[]){32, 4}, values);
    g = open_built(&b, "bad.gguf");
    REQUIRE(g);
    CHECK_INT(quantize_model(g, in_folder("out.gguf"), recipe_find("Q8_0"), 3, NULL, NULL, NULL, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "row 3 of tensor 'blk.0.ffn_up.weight' holds a value that is not finite"));
    CHECK(access(in_folder("out.gguf"), F_OK) != 0);
    gguf_close(g);
    gguf_build_text(&b, "general.architecture", "llama");
    g = open_built(&b, "vocabulary.gguf");
    REQUIRE(g);
    CHECK_INT(quantize_model(g, in_folder("out.gguf"), recipe_find("Q8_0"), 1, NULL, NULL, NULL, &err),
              ERR_UNSUPPORTED);
    gguf_close(g);
}

static void summaries_add_up(void)
{
    struct gguf_builder b = {0};
    struct error err = {0};
    struct inspect_summary *s = NULL;
    gguf_build_llama(&b, TYPE_F16);
    struct gguf *g = open_built(&b, "llama.gguf");
    REQUIRE(g);
    REQUIRE(!inspect_model(g, &s, &err));
    CHECK_TEXT(s->architecture, "llama");
    CHECK_TEXT(s->file_type, "F32"); /* as the file says, though it is not */
    CHECK_INT(s->blocks, 2);
    CHECK_INT(s->block_count, 2);
    CHECK_INT(s->head_width, 64);
    CHECK_INT(s->kv_heads, 1);
    CHECK_INT(s->experts, -1);
    CHECK_INT(s->type_count, 2);
    CHECK_INT(s->types[0].type, TYPE_F16);
    CHECK_INT(s->types[1].part.parameters, 5 * 256);
    CHECK_INT(s->block[0].bytes + s->block[1].bytes + s->embedding.bytes + s->head.bytes + s->other.bytes,
              s->all.bytes);
    CHECK_INT(s->block[1].tensors, 9);
    CHECK_INT(s->embedding.bytes, 96 * 256 * 2);
    CHECK_INT(s->head.tensors, 0);
    CHECK_INT(s->other.tensors, 1);
    CHECK(inspect_block_of("blk.12.x") == 12 && inspect_block_of("blk.x") == -1 &&
          inspect_block_of("blk.99999999.x") == -1);
    inspect_free(s);
    gguf_close(g);
}

static void cleans_up(void)
{
    char command[512];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    CHECK(!system(command));
}

static const struct check_test tests[] = {
    {"recipes have names", recipes_have_names},
    {"recipes choose types", recipes_choose_types},
    {"threads change no byte", threads_change_no_byte},
    {"values stay close", values_stay_close},
    {"trouble writes nothing", trouble_writes_nothing},
    {"summaries add up", summaries_add_up},
    {"cleans up", cleans_up},
};

int main(int argc, char **argv)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/brigade-quantize-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    return check_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
