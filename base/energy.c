/* Sources of power and energy, and their integral over time. The meter's thread samples, and so does whoever
 * reads; values are guarded by its lock. */
#include "base/energy.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/sensors.h"

#define COUNTERS_MAX 16
#define HWMON_MAX 64
#define DOMAINS_MAX 16
#define SAMPLE_MS 200
#define SAMPLE_SLOW_MS 1000      /* where a program has to be asked */
#define WATTS_US 100000          /* counters are watts over this time at least */
#define GAP_US INT64_C(10000000) /* a longer pause between samples counts for no more than this */

enum source_kind { SOURCE_NONE, SOURCE_COUNTERS, SOURCE_POWER, SOURCE_VOLT_AMPERE, SOURCE_PMIC };

struct counter {
    char path[512];
    uint64_t last, range; /* microjoules; wraps past range */
    bool begun;
};

struct energy_meter {
    char root[256];
    enum source_kind kind;
    struct counter counters[COUNTERS_MAX];
    size_t counter_count;
    char power_path[512];                  /* microwatts */
    char volt_path[512], ampere_path[512]; /* millivolts, milliamperes */
    pthread_mutex_t lock; /* what follows */
    int64_t sampled_us, watts_us; /* the last sample; the one since which watts are counted, and joules then */
    double watts_joules;
    pthread_cond_t wake;
    bool threaded, stop;
    pthread_t thread;
    struct energy_reading reading;
};

/* ---- Finding ----------------------------------------------------------------------------------------------------- */

static void found(struct energy_meter *m, enum source_kind kind, const char *source)
{
    m->kind = kind;
    snprintf(m->reading.source, sizeof m->reading.source, "%s", source);
}

/* The rail that feeds the whole module, of an INA3221. */
static bool take_ina3221(struct energy_meter *m, const char *folder)
{
    char label[32], source[ENERGY_SOURCE_TEXT];
    for (int channel = 1; channel <= 3; channel++) {
        if (!sensors_line(label, sizeof label, "%s/in%d_label", folder, channel) ||
            (strcmp(label, "VDD_IN") && strcmp(label, "POM_5V_IN") && strcmp(label, "VDD_IN_5V0")))
            continue;
        snprintf(m->volt_path, sizeof m->volt_path, "%s/in%d_input", folder, channel);
        snprintf(m->ampere_path, sizeof m->ampere_path, "%s/curr%d_input", folder, channel);
        snprintf(source, sizeof source, "INA3221 %s", label);
        found(m, SOURCE_VOLT_AMPERE, source);
        return true;
    }
    return false;
}

/* A meter in the supply line: of voltage and current, or of power. */
static bool take_meter(struct energy_meter *m, const char *folder, const char *name)
{
    static const char *const names[] = {"ina219", "ina220", "ina226", "ina231", "ina232", "ina238", "ina260", "powerz"};
    int64_t value;
    bool known = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        known |= !strcmp(names[i], name);
    if (!known)
        return false;
    snprintf(m->power_path, sizeof m->power_path, "%s/power1_input", folder);
    snprintf(m->volt_path, sizeof m->volt_path, "%s/in%d_input", folder, strcmp(name, "powerz") ? 1 : 0);
    snprintf(m->ampere_path, sizeof m->ampere_path, "%s/curr1_input", folder);
    if (sensors_number(&value, "%s", m->power_path))
        found(m, SOURCE_POWER, name);
    else if (sensors_number(&value, "%s", m->volt_path) && sensors_number(&value, "%s", m->ampere_path))
        found(m, SOURCE_VOLT_AMPERE, name);
    return m->kind != SOURCE_NONE;
}

static void find_hwmon(struct energy_meter *m)
{
    char folder[480], name[32];
    for (int pass = 0; pass < 2 && m->kind == SOURCE_NONE; pass++)
        for (int i = 0; i < HWMON_MAX && m->kind == SOURCE_NONE; i++) {
            snprintf(folder, sizeof folder, "%s/sys/class/hwmon/hwmon%d", m->root, i);
            if (!sensors_line(name, sizeof name, "%s/name", folder))
                continue;
            if (pass == 0 && !strcmp(name, "ina3221"))
                take_ina3221(m, folder);
            else if (pass == 1)
                take_meter(m, folder, name);
        }
}

static bool add_counter(struct energy_meter *m, const char *folder, bool *locked)
{
    struct counter *c = &m->counters[m->counter_count];
    int64_t value, range = 0;
    if (m->counter_count == COUNTERS_MAX)
        return false;
    snprintf(c->path, sizeof c->path, "%s/energy_uj", folder);
    errno = 0;
    if (!sensors_number(&value, "%s", c->path)) {
        *locked |= errno == EACCES;
        return false;
    }
    sensors_number(&range, "%s/max_energy_range_uj", folder);
    c->range = range > 0 ? (uint64_t)range : UINT64_MAX;
    m->counter_count++;
    return true;
}

