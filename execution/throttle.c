/* Sleeps until shortly before the time, then spins. Owns nothing. */
#include "execution/throttle.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"

#define SPIN_NS 100000 /* how late a sleeper may wake */

void throttle_wait(double factor, int64_t started_ns)
{
    if (factor <= 1)
        return;
    int64_t now = clock_ns(), end = now + (int64_t)((double)(now - started_ns) * (factor - 1));
    int64_t left = end - now - SPIN_NS;
    if (left > 0) {
        struct timespec rest = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
        while (nanosleep(&rest, &rest) && errno == EINTR)
            ;
    }
    while (clock_ns() < end)
        ;
}
