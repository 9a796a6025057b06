/* Curve25519 pairs, their Z85 text and their files. Secrets stay in guarded, locked memory from the read on; any
 * thread may read a pair. */
#include "proto/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

#define KEY_BYTES 32
#define KEY_FILE_MAX 4096

struct node_key {
    char public_text[KEY_TEXT];
    char *secret_text; /* sodium_malloc'ed, KEY_TEXT bytes */
};

static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/* Z85 (ZeroMQ RFC 32): groups of 4 bytes, big-endian, as 5 digits of base 85. */
static void z85_encode(const uint8_t bytes[static KEY_BYTES], char text[static KEY_TEXT])
{
    for (int group = 0; group < KEY_BYTES / 4; group++) {
        const uint8_t *b = bytes + group * 4;
        uint32_t value = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
        for (int i = 4; i >= 0; i--, value /= 85)
            text[group * 5 + i] = alphabet[value % 85];
    }
    text[KEY_TEXT - 1] = 0;
}

static bool z85_decode(const char *text, uint8_t bytes[static KEY_BYTES])
{
    if (!text || strnlen(text, KEY_TEXT) != KEY_TEXT - 1)
        return false;
    for (int group = 0; group < KEY_BYTES / 4; group++) {
        uint64_t value = 0;
        for (int i = 0; i < 5; i++) {
            const char *digit = strchr(alphabet, text[group * 5 + i]);
            if (!digit)
                return false;
            value = value * 85 + (uint64_t)(digit - alphabet);
        }
        if (value > UINT32_MAX)
            return false;
        for (int i = 0; i < 4; i++)
            bytes[group * 4 + i] = (uint8_t)(value >> (24 - 8 * i));
    }
    return true;
}

uint64_t key_pseudonym(const char *public_key, const char *text)
{
    uint8_t hash[crypto_generichash_BYTES_MIN];
    uint64_t name = 0;
    if (!*text)
        return 0;
    crypto_generichash(hash, sizeof hash, (const uint8_t *)text, strlen(text), (const uint8_t *)public_key,
                       strlen(public_key));
    for (int i = 0; i < 8; i++)
        name |= (uint64_t)hash[i] << (8 * i);
    return name ? name : 1;
}

bool key_text_valid(const char *text)
{
    uint8_t bytes[KEY_BYTES];
    bool valid = z85_decode(text, bytes);
    sodium_memzero(bytes, sizeof bytes);
    return valid;
}

/* A pair from a secret; `secret` is 32 bytes of guarded memory, not kept. */
static int pair_from(const uint8_t *secret, struct node_key **out, struct error *err)
{
    uint8_t public_bytes[KEY_BYTES];
    struct node_key *k = mem_zalloc(1, sizeof *k);
    if (!k || !(k->secret_text = sodium_malloc(KEY_TEXT))) {
        mem_free(k);
        return error_set(err, ERR_NOMEM, "no memory for a key");
    }
    crypto_scalarmult_base(public_bytes, secret);
    z85_encode(public_bytes, k->public_text);
    z85_encode(secret, k->secret_text);
    sodium_mprotect_readonly(k->secret_text);
    *out = k;
    return 0;
}

int key_generate(struct node_key **out, struct error *err)
{
    if (sodium_init() < 0)
        return error_set(err, ERR_INTERNAL, "libsodium does not start");
    uint8_t *secret = sodium_malloc(KEY_BYTES);
    if (!secret)
        return error_set(err, ERR_NOMEM, "no memory for a key");
    randombytes_buf(secret, KEY_BYTES);
    int rc = pair_from(secret, out, err);
    sodium_free(secret);
    return rc;
}

void key_free(struct node_key *k)
{
    if (!k)
        return;
    sodium_free(k->secret_text); /* wipes */
    mem_free(k);
}

const char *key_public_text(const struct node_key *k)
{
    return k->public_text;
}

const char *key_secret_text(const struct node_key *k)
{
    return k->secret_text;
}

int key_save(const struct node_key *k, const char *path, struct error *err)
{
    static const char note[] = "# brigade secret key: keep it to this machine\n# public key: ";
    struct error why = {0};
    size_t room = sizeof note + 2 * KEY_TEXT + 2;
    char *text = sodium_malloc(room);
    if (!text)
        return error_set(err, ERR_NOMEM, "%s: no memory for a key", path);
    int n = snprintf(text, room, "%s%s\n%s\n", note, k->public_text, k->secret_text);
    int rc = file_create(path, text, (size_t)n, 0600, &why);
    sodium_free(text); /* wipes */
    if (rc == ERR_USAGE)
        return error_set(err, rc, "%s: exists; a key is never overwritten: name another file or remove it", path);
    return rc ? error_set(err, rc, "%s", why.text) : 0;
}

/* Finds the key's line in text[n]; *line and its length, or false when there is not exactly one. */
static bool find_key_line(char *text, size_t n, const char **line)
{
    *line = NULL;
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (end < n && text[end] != '\n')
            end++;
        size_t next = end + 1;
        while (end > at && (text[end - 1] == '\r' || text[end - 1] == ' '))
            end--;
        if (end > at && text[at] != '#') {
            if (*line || end - at != KEY_TEXT - 1)
                return false;
            *line = text + at;
            text[end] = 0; /* the caller's buffer has room for one byte more */
        }
        at = next;
    }
    return *line != NULL;
}

static int read_key(int fd, const char *path, char *text, struct node_key **out, struct error *err)
{
    size_t n = 0;
    ssize_t got;
    while (n < KEY_FILE_MAX && (got = read(fd, text + n, KEY_FILE_MAX - n)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        n += (size_t)got;
    }
    uint8_t *secret = sodium_malloc(KEY_BYTES);
    if (!secret)
        return error_set(err, ERR_NOMEM, "%s: no memory for a key", path);
    const char *line;
    int rc;
    if (!find_key_line(text, n, &line) || !z85_decode(line, secret))
        rc = error_set(err, ERR_FORMAT, "%s: not a secret key file (one line of 40 characters); make one with "
                                        "'brigade keygen -o FILE'", path);
    else
        rc = pair_from(secret, out, err);
    sodium_free(secret);
    return rc;
}

int key_load(const char *path, struct node_key **out, struct error *err)
{
    struct stat st;
    char *text = NULL;
    int rc;
    if (sodium_init() < 0)
        return error_set(err, ERR_INTERNAL, "libsodium does not start");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return error_set(err, ERR_NOTFOUND, "%s: no such key file; make one with 'brigade keygen -o %s'", path, path);
    if (fd < 0 || fstat(fd, &st))
        rc = error_set(err, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = error_set(err, ERR_FORMAT, "%s: not a regular file", path);
    else if (st.st_mode & 077)
        rc = error_set(err, ERR_AUTH, "%s: others can read this secret key (mode %03o); run 'chmod 600 %s'", path,
                       (unsigned)st.st_mode & 0777u, path);
    else if (!(text = sodium_malloc(KEY_FILE_MAX + 1)))
        rc = error_set(err, ERR_NOMEM, "%s: no memory for a key", path);
    else
        rc = read_key(fd, path, text, out, err);
    sodium_free(text);
    if (fd >= 0)
        close(fd);
    return rc;
}
