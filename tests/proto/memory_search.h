/* Looks through this process's own memory, for tests of what must not lie about in it. Linux. */
#ifndef BRIGADE_TESTS_MEMORY_SEARCH_H
#define BRIGADE_TESTS_MEMORY_SEARCH_H

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SEARCH_MASK = 0x5a, SEARCH_LONGEST = 64, SEARCH_PIECE = 1 << 16 };

/* What is looked for, masked: the search itself must not hold what it looks for. */
struct needle {
    uint8_t masked[SEARCH_LONGEST];
    size_t bytes;
};

static inline struct needle needle_of(const void *secret, size_t bytes)
{
    struct needle n = {.bytes = bytes};
    for (size_t i = 0; i < bytes && i < SEARCH_LONGEST; i++)
        n.masked[i] = ((const uint8_t *)secret)[i] ^ SEARCH_MASK;
    return n;
}

static inline int needle_count(const struct needle *n, const uint8_t *in, size_t bytes)
{
    int count = 0;
    for (size_t i = 0; i + n->bytes <= bytes; i++) {
        size_t k = 0;
        while (k < n->bytes && (in[i + k] ^ SEARCH_MASK) == n->masked[k])
            k++;
        count += k == n->bytes;
    }
    return count;
}

/* How often it lies in memory; -1 where that cannot be read. Regions over 256 MiB are left out: a sanitizer's
 * own, which hold no copies. */
static inline int memory_count(const struct needle *n)
{
    static uint8_t piece[SEARCH_PIECE + SEARCH_LONGEST];
    FILE *maps = fopen("/proc/self/maps", "re");
    int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), count = 0;
    uint64_t from, to;
    char access[5];
    while (maps && memory >= 0 && fscanf(maps, "%" SCNx64 "-%" SCNx64 " %4s%*[^\n]", &from, &to, access) == 3) {
        bool own = from <= (uintptr_t)piece && (uintptr_t)piece < to;
        if (access[0] != 'r' || to - from > UINT64_C(256) << 20)
            continue;
        for (uint64_t at = from; at < to; at += SEARCH_PIECE) {
            size_t want = to - at < sizeof piece ? (size_t)(to - at) : sizeof piece;
            if (own && at < (uintptr_t)piece + sizeof piece && at + want > (uintptr_t)piece)
                continue; /* what was just read */
            ssize_t got = pread(memory, piece, want, (off_t)at);
            if (got > 0)
                count += needle_count(n, piece, (size_t)got);
        }
    }
    memset(piece, 0, sizeof piece);
    if (memory >= 0)
        close(memory);
    if (!maps || memory < 0)
        count = -1;
    if (maps)
        fclose(maps);
    return count;
}

/* Whether the memory at p is locked: 1, 0, or -1 where the system does not say, or a sanitizer makes nothing of locking. */
static inline int memory_locked(const void *p)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    return -1;
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return -1;
#endif
#endif
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512];
    bool here = false;
    int locked = -1;
    uint64_t from, to;
    while (maps && locked < 0 && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
            here = from <= (uintptr_t)p && (uintptr_t)p < to;
        else if (here && !strncmp(line, "VmFlags:", 8))
            locked = strstr(line, " lo") != NULL;
    }
    if (maps)
        fclose(maps);
    return locked;
}

#endif
