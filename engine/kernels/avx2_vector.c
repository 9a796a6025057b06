/* AVX2 with FMA and F16C: rows of floats, attention, products with float weights; avxvnni uses these too. */
#include "engine/kernels/attention_level.h"
#include "engine/kernels/float_level.h"
#include "engine/kernels/levels.h"
#include "engine/kernels/vector_level.h"

void kernels_fill_avx2(struct kernel_table *table)
{
    fill_vector(table);
    fill_attention(table);
    fill_float(table);
    kernels_fill_avx2_linear(table);
}
