/* What this machine can give us now. Linux: /proc and cgroups. Any thread. */
#ifndef BRIGADE_BASE_MACHINE_H
#define BRIGADE_BASE_MACHINE_H

#include <stdint.h>

/* Bytes of memory that can be had without swapping: the kernel's MemAvailable, or what the limits of our control groups
 * (v2 or v1) leave when that is less. 0 when the kernel does not tell. */
uint64_t machine_memory_available(void);
/* All of the machine's (or control group's) memory. 0 when unknown. */
uint64_t machine_memory_total(void);
/* Both, of a machine whose /proc and /sys lie below root: "" for this one, a recorded tree in tests. */
struct machine_memory {
    uint64_t available, total;
};
void machine_memory_read(const char *root, struct machine_memory *out);

/* The number that the kernel drew when it was started, as text; containers see the one of the kernel they run under. ""
 * when it does not tell. */
#define MACHINE_BOOT_TEXT 48
void machine_boot_id(char text[static MACHINE_BOOT_TEXT]);

/* What stays untouched beside a model: for the system, page tables, our own small change. */
uint64_t machine_memory_margin(void);

#endif
