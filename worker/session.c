/* Which frame is whose, and in order. Pure. */
#include "worker/session.h"

#include <string.h>

void session_start(struct session *s, const struct control_message *load, uint32_t width)
{
    *s = (struct session){
        .active = true,
        .epoch = load->epoch,
        .stage = load->u.load.stage,
        .stages = load->u.load.stages,
        .width = width,
        .max_tokens = load->u.load.max_tokens,
    };
    memcpy(s->previous_key, load->u.load.previous_key, sizeof s->previous_key);
    memcpy(s->coordinator_key, load->u.load.coordinator_key, sizeof s->coordinator_key);
}

void session_end(struct session *s)
{
    *s = (struct session){.epoch = s->epoch};
}

bool session_is_last(const struct session *s)
{
    return s->stage + 1 == s->stages;
}

static enum session_verdict receive_attach(struct session *s, const struct link_peer *from, const struct data_frame *f,
                                           struct error *why)
{
    if (!s->active || f->epoch != s->epoch)
        return SESSION_STALE;
    bool feeds = f->role == 1;
    const char *expected = feeds ? s->previous_key : s->coordinator_key;
    if (strcmp(from->public_key, expected) || (!feeds && !session_is_last(s))) {
        error_set(why, ERR_AUTH, "%s may not %s stage %u", from->public_key,
                  feeds ? "feed" : "receive the results of", s->stage);
        return SESSION_REFUSE;
    }
    if (!feeds) {
        s->receiver = *from;
        s->has_receiver = true;
        return SESSION_GREET;
    }
    s->feed = *from;
    s->feed_waits = !session_is_last(s) && !s->next_attached;
    return s->feed_waits ? SESSION_WAIT : SESSION_GREET;
}

static enum session_verdict receive_work(struct session *s, const struct link_peer *from, const struct data_frame *f,
                                         struct error *why)
{
    const struct frame_work *w = &f->work;
    if (!s->active || f->epoch != s->epoch)
        return SESSION_STALE;
    if (strcmp(from->public_key, s->previous_key)) {
        error_set(why, ERR_AUTH, "%s may not feed stage %u", from->public_key, s->stage);
        return SESSION_REFUSE;
    }
    if (s->any && f->microbatch <= s->newest) {
        error_set(why, ERR_ORDER, "micro-batch %llu came after %llu", (unsigned long long)f->microbatch,
                  (unsigned long long)s->newest);
        return SESSION_REFUSE; /* late or repeated: the first one was computed */
    }
    s->any = true;
    s->newest = f->microbatch;
    if (w->share_count && w->share_count != s->stages) {
        error_set(why, ERR_FORMAT, "shares for %u stages; there are %u", w->share_count, s->stages);
        return SESSION_FAIL;
    }
    bool wants_activations = s->stage && w->tokens && (!w->share_count || w->shares[s->stage - 1].send);
    if ((w->codec != CODEC_NONE) != wants_activations || (wants_activations && w->width != s->width)) {
        error_set(why, ERR_FORMAT, "activations of width %u (codec %d) where stage %u wants %u", w->width,
                  (int)w->codec, s->stage, wants_activations ? s->width : 0);
        return SESSION_FAIL;
    }
    if (w->tokens > s->max_tokens) {
        error_set(why, ERR_BOUND, "%u tokens in a micro-batch; this stage was loaded for %u", w->tokens, s->max_tokens);
        return SESSION_FAIL;
    }
    return SESSION_COMPUTE;
}

enum session_verdict session_receive(struct session *s, const struct link_peer *from, const struct data_frame *f,
                                     struct error *why)
{
    switch (f->kind) {
    case DATA_ECHO:
        return SESSION_ECHO;
    case DATA_ATTACH:
        return receive_attach(s, from, f, why);
    case DATA_WORK:
        return receive_work(s, from, f, why);
    default:
        error_set(why, ERR_FORMAT, "a frame of kind %d, which no stage receives", (int)f->kind);
        return SESSION_REFUSE;
    }
}

bool session_next(struct session *s, const struct data_frame *f)
{
    if (!s->active || f->kind != DATA_ATTACHED || f->epoch != s->epoch)
        return false;
    bool answer = s->feed_waits;
    s->next_attached = true;
    s->feed_waits = false;
    return answer;
}
