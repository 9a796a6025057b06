/* The weights thread: its sockets, what coordinators offer, what others ask; and the door through which the compute
 * thread waits for it. What belongs to receiving stands in slices_job.c. */
#include "worker/slices.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "worker/compute.h"
#include "worker/left.h"
#include "worker/slices_state.h"

#define WAIT_MS 100
#define NOT_HERE_MS 5000 /* for so long a model that was not found is not looked for again */

/* ---- Frames out --------------------------------------------------------------------------------------------------- */

int slices_send(struct slices *s, struct link *link, const struct link_peer *to, const struct weights_frame *f)
{
    struct buffer header = {0};
    struct error err = {0};
    int rc = weights_frame_encode(f, &header, &err);
    if (!rc) {
        struct frame_part parts[2] = {{header.data, header.size}, {f->raw, f->raw_bytes}};
        rc = link_send(link, to, parts, f->raw_bytes ? 2 : 1, &err);
    }
    if (!rc && f->kind == WEIGHTS_PIECE)
        atomic_fetch_add(&s->w->vitals.weights_out, f->raw_bytes);
    else if (rc && rc != ERR_BUSY)
        log_debug("weights: %s", err.text);
    buffer_free(&header);
    return rc;
}

void slices_fail(struct slices *s, const struct error *why)
{
    job_end(s);
    pthread_mutex_lock(&s->lock);
    s->failure = *why;
    s->phase = SLICES_FAILED;
    pthread_cond_broadcast(&s->told);
    pthread_mutex_unlock(&s->lock);
}

void slices_tell(struct slices *s, enum slices_phase phase)
{
    pthread_mutex_lock(&s->lock);
    s->phase = phase;
    pthread_cond_broadcast(&s->told);
    pthread_mutex_unlock(&s->lock);
}

/* ---- Offers ------------------------------------------------------------------------------------------------------- */

const struct offer *slices_offer_of(const struct slices *s, const char *coordinator_key)
{
    for (uint32_t i = 0; i < SLICES_OFFERS_MAX; i++)
        if (s->offers[i].from.size && !strcmp(s->offers[i].from.public_key, coordinator_key))
            return &s->offers[i];
    return NULL;
}

/* The last word of each coordinator counts; of too many, the oldest goes. Takes over the frame's peers. */
static void take_offer(struct slices *s, struct weights_frame *f, const struct link_peer *from, int64_t now_ms)
{
    struct offer *o = &s->offers[0];
    const struct offer *same = slices_offer_of(s, from->public_key);
    for (uint32_t i = 0; i < SLICES_OFFERS_MAX; i++)
        if (s->offers[i].heard_ms < o->heard_ms)
            o = &s->offers[i];
    if (same)
        o = &s->offers[same - s->offers];
    bool moved = same && !link_peer_same(&same->from, from);
    mem_free(o->peers);
    *o = (struct offer){.from = *from, .fingerprint = f->fingerprint, .peers = f->peers, .peer_count = f->peer_count,
                        .heard_ms = now_ms};
    snprintf(o->model, sizeof o->model, "%s", f->model);
    f->memory = NULL;
    s->not_here = 0;
    if (moved && !strcmp(from->public_key, s->job_key))
        job_asks_again(s);
}

/* ---- Others' questions -------------------------------------------------------------------------------------------- */

/* The file itself, if it lies in a model folder under the name that somebody offered. */
static bool find_whole(struct slices *s, uint64_t fingerprint, int64_t now_ms)
{
    if (s->whole && model_info(s->whole)->fingerprint == fingerprint)
        return true;
    if (s->not_here == fingerprint && now_ms - s->not_here_ms < NOT_HERE_MS)
        return false;
    for (uint32_t i = 0; i < SLICES_OFFERS_MAX; i++) {
        struct model *m = NULL;
        struct manifest *layout = NULL;
        if (!s->offers[i].from.size || s->offers[i].fingerprint != fingerprint ||
            compute_find_model(s->w->options, s->offers[i].model, fingerprint, &m, NULL))
            continue;
        if (manifest_layout(model_gguf(m), fingerprint, &layout, NULL)) {
            model_close(m);
            continue;
        }
        manifest_free(s->layout);
        model_close(s->whole);
        s->whole = m;
        s->layout = layout;
        return true;
    }
    s->not_here = fingerprint;
    s->not_here_ms = now_ms;
    return false;
}

