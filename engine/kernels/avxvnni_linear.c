/* AVX2 with the 256-bit dot instruction (AVX-VNNI: Alder Lake and later, Zen 5): quantised products, 16 rows in two
 * registers. Everything else of the level is avx2's. */
#define LANES_VNNI
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_avxvnni(struct kernel_table *table)
{
    kernels_fill_avx2(table);
    fill_linear(table);
}
