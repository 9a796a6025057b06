/* Joining: the one-time token that a person carries from the coordinator to a board, the proof that a board holds it,
 * and the few messages in which it is given. The token names the coordinator's public key and address, so a board
 * speaks to no one else; the secret never travels: the board proves it by a keyed BLAKE2b over both public keys and a
 * nonce. Secrets lie in locked memory and are wiped. Pure functions; any thread. */
#ifndef BRIGADE_PROTO_JOIN_H
#define BRIGADE_PROTO_JOIN_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "proto/keys.h"

#define JOIN_NONCE_BYTES 32
#define JOIN_MAC_BYTES 32
#define JOIN_HOST_TEXT 128
#define JOIN_FINGERPRINT_TEXT 20 /* "12ab-34cd-56ef-7890" */

struct join_token;

/* A fresh secret for the coordinator of this public key, who listens at tcp://host:port until expires_s (seconds since
 * 1970). The caller frees *out. ERR_FORMAT, ERR_NOMEM. */
int join_token_create(const char *public_key, const char *host, uint16_t port, int64_t expires_s,
                      struct join_token **out, struct error *err);
/* From the text that a person pasted; tells a torn or mistyped one (ERR_FORMAT) from one of another version. */
int join_token_read(const char *text, struct join_token **out, struct error *err);
void join_token_free(struct join_token *t); /* NULL is fine; wipes */

const char *join_token_text(const struct join_token *t); /* holds the secret: for the person, never for a log */
const char *join_token_key(const struct join_token *t);
const char *join_token_endpoint(const struct join_token *t); /* "tcp://host:port" */
const char *join_token_host(const struct join_token *t);
int64_t join_token_expires_s(const struct join_token *t);

/* What proves to the coordinator, for this nonce, that the board of this public key holds the token. */
void join_prove(const struct join_token *t, const char *node_key, const uint8_t nonce[static JOIN_NONCE_BYTES],
                uint8_t mac[static JOIN_MAC_BYTES]);
/* In constant time. */
bool join_proof_holds(const struct join_token *t, const char *node_key, const uint8_t nonce[static JOIN_NONCE_BYTES],
                      const uint8_t mac[static JOIN_MAC_BYTES]);
/* Fills bytes from the system's randomness. */
void join_random(uint8_t *bytes, size_t n);
/* A short hash of a public key, for two people to compare on two screens. */
void join_fingerprint(const char *public_key, char out[static JOIN_FINGERPRINT_TEXT]);

enum join_kind { JOIN_ASK, JOIN_CHALLENGE, JOIN_PROOF, JOIN_WAITING, JOIN_ANSWER };

struct join_message {
    enum join_kind kind;
    char program_version[64];        /* ask */
    char name[128];                  /* ask, answer */
    char endpoint[256];              /* ask: where coordinators will find the board */
    uint8_t nonce[JOIN_NONCE_BYTES]; /* challenge */
    uint8_t mac[JOIN_MAC_BYTES];     /* proof */
    int code;                        /* answer: 0, or enum error_code */
    char text[512];                  /* answer: why not */
};

int join_encode(const struct join_message *m, struct buffer *out, struct error *err);
/* Texts bounded and printable, sizes exact. ERR_FORMAT, ERR_BOUND, ERR_VERSION. */
int join_decode(const void *bytes, size_t size, struct join_message *out, struct error *err);

#endif
