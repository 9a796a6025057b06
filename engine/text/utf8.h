/* UTF-8, strictly (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing past U+10FFFF. Pure; any thread.
 */
#ifndef BRIGADE_ENGINE_TEXT_UTF8_H
#define BRIGADE_ENGINE_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* The state of reading one character: how many bytes it has in all and which second byte is allowed. */
static inline unsigned utf8_lead(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

/* Bytes of the character at text (1 to 4) and *c; 0 when none begins here or it is not whole. */
static inline unsigned utf8_decode(const char *text, size_t n, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char low, high;
    if (!n)
        return 0;
    unsigned size = utf8_lead(p[0], &low, &high);
    if (size == 1) {
        *c = p[0];
        return 1;
    }
    if (!size || size > n || p[1] < low || p[1] > high)
        return 0;
    uint32_t value = p[0] & (0x7Fu >> size);
    for (unsigned i = 1; i < size; i++) {
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
        value = value << 6 | (p[i] & 0x3Fu);
    }
    *c = value;
    return size;
}

/* As utf8_decode without the value, and 1 for a byte that begins no whole character. */
static inline unsigned utf8_step(const char *text, size_t n)
{
    uint32_t c;
    unsigned size = utf8_decode(text, n, &c);
    return size ? size : 1;
}

#endif
