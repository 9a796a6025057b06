/* The kernel's PM QoS file (Linux, Documentation/power/pm_qos_interface.rst). */
#include "base/awake.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LINGER_US INT64_C(1000000) /* asking wakes every core, so it is not done for each micro-batch */

/* Open and with a latency of 0 in it, or errno. */
static int ask(const char *path)
{
    const int32_t latency_us = 0;
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file >= 0 && write(file, &latency_us, sizeof latency_us) != (ssize_t)sizeof latency_us) {
        int why = errno;
        close(file);
        errno = why;
        return -1;
    }
    return file;
}

static void let_sleep(struct awake *a)
{
    if (a->open)
        close(a->file);
    a->open = false;
}

int awake_begin(struct awake *a, const char *path, struct error *err)
{
    int file = ask(path);
    if (file < 0)
        return error_set(err, ERR_IO, "cannot keep cores awake: %s: %s; let this user write there, or leave --awake out", path,
                         strerror(errno));
    close(file);
    *a = (struct awake){.path = path};
    return 0;
}

void awake_work(struct awake *a, int64_t now_us)
{
    if (!a->path)
        return;
    a->worked_us = now_us;
    if (!a->open)
        a->open = (a->file = ask(a->path)) >= 0;
}

void awake_look(struct awake *a, int64_t now_us)
{
    if (a->open && now_us - a->worked_us > LINGER_US)
        let_sleep(a);
}

void awake_end(struct awake *a)
{
    let_sleep(a);
    a->path = NULL;
}
