/* The ISA levels: whether this CPU runs one, and what fills its table. Private to engine/kernels/. */
#ifndef BRIGADE_ENGINE_KERNELS_LEVELS_H
#define BRIGADE_ENGINE_KERNELS_LEVELS_H

#include <stdbool.h>

#include "engine/kernels/table.h"

bool cpu_runs_scalar(void);
bool cpu_runs_avx2(void);    /* with FMA and F16C */
bool cpu_runs_avxvnni(void); /* avx2 and the 256-bit dot instruction */
bool cpu_runs_avx512(void);  /* F, BW, DQ, VL and VNNI */
bool cpu_runs_neon(void);
bool cpu_runs_dotprod(void);
bool cpu_runs_i8mm(void);

void kernels_fill_avx2(struct kernel_table *table);
void kernels_fill_avx2_linear(struct kernel_table *table);
void kernels_fill_avxvnni(struct kernel_table *table);
void kernels_fill_avx512(struct kernel_table *table);
void kernels_fill_avx512_linear(struct kernel_table *table);
void kernels_fill_neon(struct kernel_table *table);
void kernels_fill_neon_linear(struct kernel_table *table);
void kernels_fill_dotprod(struct kernel_table *table);
void kernels_fill_i8mm(struct kernel_table *table);

#endif
