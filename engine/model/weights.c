/* Loading weights and counting their bytes: one walk over the slots serves both. Owns what it loads; releases the
 * file's pages as it goes. The loading thread only; the pool lays out. */
#include "engine/model/weights.h"

#include <string.h>

#include "base/memory.h"
#include "engine/quant/dequantize.h"

/* A fused tensor's rows, part after part. */
struct part {
    uint8_t slot, rows; /* enum slot, enum dim */
};
static const struct fused {
    uint8_t slot;
    struct part part[3];
} fused[] = {
    {ATTN_QKV, {{ATTN_Q, DIM_Q}, {ATTN_K, DIM_K}, {ATTN_V, DIM_V}}},
    {ATTN_QKV_BIAS, {{ATTN_Q_BIAS, DIM_Q}, {ATTN_K_BIAS, DIM_K}, {ATTN_V_BIAS, DIM_V}}},
    {FFN_GATE_UP, {{FFN_GATE, DIM_FF}, {FFN_UP, DIM_FF}}},
};

static const struct fused *fused_of(enum slot slot)
{
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++)
        if (fused[i].slot == slot)
            return &fused[i];
    return NULL;
}

static enum slot stored_as(enum slot slot)
{
    return slot == FFN_NORM_AFTER_ATTN ? FFN_NORM : slot;
}

/* ---- Counting --------------------------------------------------------------------------------------------------- */

static uint64_t owned(const struct gguf_tensor *t, uint64_t rows)
{
    uint64_t bytes = matrix_bytes(t->type, (uint32_t)rows, (uint32_t)t->shape[0]);
    return bytes ? bytes : rows * type_row_bytes(t->type, t->shape[0]);
}

static uint64_t slot_bytes(const struct model *m, uint32_t block, enum slot slot, const struct gguf_tensor *t)
{
    const struct fused *f = fused_of(slot);
    switch ((enum slot_kind)slots[slot].kind) {
    case SLOT_VECTOR:
    case SLOT_VECTORS:
        return t->shape[0] * t->shape[1] * sizeof(float);
    case SLOT_STACK:
        return t->shape[2] * (owned(t, t->shape[1]) + sizeof(struct matrix));
    case SLOT_MATRIX:
        break;
    }
    if (!f)
        return owned(t, t->shape[1]);
    uint64_t sum = 0;
    for (int i = 0; i < 3 && f->part[i].rows; i++)
        sum += owned(t, shape_size(&m->shape, block, f->part[i].rows));
    return sum;
}

uint64_t weights_block_bytes(const struct model *m, uint32_t block)
{
    uint64_t sum = sizeof(struct block_weights);
    for (int slot = 0; slot < SLOTS; slot++)
        if (m->block[block].slot[slot])
            sum += slot_bytes(m, block, slot, m->block[block].slot[slot]);
    return sum;
}

uint64_t weights_block_source_bytes(const struct model *m, uint32_t block)
{
    uint64_t sum = 0;
    for (int slot = 0; slot < SLOTS; slot++)
        sum += m->block[block].slot[slot] ? m->block[block].slot[slot]->bytes : 0;
    return sum;
}

uint64_t weights_embedding_source_bytes(const struct model *m)
{
    const struct gguf_tensor *p = m->global[POSITION_EMBEDDING];
    return m->global[TOKEN_EMBEDDING]->bytes + (p ? p->bytes : 0);
}

uint64_t weights_embedding_bytes(const struct model *m)
{
    const struct gguf_tensor *t = m->global[TOKEN_EMBEDDING], *p = m->global[POSITION_EMBEDDING];
    return owned(t, t->shape[1]) + (p ? owned(p, p->shape[1]) : 0);
}

uint64_t weights_head_bytes(const struct model *m, bool shares_embedding)
{
    const struct gguf_tensor *t = model_head_tensor(m);
    return (shares_embedding && !m->global[OUTPUT] ? 0 : owned(t, t->shape[1])) + weights_head_vector_bytes(m);
}

uint64_t weights_head_vector_bytes(const struct model *m)
{
    uint64_t sum = 0;
    static const enum global_slot small[] = {OUTPUT_NORM, OUTPUT_NORM_BIAS, OUTPUT_BIAS};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (m->global[small[i]])
            sum += m->global[small[i]]->shape[0] * sizeof(float);
    return sum;
}

