/* AVX2 without a dot instruction: quantised products, 16 rows in two registers, 4 tokens a tile. */
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_avx2_linear(struct kernel_table *table)
{
    fill_linear(table);
}
