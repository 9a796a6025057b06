/* Where things lie in a page of the KV cache. For each kv head in turn: K (k_dim rows of 32 positions), then for Q8
 * its scales (one binary16 for each block of 32 dims and position: rows of 32 positions); V (32 rows of v_step
 * elements), then for Q8 its scales (32 rows, one binary16 a block of 32 dims). Parts are multiples of 64 bytes.
 * Private to engine/kernels/. */
#ifndef BRIGADE_ENGINE_KERNELS_KV_H
#define BRIGADE_ENGINE_KERNELS_KV_H

#include "engine/kernels/ops.h"

struct kv_layout {
    size_t v_offset;   /* from a head's K to its V */
    size_t head_bytes; /* from one head to the next */
};
struct kv_layout kv_layout_of(const struct kv_shape *shape);

#endif
