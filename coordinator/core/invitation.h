/* One invitation: who may come in with a token, decided as a pure step. It is good for one board, until it expires;
 * wrong proofs cost their sender a second each and end the invitation when there are too many. No socket, no clock, no
 * randomness of its own: the caller brings now and a fresh nonce. One owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_INVITATION_H
#define BRIGADE_COORDINATOR_CORE_INVITATION_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/join.h"

#define INVITATION_WRONG_MAX 10              /* wrong proofs, then nobody comes in with this token */
#define INVITATION_WRONG_US INT64_C(1000000) /* a sender waits so long after one */
#define INVITATION_ASKERS_MAX 32             /* boards in the middle of asking; the oldest gives way */

struct invitation_asker {
    char public_key[KEY_TEXT];
    struct join_message ask;
    uint8_t nonce[JOIN_NONCE_BYTES];
    bool challenged;
    int64_t asked_us, wrong_us; /* 0: never */
};

enum invitation_state { INVITATION_OPEN, INVITATION_PROVEN, INVITATION_DECIDED, INVITATION_SPOILT };

struct invitation {
    const struct join_token *token; /* borrowed */
    int64_t expires_us;
    enum invitation_state state;
    uint32_t wrong;
    struct invitation_asker guest; /* who has proven it */
    struct join_message answer;    /* once decided */
    struct invitation_asker askers[INVITATION_ASKERS_MAX];
    uint32_t asker_count;
};

void invitation_start(struct invitation *i, const struct join_token *token, int64_t expires_us);
/* A message of a board, whose key the connection has proven: *reply is to be sent back. True when this message was the
 * proof: i->guest is the board, and the caller now decides. */
bool invitation_step(struct invitation *i, const char *public_key, const struct join_message *message, int64_t now_us,
                     const uint8_t nonce[static JOIN_NONCE_BYTES], struct join_message *reply);
/* The guest is entered under this name (code 0), or not (why). *reply goes to it, now and whenever it asks again. */
void invitation_decide(struct invitation *i, int code, const char *name, const char *why, struct join_message *reply);
/* Nobody can come in any more: too late, or spoilt. */
bool invitation_over(const struct invitation *i, int64_t now_us);

#endif
