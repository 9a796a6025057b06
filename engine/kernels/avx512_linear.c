/* AVX-512 with VNNI: quantised products, 16 rows in one register, 8 tokens a tile. */
#define TILE 8u
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_avx512_linear(struct kernel_table *table)
{
    fill_linear(table);
}