/* ---- Loading ---------------------------------------------------------------------------------------------------- */

static int report(struct weights_load *l, uint64_t bytes, struct error *err)
{
    l->done += bytes;
    if (l->progress && l->progress(l->context, l->done, l->total))
        return error_set(err, ERR_CANCELLED, "loading was stopped after %llu of %llu bytes",
                         (unsigned long long)l->done, (unsigned long long)l->total);
    return 0;
}

int weights_await(const struct weights_load *l, const struct gguf_tensor *t, struct error *err)
{
    return t && l->await_tensor ? l->await_tensor(l->await_context, t, err) : 0;
}

/* Rows [first, first + rows) of the tensor seen as one long matrix. */
static int load_rows(struct weights_load *l, const struct gguf_tensor *t, uint64_t first, uint64_t rows,
                     struct matrix *out, struct error *err)
{
    size_t row_bytes = type_row_bytes(t->type, t->shape[0]);
    struct matrix w = {0};
    int failed = matrix_load(&w, l->pool, t->type, (uint32_t)rows, (uint32_t)t->shape[0],
                             (const char *)t->data + first * row_bytes, l->keep_mapped, err);
    if (failed) {
        error_prefix(err, "%s", t->name);
        return failed;
    }
    *out = w;
    return report(l, rows * row_bytes, err);
}

int weights_load_vector(const struct model *m, const struct gguf_tensor *t, float **out, struct error *err)
{
    uint64_t rows = t->shape[1], cols = t->shape[0];
    size_t row_bytes = type_row_bytes(t->type, cols);
    float *v = mem_zalloc((size_t)(rows * cols), sizeof *v);
    if (!v)
        return error_set(err, ERR_NOMEM, "%s: no memory for tensor %s", gguf_path(m->g), t->name);
    for (uint64_t r = 0; r < rows; r++) {
        int failed = dequantize_row(t->type, (const char *)t->data + r * row_bytes, v + r * cols, cols);
        if (failed) {
            mem_free(v);
            return error_set(err, failed, "%s: tensor %s of type %s cannot be read as floats", gguf_path(m->g), t->name,
                             type_name(t->type));
        }
    }
    *out = v;
    return 0;
}

static int load_vector_slot(const struct model *m, uint32_t block, enum slot slot, const struct gguf_tensor *t,
                            struct block_weights *out, struct error *err)
{
    const struct fused *f = fused_of(slot);
    float *v;
    int failed = weights_load_vector(m, t, &v, err);
    if (failed)
        return failed;
    if (!f) {
        out->vector[stored_as(slot)] = v;
        return 0;
    }
    uint64_t at = 0;
    for (int i = 0; i < 3 && f->part[i].rows; i++) {
        uint64_t n = shape_size(&m->shape, block, f->part[i].rows);
        float *piece = mem_alloc((size_t)n * sizeof *piece);
        if (!piece) {
            mem_free(v);
            return error_set(err, ERR_NOMEM, "%s: no memory for tensor %s", gguf_path(m->g), t->name);
        }
        memcpy(piece, v + at, (size_t)n * sizeof *piece);
        out->vector[f->part[i].slot] = piece;
        at += n;
    }
    mem_free(v);
    return 0;
}

