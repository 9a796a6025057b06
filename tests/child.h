/* A piece of work in a child process, for what would disturb the test's own: an allocation that fails, a counter, an
 * exit. The child ends with exit(), so that leak checkers look at it. Works where no program can be started (user
 * emulation). */
#ifndef BRIGADE_TESTS_CHILD_H
#define BRIGADE_TESTS_CHILD_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"

/* The child's exit status; -1 when it did not end by itself. The fail_at-th allocation of the child fails; 0: none. */
static inline int child_run(int (*work)(void *context), void *context, long fail_at)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        mem_fail_at(fail_at);
        exit(work(context));
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

#endif
