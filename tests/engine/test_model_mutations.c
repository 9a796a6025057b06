/* Models whose metadata and tensor table were damaged at random: each opens and computes, or is refused with one line.
 * Meant for the address and undefined-behaviour sanitizers. Argument: how many mutations of each variant (250). */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/local.h"
#include "tests/engine/model_builder.h"

static int mutations = 250;

/* Where tensor data begins: all before it is header. */
static size_t header_bytes(const void *bytes, const struct gguf *g)
{
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        size_t at = (size_t)((const char *)gguf_tensor_at(g, i)->data - (const char *)bytes);
        least = at < least ? at : least;
    }
    return least;
}

/* One number of the metadata: hostile, or a little off. */
static void damage_number(unsigned char *bytes, const size_t *values, size_t count, uint64_t *state)
{
    static const uint32_t numbers[] = {0,    1,          2,          3,          7,          64,
                                       4096, 0x7fffffff, 0x80000000, 0xffffffff, 1000000000, 0x7fc00000};
    unsigned char *at = bytes + values[hash_mix64((*state)++) % count];
    uint32_t value;
    memcpy(&value, at, 4);
    switch (hash_mix64((*state)++) % 4) {
    case 0:
        value = numbers[hash_mix64((*state)++) % (sizeof numbers / sizeof *numbers)];
        break;
    case 1:
        value += (uint32_t)(hash_mix64((*state)++) % 5) - 2;
        break;
    case 2:
        value *= 2;
        break;
    case 3:
        value /= 2;
        break;
    }
    memcpy(at, &value, 4);
}

static void damage(unsigned char *bytes, size_t header, uint64_t *state)
{
    static const uint32_t numbers[] = {0,          1,          2,          3,          5,          31,
                                       0x7fffffff, 0x80000000, 0xffffffff, 1000000000, 0x7fc00000, 0x7f800000};
    uint32_t count = 1 + (uint32_t)(hash_mix64((*state)++) % 3);
    for (uint32_t i = 0; i < count; i++) {
        size_t at = 24 + (size_t)(hash_mix64((*state)++) % (header - 32));
        switch (hash_mix64((*state)++) % 4) {
        case 0:
            bytes[at] ^= (unsigned char)(1u << hash_mix64((*state)++) % 8);
            break;
        case 1:
            bytes[at] = (unsigned char)hash_mix64((*state)++);
            break;
        case 2: /* a hostile number over four bytes */
            memcpy(bytes + at, &numbers[hash_mix64((*state)++) % (sizeof numbers / sizeof *numbers)], 4);
            break;
        case 3: /* one run of bytes over another */
            memmove(bytes + at, bytes + 24 + (size_t)(hash_mix64((*state)++) % (header - 32)), 8);
            break;
        }
    }
}

/* 1 when the model opened and computed, 0 when it was refused properly. */
static int survive(const void *bytes, size_t size)
{
    struct gguf *g = NULL;
    struct model *m = NULL;
    struct local *l = NULL;
    struct error err = {0};
    struct span_result r;
    int opened = 0, failed = gguf_open_memory(bytes, size, "mutated", &g, &err);
    if (!failed)
        failed = model_from_gguf(g, &m, &err);
    if (!failed) {
        opened = 1;
        for (uint32_t b = 0; b < model_info(m)->blocks; b++)
            CHECK(model_block_cost(m, b, KV_F16).weight_bytes > 0);
        struct local_options o = {.stages = model_info(m)->blocks > 1 ? 2 : 1, .max_context = 40, .max_tokens = 8};
        struct stage_memory need;
        failed = local_memory_need(m, &o, &need, &err);
        if (!failed)
            failed = local_open(m, &o, &l, &err);
        int32_t tokens[10];
        for (uint32_t i = 0; i < 10; i++)
            tokens[i] = (int32_t)((uint32_t)model_built_token(i) % model_info(m)->vocabulary);
        if (!failed)
            failed = local_feed(l, 1, tokens, 10, WANT_LOGITS, -1, NULL, NULL, &r, &err);
    }
    if (failed && (!err.text[0] || strchr(err.text, '\n')))
        CHECK_FAIL("refused without one line: %d \"%s\"", failed, err.text);
    if (failed && failed != ERR_FORMAT && failed != ERR_UNSUPPORTED && failed != ERR_USAGE && failed != ERR_BOUND)
        CHECK_FAIL("refused as %s: %s", error_name(failed), err.text);
    local_close(l);
    if (m)
        model_close(m);
    else
        gguf_close(g);
    return opened;
}

static void damaged_models_are_refused_or_run(void)
{
    static const char *const names[] = {"llama",         "llama-yarn", "mixtral", "qwen2moe",          "gemma3",
                                        "phi3-longrope", "gpt2",       "olmo3",   "granitemoe-shared", "gpt-oss",
                                        "deepseek2",     "deepseek3"};
    uint64_t state = 2024;
    int opened = 0, refused = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size;
        struct gguf *g = NULL;
        struct error err = {0};
        unsigned char *bytes = model_build(model_variant_find(names[i]), TYPE_F32, &size);
        REQUIRE(!gguf_open_memory(bytes, size, names[i], &g, &err));
        size_t header = header_bytes(bytes, g), values[64], value_count = 0;
        for (size_t k = 0; k < gguf_key_count(g); k++) {
            const struct gguf_key *key = gguf_key_at(g, k);
            if ((key->type == GGUF_U32 || key->type == GGUF_F32) && value_count < 64)
                values[value_count++] = (size_t)((const unsigned char *)key->data - bytes);
        }
        gguf_close(g);
        unsigned char *whole = mem_alloc(header);
        REQUIRE(whole);
        memcpy(whole, bytes, header);
        for (int k = 0; k < mutations; k++) {
            memcpy(bytes, whole, header);
            if (k % 2)
                damage(bytes, header, &state);
            else
                damage_number(bytes, values, value_count, &state);
            if (survive(bytes, size))
                opened++;
            else
                refused++;
        }
        mem_free(whole);
        mem_free(bytes);
    }
    printf("    %d opened, %d refused\n", opened, refused);
    CHECK(opened > mutations && refused > mutations);
}

static const struct check_test tests[] = {{"damaged_models_are_refused_or_run", damaged_models_are_refused_or_run}};

int main(int argc, char **argv)
{
    struct error err = {0};
    if (argc > 1)
        mutations = atoi(argv[1]);
    if (kernels_init(&err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return check_main(1, argv, tests, sizeof tests / sizeof *tests);
}
