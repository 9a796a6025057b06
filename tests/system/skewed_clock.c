/* Preloaded into a program, makes its wall clock go ahead by $SKEW_SECONDS (behind, when negative); the clocks that
 * measure time passed are left alone. For the test of what the doctor says of clocks. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *out)
{
    long rc = syscall(SYS_clock_gettime, clock, out);
    const char *skew = getenv("SKEW_SECONDS");
    if (!rc && clock == CLOCK_REALTIME && skew)
        out->tv_sec += atoi(skew);
    return (int)rc;
}
