/* Gathers a report from files of /sys and /proc. Control thread; owns nothing. */
#include "worker/report.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/machine.h"
#include "base/net.h"
#include "base/sensors.h"

void worker_report(const struct worker *w, const char *address, struct control_report *out)
{
    const char *root = sensors_root();
    struct sensors_board board;
    struct sensors_interface link = {.power_save = -1};
    struct energy_reading energy;
    struct timespec now;
    struct stat key;
    char own[NET_ADDRESS_TEXT], name[NET_INTERFACE_TEXT] = "";
    sensors_read_board(root, &board);
    if (*address && !net_address_toward(address, own, NULL) && net_interface_of(own, name))
        sensors_read_interface(root, name, &link);
    energy_read(w->energy, &energy);
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct control_report){
        .clock_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000,
        .memory_total = machine_memory_total(),
        .memory_available = machine_memory_available(),
        .memory_margin = machine_memory_margin(),
        .memory_cap = w->options->memory_bytes,
        .memory_admitted = w->admitted_bytes,
        .temperature_millic = board.temperature_millic,
        .limit_millic = board.limit_millic,
        .throttled_known = board.throttled_known,
        .throttled = board.throttled,
        .throttle_count_known = board.throttle_count_known,
        .throttle_count = board.throttle_count,
        .frequency_mhz = board.frequency_mhz,
        .frequency_max_mhz = board.frequency_max_mhz,
        .mtu = link.mtu,
        .speed_mbit = link.speed_mbit,
        .wireless = link.wireless,
        .half_duplex = link.half_duplex,
        .power_save = link.power_save,
        .key_mode = stat(w->options->key_path, &key) ? 0 : key.st_mode & 0777,
        .energy_measured = energy.measured,
    };
    snprintf(out->zone, sizeof out->zone, "%s", board.zone);
    snprintf(out->governor, sizeof out->governor, "%s", board.governor);
    snprintf(out->interface, sizeof out->interface, "%s", name);
    snprintf(out->energy_source, sizeof out->energy_source, "%s", energy.source);
}
