/* One epoch of one stage as the data plane sees it: who may feed it, who receives its results, which frames are to be
 * computed, answered or dropped. Pure: (state, sender, frame) → what to do; no socket, no clock, no tensor.
 * Compute thread. */
#ifndef BRIGADE_WORKER_SESSION_H
#define BRIGADE_WORKER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/frame.h"
#include "proto/link.h"

struct session {
    bool active;
    uint64_t epoch;            /* of the stage; stays when the session ends, so that older ones stay old */
    uint32_t stage, stages;
    uint32_t width;            /* values of a token's activation */
    uint32_t max_tokens;       /* of a micro-batch */
    char previous_key[FRAME_KEY_TEXT], coordinator_key[FRAME_KEY_TEXT];
    uint64_t newest;           /* micro-batch taken; they come in rising order */
    bool any;
    bool next_attached;        /* the next stage has greeted us back */
    bool feed_waits;           /* the previous one waits for our Attached: the pipe is greeted from its end */
    struct link_peer feed;
    bool has_receiver;
    struct link_peer receiver; /* of results */
    bool failed;               /* a failure of this epoch was reported */
};

enum session_verdict {
    SESSION_COMPUTE,  /* a Work frame to run */
    SESSION_ECHO,     /* to be answered at once */
    SESSION_GREET,    /* answer Attached to the sender */
    SESSION_WAIT,     /* an Attach that is answered when the next stage has answered ours */
    SESSION_STALE,    /* of another epoch, or nothing loaded: dropped, counted, no words */
    SESSION_REFUSE,   /* not for this sender, or senseless: dropped, counted, told once; `why` says it */
    SESSION_FAIL,     /* Work from the right sender that cannot be computed: the coordinator must be told `why` */
};

/* Starts an epoch from its Load message. The caller has checked that it is newer. */
void session_start(struct session *s, const struct control_message *load, uint32_t width);
void session_end(struct session *s);
/* A frame that came in at the data port. */
enum session_verdict session_receive(struct session *s, const struct link_peer *from, const struct data_frame *f,
                                     struct error *why);
/* A frame from the next stage over our link to it. True when s->feed now is to be answered with Attached. */
bool session_next(struct session *s, const struct data_frame *f);
bool session_is_last(const struct session *s);

#endif