/* The whole platform where that is counted, else all packages with their memory. */
static void find_rapl(struct energy_meter *m)
{
    char folder[480], name[32], source[ENERGY_SOURCE_TEXT];
    bool locked = false;
    int packages = 0, memories = 0;
    for (int pass = 0; pass < 2 && !m->counter_count; pass++)
        for (int i = 0; i < DOMAINS_MAX; i++) {
            snprintf(folder, sizeof folder, "%s/sys/class/powercap/intel-rapl:%d", m->root, i);
            if (!sensors_line(name, sizeof name, "%s/name", folder))
                break;
            if (pass == 0 && !strcmp(name, "psys"))
                add_counter(m, folder, &locked);
            else if (pass == 1 && !strncmp(name, "package", 7))
                packages += add_counter(m, folder, &locked);
            for (int k = 0; pass == 1 && k < DOMAINS_MAX; k++) {
                snprintf(folder, sizeof folder, "%s/sys/class/powercap/intel-rapl:%d/intel-rapl:%d:%d", m->root, i, i,
                         k);
                if (!sensors_line(name, sizeof name, "%s/name", folder))
                    break;
                if (!strcmp(name, "dram"))
                    memories += add_counter(m, folder, &locked);
            }
        }
    if (m->counter_count && !packages)
        found(m, SOURCE_COUNTERS, "RAPL platform");
    else if (m->counter_count) {
        snprintf(source, sizeof source, "RAPL processor%s", memories ? " and memory" : "");
        found(m, SOURCE_COUNTERS, source);
    } else if (locked) {
        found(m, SOURCE_NONE, "RAPL's counters can be read by root only");
    }
}

bool energy_parse_pmic(const char *text, double *watts)
{
    struct {
        char name[32];
        double amperes, volts;
    } rails[32] = {0};
    size_t count = 0;
    bool any = false;
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char name[40], unit;
        double value;
        if (sscanf(line, " %39s %*[a-z](%*d)=%lf%c", name, &value, &unit) != 3 || (unit != 'A' && unit != 'V'))
            continue;
        size_t n = strlen(name), i = 0;
        if (n < 3 || n - 2 >= sizeof rails[0].name || name[n - 2] != '_')
            continue;
        name[n - 2] = 0; /* _A or _V */
        while (i < count && strcmp(rails[i].name, name))
            i++;
        if (i == sizeof rails / sizeof *rails)
            continue;
        if (i == count)
            snprintf(rails[count++].name, sizeof rails[0].name, "%.31s", name);
        *(unit == 'A' ? &rails[i].amperes : &rails[i].volts) = value;
    }
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        if (rails[i].amperes > 0 && rails[i].volts > 0) {
            sum += rails[i].amperes * rails[i].volts;
            any = true;
        }
    if (any)
        *watts = sum;
    return any;
}

/* What the program prints, or its record. */
static bool read_pmic(const struct energy_meter *m, double *watts)
{
    char path[512], text[4096];
    snprintf(path, sizeof path, "%s/pmic_read_adc.txt", m->root);
    FILE *in = *m->root ? fopen(path, "re") : popen("vcgencmd pmic_read_adc 2>/dev/null", "re");
    if (!in)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, in);
    text[n] = 0;
    if (*m->root)
        fclose(in);
    else
        pclose(in);
    return energy_parse_pmic(text, watts);
}

static void find_pmic(struct energy_meter *m)
{
    char model[64];
    double watts;
    if (sensors_line(model, sizeof model, "%s/proc/device-tree/model", m->root) && strstr(model, "Raspberry Pi 5") &&
        read_pmic(m, &watts))
        found(m, SOURCE_PMIC, "Raspberry Pi power chip");
}

int energy_open(const char *root, struct energy_meter **out, struct error *err)
{
    struct energy_meter *m = mem_zalloc(1, sizeof *m);
    if (!m)
        return error_set(err, ERR_NOMEM, "no memory for an energy meter");
    snprintf(m->root, sizeof m->root, "%s", root);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, NULL);
    snprintf(m->reading.source, sizeof m->reading.source, "no power sensor that is known");
    find_hwmon(m);
    if (m->kind == SOURCE_NONE)
        find_pmic(m);
    if (m->kind == SOURCE_NONE)
        find_rapl(m);
    m->reading.measured = m->kind != SOURCE_NONE;
    *out = m;
    return 0;
}

/* ---- Sampling ---------------------------------------------------------------------------------------------------- */

