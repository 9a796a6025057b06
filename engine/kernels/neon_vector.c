/* NEON: rows of floats, attention, products with float weights; every arm64 level uses these. */
#include "engine/kernels/attention_level.h"
#include "engine/kernels/float_level.h"
#include "engine/kernels/levels.h"
#include "engine/kernels/vector_level.h"

void kernels_fill_neon(struct kernel_table *table)
{
    fill_vector(table);
    fill_attention(table);
    fill_float(table);
    kernels_fill_neon_linear(table);
}
