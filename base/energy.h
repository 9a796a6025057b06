/* How much energy this board uses, where it can tell: an INA3221 on a Jetson, a meter in its supply line (hwmon), a
 * Raspberry Pi 5's power chip, or the processor's own counters (RAPL). One of them is chosen, the one that sees most of
 * the board, so nothing is counted twice. Where there is none, it is not measured, and the reading says why.
 *
 * A meter has a thread of its own, which samples; any thread may read. What it reads is up to this moment, except where a
 * program has to be asked (a Pi 5's power chip: up to a second old). */
#ifndef BRIGADE_BASE_ENERGY_H
#define BRIGADE_BASE_ENERGY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define ENERGY_SOURCE_TEXT 64

struct energy_reading {
    bool measured;
    double joules;                   /* since the meter was opened */
    double watts;                    /* by the last sample; of counters, over the last tenth of a second or more */
    char source[ENERGY_SOURCE_TEXT]; /* "INA3221 VDD_IN"; or why it is not measured */
};

struct energy_meter;

/* Finds the source below root ("" for this machine; sensors_root()). A machine without one gives a meter that says so.
 * ERR_NOMEM. */
int energy_open(const char *root, struct energy_meter **out, struct error *err);
/* One sample. Counters are differences (they may wrap); powers are taken to hold since the sample before. For a meter
 * without a thread. */
void energy_sample(struct energy_meter *m, int64_t now_us);
/* Opens, and samples in a thread until energy_close. */
int energy_start(const char *root, struct energy_meter **out, struct error *err);
void energy_read(struct energy_meter *m, struct energy_reading *out); /* not measured for NULL */
void energy_close(struct energy_meter *m);                            /* NULL is fine */

/* The sum over the rails of what `vcgencmd pmic_read_adc` prints, each with a line for its current and one for its
 * voltage. False: there are none. */
bool energy_parse_pmic(const char *text, double *watts);

#endif
