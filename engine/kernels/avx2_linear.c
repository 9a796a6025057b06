/* AVX2 without a dot instruction: quantised products, 8 rows in a register, 4 tokens a tile. */
#define TILE 4u
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_avx2_linear(struct kernel_table *table)
{
    fill_linear(table);
}
