/* Receiving one model's slice: the hash of its list from the coordinator that commands us, the list, the header, then the
 * chunks that a stage wants, from whoever has them. Every wait says what it waits for. The weights thread only. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/units.h"
#include "worker/slices_state.h"

#define OFFER_WAIT_MS 20000     /* the coordinator's offer comes with its connection: one handshake may take 5 s, and be lost */
#define ASK_AGAIN_MS 500
#define LIST_AGAIN_MS 5000
#define PEERS_AGAIN_MS 2000
#define HOPELESS_MS 15000       /* nobody known has what is missing: sources come and go that fast */
#define PROVE_AT_ONCE 8         /* chunks read from disk between looks at the sockets */

/* ---- Beginning and ending ----------------------------------------------------------------------------------------- */

void job_end(struct slices *s)
{
    if (s->fetch && !s->synced)
        crate_sync(s->crate);
    for (uint32_t i = 0; i < s->source_count; i++)
        if (s->sources[i].link)
            link_close(s->sources[i].link, 0);
    s->source_count = 0;
    fetch_destroy(s->fetch);
    s->fetch = NULL;
    mem_free(s->wanted);
    mem_free(s->proving);
    s->wanted = NULL;
    s->proving = NULL;
    s->proving_count = s->proving_at = 0;
}

void job_begin(struct slices *s, int64_t now_ms)
{
    job_end(s);
    s->begun_ms = now_ms;
    s->asked_ms = s->hopeless_ms = 0;
    slices_tell(s, SLICES_ASKING);
}

/* The chunk is there and proven. */
static void good(struct slices *s, uint32_t chunk)
{
    fetch_here(s->fetch, chunk);
    pthread_mutex_lock(&s->lock);
    if (!s->good[chunk] && s->wanted[chunk])
        s->done_bytes += manifest_chunk_at(s->manifest, chunk).bytes;
    s->good[chunk] = 1;
    pthread_cond_broadcast(&s->told);
    pthread_mutex_unlock(&s->lock);
}

static int start_fetch(struct slices *s, struct error *err)
{
    uint32_t chunks = manifest_chunks(s->manifest);
    int rc = fetch_create(chunks, &s->fetch, err);
    if (rc)
        return rc;
    s->wanted = mem_zalloc(chunks, 1);
    s->proving = mem_zalloc(chunks, sizeof *s->proving);
    if (!s->wanted || !s->proving)
        return error_set(err, ERR_NOMEM, "no memory to receive %u chunks", chunks);
    s->sources[0] = (struct source_link){.source = fetch_source(s->fetch)};
    s->source_count = 1;
    if ((rc = fetch_source_has(s->fetch, s->sources[0].source, true, NULL, 0)))
        return error_set(err, rc, "no memory for a source of weights");
    const struct offer *o = slices_offer_of(s, s->job_key);
    for (uint32_t i = o ? o->peer_count : 0; i-- > 0 && s->source_count <= SLICES_PEERS_MAX;) { /* the newest first */
        struct source_link *l = &s->sources[s->source_count];
        struct error why = {0};
        if (!strcmp(o->peers[i].public_key, key_public_text(s->w->key)))
            continue;
        *l = (struct source_link){.source = -1};
        if (link_connect(s->w->hub, PLANE_WEIGHTS, o->peers[i].endpoint, o->peers[i].public_key, &l->link, &why))
            log_debug("weights: %s", why.text);
        else
            s->source_count++;
    }
    return 0;
}

