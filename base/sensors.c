/* Readers of /sys. Owns nothing; any thread. */
#include "base/sensors.h"

#include <errno.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/wireless.h>

#define ZONES_MAX 64
#define TRIPS_MAX 16
#define CORES_MAX 1024

const char *sensors_root(void)
{
    const char *root = getenv("BRIGADE_TEST_SENSORS");
    return root ? root : "";
}

static bool line_of(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    bool got = file && fgets(out, (int)size, file);
    if (file)
        fclose(file);
    if (got)
        out[strcspn(out, "\r\n")] = 0;
    return got;
}

bool sensors_line(char *out, size_t size, const char *format, ...)
{
    char path[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return n > 0 && n < (int)sizeof path && line_of(path, out, size);
}

bool sensors_number(int64_t *out, const char *format, ...)
{
    char path[1024], line[64], *end;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    if (n <= 0 || n >= (int)sizeof path || !line_of(path, line, sizeof line))
        return false;
    errno = 0;
    long long value = strtoll(line, &end, 10);
    if (end == line || errno)
        return false;
    *out = value;
    return true;
}

/* The hottest zone; returns its number or -1. */
static int hottest_zone(const char *root, int32_t *millic)
{
    int hottest = -1;
    int64_t value;
    *millic = 0;
    for (int zone = 0; zone < ZONES_MAX; zone++)
        if (sensors_number(&value, "%s/sys/class/thermal/thermal_zone%d/temp", root, zone) && value > *millic &&
            value < 200000) {
            *millic = (int32_t)value;
            hottest = zone;
        }
    return hottest;
}

int32_t sensors_temperature_millic(const char *root)
{
    int32_t millic;
    hottest_zone(root, &millic);
    return millic;
}

static void read_thermal(const char *root, struct sensors_board *out)
{
    int zone = hottest_zone(root, &out->temperature_millic);
    int64_t value;
    char kind[24];
    if (zone < 0)
        return;
    sensors_line(out->zone, sizeof out->zone, "%s/sys/class/thermal/thermal_zone%d/type", root, zone);
    for (int trip = 0; trip < TRIPS_MAX; trip++) {
        if (!sensors_line(kind, sizeof kind, "%s/sys/class/thermal/thermal_zone%d/trip_point_%d_type", root, zone,
                          trip) ||
            !sensors_number(&value, "%s/sys/class/thermal/thermal_zone%d/trip_point_%d_temp", root, zone, trip))
            continue;
        bool counts = !strcmp(kind, "passive") || !strcmp(kind, "hot") || !strcmp(kind, "critical"); /* not: a fan */
        if (counts && value > 0 && value < 200000 && (!out->limit_millic || value < out->limit_millic))
            out->limit_millic = (int32_t)value;
    }
}

/* A Raspberry Pi's firmware tells by a file of hexadecimal digits, whose folder's name differs by model. */
static void read_firmware(const char *root, struct sensors_board *out)
{
    static const char *const patterns[] = {"/sys/devices/platform/soc*/*firmware*/get_throttled",
                                           "/sys/devices/platform/*firmware*/get_throttled"};
    char path[1024], line[32], *end;
    for (size_t i = 0; i < 2 && !out->throttled_known; i++) {
        glob_t found = {0};
        snprintf(path, sizeof path, "%s%s", root, patterns[i]);
        if (!glob(path, 0, NULL, &found) && line_of(found.gl_pathv[0], line, sizeof line)) {
            unsigned long bits = strtoul(line, &end, 16);
            out->throttled_known = end != line;
            out->throttled = (uint32_t)bits;
        }
        globfree(&found);
    }
    for (int i = 0; i < ZONES_MAX; i++) { /* without that file: the voltage's alarm */
        int64_t alarm;
        if (!sensors_line(line, sizeof line, "%s/sys/class/hwmon/hwmon%d/name", root, i) || strcmp(line, "rpi_volt") ||
            !sensors_number(&alarm, "%s/sys/class/hwmon/hwmon%d/in0_lcrit_alarm", root, i))
            continue;
        out->throttled_known = true;
        out->throttled |= alarm ? SENSORS_UNDER_VOLTAGE : 0;
    }
}

static void read_clocks(const char *root, struct sensors_board *out)
{
    int64_t value, most = 0;
    for (int core = 0; core < CORES_MAX; core++) {
        if (sensors_number(&value, "%s/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count", root,
                           core)) {
            out->throttle_count_known = true;
            out->throttle_count += value > 0 ? (uint64_t)value : 0;
        }
        if (!sensors_number(&value, "%s/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", root, core)) {
            if (core > 0 && !sensors_number(&value, "%s/sys/devices/system/cpu/cpu%d/topology/core_id", root, core))
                return;
            continue;
        }
        if (value <= most)
            continue;
        most = value;
        out->frequency_max_mhz = (uint32_t)(value / 1000);
        out->frequency_mhz = 0;
        if (sensors_number(&value, "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", root, core))
            out->frequency_mhz = (uint32_t)(value / 1000);
        sensors_line(out->governor, sizeof out->governor, "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor",
                     root, core);
    }
}

void sensors_read_board(const char *root, struct sensors_board *out)
{
    *out = (struct sensors_board){0};
    read_thermal(root, out);
    read_firmware(root, out);
    read_clocks(root, out);
}

/* Not in sysfs: the driver is asked. */
static int ask_power_save(const char *name)
{
    struct iwreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    int rc = ioctl(fd, SIOCGIWPOWER, &request);
    close(fd);
    return rc ? -1 : !request.u.power.disabled;
}

static uint32_t ask_wireless_mbit(const char *name)
{
    struct iwreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    int rc = ioctl(fd, SIOCGIWRATE, &request);
    close(fd);
    return rc || request.u.bitrate.value <= 0 ? 0 : (uint32_t)(request.u.bitrate.value / 1000000);
}

void sensors_read_interface(const char *root, const char *name, struct sensors_interface *out)
{
    char path[1024], line[32];
    int64_t value;
    *out = (struct sensors_interface){.power_save = -1};
    snprintf(path, sizeof path, "%s/sys/class/net/%s", root, name);
    out->exists = *name && !strchr(name, '/') && !access(path, F_OK);
    if (!out->exists)
        return;
    if (sensors_number(&value, "%s/mtu", path) && value > 0)
        out->mtu = (uint32_t)value;
    if (sensors_number(&value, "%s/speed", path) && value > 0)
        out->speed_mbit = (uint32_t)value;
    out->half_duplex = sensors_line(line, sizeof line, "%s/duplex", path) && !strcmp(line, "half");
    snprintf(path, sizeof path, "%s/sys/class/net/%s/wireless", root, name);
    out->wireless = !access(path, F_OK);
    snprintf(path, sizeof path, "%s/sys/class/net/%s/phy80211", root, name);
    out->wireless |= !access(path, F_OK);
    if (!out->wireless)
        return;
    if (!*root) {
        out->power_save = ask_power_save(name);
        out->speed_mbit = ask_wireless_mbit(name);
    } else if (sensors_number(&value, "%s/sys/class/net/%s/wireless/power_save", root, name)) {
        out->power_save = value != 0; /* a recorded tree writes the driver's answer there */
    }
}
