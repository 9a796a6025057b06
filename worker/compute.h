/* Private to the compute thread: the stage it holds and the steps of its work. Everything here belongs to that thread;
 * it reaches the control thread through the worker's mailboxes and vitals only. */
#ifndef BRIGADE_WORKER_COMPUTE_H
#define BRIGADE_WORKER_COMPUTE_H

#include "base/buffer.h"
#include "engine/model/sequence.h"
#include "engine/model/shelf.h"
#include "engine/model/stage.h"
#include "execution/held_pages.h"
#include "execution/kept_rows.h"
#include "execution/throttle.h"
#include "proto/rehearsal.h"
#include "worker/session.h"
#include "worker/worker.h"

/* A stage and what it needs to run. */
struct holding {
    char name[FRAME_TEXT_MAX];       /* the model's file name */
    struct model *model;             /* NULL: nothing is loaded */
    struct stage *stage;
    struct shelf *shelf;             /* weights of an ended or half loaded stage of this model, or NULL */
    struct sequence_table *table;    /* this and the next two outlive epochs */
    struct held_pages *held;
    struct kept_rows *rows;          /* NULL: none are kept */
    uint32_t max_sequences, max_context, kv_pages;
    enum kv_type kv;
    struct stage_memory memory;
    float *in, *out;                 /* max_tokens·width; out is NULL on the last stage */
    size_t activation_bytes;
};

/* One message that is ready to leave; the compute thread takes no new work until it has left. */
struct outbox {
    bool full, to_next;
    struct link_peer to;
    size_t parts;
    struct buffer part[3];
};

struct compute {
    struct worker *w;
    struct pool *pool;
    struct link *next;               /* to the next stage, or NULL */
    int64_t attach_sent_ms, next_down_ms;
    char next_name[128];
    struct rehearsal *rehearsal;     /* for the time between two frames, or NULL */
    struct session session;
    struct holding holding;
    struct outbox outbox;
    struct throttle throttle;
    enum frame_codec codec;          /* of activations to the next stage */
    struct control_message profile;  /* the last one measured, and for what */
    struct control_message profile_of;
    bool has_profile, draining;
    int64_t last_frame_ms;
    char told[64][FRAME_KEY_TEXT];   /* peers whose bad frames were logged */
    uint32_t told_count;
    /* of the micro-batch under way */
    struct batch_span spans[FRAME_SPANS_MAX];
    struct span_result results[FRAME_SPANS_MAX];
    struct frame_span_result span_results[FRAME_SPANS_MAX];
    struct frame_trace trace[FRAME_STAGES_MAX];
};

/* load.c: replies Loaded or Failure; on failure nothing is loaded. */
void compute_load(struct compute *c, const struct mail *job);
/* Tells who gave the job how far it is, at most ten times a second (*told_ms: when it was told last, 0 at first). True
 * when something newer waits. */
bool compute_progress(struct compute *c, const struct mail *job, const char *what, uint64_t done, uint64_t total,
                      int64_t *told_ms);
/* fetch_pages.c: the KV pages that the load names, from the nodes that had these blocks; those that do not come are computed
 * again. Returns their bytes. */
uint64_t compute_fetch_pages(struct compute *c, const struct mail *job);
void compute_unload(struct compute *c);
/* The same for an Unload, which may let others fetch what leaves. */
void compute_leave(struct compute *c, const struct control_message *unload);
/* The model file of that name within --models; fingerprint 0: any. *out is the caller's: model_close. */
int compute_find_model(const struct worker_options *o, const char *name, uint64_t fingerprint, struct model **out,
                       struct error *err);
/* The same, or, when it is in none of the folders, what the coordinator of the job offers: see slices.h. */
int compute_open_model(struct compute *c, const struct mail *job, const char *name, uint64_t fingerprint,
                       struct model **out, struct error *err);

/* micro_batch.c: computes a Work frame and fills the outbox. received_us: when the whole frame was in hand. */
void compute_micro_batch(struct compute *c, const struct data_frame *f, const struct link_message *m,
                         int64_t received_us);
/* The same for a frame that cannot be computed: the coordinator is told. */
void compute_fail(struct compute *c, const struct frame_work *w, const struct error *why);
/* What the outbox holds goes out as far as the peer takes it. */
void outbox_flush(struct compute *c);

/* probe.c: replies Profile or Failure. */
void compute_probe(struct compute *c, const struct mail *job);
/* probe_cache.c: a profile kept between runs. ERR_NOTFOUND when there is none that fits. */
int profile_cache_read(const struct compute *c, const struct control_message *probe, struct control_message *out,
                       struct error *err);
void profile_cache_write(const struct compute *c, const struct control_message *probe,
                         const struct control_message *profile);
/* probe_link.c: replies LinkMeasured or Failure. */
void compute_probe_link(struct compute *c, const struct mail *job);

/* Sends a reply of the compute thread's; takes over *m. peer NULL: to the claimant. */
void compute_reply(struct compute *c, struct control_message *m, const struct link_peer *peer);
void compute_reply_failure(struct compute *c, const struct mail *job, const struct error *why);

#endif
