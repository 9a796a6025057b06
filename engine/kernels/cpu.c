/* What the CPU can do, asked once a call; the operating system's part (saved registers) included. Pure. */
#include "engine/kernels/levels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

bool cpu_runs_scalar(void)
{
    return true;
}

#if defined(__x86_64__)

bool cpu_runs_avx2(void)
{
    __builtin_cpu_init();
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__get_cpuid(1, &a, &b, &c, &d))
        return false;
    return c & bit_F16C;
}

bool cpu_runs_avxvnni(void)
{
    unsigned a, b, c, d;
    return cpu_runs_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

bool cpu_runs_avx512(void)
{
    return cpu_runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

#elif defined(__aarch64__)

/* Bit numbers of the kernel's ABI (asm/hwcap.h). */
bool cpu_runs_neon(void)
{
    return getauxval(AT_HWCAP) >> 1 & 1;
}

bool cpu_runs_dotprod(void)
{
    return cpu_runs_neon() && (getauxval(AT_HWCAP) >> 20 & 1);
}

bool cpu_runs_i8mm(void)
{
    return cpu_runs_dotprod() && (getauxval(AT_HWCAP2) >> 13 & 1);
}

#endif
