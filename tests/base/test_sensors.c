/* Readers of temperature, throttling, clocks, network interfaces and energy, on recorded trees of /sys. */
#include <stdbool.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/energy.h"
#include "base/sensors.h"
#include "tests/base/sensor_tree.h"
#include "tests/check.h"

#define SECOND INT64_C(1000000)

static void boards_are_read(void)
{
    char root[64];
    struct sensors_board b;
    REQUIRE(!tree_open("pi5", root));
    sensors_read_board(root, &b);
    CHECK_INT(b.temperature_millic, 83450);
    CHECK_INT(sensors_temperature_millic(root), 83450);
    CHECK_TEXT(b.zone, "cpu-thermal");
    CHECK_INT(b.limit_millic, 110000); /* a fan's trip point is no limit */
    CHECK(b.throttled_known);
    CHECK_INT(b.throttled,
              SENSORS_UNDER_VOLTAGE | SENSORS_THROTTLED | SENSORS_WAS_UNDER_VOLTAGE | SENSORS_WAS_THROTTLED);
    CHECK(!b.throttle_count_known);
    CHECK_INT(b.frequency_mhz, 1500);
    CHECK_INT(b.frequency_max_mhz, 2400);
    CHECK_TEXT(b.governor, "ondemand");
    tree_close(root);

    REQUIRE(!tree_open("orin", root));
    sensors_read_board(root, &b);
    CHECK_INT(b.temperature_millic, 51500); /* zones need not be numbered without gaps */
    CHECK_TEXT(b.zone, "tj-thermal");
    CHECK_INT(b.limit_millic, 99000);
    CHECK(!b.throttled_known);
    tree_close(root);

    REQUIRE(!tree_open("minipc", root));
    sensors_read_board(root, &b);
    CHECK_INT(b.temperature_millic, 64000);
    CHECK_INT(b.limit_millic, 0); /* a trip point of 0 is none */
    CHECK(b.throttle_count_known);
    CHECK_INT(b.throttle_count, 34);
    CHECK_TEXT(b.governor, "powersave");
    tree_close(root);

    REQUIRE(!tree_open("pi4", root));
    sensors_read_board(root, &b);
    CHECK(b.throttled_known && b.throttled == 0);
    CHECK_INT(b.frequency_max_mhz, 0);
    tree_close(root);

    sensors_read_board("/nowhere", &b);
    CHECK(!b.temperature_millic && !b.throttled_known && !b.throttle_count_known && !b.frequency_mhz && !*b.governor);
}

static void interfaces_are_read(void)
{
    char root[64];
    struct sensors_interface i;
    REQUIRE(!tree_open("pi5", root));
    sensors_read_interface(root, "eth0", &i);
    CHECK(i.exists && !i.wireless && !i.half_duplex);
    CHECK_INT(i.mtu, 1500);
    CHECK_INT(i.speed_mbit, 100);
    CHECK_INT(i.power_save, -1);
    sensors_read_interface(root, "wlan0", &i);
    CHECK(i.exists && i.wireless);
    CHECK_INT(i.power_save, 1);
    CHECK_INT(i.speed_mbit, 0);
    sensors_read_interface(root, "eth9", &i);
    CHECK(!i.exists);
    sensors_read_interface(root, "../../..", &i);
    CHECK(!i.exists);
    tree_put(root, "sys/class/net/eth0/duplex", "half");
    sensors_read_interface(root, "eth0", &i);
    CHECK(i.half_duplex);
    tree_close(root);
    REQUIRE(!tree_open("laptop", root));
    sensors_read_interface(root, "wlp2s0", &i);
    CHECK(i.wireless && i.power_save == 0);
    tree_close(root);
}

static struct energy_meter *open_meter(const char *root)
{
    struct energy_meter *m = NULL;
    CHECK_INT(energy_open(root, &m, NULL), 0);
    return m;
}

