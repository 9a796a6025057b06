/* Quantities as people write them: "6G", "900Mbit", "0.4ms". Parsing is strict: the whole text or an error. */
#ifndef BRIGADE_BASE_UNITS_H
#define BRIGADE_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* "512", "64k", "1.5M", "6G", "2T", also KiB/MiB/GiB; k, M, G, T are powers of 1024. ERR_FORMAT, ERR_BOUND. */
int units_parse_bytes(const char *text, uint64_t *bytes);
/* A link's rate: "900Mbit", "10Gbit", "117MB" (per second; powers of 1000) or a plain number of bytes a second. */
int units_parse_rate(const char *text, double *bytes_per_s);
/* "0.4ms", "300us", "2s", "10m", "1h", or a plain number of seconds. */
int units_parse_seconds(const char *text, double *seconds);
/* A whole decimal number within [min, max]. */
int units_parse_int(const char *text, int64_t min, int64_t max, int64_t *value);
/* A finite decimal number. */
int units_parse_double(const char *text, double *value);

/* "5.4 GiB", "812 KiB", "17 B". Returns buffer. */
#define UNITS_TEXT 24
const char *units_bytes_text(uint64_t bytes, char buffer[static UNITS_TEXT]);

#endif
