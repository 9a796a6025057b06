/* AVX2 with the 256-bit dot instruction (AVX-VNNI): the avx2 level where the CPU has it; the same bits. */
#define LANES_VNNI
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_avx2_vnni_linear(struct kernel_table *table)
{
    fill_linear(table);
}