static void powers_are_integrated(void)
{
    char root[64];
    struct energy_reading r;
    REQUIRE(!tree_open("orin", root));
    struct energy_meter *m = open_meter(root);
    energy_sample(m, 1 * SECOND);
    energy_sample(m, 3 * SECOND);
    energy_read(m, &r);
    CHECK(r.measured);
    CHECK_TEXT(r.source, "INA3221 VDD_IN"); /* not the rails behind it */
    CHECK_NEAR(r.watts, 5.016 * 1.240, 1e-9);
    CHECK_NEAR(r.joules, 2 * 5.016 * 1.240, 1e-9);
    tree_put(root, "sys/class/hwmon/hwmon3/curr1_input", "2000");
    energy_sample(m, 4 * SECOND);
    energy_read(m, &r);
    CHECK_NEAR(r.joules, 2 * 5.016 * 1.240 + 5.016 * 2, 1e-9);
    energy_sample(m, 4000 * SECOND); /* it slept: nobody knows */
    energy_read(m, &r);
    CHECK(r.joules < 150);
    energy_close(m);
    tree_close(root);

    REQUIRE(!tree_open("pi4", root));
    m = open_meter(root);
    energy_sample(m, 1 * SECOND);
    energy_sample(m, 2 * SECOND);
    energy_read(m, &r);
    CHECK_TEXT(r.source, "ina226");
    CHECK_NEAR(r.joules, 4.375, 1e-9);
    unlink(strcat(strcpy((char[128]){0}, root), "/sys/class/hwmon/hwmon2/power1_input")); /* unplugged */
    energy_sample(m, 3 * SECOND);
    energy_read(m, &r);
    CHECK_NEAR(r.joules, 4.375, 1e-9);
    energy_close(m);
    tree_close(root);

    REQUIRE(!tree_open("pi5", root));
    m = open_meter(root);
    energy_sample(m, 1 * SECOND);
    energy_sample(m, 2 * SECOND);
    energy_read(m, &r);
    double rails = 0.09759375 * 3.70485 + 0.05953219 * 3.31345100 + 0.1649239 * 1.80001100 + 1.182 * 0.7203189;
    CHECK_TEXT(r.source, "Raspberry Pi power chip");
    CHECK_NEAR(r.watts, rails, 1e-6);
    energy_close(m);
    tree_close(root);
}

static void counters_are_differences(void)
{
    char root[64];
    struct energy_reading r;
    REQUIRE(!tree_open("minipc", root));
    struct energy_meter *m = open_meter(root);
    energy_sample(m, 1 * SECOND);
    energy_read(m, &r);
    CHECK_TEXT(r.source, "RAPL processor and memory");
    CHECK_NEAR(r.joules, 0, 1e-9);
    tree_put(root, "sys/class/powercap/intel-rapl:0/energy_uj", "4671150"); /* past the end: 0.328850 J and these */
    tree_put(root, "sys/class/powercap/intel-rapl:0/intel-rapl:0:1/energy_uj", "6000000");
    tree_put(root, "sys/class/powercap/intel-rapl:0/intel-rapl:0:0/energy_uj",
             "99000000"); /* cores are in the package */
    energy_sample(m, 3 * SECOND);
    energy_read(m, &r);
    CHECK_NEAR(r.joules, 6.0, 1e-9);
    CHECK_NEAR(r.watts, 3.0, 1e-9);
    energy_close(m);
    tree_close(root);

    REQUIRE(!tree_open("laptop", root));
    m = open_meter(root);
    energy_sample(m, 1 * SECOND);
    tree_put(root, "sys/class/powercap/intel-rapl:0/energy_uj", "900000000");
    tree_put(root, "sys/class/powercap/intel-rapl:1/energy_uj", "17000000");
    energy_sample(m, 2 * SECOND);
    energy_read(m, &r);
    CHECK_TEXT(r.source, "RAPL platform"); /* which the package is part of */
    CHECK_NEAR(r.joules, 10, 1e-9);
    energy_close(m);
    tree_close(root);
}

static void nothing_is_not_zero(void)
{
    struct energy_reading r;
    struct energy_meter *m = open_meter("/nowhere");
    energy_sample(m, SECOND);
    energy_sample(m, 2 * SECOND);
    energy_read(m, &r);
    CHECK(!r.measured && *r.source);
    energy_close(m);
    energy_read(NULL, &r);
    CHECK(!r.measured);
    double watts = 7;
    CHECK(!energy_parse_pmic("", &watts) && !energy_parse_pmic("VCHI initialization failed\n", &watts));
    CHECK(!energy_parse_pmic("X_A current(0)=1.0A\n", &watts) &&
          !energy_parse_pmic("X_V volt(0)=1.0V\n_A current(1)=1A\n", &watts));
    CHECK_NEAR(watts, 7, 0);
    CHECK(energy_parse_pmic("X_A current(0)=2.0A\nX_V volt(3)=1.5V\nY_V volt(9)=5V", &watts));
    CHECK_NEAR(watts, 3, 1e-9);
}

static void a_thread_samples(void)
{
    char root[64];
    struct energy_reading r;
    struct energy_meter *m = NULL;
    REQUIRE(!tree_open("pi4", root));
    REQUIRE(!energy_start(root, &m, NULL));
    int64_t end = clock_ms() + 10000;
    do {
        usleep(20000);
        energy_read(m, &r);
    } while (r.joules <= 0 && clock_ms() < end);
    CHECK(r.joules > 0);
    for (int i = 0; i < 20; i++) { /* what is read is up to now, not to the thread's last sample */
        struct energy_reading later;
        usleep(1000);
        energy_read(m, &later);
        CHECK(later.joules >= r.joules + 0.004);
        r = later;
    }
    energy_close(m);
    tree_close(root);
}

static const struct check_test tests[] = {
    {"boards are read", boards_are_read},
    {"interfaces are read", interfaces_are_read},
    {"powers are integrated", powers_are_integrated},
    {"counters are differences", counters_are_differences},
    {"nothing is not zero", nothing_is_not_zero},
    {"a thread samples", a_thread_samples},
};

CHECK_MAIN(tests)
