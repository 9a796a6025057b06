/* Where things lie in a page of the KV cache: the K of all kv heads, then their V, so that one query reads long rising
 * streams. A head's K: k_dim rows of 32 positions, then for Q8 its scales (one binary16 for each block of 32 dims and
 * position: rows of 32 positions). A head's V: 32 rows of v_step elements, then for Q8 its scales (32 rows, one
 * binary16 a block of 32 dims). Parts are multiples of 64 bytes. Private to engine/kernels/. */
#ifndef BRIGADE_ENGINE_KERNELS_KV_H
#define BRIGADE_ENGINE_KERNELS_KV_H

#include "engine/kernels/ops.h"

struct kv_layout {
    size_t k_bytes, v_bytes; /* of one head */
    size_t v_offset;         /* from the first head's K to its V */
};
struct kv_layout kv_layout_of(const struct kv_shape *shape);

/* Of one number of K or V. */
static inline uint32_t kv_element_bytes(enum kv_type type)
{
    return type == KV_F32 ? 4 : type == KV_F16 ? 2 : 1;
}

#endif
