/* One formatted line a call, written with one write(2) so that lines of several threads never mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *program_name = "brigade";
static enum log_level threshold = LOG_LEVEL_WARN;

void log_set_default(const char *program, enum log_level level)
{
    program_name = program;
    threshold = level;
    const char *wanted = getenv("BRIGADE_LOG");
    for (int i = 0; wanted && i < 4; i++)
        if (!strcmp(wanted, level_names[i]))
            threshold = (enum log_level)i;
}

int log_enabled(enum log_level level)
{
    return level <= threshold;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    char line[1024];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    int n = (int)strftime(line, sizeof line, "%H:%M:%S", &tm);
    n += snprintf(line + n, sizeof line - (size_t)n, ".%03ld %s %s: ", now.tv_nsec / 1000000, program_name,
                  level_names[level]);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    size_t end = (size_t)n + (m > 0 ? (size_t)m : 0);
    if (end > sizeof line - 2)
        end = sizeof line - 2;
    line[end++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, end);
    (void)written; /* nowhere left to report to */
}
