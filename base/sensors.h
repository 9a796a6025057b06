/* What a board tells of its own health through sysfs: temperature, throttling, clock rates, its network interfaces.
 * Linux. `root` is put before every path: "" for this machine, a folder for a recorded tree. What cannot be read is
 * unknown, never an error. Any thread. */
#ifndef BRIGADE_BASE_SENSORS_H
#define BRIGADE_BASE_SENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where this process looks: "" unless BRIGADE_TEST_SENSORS names a recorded tree. */
const char *sensors_root(void);

enum { /* as a Raspberry Pi's firmware numbers them; the upper ones: since it was started */
       SENSORS_UNDER_VOLTAGE = 1 << 0,
       SENSORS_CAPPED = 1 << 1,
       SENSORS_THROTTLED = 1 << 2,
       SENSORS_SOFT_LIMIT = 1 << 3,
       SENSORS_WAS_UNDER_VOLTAGE = 1 << 16,
       SENSORS_WAS_CAPPED = 1 << 17,
       SENSORS_WAS_THROTTLED = 1 << 18,
       SENSORS_WAS_SOFT_LIMIT = 1 << 19,
};

struct sensors_board {
    int32_t temperature_millic; /* of the hottest thermal zone; 0 unknown */
    int32_t limit_millic;       /* that zone's lowest trip point, where it slows down or stops; 0 unknown */
    char zone[32];              /* its kind: "cpu-thermal", "x86_pkg_temp" */
    bool throttled_known;
    uint32_t throttled; /* of the above */
    bool throttle_count_known;
    uint64_t throttle_count;                   /* times that an x86 core slowed down for heat since it was started */
    uint32_t frequency_mhz, frequency_max_mhz; /* of the fastest core now, and what it could; 0 unknown */
    char governor[24];                         /* of its clock rate; "" unknown */
};
void sensors_read_board(const char *root, struct sensors_board *out);
/* The temperature alone: cheaper. */
int32_t sensors_temperature_millic(const char *root);

struct sensors_interface {
    bool exists, wireless, half_duplex;
    uint32_t mtu, speed_mbit; /* 0 unknown */
    int power_save;           /* of a wireless one: 1 on, 0 off, -1 unknown */
};
void sensors_read_interface(const char *root, const char *name, struct sensors_interface *out);

/* A file's first line, without its end; false when it cannot be read. For readers beside this one. */
bool sensors_line(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool sensors_number(int64_t *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
