/* Tokens, proofs and messages of joining. Secrets stay in guarded, locked memory; any thread. */
#include "proto/join.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/net.h"
#include "brigade.pb-c.h"
#include "proto/frame.h"
#include "proto/wire.h"

#define PREFIX "brigade1."
#define SECRET_BYTES 16
#define CHECK_BYTES 4
/* version, expiry, port, key text, secret, host, check */
#define FIXED_BYTES (1 + 8 + 2 + (KEY_TEXT - 1) + SECRET_BYTES)
#define RAW_MAX (FIXED_BYTES + JOIN_HOST_TEXT - 1 + CHECK_BYTES)
#define TEXT_MAX (sizeof PREFIX + sodium_base64_ENCODED_LEN(RAW_MAX, sodium_base64_VARIANT_URLSAFE_NO_PADDING))

struct join_token { /* sodium_malloc'ed as a whole */
    uint8_t secret[SECRET_BYTES];
    int64_t expires_s;
    uint16_t port;
    char public_key[KEY_TEXT];
    char host[JOIN_HOST_TEXT];
    char endpoint[JOIN_HOST_TEXT + 16];
    char text[TEXT_MAX];
};

static int take_address(struct join_token *t, const char *public_key, const char *host, uint16_t port,
                        struct error *err)
{
    char number[8];
    if (!key_text_valid(public_key))
        return error_set(err, ERR_FORMAT, "the token's public key is no key");
    if (!*host || strlen(host) >= sizeof t->host)
        return error_set(err, ERR_FORMAT, "the token's host has %zu characters; 1 to %zu are possible", strlen(host),
                         sizeof t->host - 1);
    for (const char *c = host; *c; c++)
        if ((unsigned char)*c <= 32 || (unsigned char)*c >= 127)
            return error_set(err, ERR_FORMAT, "the token's host is no host name");
    if (!port)
        return error_set(err, ERR_FORMAT, "the token has no port");
    memcpy(t->public_key, public_key, KEY_TEXT);
    snprintf(t->host, sizeof t->host, "%s", host);
    t->port = port;
    snprintf(number, sizeof number, "%u", port);
    net_join_endpoint(host, number, t->endpoint, sizeof t->endpoint);
    return 0;
}

static struct join_token *token_alloc(struct error *err)
{
    struct join_token *t = sodium_init() < 0 ? NULL : sodium_malloc(sizeof *t);
    if (!t)
        error_set(err, ERR_NOMEM, "no locked memory for a token");
    else
        memset(t, 0, sizeof *t);
    return t;
}

/* Wipes the bytes; the token is the caller's when all went well. */
static int token_done(struct join_token *t, uint8_t *raw, int rc, struct join_token **out)
{
    if (raw)
        sodium_free(raw);
    if (rc)
        join_token_free(t);
    else
        *out = t;
    return rc;
}

