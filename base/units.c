/* Pure functions; any thread. The decimal point is a point whatever the locale (brigade never calls setlocale
 * for LC_NUMERIC). */
#include "base/units.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

struct suffix {
    const char *name;
    double factor;
};

static int parse_scaled(const char *text, const struct suffix *suffixes, double *value)
{
    char *end;
    if (!text || !*text || strchr(" \t\n+", *text) || strpbrk(text, "xX"))
        return ERR_FORMAT; /* no leading space, no hexadecimal */
    double number = strtod(text, &end);
    if (end == text || !isfinite(number))
        return ERR_FORMAT;
    for (; suffixes->name; suffixes++)
        if (!strcasecmp(end, suffixes->name)) {
            *value = number * suffixes->factor;
            return isfinite(*value) ? 0 : ERR_BOUND;
        }
    return ERR_FORMAT;
}

int units_parse_bytes(const char *text, uint64_t *bytes)
{
    static const struct suffix table[] = {
        {"", 1},           {"b", 1},
        {"k", 0x1p10},     {"kb", 0x1p10}, {"kib", 0x1p10},
        {"m", 0x1p20},     {"mb", 0x1p20}, {"mib", 0x1p20},
        {"g", 0x1p30},     {"gb", 0x1p30}, {"gib", 0x1p30},
        {"t", 0x1p40},     {"tb", 0x1p40}, {"tib", 0x1p40},
        {NULL, 0},
    };
    double value;
    int rc = parse_scaled(text, table, &value);
    if (rc)
        return rc;
    if (value < 0 || value >= 0x1p63)
        return ERR_BOUND;
    *bytes = (uint64_t)value;
    return 0;
}

int units_parse_rate(const char *text, double *bytes_per_s)
{
    static const struct suffix table[] = {
        {"", 1},          {"B", 1},
        {"kbit", 125},    {"Mbit", 125e3},  {"Gbit", 125e6},  {"bit", 0.125},
        {"kbit/s", 125},  {"Mbit/s", 125e3}, {"Gbit/s", 125e6},
        {"kB", 1e3},      {"MB", 1e6},      {"GB", 1e9},
        {"kB/s", 1e3},    {"MB/s", 1e6},    {"GB/s", 1e9},
        {NULL, 0},
    };
    double value;
    int rc = parse_scaled(text, table, &value);
    if (!rc && value <= 0)
        rc = ERR_BOUND;
    if (!rc)
        *bytes_per_s = value;
    return rc;
}

int units_parse_seconds(const char *text, double *seconds)
{
    static const struct suffix table[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"m", 60}, {"min", 60}, {"h", 3600}, {NULL, 0}};
    double value;
    int rc = parse_scaled(text, table, &value);
    if (!rc && value < 0)
        rc = ERR_BOUND;
    if (!rc)
        *seconds = value;
    return rc;
}

int units_parse_int(const char *text, int64_t min, int64_t max, int64_t *value)
{
    char *end;
    if (!text || !*text || !strchr("-0123456789", *text))
        return ERR_FORMAT;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (*end || end == text)
        return ERR_FORMAT;
    if (errno == ERANGE || number < min || number > max)
        return ERR_BOUND;
    *value = number;
    return 0;
}

int units_parse_double(const char *text, double *value)
{
    static const struct suffix none[] = {{"", 1}, {NULL, 0}};
    return parse_scaled(text, none, value);
}

const char *units_bytes_text(uint64_t bytes, char buffer[static UNITS_TEXT])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, UNITS_TEXT, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, names[unit]);
    return buffer;
}