/* The list is known: opens its place on disk and begins with the header. */
static int open_crate(struct slices *s, struct manifest *m, struct error *err)
{
    int rc;
    if (!s->crate || memcmp(manifest_hash(crate_manifest(s->crate)), s->hash, sizeof s->hash)) {
        uint8_t *fresh = mem_zalloc(manifest_chunks(m), 1);
        crate_close(s->crate);
        s->crate = NULL;
        pthread_mutex_lock(&s->lock);
        manifest_free(s->manifest);
        mem_free(s->good);
        s->manifest = m;
        s->good = fresh;
        pthread_mutex_unlock(&s->lock);
        if (!fresh)
            return error_set(err, ERR_NOMEM, "no memory for a list of %u chunks", manifest_chunks(m));
        if ((rc = store_crate(s->store, m, &s->crate, err)))
            return rc;
    } else {
        manifest_free(m);
        pthread_mutex_lock(&s->lock);
        memset(s->good, 0, manifest_chunks(s->manifest)); /* to be proven again */
        pthread_mutex_unlock(&s->lock);
    }
    if ((rc = start_fetch(s, err)))
        return rc;
    uint32_t header = manifest_header_chunks(s->manifest);
    uint32_t *chunks = mem_zalloc(header, sizeof *chunks);
    if (!chunks)
        return error_set(err, ERR_NOMEM, "no memory for a header of %u chunks", header);
    for (uint32_t i = 0; i < header; i++)
        chunks[i] = i;
    pthread_mutex_lock(&s->lock);
    snprintf(s->path, sizeof s->path, "%s", crate_path(s->crate));
    s->done_bytes = s->total_bytes = 0;
    pthread_mutex_unlock(&s->lock);
    slices_tell(s, SLICES_HEADER);
    job_want(s, chunks, header);
    mem_free(chunks);
    return 0;
}

void job_want(struct slices *s, const uint32_t *chunks, uint32_t count)
{
    uint64_t missing = 0, total = 0;
    struct error err = {0};
    if (!s->fetch)
        return;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t c = chunks[i];
        if (c >= manifest_chunks(s->manifest) || s->wanted[c])
            continue;
        uint32_t bytes = manifest_chunk_at(s->manifest, c).bytes;
        s->wanted[c] = 1;
        total += bytes;
        if (crate_has(s->crate, c)) {
            s->proving[s->proving_count++] = c; /* each at most once, so there is room */
        } else {
            fetch_need(s->fetch, c);
            missing += bytes;
        }
    }
    pthread_mutex_lock(&s->lock);
    s->total_bytes += total;
    pthread_mutex_unlock(&s->lock);
    s->synced = false;
    s->hopeless_ms = 0;
    if (missing && store_make_room(s->store, s->crate, s->wanted, missing, &err))
        slices_fail(s, &err);
    else if (missing) {
        char text[UNITS_TEXT];
        log_info("receiving %s of weights", units_bytes_text(missing, text));
    }
}

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

/* The coordinator's word on the hash: whose list, or why not. */
static void take_hash(struct slices *s, const struct weights_frame *f)
{
    struct manifest *m = NULL;
    struct error err = {0};
    if (f->soon)
        return;
    if (!f->has_hash) {
        error_set(&err, ERR_NOTFOUND, "the coordinator cannot send its weights: %s",
                  *f->trouble ? f->trouble : "it has none");
        slices_fail(s, &err);
        return;
    }
    memcpy(s->hash, f->manifest_hash, sizeof s->hash);
    if (store_find(s->store, s->job_fingerprint, s->hash, &m)) {
        s->asked_ms = 0;
        slices_tell(s, SLICES_LISTING);
    } else if (open_crate(s, m, &err)) {
        slices_fail(s, &err);
    }
}

static void take_list(struct slices *s, const struct weights_frame *f)
{
    struct manifest *m = NULL;
    struct error err = {0};
    int rc;
    if (f->missing) {
        slices_tell(s, SLICES_ASKING); /* it changed its mind: from the start */
        return;
    }
    if ((rc = manifest_decode(f->raw, f->raw_bytes, &m, &err)) == 0 &&
        (memcmp(manifest_hash(m), s->hash, sizeof s->hash) || manifest_fingerprint(m) != s->job_fingerprint)) {
        rc = error_set(&err, ERR_FORMAT, "the coordinator's list of chunks is not the one that it named");
        manifest_free(m);
    }
    if (rc || open_crate(s, m, &err))
        slices_fail(s, &err);
}

