/* NEON of ARMv8.0 (Cortex-A72): quantised products through widening multiplies, 8 rows in two registers. */
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_neon_linear(struct kernel_table *table)
{
    fill_linear(table);
}
