/* The doctor's judgement, fact by fact. */
#include "base/sensors.h"
#include "coordinator/core/diagnosis.h"
#include "tests/check.h"

static struct config_node node = {.name = "pi", .endpoint = "tcp://10.0.0.2:7700"};
static struct findings f;

/* A node with which nothing is wrong. */
static struct node_facts healthy(void)
{
    struct node_facts n = {.node = &node,
                           .address = "10.0.0.2",
                           .link = LINK_UP,
                           .welcomed = true,
                           .program_version = BRIGADE_VERSION,
                           .isa = "neon",
                           .name = "pi",
                           .kernels_version = 3,
                           .reported = true,
                           .rtt_seconds = 4e-4,
                           .padded = true,
                           .own_mtu = 1500,
                           .path_mtu = 1500,
                           .clock_offset_us = 900,
                           .clock_error_us = 400};
    n.report = (struct control_report){.memory_total = UINT64_C(8) << 30,
                                       .memory_available = UINT64_C(7) << 30,
                                       .memory_margin = UINT64_C(256) << 20,
                                       .memory_admitted = UINT64_C(6912) << 20,
                                       .temperature_millic = 52000,
                                       .limit_millic = 110000,
                                       .zone = "cpu-thermal",
                                       .throttled_known = true,
                                       .interface = "eth0",
                                       .mtu = 1500,
                                       .speed_mbit = 1000,
                                       .power_save = -1,
                                       .key_mode = 0600,
                                       .frequency_mhz = 2400,
                                       .frequency_max_mhz = 2400,
                                       .governor = "ondemand",
                                       .energy_source = "no power sensor that is known"};
    return n;
}

/* The level of a check, -1 when it is not there; `words` must stand in its text. */
static int level_of(const struct node_facts *n, const char *check, const char *words)
{
    diagnose(n, 3, &f);
    for (size_t i = 0; i < f.count; i++)
        if (!strcmp(f.list[i].check, check)) {
            if (words && !strstr(f.list[i].text, words))
                CHECK_FAIL("\"%s\" is not in \"%s\"", words, f.list[i].text);
            return (int)f.list[i].level;
        }
    return -1;
}

static void a_healthy_node_is_well(void)
{
    struct node_facts n = healthy();
    diagnose(&n, 3, &f);
    CHECK(f.count > 8 && !findings_bad(&f));
    for (size_t i = 0; i < f.count; i++)
        if (f.list[i].level != FINDING_GOOD)
            CHECK_FAIL("%s: %s", f.list[i].check, f.list[i].text);
    CHECK_INT(level_of(&n, "energy", "not measured"), FINDING_GOOD);
    CHECK_INT(level_of(&n, "memory", "6.8 GiB"), FINDING_GOOD);
}

static void what_cannot_be_reached_is_told_first(void)
{
    struct node_facts n = healthy();
    *n.address = 0;
    CHECK_INT(level_of(&n, "reach", "name is not known"), FINDING_BAD);
    CHECK_INT(f.count, 1);
    n = healthy();
    n.link = LINK_CONNECTING;
    snprintf(n.unreachable, sizeof n.unreachable, "Connection refused");
    CHECK_INT(level_of(&n, "reach", "Connection refused"), FINDING_BAD);
    CHECK_INT(f.count, 1);
    n.link = LINK_REFUSED;
    CHECK_INT(level_of(&n, "key", "brigade revoke pi"), FINDING_BAD);
    n = healthy();
    n.welcomed = n.reported = false;
    CHECK_INT(level_of(&n, "version", NULL), -1);
    CHECK(findings_bad(&f));
    error_set(&n.refusal, ERR_VERSION, "speaks version 2");
    CHECK_INT(level_of(&n, "version", "version 2"), FINDING_BAD);
    n = healthy();
    n.reported = false;
    CHECK_INT(level_of(&n, "report", "older"), FINDING_HINT);
}

