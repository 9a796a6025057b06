/* How long a thread may run before the kernel looks who else wants to: those who ask for short turns get theirs soon.
 * Linux 6.12 and later; elsewhere nothing happens, and nothing is needed before 6.6. */
#ifndef BRIGADE_BASE_SLICE_H
#define BRIGADE_BASE_SLICE_H

#include <stdbool.h>

/* The calling thread, and threads that it starts meanwhile, take short turns (true), or the kernel's usual ones. */
void slice_short(bool on);

#endif
