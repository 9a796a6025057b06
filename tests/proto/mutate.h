/* Damages bytes in the ways a wire, a disk or an enemy would: cut, flipped, lengthened, numbers blown up. Seeded. */
#ifndef BRIGADE_TESTS_PROTO_MUTATE_H
#define BRIGADE_TESTS_PROTO_MUTATE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/* Returns malloc'ed bytes of exactly *size, so that a read past the end is seen by the sanitizer. */
static inline unsigned char *mutate(const void *bytes, size_t n, uint64_t seed, size_t *size)
{
    uint64_t r = hash_mix64(seed), s = hash_mix64(r), t = hash_mix64(s);
    size_t extra = 1 + s % 40;
    unsigned char *copy = malloc(n + extra + 16);
    if (!copy)
        abort();
    memcpy(copy, bytes, n);
    *size = n;
    switch (r % 6) {
    case 0: /* truncate */
        *size = n ? s % n : 0;
        break;
    case 1: /* flip a bit */
        if (n)
            copy[s % n] ^= (unsigned char)(1u << t % 8);
        break;
    case 2: /* flip several bytes */
        for (int i = 0; n && i < 8; i++, s = hash_mix64(s))
            copy[s % n] = (unsigned char)(s >> 32);
        break;
    case 3: /* lengthen */
        for (size_t i = 0; i < extra; i++)
            copy[n + i] = (unsigned char)hash_mix64(t + i);
        *size = n + extra;
        break;
    case 4: /* a varint that overflows, somewhere */
        if (n) {
            size_t at = s % n;
            memset(copy + at, 0xff, n - at < 9 ? n - at : 9);
        }
        break;
    default: /* one piece twice: repeated fields, lengths that no longer fit */
        if (n) {
            size_t at = s % n, len = n - at < extra ? n - at : extra;
            memmove(copy + at + len, copy + at, n - at);
            *size = n + len;
        }
        break;
    }
    unsigned char *exact = malloc(*size ? *size : 1);
    if (!exact)
        abort();
    memcpy(exact, copy, *size);
    free(copy);
    return exact;
}

#endif
