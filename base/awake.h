/* Idle cores that answer at once. A core with nothing to do sleeps, and in a virtual machine, or in the deep states of a
 * desktop's processor, takes 50 to some hundred microseconds to wake; a hop between stages wakes three sleepers. While
 * there is work, the kernel can be asked to let no core of this machine sleep (PM QoS: a latency of 0 in
 * /dev/cpu_dma_latency counts as long as the file is open). Waiting then costs power, so nobody has it who did not ask.
 *
 * Zeroed it asks for nothing. One thread. */
#ifndef BRIGADE_BASE_AWAKE_H
#define BRIGADE_BASE_AWAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define AWAKE_PATH "/dev/cpu_dma_latency"

struct awake {
    const char *path; /* NULL: cores sleep as they like. Borrowed */
    bool open;
    int file;
    int64_t worked_us;
};

/* From now on cores stay awake while there is work: the kernel's file, or that of a test. ERR_IO: it cannot be had, with
 * what to do. */
int awake_begin(struct awake *a, const char *path, struct error *err);
void awake_work(struct awake *a, int64_t now_us); /* there is work: awake for the next second */
void awake_look(struct awake *a, int64_t now_us); /* now and then: ends it when that second is over */
void awake_end(struct awake *a);

#endif
