/* Matrices: laying out weights for the chosen level, and one row back as floats. Owns the laid-out bytes; borrows the
 * file's where its own order serves. Loading splits over the pool; otherwise any thread. */
#include <string.h>

#include "base/memory.h"
#include "engine/kernels/numerics.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"
#include "engine/quant/dequantize.h"

static bool is_float(uint32_t type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

bool matrix_supported(uint32_t type, uint32_t cols)
{
    if (!cols || (!is_float(type) && !numerics_of(type).groups))
        return false;
    return cols % type_info(type)->block_values == 0;
}

static uint32_t float_bytes(uint32_t type)
{
    return type == TYPE_F32 ? 4 : 2;
}

/* Whether the level multiplies the file's own rows as they lie. */
static bool as_in_file(uint32_t type)
{
    return is_float(type) ? !kernels->float_rows : layout_of(type) == LAYOUT_EXPANDED;
}

static size_t float_groups(uint32_t rows)
{
    return ((size_t)rows + kernels->float_rows - 1) / kernels->float_rows;
}

static uint32_t panels_of(uint32_t rows)
{
    return rows / PANEL_ROWS + (rows % PANEL_ROWS != 0);
}

/* Panel p and the rows it is high: the panels of 16 that make a pair are one. */
static uint8_t *panel_at(const struct matrix *m, enum layout layout, uint32_t *p, uint32_t *wide)
{
    *wide = PANEL_ROWS;
    if (kernels->pairs && (*p | 1) < panels_of(m->rows)) {
        *wide = PAIR_ROWS;
        *p &= ~UINT32_C(1);
    }
    return (uint8_t *)m->data + *p * layout_panel_bytes(layout, PANEL_ROWS, m->cols);
}

/* What the level's layout takes; for the file's own order, the file's bytes. */
static size_t laid_out_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
    if (as_in_file(type))
        return rows * type_row_bytes(type, cols);
    if (is_float(type))
        return float_groups(rows) * float_group_bytes(float_bytes(type), cols);
    return panels_of(rows) * layout_panel_bytes(layout_of(type), PANEL_ROWS, cols);
}

size_t matrix_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
    return !matrix_supported(type, cols) || as_in_file(type) ? 0 : laid_out_bytes(type, rows, cols);
}

struct load_job {
    struct matrix *m;
    enum layout layout;
    const uint8_t *source;
    size_t row_bytes;
};

static void load_panels(void *context, size_t begin, size_t end, int thread)
{
    const struct load_job *job = context;
    const struct matrix *m = job->m;
    for (uint32_t p = (uint32_t)begin, wide; p < end; p += wide / PANEL_ROWS) {
        uint8_t *panel = panel_at(m, job->layout, &p, &wide);
        uint32_t first = p * PANEL_ROWS, rows = m->rows - first < wide ? m->rows - first : wide;
        pack_panel(job->layout, wide, m->cols, job->source + first * job->row_bytes, job->row_bytes, rows,
                   kernels->flip, panel);
    }
}

#define FLOAT_GRAIN 4u /* groups a piece */

static void load_floats(void *context, size_t begin, size_t end, int thread)
{
    const struct load_job *job = context;
    const struct matrix *m = job->m;
    uint32_t each = float_bytes(m->type);
    for (size_t g = begin; g < end; g++) {
        uint32_t most = kernels->float_rows, first = (uint32_t)g * most;
        uint32_t rows = m->rows - first < most ? m->rows - first : most;
        pack_floats(each, m->cols, job->source + first * job->row_bytes, rows,
                    (uint8_t *)m->data + g * float_group_bytes(each, m->cols));
    }
}

#define COPY_GRAIN ((size_t)1 << 20)

static void load_copy(void *context, size_t begin, size_t end, int thread)
{
    const struct load_job *job = context;
    memcpy((uint8_t *)job->m->data + begin, job->source + begin, end - begin);
}

int matrix_load(struct matrix *m, struct pool *pool, uint32_t type, uint32_t rows, uint32_t cols, const void *source,
                bool borrow, struct error *err)
{
    if (!matrix_supported(type, cols))
        return error_set(err, ERR_UNSUPPORTED, "no kernel multiplies %s rows of %u columns", type_name(type),
                         (unsigned)cols);
    struct matrix loaded = {.type = type, .rows = rows, .cols = cols};
    if (as_in_file(type) && borrow) {
        loaded.source = source;
        *m = loaded;
        return 0;
    }
    loaded.bytes = laid_out_bytes(type, rows, cols);
    loaded.data = mem_map(loaded.bytes);
    if (!loaded.data)
        return error_set(err, ERR_NOMEM, "out of memory for a %s matrix of %u x %u (%zu bytes)", type_name(type),
                         (unsigned)rows, (unsigned)cols, loaded.bytes);
    struct load_job job = {&loaded, is_float(type) ? LAYOUT_EXPANDED : layout_of(type), source,
                           type_row_bytes(type, cols)};
    if (as_in_file(type))
        pool_for(pool, loaded.bytes, COPY_GRAIN, load_copy, &job);
    else if (is_float(type))
        pool_for(pool, float_groups(rows), FLOAT_GRAIN, load_floats, &job);
    else
        pool_for(pool, panels_of(rows), 2, load_panels, &job);
    *m = loaded;
    return 0;
}

void matrix_free(struct matrix *m)
{
    if (m && m->data)
        mem_unmap(m->data, m->bytes);
    if (m)
        *m = (struct matrix){0};
}

void matrix_row(const struct matrix *m, uint32_t row, float *out)
{
    if (as_in_file(m->type)) {
        const uint8_t *base = m->data ? m->data : m->source;
        dequantize_row(m->type, base + row * type_row_bytes(m->type, m->cols), out, m->cols);
        return;
    }
    if (is_float(m->type)) {
        uint32_t each = float_bytes(m->type), high = kernels->float_rows;
        const uint8_t *group = (const uint8_t *)m->data + row / high * float_group_bytes(each, m->cols);
        for (uint32_t c = 0; c < m->cols; c += 16)
            dequantize_row(m->type, group + ((size_t)c * high + row % high * 16) * each, out + c,
                           m->cols - c < 16 ? m->cols - c : 16);
        return;
    }
    enum layout layout = layout_of(m->type);
    /* Block by block, so that no row of bytes need be held. */
    uint32_t values = layout_block_cols(layout), p = row / PANEL_ROWS, wide;
    const uint8_t *panel = panel_at(m, layout, &p, &wide);
    for (uint32_t c = 0; c < m->cols; c += values, panel += layout_panel_bytes(layout, wide, values)) {
        uint8_t block[512];
        unpack_block(layout, wide, panel, row - p * PANEL_ROWS, kernels->flip, block);
        dequantize_row(m->type, block, out + c, values);
    }
}