/* What an earlier run left in the store, when nothing of this one is open. */
static void adopt(struct slices *s, uint64_t fingerprint)
{
    struct manifest *m = NULL;
    struct crate *crate = NULL;
    if (s->crate || s->fetch || !s->store || s->phase == SLICES_LISTING || store_find(s->store, fingerprint, NULL, &m))
        return;
    uint8_t *good = mem_zalloc(manifest_chunks(m), 1);
    if (!good || store_crate(s->store, m, &crate, NULL)) {
        manifest_free(m);
        mem_free(good);
        return;
    }
    s->crate = crate;
    pthread_mutex_lock(&s->lock);
    manifest_free(s->manifest);
    mem_free(s->good);
    s->manifest = m;
    s->good = good;
    pthread_mutex_unlock(&s->lock);
}

static void serve_one(struct slices *s, const struct weights_frame *question, const struct link_peer *from,
                      int64_t now_ms)
{
    struct weights_frame reply;
    struct seed seed = {0};
    bool whole = find_whole(s, question->fingerprint, now_ms);
    if (!whole)
        adopt(s, question->fingerprint);
    if (whole)
        seed = (struct seed){.whole = model_gguf(s->whole), .layout = s->layout};
    else if (s->crate && manifest_fingerprint(crate_manifest(s->crate)) == question->fingerprint)
        seed.crate = s->crate;
    if (seed.whole || seed.crate)
        seed_answer(&seed, question, &reply);
    else
        seed_lacking(question, &reply);
    slices_send(s, s->w->weights, from, &reply);
}

/* A page of a block that another worker has taken over. */
static void serve_page(struct slices *s, const struct weights_frame *want, const struct link_peer *from)
{
    struct weights_frame reply;
    struct buffer raw = {0};
    left_answer(s->w->left, want, &reply, &raw);
    slices_send(s, s->w->weights, from, &reply);
    buffer_free(&raw);
}

/* ---- The thread --------------------------------------------------------------------------------------------------- */

static void take_frame(struct slices *s, struct source_link *from, const struct link_message *in, int64_t now_ms)
{
    struct weights_frame f;
    struct error err = {0};
    if (weights_frame_decode(in->parts, in->part_count, &f, &err)) {
        atomic_fetch_add(&s->w->vitals.dropped, 1);
        log_debug("dropped a frame from %s: %s", in->from.public_key, err.text);
        return;
    }
    bool question = f.kind == WEIGHTS_ASK || f.kind == WEIGHTS_WANT;
    if (!from && f.kind == WEIGHTS_OFFER)
        take_offer(s, &f, &in->from, now_ms);
    else if (!from && f.kind == WEIGHTS_PAGE_WANT)
        serve_page(s, &f, &in->from);
    else if (!from && question)
        serve_one(s, &f, &in->from, now_ms);
    else if (!question && (from || !strcmp(in->from.public_key, s->job_key)))
        job_answer(s, from, &f, now_ms);
    weights_frame_free(&f);
}

static bool receive(struct slices *s, struct link *link, struct source_link *from, int64_t now_ms)
{
    struct link_message in;
    struct error err = {0};
    int rc = link_receive(link, &in, &err);
    if (rc < 0)
        log_debug("weights: %s", err.text);
    if (rc <= 0)
        return false;
    take_frame(s, from, &in, now_ms);
    link_message_free(&in);
    return true;
}

