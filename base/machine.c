/* Reads /proc/meminfo and the memory limits of our control groups. Owns nothing; any thread.
 *
 * MemAvailable is the kernel's own estimate: free pages and what it can give up at once. Swap is not in it, and what
 * compressed swap (zram) holds is taken off it, for it lies in memory. */
#include "base/machine.h"

#include <stdbool.h>
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

/* The names of one version of control groups. Limits: above the first of them nothing is given, above the second (where
 * there is one) processes are held up until pages are given back; both end what may be hoped for. */
struct group_files {
    const char *root, *limit, *soft, *used, *cached;
};
static const struct group_files unified = {"/sys/fs/cgroup", "memory.max", "memory.high", "memory.current",
                                           "inactive_file "};
static const struct group_files legacy = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", NULL,
                                          "memory.usage_in_bytes", "total_inactive_file "};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The tightest limit on the way from our group up to the root, and what it leaves. Inside a container the path names
 * folders that are not there; the container's own limit then stands at the root. */
static void group_limits(const char *root, const struct group_files *names, char *path, uint64_t *limit, uint64_t *left)
{
    char folder[700], stat_path[740];
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s%s", root, names->root, path);
        uint64_t most = number_in(folder, names->limit), used = number_in(folder, names->used);
        if (names->soft)
            most = least(most, number_in(folder, names->soft));
        *limit = least(*limit, most);
        if (most != UINT64_MAX && used != UINT64_MAX) {
            /* Cached pages of files nobody reads any more are given up under pressure. */
            snprintf(stat_path, sizeof stat_path, "%s/memory.stat", folder);
            uint64_t cached = number_after(stat_path, names->cached);
            used -= least(cached, used);
            *left = least(*left, most > used ? most - used : 0);
        }
        char *slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

/* Whether a comma-separated list of controllers names memory. */
static bool names_memory(const char *controllers)
{
    size_t length = strlen("memory");
    for (const char *at = controllers; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, "memory", length) && (!at[length] || at[length] == ','))
            return true;
    return false;
}

static void control_groups(const char *root, uint64_t *limit, uint64_t *left)
{
    char line[512], path_of_list[300];
    snprintf(path_of_list, sizeof path_of_list, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path_of_list, "re");
    *limit = *left = UINT64_MAX;
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        controllers++;
        if (!*controllers)
            group_limits(root, &unified, path, limit, left);
        else if (names_memory(controllers))
            group_limits(root, &legacy, path, limit, left);
    }
    fclose(file);
}

void machine_memory_read(const char *root, struct machine_memory *out)
{
    char path[300];
    uint64_t limit, left;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    control_groups(root, &limit, &left);
    *out = (struct machine_memory){
        .available = least(number_after(path, "MemAvailable:") * 1024, left),
        .total = least(number_after(path, "MemTotal:") * 1024, limit),
    };
}

void machine_boot_id(char text[static MACHINE_BOOT_TEXT])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    text[0] = 0;
    if (file && !fgets(text, MACHINE_BOOT_TEXT, file))
        text[0] = 0;
    if (file)
        fclose(file);
    text[strcspn(text, "\n")] = 0;
}

uint64_t machine_memory_available(void)
{
    struct machine_memory m;
    machine_memory_read("", &m);
    return m.available;
}

uint64_t machine_memory_total(void)
{
    struct machine_memory m;
    machine_memory_read("", &m);
    return m.total;
}

uint64_t machine_memory_margin(void)
{
    uint64_t part = machine_memory_total() / 32;
    return part < (UINT64_C(64) << 20) ? UINT64_C(64) << 20 : part;
}
