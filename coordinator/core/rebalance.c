/* Damping of moves. Pure; owns nothing. */
#include "coordinator/core/rebalance.h"

enum rebalance_verdict rebalance_look(struct rebalance *r, double gain, double round_seconds, int64_t now_us)
{
    int64_t hold = r->hold_us ? r->hold_us : REBALANCE_HOLD_US, apart = r->apart_us ? r->apart_us : REBALANCE_APART_US,
            judge = r->judge_us ? r->judge_us : REBALANCE_JUDGE_US;
    if (r->judging && now_us - r->moved_us >= judge && round_seconds > 0) {
        r->judging = false;
        if (r->before_seconds > 0 && round_seconds > REBALANCE_WORSE * r->before_seconds) {
            r->moved_us = now_us;
            r->promising = false;
            return REBALANCE_BACK;
        }
    }
    if (!(gain > REBALANCE_GAIN)) {
        r->promising = false;
        return REBALANCE_STAY;
    }
    if (!r->promising) {
        r->promising = true;
        r->since_us = now_us;
    }
    if (r->judging || now_us - r->since_us < hold || (r->moved && now_us - r->moved_us < apart))
        return REBALANCE_STAY;
    r->promising = false;
    r->moved = r->judging = true;
    r->moved_us = now_us;
    r->before_seconds = round_seconds;
    return REBALANCE_MOVE;
}

void rebalance_forget(struct rebalance *r, int64_t now_us)
{
    r->promising = r->judging = false;
    r->since_us = now_us;
}
