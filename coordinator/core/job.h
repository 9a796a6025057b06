/* A micro-batch as one piece of memory, for handing it to another thread. Pure; whoever holds it owns it. */
#ifndef BRIGADE_COORDINATOR_CORE_JOB_H
#define BRIGADE_COORDINATOR_CORE_JOB_H

#include "proto/frame.h"

struct job {
    struct job *next;
    struct frame_work work; /* its pointers go into this allocation */
};

/* A deep copy; free with mem_free. NULL when out of memory. */
struct job *job_copy(const struct frame_work *work);

#endif
