/* AVX-512: rows of floats, attention, products with float weights. */
#include "engine/kernels/attention_level.h"
#include "engine/kernels/float_level.h"
#include "engine/kernels/levels.h"
#include "engine/kernels/vector_level.h"

void kernels_fill_avx512(struct kernel_table *table)
{
    fill_vector(table);
    fill_attention(table);
    fill_float(table);
    kernels_fill_avx512_linear(table);
}
