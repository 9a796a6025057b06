/* Moves weights from one stage to the next by moving their structs. One owner thread. */
#include "engine/model/shelf.h"

#include <string.h>

#include "base/memory.h"
#include "engine/model/shelf_internal.h"
#include "engine/model/stage_internal.h"

struct shelf {
    const struct model *model;
    struct block_weights *block; /* of the whole model; those with `whole` lie here */
    struct embedding_weights embedding;
    struct head_weights head;
    struct kv_cache kv;          /* of the whole model: runs without a base do not lie here */
};

int shelf_create(const struct model *m, struct shelf **out, struct error *err)
{
    struct shelf *s = mem_zalloc(1, sizeof *s);
    if (s) {
        s->block = mem_zalloc(m->shape.blocks, sizeof *s->block);
        s->kv.run = mem_zalloc(m->shape.blocks, sizeof *s->kv.run);
        s->kv.blocks = m->shape.blocks;
    }
    if (!s || !s->block || !s->kv.run) {
        if (s) {
            mem_free(s->block);
            mem_free(s->kv.run);
        }
        mem_free(s);
        return error_set(err, ERR_NOMEM, "no memory for a shelf of %u blocks", m->shape.blocks);
    }
    s->model = m;
    *out = s;
    return 0;
}

static void clear(struct shelf *s, uint32_t first_kept, uint32_t last_kept)
{
    for (uint32_t b = 0; b < s->model->shape.blocks; b++)
        if (b < first_kept || b > last_kept) {
            weights_free_block(&s->block[b]);
            kv_cache_drop(&s->kv, b);
        }
    if (first_kept > 0)
        weights_free_embedding(&s->embedding);
    if (last_kept + 1 != s->model->shape.blocks)
        weights_free_head(&s->head);
}

void shelf_destroy(struct shelf *s)
{
    if (!s)
        return;
    clear(s, UINT32_MAX, 0);
    weights_free_head(&s->head);
    mem_free(s->block);
    mem_free(s->kv.run);
    mem_free(s);
}

void shelf_keep_kv(struct shelf *s, enum kv_type type, uint32_t pages)
{
    for (uint32_t b = 0; b < s->kv.blocks && (s->kv.type != type || s->kv.pages != pages); b++)
        kv_cache_drop(&s->kv, b);
    s->kv.type = type;
    s->kv.pages = pages;
}

struct kv_cache *shelf_kv(struct shelf *s, enum kv_type type, uint32_t pages)
{
    return s && s->kv.type == type && s->kv.pages == pages ? &s->kv : NULL;
}

struct kv_cache *shelf_kv_any(struct shelf *s)
{
    return &s->kv;
}

void shelf_keep_only(struct shelf *s, uint32_t first_block, uint32_t last_block)
{
    clear(s, first_block, last_block);
}

uint32_t shelf_blocks(const struct shelf *s)
{
    uint32_t count = 0;
    for (uint32_t b = 0; b < s->model->shape.blocks; b++)
        count += s->block[b].whole;
    return count;
}

void shelf_put(struct shelf *s, struct stage *stage)
{
    shelf_keep_kv(s, stage->options.kv, stage->options.kv_pages);
    for (uint32_t i = 0; i < stage->kv.blocks; i++) {
        kv_cache_drop(&s->kv, stage->kv.first_block + i);
        s->kv.run[stage->kv.first_block + i] = stage->kv.run[i];
        stage->kv.run[i].base = NULL;
    }
    for (uint32_t b = stage->options.first_block; b <= stage->options.last_block; b++)
        if (stage->block[b - stage->options.first_block].whole) {
            weights_free_block(&s->block[b]);
            s->block[b] = stage->block[b - stage->options.first_block];
            memset(&stage->block[b - stage->options.first_block], 0, sizeof *stage->block);
        }
    if (stage->embedding.whole) {
        weights_free_embedding(&s->embedding);
        s->embedding = stage->embedding;
        memset(&stage->embedding, 0, sizeof stage->embedding);
    }
    if (stage->head.whole) {
        weights_free_head(&s->head);
        s->head = stage->head;
        memset(&stage->head, 0, sizeof stage->head);
    }
    stage_destroy(stage);
}

bool shelf_has_block(const struct shelf *s, uint32_t block)
{
    return s && s->block[block].whole;
}

bool shelf_has_embedding(const struct shelf *s)
{
    return s && s->embedding.whole;
}

/* A head that borrowed its embedding's matrix has none of its own to give to a stage without the embedding. */
bool shelf_has_head(const struct shelf *s, bool shares_embedding)
{
    return s && s->head.whole && (shares_embedding || s->head.output.rows);
}

void shelf_take_block(struct shelf *s, uint32_t block, struct block_weights *out)
{
    *out = s->block[block];
    memset(&s->block[block], 0, sizeof s->block[block]);
}

void shelf_take_embedding(struct shelf *s, struct embedding_weights *out)
{
    *out = s->embedding;
    memset(&s->embedding, 0, sizeof s->embedding);
}

void shelf_take_head(struct shelf *s, const struct matrix *tied, struct head_weights *out)
{
    *out = s->head;
    memset(&s->head, 0, sizeof s->head);
    if (tied)
        matrix_free(&out->output); /* the embedding's serves both */
    out->use = tied ? tied : &out->output;
}
