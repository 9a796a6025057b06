/* UTF-8 and the properties of characters, as Python's str sees them. Pure; any thread. */
#ifndef BRIGADE_ENGINE_TEMPLATE_UNICODE_H
#define BRIGADE_ENGINE_TEMPLATE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one code point of n > 0 bytes and returns its length; a byte that starts none counts as itself. */
size_t jinja_utf8_decode(const char *bytes, size_t n, uint32_t *point);
/* Writes a code point (U+FFFD for surrogates and what lies outside Unicode); returns the length, at most 4. */
size_t jinja_utf8_encode(uint32_t point, char out[static 4]);
size_t jinja_utf8_points(const char *bytes, size_t n);
/* Byte offset of the point-th code point; n when there are fewer. */
size_t jinja_utf8_offset(const char *bytes, size_t n, size_t point);
/* Start of the code point that ends before byte `end` > 0. */
size_t jinja_utf8_back(const char *bytes, size_t end);
/* The first byte that is not UTF-8; n when all is. */
size_t jinja_utf8_check(const char *bytes, size_t n);

bool jinja_is_space(uint32_t point);
bool jinja_is_line_end(uint32_t point); /* where splitlines() cuts */
bool jinja_is_printable(uint32_t point);
bool jinja_is_alphabetic(uint32_t point);
bool jinja_is_decimal(uint32_t point);  /* a digit of some script */
bool jinja_is_numeric(uint32_t point);
bool jinja_is_upper(uint32_t point);
bool jinja_is_lower(uint32_t point);
uint32_t jinja_to_upper(uint32_t point);
uint32_t jinja_to_lower(uint32_t point);

/* n less the white space at its end; how many bytes of white space stand at its start. */
size_t jinja_rstrip(const char *bytes, size_t n);
size_t jinja_lstrip(const char *bytes, size_t n);

#endif
