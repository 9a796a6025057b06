/* What slices.c (the thread, and the door to it) and slices_job.c (receiving one model's slice) share. Nobody else
 * includes this. */
#ifndef BRIGADE_WORKER_SLICES_STATE_H
#define BRIGADE_WORKER_SLICES_STATE_H

#include "weights/fetch.h"
#include "weights/serve.h"
#include "worker/slices.h"

#define SLICES_OFFERS_MAX 8u
#define SLICES_PEERS_MAX 16u

enum slices_phase {
    SLICES_IDLE,     /* nothing asked */
    SLICES_ASKING,   /* the coordinator, for the hash of the list */
    SLICES_LISTING,  /* the list itself */
    SLICES_HEADER,   /* the header's chunks */
    SLICES_FILLING,  /* what is wanted of the rest */
    SLICES_FAILED,
};

struct offer {
    struct link_peer from;       /* its size 0: a free place */
    char model[FRAME_TEXT_MAX];
    uint64_t fingerprint;
    struct weights_peer *peers;
    uint32_t peer_count;
    int64_t heard_ms;
};

struct source_link {
    struct link *link;           /* NULL: the coordinator, over our listening socket */
    int source;                  /* of the fetch */
    int64_t asked_ms;
};

struct slices {
    struct worker *w;
    struct waker *waker;
    pthread_t thread;
    struct store *store;         /* NULL without a cache folder */

    pthread_mutex_t lock;        /* from here to `failure` */
    pthread_cond_t told;
    bool stop, cancel, asked;    /* asked: `coordinator` and `fingerprint` are a new question */
    char coordinator[KEY_TEXT];
    uint64_t fingerprint;
    uint32_t *want;              /* chunks newly wanted; the thread takes them */
    uint32_t want_count;
    enum slices_phase phase;
    struct manifest *manifest;   /* immutable; replaced only by a new question */
    char path[4096];
    uint8_t *good;               /* one byte a chunk: there and proven */
    uint64_t done_bytes, total_bytes;
    const struct model *opened;  /* what slices_open gave last */
    struct error failure;

    /* The thread's own. */
    struct offer offers[SLICES_OFFERS_MAX];
    char job_key[KEY_TEXT];      /* of the coordinator whose model this is */
    uint64_t job_fingerprint;
    uint8_t hash[MANIFEST_HASH_BYTES];
    int64_t begun_ms, asked_ms, hopeless_ms;
    struct crate *crate;         /* stays after the job, to serve others */
    struct fetch *fetch;
    uint8_t *wanted;             /* one byte a chunk */
    uint32_t *proving;           /* chunks on disk to prove */
    uint32_t proving_count, proving_at;
    struct source_link sources[1 + SLICES_PEERS_MAX];
    uint32_t source_count;       /* 0 while nothing is fetched */
    bool synced;
    /* A whole file that others ask about. */
    struct model *whole;
    struct manifest *layout;
    uint64_t not_here;           /* a fingerprint of no file here */
    int64_t not_here_ms;
};

/* slices_job.c, the thread's steps. */
void job_begin(struct slices *s, int64_t now_ms);   /* a new question was taken */
void job_end(struct slices *s);                     /* nothing is fetched any more; the crate stays */
void job_want(struct slices *s, const uint32_t *chunks, uint32_t count);
/* The job's coordinator speaks over another connection: what it was asked over the one before is asked again. */
void job_asks_again(struct slices *s);
/* A frame that answers us; source_link NULL: from the coordinator. */
void job_answer(struct slices *s, struct source_link *from, const struct weights_frame *f, int64_t now_ms);
/* Everything that can be done now. Whether there is more to do at once. */
bool job_advance(struct slices *s, int64_t now_ms);

/* slices.c, for the job. */
int slices_send(struct slices *s, struct link *link, const struct link_peer *to, const struct weights_frame *f);
const struct offer *slices_offer_of(const struct slices *s, const char *coordinator_key);
void slices_fail(struct slices *s, const struct error *why);
void slices_tell(struct slices *s, enum slices_phase phase);

#endif
