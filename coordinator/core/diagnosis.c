/* Facts to findings. Pure; any thread. */
#include "coordinator/core/diagnosis.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sensors.h"
#include "base/units.h"

#define CLOCK_BAD_US INT64_C(2000000) /* logs of several boards can no longer be laid beside each other */
#define HOT_MARGIN_MILLIC 5000
#define HOT_MILLIC 80000 /* where no limit is known */
#define CAP_SHORT 0.95   /* of a cap that must be there */

static void add(struct findings *f, enum finding_level level, const char *check, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void add(struct findings *f, enum finding_level level, const char *check, const char *format, ...)
{
    va_list args;
    if (f->count == FINDINGS_MAX)
        return;
    struct finding *one = &f->list[f->count++];
    one->level = level;
    one->check = check;
    va_start(args, format);
    vsnprintf(one->text, sizeof one->text, format, args);
    va_end(args);
}

/* False: there is nothing more to be known. */
static bool judge_reach(const struct node_facts *n, struct findings *f)
{
    const char *endpoint = n->node->endpoint;
    if (!*n->address) {
        add(f, FINDING_BAD, "reach", "%.80s: its name is not known here; write its address into cluster.yaml",
            endpoint);
        return false;
    }
    if (n->link == LINK_REFUSED) {
        add(f, FINDING_BAD, "key",
            "it refuses this coordinator's key, or has another key than cluster.yaml says; let it in again: "
            "'brigade revoke %.60s', then 'brigade invite'",
            n->node->name);
        return false;
    }
    if (n->link != LINK_UP) {
        add(f, FINDING_BAD, "reach",
            "%.80s: %.60s; is brigade-worker started there, and does a firewall let its port through?", endpoint,
            *n->unreachable ? n->unreachable
            : *n->link_text ? n->link_text
                            : "somebody answers, but not a worker with this key");
        return false;
    }
    if (n->rtt_seconds > 0)
        add(f, FINDING_GOOD, "reach", "%s, encrypted, round trip %.2f ms", n->address, n->rtt_seconds * 1e3);
    else
        add(f, FINDING_GOOD, "reach", "%s, encrypted", n->address);
    add(f, FINDING_GOOD, "key", "proven by both sides");
    if (n->refusal.code) {
        add(f, FINDING_BAD, "version", "%.200s", n->refusal.text);
        return false;
    }
    if (!n->welcomed)
        add(f, FINDING_BAD, "reach",
            "it is connected but does not answer; look at its log, or restart brigade-worker there");
    return n->welcomed;
}

static void judge_program(const struct node_facts *n, uint32_t kernels_version, struct findings *f)
{
    if (strcmp(n->program_version, BRIGADE_VERSION))
        add(f, FINDING_HINT, "version",
            "it runs brigade %s, this is " BRIGADE_VERSION "; install the same release everywhere", n->program_version);
    else
        add(f, FINDING_GOOD, "version", "brigade %s, protocol %u", n->program_version, PROTOCOL_VERSION);
    if (n->kernels_version != kernels_version)
        add(f, FINDING_BAD, "kernels",
            "its kernels are of version %u, others' of %u: results would not be the same bits; "
            "install the same release everywhere",
            n->kernels_version, kernels_version);
    else
        add(f, FINDING_GOOD, "isa", "%s (%s), kernels %u", n->isa, *n->cpu ? n->cpu : "unknown processor",
            n->kernels_version);
    if (strcmp(n->name, n->node->name))
        add(f, FINDING_HINT, "name", "it calls itself \"%.60s\", cluster.yaml \"%.60s\"", n->name, n->node->name);
}

static void judge_memory(const struct node_facts *n, struct findings *f)
{
    const struct control_report *r = &n->report;
    uint64_t free_bytes = r->memory_available > r->memory_margin ? r->memory_available - r->memory_margin : 0;
    uint64_t cap = n->node->memory_bytes && (!r->memory_cap || n->node->memory_bytes < r->memory_cap)
                       ? n->node->memory_bytes
                       : r->memory_cap;
    uint64_t now = cap && cap < free_bytes ? cap : free_bytes;
    char a[UNITS_TEXT], b[UNITS_TEXT], c[UNITS_TEXT];
    units_bytes_text(now, a);
    units_bytes_text(cap, b);
    units_bytes_text(r->memory_total, c);
    if (n->has_loaded)
        add(f, FINDING_GOOD, "memory", "%s admitted at its start, of %s; a stage is loaded now",
            units_bytes_text(r->memory_admitted, a), c);
    else if (cap && (double)free_bytes < CAP_SHORT * (double)cap)
        add(f, FINDING_BAD, "memory",
            "only %s can be admitted now, the cap says %s; end other programs there, or lower the cap",
            units_bytes_text(free_bytes, a), b);
    else if (r->memory_admitted && (double)now < 0.8 * (double)r->memory_admitted)
        add(f, FINDING_HINT, "memory",
            "%s can be admitted now, %s at its start: other programs have grown; end them, or restart "
            "brigade-worker so that plans know",
            a, units_bytes_text(r->memory_admitted, b));
    else
        add(f, FINDING_GOOD, "memory", "%s can be admitted now, of %s%s%s", a, c, cap ? ", cap " : "", cap ? b : "");
}

static void judge_heat(const struct control_report *r, struct findings *f)
{
    int32_t limit = r->limit_millic ? r->limit_millic - HOT_MARGIN_MILLIC : HOT_MILLIC;
    double degrees = r->temperature_millic / 1e3;
    if (limit > HOT_MILLIC)
        limit = HOT_MILLIC;
    if (!r->temperature_millic)
        add(f, FINDING_GOOD, "temperature", "not measured there");
    else if (r->temperature_millic >= limit)
        add(f, FINDING_BAD, "temperature",
            "%.1f °C (%s): it slows down from heat; give it a fan, a heat sink or more air", degrees, r->zone);
    else
        add(f, FINDING_GOOD, "temperature", "%.1f °C (%s)", degrees, *r->zone ? r->zone : "thermal zone");
    if (r->throttled_known && (r->throttled & SENSORS_UNDER_VOLTAGE))
        add(f, FINDING_BAD, "power", "under-voltage now: its supply or cable is too weak; use the board's own supply");
    else if (r->throttled_known && (r->throttled & SENSORS_WAS_UNDER_VOLTAGE))
        add(f, FINDING_HINT, "power", "under-voltage since it was started: a stronger supply or a shorter cable");
    if (r->throttled_known && (r->throttled & (SENSORS_THROTTLED | SENSORS_CAPPED | SENSORS_SOFT_LIMIT)))
        add(f, FINDING_BAD, "throttling", "its firmware slows it down now: cool it, and mend its power supply");
    else if (r->throttled_known &&
             (r->throttled & (SENSORS_WAS_THROTTLED | SENSORS_WAS_CAPPED | SENSORS_WAS_SOFT_LIMIT)))
        add(f, FINDING_HINT, "throttling",
            "its firmware has slowed it down since it was started: watch its temperature under load");
    else if (r->throttle_count_known && r->throttle_count)
        add(f, FINDING_HINT, "throttling",
            "its cores slowed down from heat %llu times since it was started: clean or cool it",
            (unsigned long long)r->throttle_count);
    else if (r->throttled_known || r->throttle_count_known)
        add(f, FINDING_GOOD, "throttling", "none");
    if (!strcmp(r->governor, "powersave") && r->frequency_mhz && r->frequency_mhz * 2 < r->frequency_max_mhz)
        add(f, FINDING_HINT, "clock rate",
            "%u of %u MHz, governor powersave; 'cpupower frequency-set -g performance' there", r->frequency_mhz,
            r->frequency_max_mhz);
    else if (r->frequency_max_mhz)
        add(f, FINDING_GOOD, "clock rate", "up to %u MHz, governor %s", r->frequency_max_mhz,
            *r->governor ? r->governor : "unknown");
}

static void judge_link(const struct node_facts *n, struct findings *f)
{
    const struct control_report *r = &n->report;
    if (!*r->interface)
        add(f, FINDING_HINT, "link", "it does not know the interface to here");
    else if (r->half_duplex)
        add(f, FINDING_BAD, "link", "%s runs half duplex; change the cable or the switch's port", r->interface);
    else if (r->wireless && r->power_save == 1)
        add(f, FINDING_BAD, "link",
            "%s is Wi-Fi with power saving: round trips of up to 100 ms; 'iw dev %s set power_save off' there",
            r->interface, r->interface);
    else if (r->wireless)
        add(f, FINDING_HINT, "link", "%s is Wi-Fi%s; a cable makes every token faster", r->interface,
            r->power_save < 0 ? " (whether it saves power is not known: 'iw dev' there tells)" : "");
    else if (r->speed_mbit && r->speed_mbit < 1000)
        add(f, FINDING_HINT, "link", "%s runs at %u Mbit/s; a gigabit cable, port and switch make prefill faster",
            r->interface, r->speed_mbit);
    else if (r->speed_mbit)
        add(f, FINDING_GOOD, "link", "%s, %u Mbit/s", r->interface, r->speed_mbit);
    else
        add(f, FINDING_GOOD, "link", "%s", r->interface);
    if (!n->padded)
        add(f, FINDING_BAD, "mtu",
            "small packets arrive, large ones do not: something between drops them; set the same MTU on "
            "both ends (here %u, there %u) and on the switch",
            n->own_mtu, r->mtu);
    else if (n->own_mtu && r->mtu && n->own_mtu != r->mtu)
        add(f, FINDING_HINT, "mtu", "%u here, %u there; set the same on both", n->own_mtu, r->mtu);
    else if (n->path_mtu && r->mtu && n->path_mtu + 1 < r->mtu) /* loopback: one less */
        add(f, FINDING_HINT, "mtu", "%u on the way, %u at its interface: a tunnel or router between", n->path_mtu,
            r->mtu);
    else if (r->mtu)
        add(f, FINDING_GOOD, "mtu", "%u; large packets arrive", r->mtu);
    else
        add(f, FINDING_GOOD, "mtu", "large packets arrive");
}

void diagnose(const struct node_facts *n, uint32_t kernels_version, struct findings *f)
{
    f->count = 0;
    if (!judge_reach(n, f))
        return;
    judge_program(n, kernels_version, f);
    if (!n->reported) {
        add(f, FINDING_HINT, "report", "it cannot tell about itself: its brigade-worker is older than this program");
        return;
    }
    const struct control_report *r = &n->report;
    judge_memory(n, f);
    judge_heat(r, f);
    judge_link(n, f);
    if (llabs(n->clock_offset_us) > CLOCK_BAD_US + n->clock_error_us)
        add(f, FINDING_BAD, "clock", "%.1f s %s this one; 'timedatectl set-ntp true' there",
            (double)llabs(n->clock_offset_us) / 1e6, n->clock_offset_us > 0 ? "ahead of" : "behind");
    else
        add(f, FINDING_GOOD, "clock", "within %.0f ms of this one",
            (double)(llabs(n->clock_offset_us) + n->clock_error_us) / 1e3 + 0.5);
    if (r->key_mode & 077)
        add(f, FINDING_BAD, "key file",
            "others can read its secret key (mode %03o); 'chmod 600' it there, then make a new one", r->key_mode);
    add(f, FINDING_GOOD, "energy", r->energy_measured ? "measured: %s" : "not measured: %s", r->energy_source);
}

bool findings_bad(const struct findings *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->list[i].level == FINDING_BAD)
            return true;
    return false;
}
