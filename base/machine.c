/* Reads /proc/meminfo and the memory limits of our control groups. Owns nothing; any thread. */
#include "base/machine.h"

#include <stdio.h>
#include <string.h>

/* The number behind `key` (its separator included) on a line of a file; 0 when absent. */
static uint64_t number_after(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    char line[256];
    unsigned long long value = 0;
    size_t length = strlen(key);
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, key, length)) {
            if (sscanf(line + length, "%llu", &value) != 1)
                value = 0;
            break;
        }
    fclose(file);
    return value;
}

/* A file that holds one number; UINT64_MAX for "max" or when it cannot be read. */
static uint64_t number_in(const char *folder, const char *name)
{
    char path[768];
    unsigned long long value = UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return UINT64_MAX;
    if (fscanf(file, "%llu", &value) != 1)
        value = UINT64_MAX;
    fclose(file);
    return value;
}

/* The tightest limit on the way from our group up to the root, and what it leaves. */
static void group_limits(const char *root, char *path, const char *limit_name, const char *used_name, uint64_t *limit,
                         uint64_t *left)
{
    char folder[600], stat_path[640];
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", root, path);
        uint64_t most = number_in(folder, limit_name), used = number_in(folder, used_name);
        if (most < *limit)
            *limit = most;
        if (most != UINT64_MAX && used != UINT64_MAX) {
            /* Cached pages of files nobody reads any more are given up under pressure. */
            snprintf(stat_path, sizeof stat_path, "%s/memory.stat", folder);
            uint64_t cached = number_after(stat_path, "inactive_file ");
            used -= cached < used ? cached : used;
            if ((most > used ? most - used : 0) < *left)
                *left = most > used ? most - used : 0;
        }
        char *slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

static void control_groups(uint64_t *limit, uint64_t *left)
{
    char line[512];
    FILE *file = fopen("/proc/self/cgroup", "re");
    *limit = *left = UINT64_MAX;
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        if (!strcmp(controllers, ":"))
            group_limits("/sys/fs/cgroup", path, "memory.max", "memory.current", limit, left);
        else if (strstr(controllers, "memory"))
            group_limits("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", limit, left);
    }
    fclose(file);
}

uint64_t machine_memory_available(void)
{
    uint64_t available = number_after("/proc/meminfo", "MemAvailable:") * 1024, limit, left;
    control_groups(&limit, &left);
    return left < available ? left : available;
}

uint64_t machine_memory_total(void)
{
    uint64_t total = number_after("/proc/meminfo", "MemTotal:") * 1024, limit, left;
    control_groups(&limit, &left);
    return limit < total ? limit : total;
}

uint64_t machine_memory_margin(void)
{
    uint64_t part = machine_memory_total() / 32;
    return part < (UINT64_C(64) << 20) ? UINT64_C(64) << 20 : part;
}