static void each_fact_is_judged(void)
{
    struct node_facts n = healthy();
    n.kernels_version = 2;
    CHECK_INT(level_of(&n, "kernels", "same bits"), FINDING_BAD);
    n = healthy();
    snprintf(n.program_version, sizeof n.program_version, "0.0.9");
    CHECK_INT(level_of(&n, "version", "0.0.9"), FINDING_HINT);
    n = healthy();
    n.clock_offset_us = -3 * INT64_C(3600000000);
    CHECK_INT(level_of(&n, "clock", "10800.0 s behind"), FINDING_BAD);
    n = healthy();
    n.report.memory_cap = UINT64_C(10) << 30;
    CHECK_INT(level_of(&n, "memory", "cap says 10.0 GiB"), FINDING_BAD);
    n.has_loaded = true; /* it holds what is missing itself */
    CHECK_INT(level_of(&n, "memory", NULL), FINDING_GOOD);
    n = healthy();
    n.report.memory_available = UINT64_C(3) << 30;
    CHECK_INT(level_of(&n, "memory", "have grown"), FINDING_HINT);
    n = healthy();
    n.report.temperature_millic = 84000;
    CHECK_INT(level_of(&n, "temperature", "fan"), FINDING_BAD);
    n.report.temperature_millic = 71000;
    n.report.limit_millic = 75000;
    CHECK_INT(level_of(&n, "temperature", NULL), FINDING_BAD);
    n.report.temperature_millic = 0;
    CHECK_INT(level_of(&n, "temperature", "not measured"), FINDING_GOOD);
    n = healthy();
    n.report.throttled = SENSORS_UNDER_VOLTAGE | SENSORS_WAS_UNDER_VOLTAGE | SENSORS_THROTTLED;
    CHECK_INT(level_of(&n, "power", "supply"), FINDING_BAD);
    CHECK_INT(level_of(&n, "throttling", "now"), FINDING_BAD);
    n.report.throttled = SENSORS_WAS_UNDER_VOLTAGE | SENSORS_WAS_THROTTLED;
    CHECK_INT(level_of(&n, "power", "stronger"), FINDING_HINT);
    CHECK_INT(level_of(&n, "throttling", "has slowed"), FINDING_HINT);
    n = healthy();
    n.report.throttled_known = false;
    n.report.throttle_count_known = true;
    n.report.throttle_count = 5;
    CHECK_INT(level_of(&n, "throttling", "5 times"), FINDING_HINT);
    n = healthy();
    n.report.wireless = true;
    n.report.power_save = 1;
    CHECK_INT(level_of(&n, "link", "power_save off"), FINDING_BAD);
    n.report.power_save = 0;
    CHECK_INT(level_of(&n, "link", "cable"), FINDING_HINT);
    n = healthy();
    n.report.speed_mbit = 100;
    CHECK_INT(level_of(&n, "link", "100 Mbit"), FINDING_HINT);
    n.report.half_duplex = true;
    CHECK_INT(level_of(&n, "link", "half duplex"), FINDING_BAD);
    n = healthy();
    n.report.mtu = 9000;
    CHECK_INT(level_of(&n, "mtu", "9000 there"), FINDING_HINT);
    n.padded = false;
    CHECK_INT(level_of(&n, "mtu", "large ones do not"), FINDING_BAD);
    n = healthy();
    n.path_mtu = 1420;
    CHECK_INT(level_of(&n, "mtu", "tunnel"), FINDING_HINT);
    n = healthy();
    n.report.key_mode = 0644;
    CHECK_INT(level_of(&n, "key file", "chmod"), FINDING_BAD);
    n = healthy();
    n.report.frequency_mhz = 800;
    snprintf(n.report.governor, sizeof n.report.governor, "powersave");
    CHECK_INT(level_of(&n, "clock rate", "performance"), FINDING_HINT);
}

static const struct check_test tests[] = {
    {"a healthy node is well", a_healthy_node_is_well},
    {"what cannot be reached is told first", what_cannot_be_reached_is_told_first},
    {"each fact is judged", each_fact_is_judged},
};

CHECK_MAIN(tests)