static void take_chunk(struct slices *s, struct source_link *from, const struct weights_frame *f, int64_t now_ms)
{
    struct error err = {0};
    uint32_t chunk = (uint32_t)f->index;
    enum fetch_answer answer = FETCH_MISSING;
    if (f->index >= manifest_chunks(s->manifest) || fetch_is_here(s->fetch, chunk) || !s->wanted[chunk])
        return;
    if (!f->missing) {
        int rc = crate_write(s->crate, chunk, f->raw, f->raw_bytes, &err);
        if (rc == ERR_IO || rc == ERR_NOMEM) {
            slices_fail(s, &err);
            return;
        }
        answer = rc ? FETCH_DAMAGED : FETCH_GOOD;
        if (rc)
            log_warn("weights: %s%s; asking again", err.text, from->link ? " from another worker" : " from the coordinator");
    }
    if (fetch_answered(s->fetch, from->source, chunk, answer, now_ms))
        log_warn("weights: a source sent too many damaged chunks and is not asked again");
    if (answer == FETCH_GOOD)
        good(s, chunk);
}

/* What a peer has. The same model by its fingerprint is not enough: its list must be ours, or it has none and every
 * chunk is proven anyway. */
static void take_peer(struct slices *s, struct source_link *from, const struct weights_frame *f)
{
    bool ours = f->has_hash ? !memcmp(f->manifest_hash, s->hash, sizeof s->hash) : f->whole;
    if (from->source < 0 && ours)
        from->source = fetch_source(s->fetch);
    if (from->source >= 0 && fetch_source_has(s->fetch, from->source, ours && f->whole, f->chunks, ours ? f->chunk_bytes : 0))
        log_warn("weights: no memory for a source");
    s->hopeless_ms = 0;
}

void job_answer(struct slices *s, struct source_link *from, const struct weights_frame *f, int64_t now_ms)
{
    if (f->fingerprint != s->job_fingerprint)
        return;
    if (f->kind == WEIGHTS_PIECE)
        atomic_fetch_add(&s->w->vitals.weights_in, f->raw_bytes);
    if (f->kind == WEIGHTS_HAVE && !from && s->phase == SLICES_ASKING)
        take_hash(s, f);
    else if (f->kind == WEIGHTS_PIECE && f->manifest && !from && s->phase == SLICES_LISTING)
        take_list(s, f);
    else if (f->kind == WEIGHTS_PIECE && !f->manifest && s->fetch)
        take_chunk(s, from ? from : &s->sources[0], f, now_ms);
    else if (f->kind == WEIGHTS_HAVE && from && s->fetch)
        take_peer(s, from, f);
}

void job_asks_again(struct slices *s)
{
    s->asked_ms = 0;
    if (!s->fetch)
        return;
    fetch_source_lost(s->fetch, s->sources[0].source);
    s->sources[0].source = fetch_source(s->fetch);
    if (fetch_source_has(s->fetch, s->sources[0].source, true, NULL, 0))
        log_warn("weights: no memory for a source");
}

/* ---- Asking ------------------------------------------------------------------------------------------------------- */

static void ask_coordinator(struct slices *s, int64_t now_ms)
{
    const struct offer *o = slices_offer_of(s, s->job_key);
    bool list = s->phase == SLICES_LISTING;
    struct error err = {0};
    if (!o || o->fingerprint != s->job_fingerprint) {
        if (now_ms - s->begun_ms >= OFFER_WAIT_MS) {
            error_set(&err, ERR_NOTFOUND, "the coordinator offers no weights of this model");
            slices_fail(s, &err);
        }
        return;
    }
    if (s->asked_ms && now_ms - s->asked_ms < (list ? LIST_AGAIN_MS : ASK_AGAIN_MS))
        return;
    s->asked_ms = now_ms;
    slices_send(s, s->w->weights, &o->from,
                &(struct weights_frame){.kind = list ? WEIGHTS_WANT : WEIGHTS_ASK, .fingerprint = s->job_fingerprint,
                                        .manifest = true});
}

