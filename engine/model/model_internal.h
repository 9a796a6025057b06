/* What a model is inside this room: shape and resolved tensors. Private to engine/model/. */
#ifndef BRIGADE_ENGINE_MODEL_INTERNAL_H
#define BRIGADE_ENGINE_MODEL_INTERNAL_H

#include "engine/model/model.h"
#include "engine/model/shape.h"

/* The tensors of one block, by purpose; NULL when the model has none. */
struct block_tensors {
    const struct gguf_tensor *slot[SLOTS];
};

struct model {
    struct gguf *g;
    struct model_info info;
    struct model_shape shape;
    const struct gguf_tensor *global[GLOBAL_SLOTS];
    struct block_tensors *block;  /* shape.blocks of them */
    uint32_t *kind;               /* of each block, see block_cost */
};

/* Finds every tensor the architecture asks for and refuses missing, unknown, misshapen and unreadable ones. Settles
 * which blocks use absorbed latent attention. Fills m->global and m->block (allocated by the caller). */
int tensors_resolve(struct model *m, struct error *err);

/* The tensor that serves as output head: OUTPUT, or the embedding when the head is tied. */
const struct gguf_tensor *model_head_tensor(const struct model *m);

#endif
