/* Numbers out of a model's metadata, under "ARCHITECTURE.", each within bounds. Private to engine/model/.
 * All give 1 when the key is there and *out is set, 0 when it is absent, or a negative error with its line. */
#ifndef BRIGADE_ENGINE_MODEL_READER_H
#define BRIGADE_ENGINE_MODEL_READER_H

#include "base/error.h"
#include "engine/files/gguf.h"

struct reader {
    const struct gguf *g;
    const char *arch;
    struct error *err;
    char key[160]; /* the last one asked for: for messages */
};

/* "llama.block_count" of "block_count"; kept in r->key. */
const char *reader_key(struct reader *r, const char *name);
int reader_u32(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t *out);
/* As reader_u32, but absence is an error too. */
int reader_need_u32(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t *out);
int reader_double(struct reader *r, const char *name, double min, double max, double *out);
int reader_f32(struct reader *r, const char *name, double min, double max, float *out);
/* One number for all blocks, or an array with one a block: into blocks numbers `stride` bytes apart from *first on. */
int reader_per_block(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t blocks, uint32_t *first,
                     size_t stride);

#endif
