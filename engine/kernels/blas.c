/* Dense float products through OpenBLAS. Weights are brought back to rows of floats in tiles first. The only
 * state is the switch, set before work begins; OpenBLAS keeps its own threads, as many as the pool has. */
#include "engine/kernels/blas.h"

#include <cblas.h>
#include <stdatomic.h>

#include "base/memory.h"

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
    int n = (int)a->n, k = (int)w->cols;
    float *tile = mem_alloc((size_t)TILE_ROWS * w->cols * sizeof *tile);
    if (!tile)
        return false;
    for (uint32_t row = 0; row < w->rows; row += TILE_ROWS) {
        uint32_t rows = w->rows - row < TILE_ROWS ? w->rows - row : TILE_ROWS;
        for (uint32_t r = 0; r < rows; r++)
            matrix_row(w, row + r, tile + (size_t)r * w->cols);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, (int)rows, k, 1.0f, a->x, (int)a->stride, tile, k, 0.0f,
                    y + row, (int)ldy);
    }
    mem_free(tile);
    return true;
}
