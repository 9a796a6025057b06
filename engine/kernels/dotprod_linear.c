/* NEON with the dot instruction (Cortex-A76, A78AE): quantised products, 8 rows in two registers. */
#define LANES_DOTPROD
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_dotprod(struct kernel_table *table)
{
    kernels_fill_neon(table);
    fill_linear(table);
}
