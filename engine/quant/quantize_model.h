/* Writes a model again in other tensor types, by a recipe. Reads the source through its map, tensor by tensor, so
 * memory stays within a few dozen MiB whatever the model's size; the result's bytes do not depend on `threads`. */
#ifndef BRIGADE_ENGINE_QUANT_QUANTIZE_MODEL_H
#define BRIGADE_ENGINE_QUANT_QUANTIZE_MODEL_H

#include <stdint.h>

#include "base/error.h"
#include "engine/files/gguf.h"
#include "engine/quant/recipe.h"

struct quantize_progress {
    const struct gguf_tensor *tensor; /* being written */
    uint32_t type;                    /* its new type */
    size_t index, count;              /* of tensors */
    uint64_t done_values, values;     /* of the whole model */
};

struct quantize_result {
    uint64_t bytes; /* of the file */
    uint64_t tensor_bytes;
    uint64_t parameters;    /* values of all tensors */
    double bits_per_weight; /* 8 * tensor_bytes / parameters */
    size_t kept;            /* tensors that kept their type */
};

/* Floats (F32, F16, BF16, F64) become any type, and quantised tensors may be widened into floats; quantising what is
 * quantised already is refused (ERR_UNSUPPORTED names it), except for MXFP4 tensors, which are kept. progress (may be NULL) is called from this thread before each piece of some MB;
 * when it returns non-zero the work stops with ERR_CANCELLED. On failure nothing changes at out_path. result may be
 * NULL. threads: 1 to 256. */
int quantize_model(const struct gguf *in, const char *out_path, const struct recipe *recipe, int threads,
                   int (*progress)(void *context, const struct quantize_progress *p), void *context,
                   struct quantize_result *result, struct error *err);

#endif
