/* What one stage needs of a file. Pure; any thread. */
#include "engine/model/shelf_internal.h"

int model_slice(const struct model *m, const struct shelf *have, uint32_t first, uint32_t last,
                int (*visit)(void *context, const struct gguf_tensor *t), void *context)
{
    const bool has_embedding = first == 0, has_head = last + 1 == m->shape.blocks;
    const struct gguf_tensor *const before[] = {
        m->global[ROPE_FREQS], m->global[ROPE_LONG], m->global[ROPE_SHORT],
        has_embedding ? m->global[TOKEN_EMBEDDING] : NULL, has_embedding ? m->global[POSITION_EMBEDDING] : NULL};
    const struct gguf_tensor *const after[] = {model_head_tensor(m), m->global[OUTPUT_NORM],
                                               m->global[OUTPUT_NORM_BIAS], m->global[OUTPUT_BIAS]};
    int stop = 0;
    for (size_t i = 0; i < sizeof before / sizeof *before && !stop; i++)
        stop = before[i] ? visit(context, before[i]) : 0;
    for (uint32_t b = first; b <= last && !stop; b++)
        for (int slot = 0; !shelf_has_block(have, b) && slot < SLOTS && !stop; slot++)
            stop = m->block[b].slot[slot] ? visit(context, m->block[b].slot[slot]) : 0;
    for (size_t i = 0; has_head && i < sizeof after / sizeof *after && !stop; i++)
        stop = after[i] ? visit(context, after[i]) : 0;
    return stop;
}
