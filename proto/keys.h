/* Node keys: Curve25519 pairs as ZeroMQ's CURVE uses them, kept in files of mode 0600, secrets in locked memory.
 * A secret key file holds one line, the Z85 text of the secret key, after comment lines starting with '#'. */
#ifndef BRIGADE_PROTO_KEYS_H
#define BRIGADE_PROTO_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define KEY_TEXT 41 /* 40 characters of Z85 and a NUL */

struct node_key; /* a pair; the secret lives in sodium_malloc'ed memory and is wiped on free */

/* A fresh pair from the system's randomness. */
int key_generate(struct node_key **out, struct error *err);
/* Writes the secret (mode 0600, never over an existing file, fsynced). */
int key_save(const struct node_key *k, const char *path, struct error *err);
/* Reads a secret key file; refuses one that others can read (mode & 077) or that is no key, saying what to do. */
int key_load(const char *path, struct node_key **out, struct error *err);
void key_free(struct node_key *k);

const char *key_public_text(const struct node_key *k); /* Z85, lives as long as k */
const char *key_secret_text(const struct node_key *k); /* for the socket option only; never log it */
/* Whether text is the Z85 of a 32-byte key. */
bool key_text_valid(const char *text);

/* A name for `text` that is told to the holder of a public key (Z85): the same for the same text, another for each key, and
 * it does not give the text away (8 bytes of BLAKE2b, keyed). 0 for an empty text only. */
uint64_t key_pseudonym(const char *public_key, const char *text);

#endif