/* What the compute thread asked for meanwhile. False: the end. *more: there is something to do at once. */
static bool take_questions(struct slices *s, int64_t now_ms, bool *more)
{
    pthread_mutex_lock(&s->lock);
    bool stop = s->stop, begin = s->asked, cancel = s->cancel;
    uint32_t *want = s->want, count = want ? s->want_count : 0;
    if (begin) {
        s->phase = SLICES_ASKING;
        memcpy(s->job_key, s->coordinator, sizeof s->job_key);
        s->job_fingerprint = s->fingerprint;
    }
    s->want = NULL;
    s->asked = s->cancel = false;
    pthread_mutex_unlock(&s->lock);
    if (cancel)
        job_end(s);
    if (begin)
        job_begin(s, now_ms);
    else if (want)
        job_want(s, want, count);
    mem_free(want);
    *more = *more || begin || count;
    return !stop;
}

static void *slices_thread(void *context)
{
    struct slices *s = context;
    struct link *links[1 + SLICES_PEERS_MAX];
    bool ready[1 + SLICES_PEERS_MAX], more = false;
    while (take_questions(s, clock_ms(), &more)) {
        size_t count = 1;
        links[0] = s->w->weights;
        for (uint32_t i = 1; i < s->source_count; i++)
            links[count++] = s->sources[i].link;
        if (link_wait(links, count, s->waker, more ? 0 : WAIT_MS, ready) < 0)
            break;
        int64_t now = clock_ms();
        for (int i = 0; i < 64 && receive(s, s->w->weights, NULL, now); i++)
            ;
        for (uint32_t k = 1; k < s->source_count; k++) /* an answer may end the job and its sources */
            for (int i = 0; i < 16 && k < s->source_count && receive(s, s->sources[k].link, &s->sources[k], now); i++)
                ;
        more = job_advance(s, clock_ms());
    }
    job_end(s);
    return NULL;
}

