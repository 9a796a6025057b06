/* A bounded queue of control messages between the two threads, with the peer they came from or go to, and a bell. */
#ifndef BRIGADE_WORKER_MAILBOX_H
#define BRIGADE_WORKER_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>

#include "proto/frame.h"
#include "proto/link.h"

#define MAILBOX_LIMIT 256
/* A message that is lost costs somebody a deadline: where memory is short, it is tried so often, and so long apart. */
#define MEMORY_TRIES 50
#define MEMORY_WAIT_US 2000

struct mail {
    struct mail *next;
    struct control_message message; /* owned: freed with the mail */
    struct link_peer peer;
    bool to_claimant;               /* a reply for whoever commands the worker now */
};

struct mailbox {
    pthread_mutex_t lock;
    struct mail *first, **last;
    unsigned count;
    struct waker *waker;            /* of the reading thread */
};

int mailbox_open(struct mailbox *box, struct error *err);
void mailbox_close(struct mailbox *box);
/* Takes over *message (also on failure) and rings. ERR_BUSY when full, ERR_NOMEM. peer NULL: to the claimant. */
int mailbox_put(struct mailbox *box, struct control_message *message, const struct link_peer *peer);
/* The oldest mail, or NULL; the caller's: mail_free. */
struct mail *mailbox_take(struct mailbox *box);
bool mailbox_empty(struct mailbox *box);
void mail_free(struct mail *mail); /* NULL is fine */

#endif
