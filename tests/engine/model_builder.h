/* Small models of every architecture for tests: random weights of a sane size, every variant of a family's tensors and
 * metadata that its recipe knows. The tensors come from the architecture table itself, so a new family needs a row here
 * and no code. Failures end the test program. One thread. */
#ifndef BRIGADE_TESTS_ENGINE_MODEL_BUILDER_H
#define BRIGADE_TESTS_ENGINE_MODEL_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/engine/gguf_builder.h"

#define BUILT_VOCABULARY 128u
#define BUILT_CONTEXT 256u

struct model_variant {
    const char *name;          /* of the variant: "llama-yarn" */
    const char *architecture;
    uint32_t blocks;           /* 0: 3 */
    uint32_t heads, kv_heads;  /* 0: 4 and 2 */
    uint32_t width;            /* 0: 64 */
    uint32_t k_dim, v_dim;     /* 0: width / heads, and no key in the file */
    uint32_t experts, used;
    bool tied;                 /* no output.weight */
    bool bare;                 /* no optional tensors of blocks */
    bool second_side[2];       /* of the table's either-or */
    uint64_t globals;          /* optional globals to write, besides the head */
    void (*keys)(struct gguf_builder *b, const char *architecture); /* further metadata */
    bool ours_only;            /* the independent engine computes this otherwise, on purpose */
};

size_t model_variant_count(void);
const struct model_variant *model_variant_at(size_t i);
const struct model_variant *model_variant_find(const char *name);

/* The bytes of a GGUF file with matrices of `type` (mem_free). Shapes that no block of `type` fits are kept in F32. */
void *model_build(const struct model_variant *v, uint32_t type, size_t *size);
/* The same, into a builder, so that a test can add to it or break it. */
void model_build_into(struct gguf_builder *b, const struct model_variant *v, uint32_t type);

/* Token i of the test sequence: within the vocabulary, the same for every model. */
int32_t model_built_token(uint32_t i);

#endif
