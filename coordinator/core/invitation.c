/* The rules of an invitation. Pure; one owner thread. */
#include "coordinator/core/invitation.h"

#include <stdio.h>
#include <string.h>

void invitation_start(struct invitation *i, const struct join_token *token, int64_t expires_us)
{
    *i = (struct invitation){.token = token, .expires_us = expires_us};
}

bool invitation_over(const struct invitation *i, int64_t now_us)
{
    return i->state == INVITATION_SPOILT || (i->state == INVITATION_OPEN && now_us >= i->expires_us);
}

static void answer(struct join_message *reply, int code, const char *text)
{
    *reply = (struct join_message){.kind = JOIN_ANSWER, .code = code};
    snprintf(reply->text, sizeof reply->text, "%s", text);
}

static struct invitation_asker *find(struct invitation *i, const char *public_key)
{
    for (uint32_t k = 0; k < i->asker_count; k++)
        if (!strcmp(i->askers[k].public_key, public_key))
            return &i->askers[k];
    return NULL;
}

/* A place for one who asks; the one who asked longest ago and owes no waiting gives way. */
static struct invitation_asker *place(struct invitation *i, const char *public_key)
{
    struct invitation_asker *asker = find(i, public_key);
    if (asker)
        return asker;
    if (i->asker_count < INVITATION_ASKERS_MAX) {
        asker = &i->askers[i->asker_count++];
    } else {
        asker = &i->askers[0];
        for (uint32_t k = 1; k < i->asker_count; k++)
            if (i->askers[k].asked_us < asker->asked_us)
                asker = &i->askers[k];
    }
    *asker = (struct invitation_asker){0};
    snprintf(asker->public_key, sizeof asker->public_key, "%s", public_key);
    return asker;
}

static bool must_wait(const struct invitation_asker *asker, int64_t now_us)
{
    return asker->wrong_us && now_us - asker->wrong_us < INVITATION_WRONG_US;
}

static bool take_proof(struct invitation *i, const char *public_key, const struct join_message *proof, int64_t now_us,
                       struct join_message *reply)
{
    struct invitation_asker *asker = find(i, public_key);
    if (!asker || !asker->challenged) {
        answer(reply, ERR_ORDER, "a proof without a question; ask first");
        return false;
    }
    asker->challenged = false; /* a nonce serves once */
    if (!join_proof_holds(i->token, public_key, asker->nonce, proof->mac)) {
        asker->wrong_us = now_us;
        if (++i->wrong >= INVITATION_WRONG_MAX)
            i->state = INVITATION_SPOILT;
        answer(reply, ERR_AUTH, "the token's secret is wrong; paste the token that 'brigade invite' shows now");
        return false;
    }
    i->guest = *asker;
    i->state = INVITATION_PROVEN;
    *reply = (struct join_message){.kind = JOIN_WAITING};
    return true;
}

bool invitation_step(struct invitation *i, const char *public_key, const struct join_message *message, int64_t now_us,
                     const uint8_t nonce[static JOIN_NONCE_BYTES], struct join_message *reply)
{
    bool guest = i->state != INVITATION_OPEN && !strcmp(i->guest.public_key, public_key);
    if (message->kind != JOIN_ASK && message->kind != JOIN_PROOF) {
        answer(reply, ERR_FORMAT, "a board sends no such message");
    } else if (i->state == INVITATION_DECIDED && guest) {
        *reply = i->answer; /* it has not heard, or asks again */
    } else if (i->state == INVITATION_PROVEN && guest) {
        *reply = (struct join_message){.kind = JOIN_WAITING};
    } else if (i->state == INVITATION_SPOILT) {
        answer(reply, ERR_AUTH, "this invitation was withdrawn after too many wrong proofs; ask for another one");
    } else if (i->state != INVITATION_OPEN) {
        answer(reply, ERR_AUTH, "this token was used already, and it serves once; ask for another one");
    } else if (now_us >= i->expires_us) {
        answer(reply, ERR_TIMEOUT, "this token has expired; ask for another one ('brigade invite')");
    } else if (find(i, public_key) && must_wait(find(i, public_key), now_us)) {
        answer(reply, ERR_BUSY, "the last proof was wrong; wait a second");
    } else if (message->kind == JOIN_PROOF) {
        return take_proof(i, public_key, message, now_us, reply);
    } else {
        struct invitation_asker *asker = place(i, public_key);
        asker->ask = *message;
        asker->asked_us = now_us;
        asker->challenged = true;
        memcpy(asker->nonce, nonce, sizeof asker->nonce);
        *reply = (struct join_message){.kind = JOIN_CHALLENGE};
        memcpy(reply->nonce, nonce, sizeof reply->nonce);
    }
    return false;
}

void invitation_decide(struct invitation *i, int code, const char *name, const char *why, struct join_message *reply)
{
    answer(&i->answer, code, why);
    snprintf(i->answer.name, sizeof i->answer.name, "%s", name);
    i->state = INVITATION_DECIDED;
    *reply = i->answer;
}
