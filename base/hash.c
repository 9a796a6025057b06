/* Pure functions; any thread. */
#include "base/hash.h"

uint32_t hash_crc32(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (UINT32_C(0xEDB88320) & (0u - (crc & 1u)));
    }
    return ~crc;
}

uint64_t hash_mix64(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

uint64_t hash_token(uint64_t running, int32_t token)
{
    return hash_mix64(running ^ (uint64_t)(uint32_t)token);
}

uint64_t hash_tokens(uint64_t running, const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        running = hash_token(running, tokens[i]);
    return running;
}
