/* One commander at a time. Pure. */
#include "worker/claim.h"

bool claim_is(const struct claim *c, const struct link_peer *peer)
{
    return c->held && link_peer_same(&c->by, peer);
}

void claim_seen(struct claim *c, const struct link_peer *peer, int64_t now_ms)
{
    if (claim_is(c, peer))
        c->seen_ms = now_ms;
}

int claim_ask(struct claim *c, const struct link_peer *peer, bool take_over, bool gone, int64_t now_ms,
              struct error *err)
{
    bool live = c->held && !gone && now_ms - c->seen_ms < CLAIM_LIVE_MS;
    if (live && !take_over && !claim_is(c, peer))
        return error_set(err, ERR_BUSY,
                         "another coordinator commands this worker (key %s, heard of %lld ms ago); stop that one first",
                         c->by.public_key, (long long)(now_ms - c->seen_ms));
    c->held = true;
    c->by = *peer;
    c->seen_ms = now_ms;
    return 0;
}
