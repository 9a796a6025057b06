/* Keys are kept and compared as hashes, all of them each time, so that time tells nothing of their bytes or lengths. */
#include "coordinator/api/keys.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

#define DIGEST_BYTES 32
#define KEYS_MAX 4096

struct api_keys {
    size_t count, capacity;
    unsigned char (*digests)[DIGEST_BYTES];
};

static int add_key(struct api_keys *k, const char *key, size_t bytes, const char *path, struct error *err)
{
    if (k->count == KEYS_MAX)
        return error_set(err, ERR_BOUND, "%s: more than %d keys", path, KEYS_MAX);
    if (k->count == k->capacity) {
        size_t capacity = k->capacity ? 2 * k->capacity : 8;
        void *grown = mem_resize(k->digests, capacity, sizeof *k->digests);
        if (!grown)
            return error_set(err, ERR_NOMEM, "%s: out of memory", path);
        k->digests = grown;
        k->capacity = capacity;
    }
    crypto_generichash(k->digests[k->count++], DIGEST_BYTES, (const unsigned char *)key, bytes, NULL, 0);
    return 0;
}

int api_keys_read(const char *path, struct api_keys **out, struct error *err)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = 0;
    if (sodium_init() < 0)
        return error_set(err, ERR_INTERNAL, "libsodium does not start");
    FILE *f = fopen(path, "r");
    if (!f)
        return error_set(err, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct api_keys *k = mem_zalloc(1, sizeof *k);
    if (!k)
        rc = error_set(err, ERR_NOMEM, "%s: out of memory", path);
    while (!rc && (n = getline(&line, &room, f)) >= 0) {
        char *from = line, *to = line + n;
        while (from < to && strchr(" \t\r\n", *from))
            from++;
        while (to > from && strchr(" \t\r\n", to[-1]))
            to--;
        if (from < to && *from != '#')
            rc = add_key(k, from, (size_t)(to - from), path, err);
    }
    if (!rc && ferror(f))
        rc = error_set(err, ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    if (line)
        sodium_memzero(line, room);
    free(line);
    fclose(f);
    if (!rc && !k->count)
        rc = error_set(err, ERR_FORMAT, "%s: holds no key; write one key a line", path);
    if (rc)
        api_keys_free(k);
    else
        *out = k;
    return rc;
}

void api_keys_free(struct api_keys *k)
{
    if (!k)
        return;
    mem_free(k->digests);
    mem_free(k);
}

unsigned api_keys_find(const struct api_keys *k, const char *authorization)
{
    unsigned char digest[DIGEST_BYTES];
    unsigned found = 0;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7))
        return 0;
    const char *key = authorization + 7;
    while (*key == ' ')
        key++;
    size_t bytes = strlen(key);
    while (bytes && key[bytes - 1] == ' ')
        bytes--;
    crypto_generichash(digest, sizeof digest, (const unsigned char *)key, bytes, NULL, 0);
    for (size_t i = 0; i < k->count; i++) {
        unsigned mine = sodium_memcmp(digest, k->digests[i], DIGEST_BYTES) == 0;
        found += mine * ((unsigned)i + 1 - found);
    }
    return found;
}
