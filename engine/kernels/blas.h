/* OpenBLAS for dense float prefill: only after kernels_set_deterministic(false), for its sums have an order of their
 * own. Private to engine/kernels/. */
#ifndef BRIGADE_ENGINE_KERNELS_BLAS_H
#define BRIGADE_ENGINE_KERNELS_BLAS_H

#include <stdbool.h>

#include "engine/kernels/ops.h"

/* Does y = x·wᵀ and returns true when w is a float matrix, the batch is large enough and it is allowed. */
bool blas_linear(struct pool *pool, const struct matrix *w, const struct activations *a, float *y, size_t ldy);

#endif
