/* Random Unicode strings for round trips: string i is the same everywhere. A mix of scripts, white space, digits,
 * punctuation, emoji, combining marks and any code point at all; never a surrogate. */
#ifndef BRIGADE_TESTS_ENGINE_RANDOM_TEXT_H
#define BRIGADE_TESTS_ENGINE_RANDOM_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

static inline size_t random_text_put(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> n & 0xFF) | c);
    return n;
}

/* Writes string i, at most `room` bytes (at least 4), and returns its length. */
static inline size_t random_text(uint64_t i, char *out, size_t room)
{
    static const struct {
        uint32_t low, high;
    } ranges[] = {{'a', 'z'},       {'a', 'z'},       {'a', 'z'},         {' ', ' '},         {' ', ' '},
                  {'A', 'Z'},       {'0', '9'},       {0x21, 0x2F},       {0x00, 0x1F},       {0x20, 0x7E},
                  {0x80, 0xFF},     {0x100, 0x24F},   {0x300, 0x36F},     {0x370, 0x52F},     {0x590, 0x6FF},
                  {0x900, 0xDFF},   {0x2000, 0x206F}, {0x2580, 0x2590},   {0x3000, 0x30FF},   {0x4E00, 0x9FFF},
                  {0xAC00, 0xD7A3}, {0xFF00, 0xFFEF}, {0x1F300, 0x1FAFF}, {0x20000, 0x2A6DF}, {1, 0x10FFFF}};
    uint64_t seed = hash_mix64(i + 1), n = seed % 100, size = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t r = hash_mix64(seed + k * UINT64_C(0x9E3779B97F4A7C15));
        size_t pick = r % (sizeof ranges / sizeof *ranges);
        uint32_t c = ranges[pick].low + (uint32_t)((r >> 32) % (ranges[pick].high - ranges[pick].low + 1));
        if (c >= 0xD800 && c <= 0xDFFF)
            c = 0xFFFD;
        if (size + 4 > room)
            break;
        size += random_text_put(c, out + size);
    }
    return size;
}

#endif
