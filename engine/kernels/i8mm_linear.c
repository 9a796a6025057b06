/* NEON with the matrix instruction (Neoverse V1 and N2, Cortex-A510/A710 and later): quantised products of tokens in
 * pairs; a single token goes through the dot instruction. */
#define LANES_I8MM
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_i8mm(struct kernel_table *table)
{
    kernels_fill_neon(table);
    fill_linear(table);
}
