/* AVX-512 with VNNI: quantised products, 16 rows in one register. Panels go in pairs, so that a broadcast of four
 * activations serves 32 rows: the dot instruction runs twice a cycle, loads no more often. */
#define PANEL_PAIRS
#include "engine/kernels/linear_level.h"

#include "engine/kernels/levels.h"

void kernels_fill_avx512_linear(struct kernel_table *table)
{
    fill_linear(table);
}