int slices_start(struct worker *w, struct slices **out, struct error *err)
{
    struct slices *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NOMEM, "no memory for the weights thread");
    s->w = w;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->told, &attributes);
    pthread_condattr_destroy(&attributes);
    int rc = waker_create(&s->waker, err);
    if (!rc && w->options->cache_path)
        rc = store_open(w->options->cache_path, w->options->cache_bytes, &s->store, err);
    if (!rc && (rc = pthread_create(&s->thread, NULL, slices_thread, s)))
        rc = error_set(err, ERR_NOMEM, "cannot start the weights thread: %s", strerror(rc));
    if (rc) {
        store_close(s->store);
        waker_destroy(s->waker);
        mem_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void slices_stop(struct slices *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    waker_ring(s->waker);
    pthread_join(s->thread, NULL);
    for (uint32_t i = 0; i < SLICES_OFFERS_MAX; i++)
        mem_free(s->offers[i].peers);
    crate_close(s->crate);
    manifest_free(s->manifest);
    manifest_free(s->layout);
    model_close(s->whole);
    mem_free(s->good);
    mem_free(s->want);
    store_close(s->store);
    waker_destroy(s->waker);
    pthread_cond_destroy(&s->told);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

/* ---- The compute thread's door ------------------------------------------------------------------------------------ */

/* Whether what is waited for has come; under the lock. */
typedef bool (*slices_done)(struct slices *s, uint32_t first, uint32_t count);

static bool header_is_here(struct slices *s, uint32_t first, uint32_t count)
{
    (void)first;
    (void)count;
    return !s->asked && s->phase == SLICES_FILLING;
}

static bool chunks_are_good(struct slices *s, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++)
        if (!s->good[i])
            return false;
    return true;
}

static int wait_for(struct slices *s, slices_done done, uint32_t first, uint32_t count, slices_tick tick, void *context,
                    struct error *err)
{
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    while (!rc && !done(s, first, count)) {
        if (!s->asked && s->phase == SLICES_FAILED) {
            rc = error_set(err, s->failure.code, "%s", s->failure.text);
            break;
        }
        uint64_t have = s->done_bytes, total = s->total_bytes;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WAIT_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&s->told, &s->lock, &until);
        pthread_mutex_unlock(&s->lock);
        if (tick && tick(context, have, total))
            rc = error_set(err, ERR_CANCELLED, "receiving weights was stopped after %llu of %llu bytes",
                           (unsigned long long)have, (unsigned long long)total);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    if (rc == ERR_CANCELLED)
        slices_cancel(s);
    return rc;
}

int slices_open(struct slices *s, const char *coordinator_key, uint64_t fingerprint, slices_tick tick, void *context,
                struct model **out, struct error *err)
{
    if (!s->store)
        return error_set(err, ERR_NOTFOUND, "there is no cache folder to receive weights into; give --cache");
    pthread_mutex_lock(&s->lock);
    snprintf(s->coordinator, sizeof s->coordinator, "%s", coordinator_key);
    s->fingerprint = fingerprint;
    s->asked = true;
    s->cancel = false;
    s->opened = NULL;
    mem_free(s->want);
    s->want = NULL;
    pthread_mutex_unlock(&s->lock);
    waker_ring(s->waker);
    int rc = wait_for(s, header_is_here, 0, 0, tick, context, err);
    if (rc)
        return rc;
    struct model *m = NULL;
    struct gguf *g = NULL;
    uint32_t files;
    const struct gguf_part *parts = manifest_parts(s->manifest, &files);
    if ((rc = gguf_open_joined(s->path, parts, files, &g, err))) /* only a new question changes path and list */
        return rc;
    if ((rc = model_from_gguf(g, &m, err))) {
        gguf_close(g);
        return rc;
    }
    if (model_info(m)->fingerprint != fingerprint) {
        model_close(m);
        return error_set(err, ERR_FORMAT, "the coordinator sent the header of another model than it named");
    }
    s->opened = m;
    *out = m;
    return 0;
}

bool slices_is(struct slices *s, const struct model *m)
{
    return s && s->opened == m;
}

struct wanting {
    const struct manifest *manifest;
    uint32_t *chunks;
    uint32_t count, most;
    bool lost;
};

static int want_tensor(void *context, const struct gguf_tensor *t)
{
    struct wanting *w = context;
    uint32_t first, count;
    if (!t->bytes)
        return 0;
    if (manifest_find(w->manifest, t, &first, &count))
        return ERR_FORMAT;
    for (uint32_t i = 0; i < count && w->count < w->most; i++)
        w->chunks[w->count++] = first + i;
    return 0;
}

int slices_want(struct slices *s, const struct model *m, const struct shelf *have, uint32_t first, uint32_t last,
                struct error *err)
{
    struct wanting w = {.manifest = s->manifest, .most = 2 * manifest_chunks(s->manifest)}; /* a tied head comes twice */
    if (!(w.chunks = mem_zalloc(w.most, sizeof *w.chunks)))
        return error_set(err, ERR_NOMEM, "no memory for the chunks of blocks %u-%u", first, last);
    if (model_slice(m, have, first, last, want_tensor, &w)) {
        mem_free(w.chunks);
        return error_set(err, ERR_FORMAT, "the list of chunks does not fit the model's header");
    }
    pthread_mutex_lock(&s->lock);
    mem_free(s->want);
    s->want = w.chunks;
    s->want_count = w.count;
    pthread_mutex_unlock(&s->lock);
    waker_ring(s->waker);
    return 0;
}

int slices_await(struct slices *s, const struct gguf_tensor *t, slices_tick tick, void *context, struct error *err)
{
    uint32_t first, count;
    if (!t->bytes)
        return 0;
    if (manifest_find(s->manifest, t, &first, &count))
        return error_set(err, ERR_FORMAT, "tensor %s is not in the list of chunks", t->name);
    return wait_for(s, chunks_are_good, first, count, tick, context, err);
}

void slices_cancel(struct slices *s)
{
    pthread_mutex_lock(&s->lock);
    s->cancel = true;
    pthread_mutex_unlock(&s->lock);
    waker_ring(s->waker);
}