static int load_slot(const struct model *m, uint32_t block, enum slot slot, struct weights_load *l,
                     struct block_weights *out, struct error *err)
{
    const struct gguf_tensor *t = m->block[block].slot[slot];
    const struct fused *f = fused_of(slot);
    int failed = 0;
    switch ((enum slot_kind)slots[slot].kind) {
    case SLOT_VECTOR:
    case SLOT_VECTORS:
        failed = load_vector_slot(m, block, slot, t, out, err);
        return failed ? failed : report(l, t->bytes, err);
    case SLOT_STACK:
        out->stack[slot] = mem_zalloc((size_t)t->shape[2], sizeof(struct matrix));
        if (!out->stack[slot])
            return error_set(err, ERR_NOMEM, "%s: no memory for tensor %s", gguf_path(m->g), t->name);
        out->stack_count[slot] = (uint32_t)t->shape[2];
        for (uint32_t e = 0; e < t->shape[2]; e++)
            if ((failed = load_rows(l, t, e * t->shape[1], t->shape[1], &out->stack[slot][e], err)) < 0)
                return failed;
        return 0;
    case SLOT_MATRIX:
        break;
    }
    if (!f)
        return load_rows(l, t, 0, t->shape[1], &out->matrix[slot], err);
    uint64_t at = 0;
    for (int i = 0; i < 3 && f->part[i].rows && !failed; i++) {
        uint64_t rows = shape_size(&m->shape, block, f->part[i].rows);
        failed = load_rows(l, t, at, rows, &out->matrix[f->part[i].slot], err);
        at += rows;
    }
    return failed;
}

int weights_load_block(const struct model *m, uint32_t block, struct weights_load *l, struct block_weights *out,
                       struct error *err)
{
    for (int slot = 0; slot < SLOTS; slot++) {
        const struct gguf_tensor *t = m->block[block].slot[slot];
        if (!t)
            continue;
        int failed = weights_await(l, t, err);
        if (failed)
            return failed;
        gguf_advise(m->g, t, true);
        failed = load_slot(m, block, slot, l, out, err);
        if (!l->keep_mapped)
            gguf_advise(m->g, t, false);
        if (failed)
            return failed;
    }
    out->whole = true;
    return 0;
}

static int load_global(const struct model *m, enum global_slot slot, struct weights_load *l, struct matrix *out,
                       struct error *err)
{
    const struct gguf_tensor *t = m->global[slot];
    int failed = weights_await(l, t, err);
    if (failed)
        return failed;
    gguf_advise(m->g, t, true);
    failed = load_rows(l, t, 0, t->shape[1], out, err);
    if (!l->keep_mapped)
        gguf_advise(m->g, t, false);
    return failed;
}

int weights_load_embedding(const struct model *m, struct weights_load *l, struct embedding_weights *out,
                           struct error *err)
{
    int failed = load_global(m, TOKEN_EMBEDDING, l, &out->tokens, err);
    if (!failed && m->global[POSITION_EMBEDDING])
        failed = load_global(m, POSITION_EMBEDDING, l, &out->positions, err);
    out->whole = !failed;
    return failed;
}

int weights_load_head(const struct model *m, struct weights_load *l, const struct matrix *tied,
                      struct head_weights *out, struct error *err)
{
    int failed = 0;
    if (m->global[OUTPUT] || !tied) {
        failed = load_global(m, m->global[OUTPUT] ? OUTPUT : TOKEN_EMBEDDING, l, &out->output, err);
        out->use = &out->output;
    } else {
        out->use = tied;
    }
    const struct {
        const struct gguf_tensor *tensor;
        float **to;
    } vectors[] = {{m->global[OUTPUT_NORM], &out->norm},
                   {m->global[OUTPUT_NORM_BIAS], &out->norm_bias},
                   {m->global[OUTPUT_BIAS], &out->bias}};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors && !failed; i++)
        if (vectors[i].tensor && !(failed = weights_await(l, vectors[i].tensor, err)))
            failed = weights_load_vector(m, vectors[i].tensor, vectors[i].to, err);
    out->whole = !failed;
    return failed;
}

void weights_free_block(struct block_weights *w)
{
    for (int slot = 0; slot < SLOTS; slot++) {
        matrix_free(&w->matrix[slot]);
        for (uint32_t e = 0; w->stack[slot] && e < w->stack_count[slot]; e++)
            matrix_free(&w->stack[slot][e]);
        mem_free(w->stack[slot]);
        mem_free(w->vector[slot]);
    }
    memset(w, 0, sizeof *w);
}

void weights_free_embedding(struct embedding_weights *w)
{
    matrix_free(&w->tokens);
    matrix_free(&w->positions);
    memset(w, 0, sizeof *w);
}

void weights_free_head(struct head_weights *w)
{
    matrix_free(&w->output);
    mem_free(w->norm);
    mem_free(w->norm_bias);
    mem_free(w->bias);
    memset(w, 0, sizeof *w);
}
