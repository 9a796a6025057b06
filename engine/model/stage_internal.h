/* What a stage is inside this room. Private to engine/model/. */
#ifndef BRIGADE_ENGINE_MODEL_STAGE_INTERNAL_H
#define BRIGADE_ENGINE_MODEL_STAGE_INTERNAL_H

#include "engine/model/forward.h"
#include "engine/model/stage.h"

struct stage {
    const struct model *model;
    struct stage_options options;
    bool has_embedding, has_head;
    struct embedding_weights embedding;
    struct head_weights head;
    struct block_weights *block; /* last_block - first_block + 1 */
    struct rope ropes[3];        /* by enum rope_use */
    struct kv_cache kv;
    struct forward forward;
    uint32_t *probe_pages;       /* a page table for stage_probe.c: kv_pages + max_context / KV_PAGE_TOKENS + 1 of them */
};

#endif