static void ask_peers(struct slices *s, int64_t now_ms)
{
    for (uint32_t i = 1; i < s->source_count; i++) {
        struct source_link *l = &s->sources[i];
        if (link_state(l->link, NULL, 0) != LINK_UP) {
            if (l->source >= 0)
                fetch_source_lost(s->fetch, l->source);
            l->source = -1;
            l->asked_ms = 0;
        } else if (!l->asked_ms || now_ms - l->asked_ms >= PEERS_AGAIN_MS) {
            l->asked_ms = now_ms;
            slices_send(s, l->link, NULL,
                        &(struct weights_frame){.kind = WEIGHTS_ASK, .fingerprint = s->job_fingerprint});
        }
    }
}

static struct source_link *link_of(struct slices *s, int source)
{
    for (uint32_t i = 0; i < s->source_count; i++)
        if (s->sources[i].source == source)
            return &s->sources[i];
    return &s->sources[0];
}

static void ask_chunks(struct slices *s, int64_t now_ms)
{
    int source;
    uint32_t chunk;
    fetch_tick(s->fetch, now_ms);
    while (fetch_next(s->fetch, now_ms, &source, &chunk)) {
        struct source_link *l = link_of(s, source);
        const struct offer *o = l->link ? NULL : slices_offer_of(s, s->job_key);
        int rc = !l->link && !o ? ERR_LOST
                                : slices_send(s, l->link ? l->link : s->w->weights, l->link ? NULL : &o->from,
                                              &(struct weights_frame){.kind = WEIGHTS_WANT, .fingerprint = s->job_fingerprint,
                                                                      .index = chunk});
        if (rc)
            fetch_unsent(s->fetch, source, chunk, now_ms + (rc == ERR_LOST ? ASK_AGAIN_MS : 0));
    }
}

static void look_for_hope(struct slices *s, int64_t now_ms)
{
    struct error err = {0};
    const struct offer *o = slices_offer_of(s, s->job_key);
    bool coordinator = o && o->from.size;
    if (!fetch_left(s->fetch) || (fetch_hopeful(s->fetch) && (coordinator || s->source_count > 1))) {
        s->hopeless_ms = 0;
    } else if (!s->hopeless_ms) {
        s->hopeless_ms = now_ms;
    } else if (now_ms - s->hopeless_ms >= HOPELESS_MS) {
        error_set(&err, ERR_LOST, "nobody who can be reached has %u chunks of the weights that are missing",
                  fetch_left(s->fetch));
        slices_fail(s, &err);
    }
}

static bool prove(struct slices *s)
{
    for (int i = 0; i < PROVE_AT_ONCE && s->proving_at < s->proving_count; i++) {
        uint32_t chunk = s->proving[s->proving_at++];
        if (crate_check(s->crate, chunk))
            good(s, chunk);
        else
            fetch_need(s->fetch, chunk);
    }
    return s->proving_at < s->proving_count;
}

bool job_advance(struct slices *s, int64_t now_ms)
{
    if (s->phase == SLICES_ASKING || s->phase == SLICES_LISTING)
        ask_coordinator(s, now_ms);
    if (!s->fetch || (s->phase != SLICES_HEADER && s->phase != SLICES_FILLING))
        return false;
    bool more = prove(s);
    if (fetch_left(s->fetch)) {
        ask_peers(s, now_ms);
        ask_chunks(s, now_ms);
        look_for_hope(s, now_ms);
    } else if (!more && s->phase == SLICES_HEADER) {
        pthread_mutex_lock(&s->lock);
        s->done_bytes = s->total_bytes = 0; /* what a stage wants is counted for itself */
        pthread_mutex_unlock(&s->lock);
        slices_tell(s, SLICES_FILLING);
    } else if (!more && !s->synced) {
        crate_sync(s->crate);
        s->synced = true;
    }
    return more;
}