int join_token_create(const char *public_key, const char *host, uint16_t port, int64_t expires_s,
                      struct join_token **out, struct error *err)
{
    struct join_token *t = token_alloc(err);
    uint8_t *raw = t ? sodium_malloc(RAW_MAX) : NULL;
    int rc = raw ? take_address(t, public_key, host, port, err) : error_set(err, ERR_NOMEM, "no memory for a token");
    if (!rc) {
        size_t n = 0, length = strlen(t->host);
        randombytes_buf(t->secret, sizeof t->secret);
        t->expires_s = expires_s;
        raw[n++] = 1;
        for (int i = 0; i < 8; i++)
            raw[n++] = (uint8_t)((uint64_t)expires_s >> 8 * i);
        raw[n++] = (uint8_t)port;
        raw[n++] = (uint8_t)(port >> 8);
        memcpy(raw + n, t->public_key, KEY_TEXT - 1);
        n += KEY_TEXT - 1;
        memcpy(raw + n, t->secret, SECRET_BYTES);
        n += SECRET_BYTES;
        memcpy(raw + n, t->host, length);
        n += length;
        uint8_t check[crypto_generichash_BYTES_MIN];
        crypto_generichash(check, sizeof check, raw, n, NULL, 0);
        memcpy(raw + n, check, CHECK_BYTES);
        memcpy(t->text, PREFIX, sizeof PREFIX);
        sodium_bin2base64(t->text + sizeof PREFIX - 1, sizeof t->text - sizeof PREFIX + 1, raw, n + CHECK_BYTES,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    }
    return token_done(t, raw, rc, out);
}

static int read_raw(struct join_token *t, const uint8_t *raw, size_t n, struct error *err)
{
    uint8_t check[crypto_generichash_BYTES_MIN];
    char key[KEY_TEXT] = "", host[JOIN_HOST_TEXT] = "";
    if (n < FIXED_BYTES + CHECK_BYTES + 1)
        return error_set(err, ERR_FORMAT, "the token is incomplete; paste all of it");
    n -= CHECK_BYTES;
    crypto_generichash(check, sizeof check, raw, n, NULL, 0);
    if (sodium_memcmp(check, raw + n, CHECK_BYTES))
        return error_set(err, ERR_FORMAT, "the token is torn or mistyped (its checksum is wrong); paste all of it");
    if (raw[0] != 1)
        return error_set(err, ERR_VERSION,
                         "the token is of version %u, this program reads version 1; install the same "
                         "release on every node",
                         raw[0]);
    uint64_t expires = 0;
    for (int i = 0; i < 8; i++)
        expires |= (uint64_t)raw[1 + i] << 8 * i;
    t->expires_s = (int64_t)expires;
    memcpy(key, raw + 11, KEY_TEXT - 1);
    memcpy(t->secret, raw + 11 + KEY_TEXT - 1, SECRET_BYTES);
    memcpy(host, raw + FIXED_BYTES, n - FIXED_BYTES);
    return take_address(t, key, host, (uint16_t)(raw[9] | raw[10] << 8), err);
}

int join_token_read(const char *text, struct join_token **out, struct error *err)
{
    size_t n = strcspn(text, " \t\r\n"), raw_bytes = 0;
    if (strncmp(text, PREFIX, sizeof PREFIX - 1))
        return error_set(err, ERR_FORMAT, "this is no token (they begin with \"%s\"); 'brigade invite' prints one",
                         PREFIX);
    struct join_token *t = token_alloc(err);
    uint8_t *raw = t ? sodium_malloc(RAW_MAX) : NULL;
    int rc = raw ? 0 : error_set(err, ERR_NOMEM, "no memory for a token");
    if (!rc &&
        (n >= sizeof t->text || sodium_base642bin(raw, RAW_MAX, text + sizeof PREFIX - 1, n - sizeof PREFIX + 1, NULL,
                                                  &raw_bytes, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING)))
        rc = error_set(err, ERR_FORMAT, "the token is torn or mistyped; paste all of it");
    if (!rc)
        rc = read_raw(t, raw, raw_bytes, err);
    if (!rc)
        memcpy(t->text, text, n);
    return token_done(t, raw, rc, out);
}

void join_token_free(struct join_token *t)
{
    if (t)
        sodium_free(t);
}

const char *join_token_text(const struct join_token *t)
{
    return t->text;
}

const char *join_token_key(const struct join_token *t)
{
    return t->public_key;
}

const char *join_token_endpoint(const struct join_token *t)
{
    return t->endpoint;
}

const char *join_token_host(const struct join_token *t)
{
    return t->host;
}

int64_t join_token_expires_s(const struct join_token *t)
{
    return t->expires_s;
}

void join_prove(const struct join_token *t, const char *node_key, const uint8_t nonce[static JOIN_NONCE_BYTES],
                uint8_t mac[static JOIN_MAC_BYTES])
{
    static const char label[] = "brigade join 1";
    crypto_generichash_state state;
    crypto_generichash_init(&state, t->secret, sizeof t->secret, JOIN_MAC_BYTES);
    crypto_generichash_update(&state, (const uint8_t *)label, sizeof label);
    crypto_generichash_update(&state, (const uint8_t *)t->public_key, KEY_TEXT - 1);
    crypto_generichash_update(&state, (const uint8_t *)node_key, KEY_TEXT - 1); /* both are of fixed length */
    crypto_generichash_update(&state, nonce, JOIN_NONCE_BYTES);
    crypto_generichash_final(&state, mac, JOIN_MAC_BYTES);
    sodium_memzero(&state, sizeof state);
}

bool join_proof_holds(const struct join_token *t, const char *node_key, const uint8_t nonce[static JOIN_NONCE_BYTES],
                      const uint8_t mac[static JOIN_MAC_BYTES])
{
    uint8_t right[JOIN_MAC_BYTES];
    join_prove(t, node_key, nonce, right);
    bool holds = !sodium_memcmp(right, mac, sizeof right);
    sodium_memzero(right, sizeof right);
    return holds;
}

void join_random(uint8_t *bytes, size_t n)
{
    randombytes_buf(bytes, n);
}

void join_fingerprint(const char *public_key, char out[static JOIN_FINGERPRINT_TEXT])
{
    uint8_t hash[crypto_generichash_BYTES_MIN];
    crypto_generichash(hash, sizeof hash, (const uint8_t *)public_key, strlen(public_key), NULL, 0);
    snprintf(out, JOIN_FINGERPRINT_TEXT, "%02x%02x-%02x%02x-%02x%02x-%02x%02x", hash[0], hash[1], hash[2], hash[3],
             hash[4], hash[5], hash[6], hash[7]);
}

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

int join_encode(const struct join_message *m, struct buffer *out, struct error *err)
{
    Brigade__Join j = BRIGADE__JOIN__INIT;
    Brigade__JoinAsk ask = BRIGADE__JOIN_ASK__INIT;
    Brigade__JoinChallenge challenge = BRIGADE__JOIN_CHALLENGE__INIT;
    Brigade__JoinProof proof = BRIGADE__JOIN_PROOF__INIT;
    Brigade__JoinWaiting waiting = BRIGADE__JOIN_WAITING__INIT;
    Brigade__JoinAnswer answer = BRIGADE__JOIN_ANSWER__INIT;
    j.version = PROTOCOL_VERSION;
    switch (m->kind) {
    case JOIN_ASK:
        ask.program_version = (char *)m->program_version;
        ask.name = (char *)m->name;
        ask.endpoint = (char *)m->endpoint;
        j.body_case = BRIGADE__JOIN__BODY_ASK;
        j.ask = &ask;
        break;
    case JOIN_CHALLENGE:
        challenge.nonce = (ProtobufCBinaryData){sizeof m->nonce, (uint8_t *)m->nonce};
        j.body_case = BRIGADE__JOIN__BODY_CHALLENGE;
        j.challenge = &challenge;
        break;
    case JOIN_PROOF:
        proof.mac = (ProtobufCBinaryData){sizeof m->mac, (uint8_t *)m->mac};
        j.body_case = BRIGADE__JOIN__BODY_PROOF;
        j.proof = &proof;
        break;
    case JOIN_WAITING:
        j.body_case = BRIGADE__JOIN__BODY_WAITING;
        j.waiting = &waiting;
        break;
    case JOIN_ANSWER:
        answer.code = m->code;
        answer.text = (char *)m->text;
        answer.name = (char *)m->name;
        j.body_case = BRIGADE__JOIN__BODY_ANSWER;
        j.answer = &answer;
        break;
    }
    return wire_pack(&j.base, out, "join message", err);
}

/* Exactly n bytes. */
static int take_bytes(uint8_t *out, size_t n, const ProtobufCBinaryData *in, const char *what, struct error *err)
{
    if (in->len != n)
        return error_set(err, ERR_FORMAT, "join: %s of %zu bytes; it has %zu", what, in->len, n);
    memcpy(out, in->data, n);
    return 0;
}

static int decode_body(const Brigade__Join *j, struct join_message *m, struct error *err)
{
    int rc;
    switch (j->body_case) {
    case BRIGADE__JOIN__BODY_ASK:
        m->kind = JOIN_ASK;
        if ((rc = wire_text(m->program_version, sizeof m->program_version, j->ask->program_version, "join: version",
                            err)) ||
            (rc = wire_text(m->name, sizeof m->name, j->ask->name, "join: name", err)))
            return rc;
        return wire_text(m->endpoint, sizeof m->endpoint, j->ask->endpoint, "join: endpoint", err);
    case BRIGADE__JOIN__BODY_CHALLENGE:
        m->kind = JOIN_CHALLENGE;
        return take_bytes(m->nonce, sizeof m->nonce, &j->challenge->nonce, "a nonce", err);
    case BRIGADE__JOIN__BODY_PROOF:
        m->kind = JOIN_PROOF;
        return take_bytes(m->mac, sizeof m->mac, &j->proof->mac, "a proof", err);
    case BRIGADE__JOIN__BODY_WAITING:
        m->kind = JOIN_WAITING;
        return 0;
    case BRIGADE__JOIN__BODY_ANSWER:
        m->kind = JOIN_ANSWER;
        m->code = j->answer->code > 0 ? ERR_INTERNAL : j->answer->code;
        wire_prose(m->text, sizeof m->text, j->answer->text);
        return wire_text(m->name, sizeof m->name, j->answer->name, "join: name", err);
    default:
        return error_set(err, ERR_FORMAT, "join message: it has no body this version knows");
    }
}

int join_decode(const void *bytes, size_t size, struct join_message *out, struct error *err)
{
    struct wire_arena a;
    struct join_message m = {0};
    ProtobufCMessage *unpacked = NULL;
    wire_arena_start(&a);
    int rc = wire_unpack(&a, &brigade__join__descriptor, bytes, size, "join message", &unpacked, err);
    if (!rc)
        rc = decode_body((const Brigade__Join *)unpacked, &m, err);
    wire_arena_end(&a);
    if (!rc)
        *out = m;
    return rc;
}
