/* The queue between the worker's threads. Either thread. */
#include "worker/mailbox.h"

#include <unistd.h>

#include "base/memory.h"

int mailbox_open(struct mailbox *box, struct error *err)
{
    int rc = waker_create(&box->waker, err);
    if (rc)
        return rc;
    pthread_mutex_init(&box->lock, NULL);
    box->first = NULL;
    box->last = &box->first;
    box->count = 0;
    return 0;
}

void mail_free(struct mail *mail)
{
    if (!mail)
        return;
    control_free(&mail->message);
    mem_free(mail);
}

void mailbox_close(struct mailbox *box)
{
    if (!box->waker)
        return;
    for (struct mail *m; (m = mailbox_take(box));)
        mail_free(m);
    waker_destroy(box->waker);
    pthread_mutex_destroy(&box->lock);
}

int mailbox_put(struct mailbox *box, struct control_message *message, const struct link_peer *peer)
{
    struct mail *m = mem_zalloc(1, sizeof *m);
    for (int i = 0; !m && i < MEMORY_TRIES; i++) {
        usleep(MEMORY_WAIT_US);
        m = mem_zalloc(1, sizeof *m);
    }
    if (!m) {
        control_free(message);
        return ERR_NOMEM;
    }
    m->message = *message;
    m->to_claimant = !peer;
    if (peer)
        m->peer = *peer;
    pthread_mutex_lock(&box->lock);
    bool full = box->count >= MAILBOX_LIMIT;
    if (!full) {
        *box->last = m;
        box->last = &m->next;
        box->count++;
    }
    pthread_mutex_unlock(&box->lock);
    if (full) {
        mail_free(m);
        return ERR_BUSY;
    }
    waker_ring(box->waker);
    return 0;
}

struct mail *mailbox_take(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct mail *m = box->first;
    if (m) {
        box->first = m->next;
        if (!box->first)
            box->last = &box->first;
        box->count--;
        m->next = NULL;
    }
    pthread_mutex_unlock(&box->lock);
    return m;
}

bool mailbox_empty(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    bool empty = !box->first;
    pthread_mutex_unlock(&box->lock);
    return empty;
}
