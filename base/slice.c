/* sched_setattr, for which glibc has no call yet. A thread that passes bytes on needs microseconds; woken on a core where a
 * compute thread has just begun, it would wait for the end of that one's turn, three milliseconds as a rule. Since Linux 6.12
 * a thread may ask for shorter turns, without any privilege; a running one is then interrupted for it. */
#include "base/slice.h"

#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHORTEST_NS 100000 /* the least that the kernel takes */

struct attributes { /* the first version of the kernel's struct sched_attr */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

void slice_short(bool on)
{
    struct attributes a = {.size = sizeof a};
    if (syscall(SYS_sched_getattr, 0, &a, (unsigned)sizeof a, 0u) || a.policy != SCHED_OTHER)
        return;
    a.runtime = on ? SHORTEST_NS : 0;
    (void)syscall(SYS_sched_setattr, 0, &a, 0u); /* older kernels ignore the number */
}