/* Joules that the counters have gone up by. */
static double count_up(struct energy_meter *m)
{
    double joules = 0;
    for (size_t i = 0; i < m->counter_count; i++) {
        struct counter *c = &m->counters[i];
        int64_t value;
        if (!sensors_number(&value, "%s", c->path) || value < 0)
            continue;
        uint64_t now = (uint64_t)value;
        if (c->begun && now >= c->last)
            joules += (double)(now - c->last) * 1e-6;
        else if (c->begun && c->range != UINT64_MAX)
            joules += (double)(c->range - c->last + now) * 1e-6;
        c->last = now;
        c->begun = true;
    }
    return joules;
}

static bool power_now(const struct energy_meter *m, double *watts)
{
    int64_t a, b;
    switch (m->kind) {
    case SOURCE_POWER:
        if (!sensors_number(&a, "%s", m->power_path))
            return false;
        *watts = (double)a * 1e-6;
        return true;
    case SOURCE_VOLT_AMPERE:
        if (!sensors_number(&a, "%s", m->volt_path) || !sensors_number(&b, "%s", m->ampere_path))
            return false;
        *watts = (double)a * (double)b * 1e-6;
        return true;
    case SOURCE_PMIC:
        return read_pmic(m, watts);
    default:
        return false;
    }
}

/* The counters' joules are exact over any time; their watts need a while. Under the lock. */
static void add_counted(struct energy_meter *m, int64_t now_us)
{
    m->reading.joules += count_up(m);
    if (!m->watts_us || now_us - m->watts_us >= WATTS_US) {
        if (m->watts_us)
            m->reading.watts = (m->reading.joules - m->watts_joules) / ((double)(now_us - m->watts_us) * 1e-6);
        m->watts_us = now_us;
        m->watts_joules = m->reading.joules;
    }
}

/* The power is taken to have held since the sample before. Under the lock. */
static void add_power(struct energy_meter *m, double watts, int64_t now_us)
{
    int64_t passed = m->sampled_us && now_us > m->sampled_us ? now_us - m->sampled_us : 0;
    m->reading.joules += watts * (double)(passed > GAP_US ? GAP_US : passed) * 1e-6;
    m->reading.watts = watts;
}

void energy_sample(struct energy_meter *m, int64_t now_us)
{
    double watts = 0;
    bool power = power_now(m, &watts) && watts >= 0; /* without the lock: a program may have to be asked */
    if (m->kind == SOURCE_NONE)
        return;
    pthread_mutex_lock(&m->lock);
    if (m->kind == SOURCE_COUNTERS)
        add_counted(m, now_us);
    else if (power)
        add_power(m, watts, now_us);
    if (now_us > m->sampled_us)
        m->sampled_us = now_us;
    pthread_mutex_unlock(&m->lock);
}

static void *meter_thread(void *context)
{
    struct energy_meter *m = context;
    int every_ms = m->kind == SOURCE_PMIC ? SAMPLE_SLOW_MS : SAMPLE_MS;
    pthread_mutex_lock(&m->lock);
    while (!m->stop) {
        struct timespec until;
        pthread_mutex_unlock(&m->lock);
        energy_sample(m, clock_us());
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += every_ms % 1000 * 1000000L;
        until.tv_sec += every_ms / 1000 + until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&m->lock);
        if (!m->stop)
            pthread_cond_timedwait(&m->wake, &m->lock, &until);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

int energy_start(const char *root, struct energy_meter **out, struct error *err)
{
    struct energy_meter *m;
    sigset_t all, before;
    int rc = energy_open(root, &m, err);
    if (rc)
        return rc;
    if (m->kind != SOURCE_NONE) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
        rc = pthread_create(&m->thread, NULL, meter_thread, m);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        m->threaded = !rc;
    }
    if (rc) {
        energy_close(m);
        return error_set(err, ERR_NOMEM, "cannot start the energy meter's thread: %s", strerror(rc));
    }
    *out = m;
    return 0;
}

void energy_read(struct energy_meter *m, struct energy_reading *out)
{
    *out = (struct energy_reading){.source = "no meter"};
    if (!m)
        return;
    if (m->threaded && m->kind != SOURCE_PMIC)
        energy_sample(m, clock_us());
    pthread_mutex_lock(&m->lock);
    *out = m->reading;
    pthread_mutex_unlock(&m->lock);
}

void energy_close(struct energy_meter *m)
{
    if (!m)
        return;
    if (m->threaded) {
        pthread_mutex_lock(&m->lock);
        m->stop = true;
        pthread_cond_signal(&m->wake);
        pthread_mutex_unlock(&m->lock);
        pthread_join(m->thread, NULL);
    }
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->wake);
    mem_free(m);
}
