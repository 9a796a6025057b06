/* Dense float products through OpenBLAS. F16 and BF16 weights are widened in tiles on the stack of rows first. The only
 * state is the switch, set before work begins; OpenBLAS keeps its own threads, as many as the pool has. */
#include "engine/kernels/blas.h"

#include <cblas.h>
#include <stdatomic.h>

#include "base/memory.h"
#include "engine/kernels/table.h"
#include "engine/quant/dequantize.h"

#define LEAST_TOKENS 16u /* below, our own kernels are as fast */
#define TILE_ROWS 256u

static atomic_bool deterministic = true;

void kernels_set_deterministic(bool on)
{
    atomic_store(&deterministic, on);
}

bool blas_linear(struct pool *pool, const struct matrix *w, const struct activations *a, float *y, size_t ldy)
{
    if (atomic_load_explicit(&deterministic, memory_order_relaxed) || a->n < LEAST_TOKENS)
        return false;
    openblas_set_num_threads(pool_threads(pool));
    const uint8_t *base = w->data ? w->data : w->source;
    int n = (int)a->n, k = (int)w->cols;
    if (w->type == TYPE_F32) {
        if ((uintptr_t)base % sizeof(float))
            return false;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, (int)w->rows, k, 1.0f, a->x, (int)a->stride,
                    (const float *)base, k, 0.0f, y, (int)ldy);
        return true;
    }
    float *tile = mem_alloc((size_t)TILE_ROWS * w->cols * sizeof *tile);
    if (!tile)
        return false;
    size_t row_bytes = type_row_bytes(w->type, w->cols);
    for (uint32_t row = 0; row < w->rows; row += TILE_ROWS) {
        uint32_t rows = w->rows - row < TILE_ROWS ? w->rows - row : TILE_ROWS;
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *from = base + (row + r) * row_bytes;
            if (w->type == TYPE_F16)
                kernels->widen_f16(from, tile + (size_t)r * w->cols, w->cols);
            else
                dequantize_row(w->type, from, tile + (size_t)r * w->cols, w->cols);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, (int)rows, k, 1.0f, a->x, (int)a->stride, tile, k, 0.0f,
                    y + row, (int)ldy);
    }
    mem_free(tile);
    return true;
}
