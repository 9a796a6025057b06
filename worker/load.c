/* Loading a stage: finding the file, checking what is asked, admitting its memory with the arithmetic shown, reading
 * the weights; or, when the very same blocks are there already, only starting afresh over them. Compute thread. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/notify.h"
#include "base/units.h"
#include "proto/activation.h"
#include "worker/compute.h"
#include "worker/left.h"
#include "worker/slices.h"

#define PROGRESS_EVERY_MS 100
#define SEQUENCES_MAX 4096u
#define WARM_UP_TOKENS 4u

static void vitals_loaded(struct compute *c, const struct control_loaded_stage *loaded, uint64_t epoch)
{
    struct vitals *v = &c->w->vitals;
    pthread_mutex_lock(&v->lock);
    v->has_loaded = loaded != NULL;
    atomic_store(&v->decode_ns, 0);
    atomic_store(&v->expected_ns, 0);
    if (loaded)
        v->loaded = *loaded;
    if (epoch > v->epoch)
        v->epoch = epoch;
    pthread_mutex_unlock(&v->lock);
    char status[FRAME_TEXT_MAX + 64] = "STATUS=waiting for a coordinator";
    if (loaded)
        snprintf(status, sizeof status, "STATUS=blocks %u-%u of %s", loaded->first_block, loaded->last_block, loaded->model);
    notify_send(status);
}

/* All but the model, what lies on the shelf, and what is known of its pages. */
static void holding_end_stage(struct holding *h)
{
    stage_destroy(h->stage);
    if (h->in)
        mem_unmap(h->in, h->activation_bytes);
    if (h->out)
        mem_unmap(h->out, h->activation_bytes);
    h->stage = NULL;
    h->in = h->out = NULL;
    h->activation_bytes = 0;
}

/* Nothing is known of any page. */
static void forget_pages(struct holding *h)
{
    sequence_table_destroy(h->table);
    held_pages_destroy(h->held);
    kept_rows_destroy(h->rows);
    h->table = NULL;
    h->held = NULL;
    h->rows = NULL;
}

static void holding_free(struct holding *h)
{
    holding_end_stage(h);
    forget_pages(h);
    shelf_destroy(h->shelf);
    model_close(h->model);
    *h = (struct holding){0};
}

/* Ends the session but keeps the weights. */
static void disconnect(struct compute *c)
{
    session_end(&c->session);
    c->outbox.full = false;
    if (c->next)
        link_close(c->next, 0);
    c->next = NULL;
}

void compute_unload(struct compute *c)
{
    disconnect(c);
    holding_free(&c->holding);
    vitals_loaded(c, NULL, 0);
    if (!c->draining)
        atomic_store(&c->w->vitals.state, WORKER_IDLE);
}

/* No stage any more, but the weights stay at hand. */
static void set_aside(struct compute *c)
{
    disconnect(c);
    holding_end_stage(&c->holding);
    vitals_loaded(c, NULL, 0);
    if (!c->draining)
        atomic_store(&c->w->vitals.state, WORKER_IDLE);
}

int compute_find_model(const struct worker_options *o, const char *name, uint64_t fingerprint, struct model **out,
                       struct error *err)
{
    struct error first = {0};
    if (!*name || strchr(name, '/') || *name == '.')
        return error_set(err, ERR_USAGE, "\"%.100s\" is no file name in a model folder (no '/', no leading '.')", name);
    for (uint32_t i = 0; i < o->model_count; i++) {
        char *path = mem_printf("%s/%s", o->models[i], name);
        struct model *m = NULL;
        struct error e = {0};
        int rc = path ? model_open(path, &m, &e) : error_set(&e, ERR_NOMEM, "no memory for a path");
        if (!rc && fingerprint && model_info(m)->fingerprint != fingerprint) {
            rc = error_set(&e, ERR_FORMAT,
                           "%s is another file than the coordinator's: fingerprint %016llx here, %016llx there; copy "
                           "the coordinator's file here",
                           path, (unsigned long long)model_info(m)->fingerprint, (unsigned long long)fingerprint);
            model_close(m);
        }
        mem_free(path);
        if (!rc) {
            *out = m;
            return 0;
        }
        /* A folder that lacks the file says less than one that has a wrong or broken one. */
        if (!first.code || first.code == ERR_NOTFOUND)
            first = e;
    }
    if (first.code == ERR_NOTFOUND || !first.code)
        return error_set(err, ERR_NOTFOUND, "\"%s\" is in none of the %u model folders of worker \"%s\" (first: %s); "
                                            "copy it there or add --models", name, o->model_count, o->name,
                         o->models[0]);
    return error_set(err, first.code, "%s", first.text);
}

static int check_load(const struct control_message *load, const struct model *m, uint64_t epoch, struct error *err)
{
    uint32_t blocks = model_info(m)->blocks, first = load->u.load.first_block, last = load->u.load.last_block;
    if (load->epoch <= epoch)
        return error_set(err, ERR_ORDER, "epoch %llu is not newer than %llu, which this worker has seen",
                         (unsigned long long)load->epoch, (unsigned long long)epoch);
    if (last >= blocks || (first == 0) != (load->u.load.stage == 0) ||
        (last + 1 == blocks) != (load->u.load.stage + 1 == load->u.load.stages))
        return error_set(err, ERR_FORMAT, "stage %u of %u cannot hold blocks %u-%u of a model of %u blocks",
                         load->u.load.stage, load->u.load.stages, first, last, blocks);
    if (load->u.load.kv_type > KV_F32 || !load->u.load.kv_pages || load->u.load.kv_pages > FRAME_PAGES_MAX ||
        !load->u.load.max_tokens || load->u.load.max_tokens > FRAME_TOKENS_MAX || !load->u.load.max_context ||
        load->u.load.max_context > FRAME_KNOWN_MAX || !load->u.load.max_sequences ||
        load->u.load.max_sequences > SEQUENCES_MAX)
        return error_set(err, ERR_BOUND, "cache type %u, %u pages, %u tokens a micro-batch, context %u, %u sequences: "
                                         "one is out of range", load->u.load.kv_type, load->u.load.kv_pages,
                         load->u.load.max_tokens, load->u.load.max_context, load->u.load.max_sequences);
    if (model_info(m)->width > FRAME_WIDTH_MAX)
        return error_set(err, ERR_BOUND, "activations of %u values; a frame holds %u", model_info(m)->width,
                         FRAME_WIDTH_MAX);
    return 0;
}

struct progress {
    struct compute *c;
    const struct mail *job;
    int64_t told_ms;
};

bool compute_progress(struct compute *c, const struct mail *job, const char *what, uint64_t done, uint64_t total,
                      int64_t *told_ms)
{
    int64_t now = clock_ms();
    if (now - *told_ms >= PROGRESS_EVERY_MS || (total && done == total)) {
        struct control_message m = {.kind = CONTROL_PROGRESS, .epoch = job->message.epoch,
                                    .request = job->message.request};
        snprintf(m.u.progress.what, sizeof m.u.progress.what, "%s", what);
        m.u.progress.done = done;
        m.u.progress.total = total;
        mailbox_put(&c->w->replies, &m, &job->peer); /* one that finds no room is no loss */
        *told_ms = now;
    }
    return atomic_load(&c->w->vitals.interrupt);
}

static int tell(struct progress *p, const char *what, uint64_t done, uint64_t total)
{
    return compute_progress(p->c, p->job, what, done, total, &p->told_ms);
}

static int on_progress(void *context, uint64_t done, uint64_t total)
{
    return tell(context, "weights", done, total);
}

static int on_receiving(void *context, uint64_t done, uint64_t total)
{
    return tell(context, total ? "receiving weights" : "waiting for the list of weights", done, total);
}

/* Between what is received and what is read. */
static int await_tensor(void *context, const struct gguf_tensor *t, struct error *err)
{
    struct progress *p = context;
    return slices_await(p->c->w->slices, t, on_receiving, p, err);
}

int compute_open_model(struct compute *c, const struct mail *job, const char *name, uint64_t fingerprint,
                       struct model **out, struct error *err)
{
    struct progress progress = {.c = c, .job = job};
    struct error missing = {0}, why = {0};
    int rc = compute_find_model(c->w->options, name, fingerprint, out, &missing);
    if (!rc)
        return 0;
    if ((rc == ERR_NOTFOUND || rc == ERR_FORMAT) && fingerprint && c->w->slices) {
        int received = slices_open(c->w->slices, job->peer.public_key, fingerprint, on_receiving, &progress, out, &why);
        if (!received)
            return 0;
        if (received != ERR_NOTFOUND)
            return error_set(err, received, "%s", why.text);
    }
    if (rc == ERR_NOTFOUND && *why.text)
        return error_set(err, rc, "%s; %s", missing.text, why.text);
    return error_set(err, rc, "%s", missing.text);
}

static struct stage_options options_of(struct compute *c, const struct control_message *load)
{
    return (struct stage_options){
        .first_block = load->u.load.first_block,
        .last_block = load->u.load.last_block,
        .kv = (enum kv_type)load->u.load.kv_type,
        .kv_pages = load->u.load.kv_pages,
        .max_tokens = load->u.load.max_tokens,
        .max_context = load->u.load.max_context,
        .pool = c->pool,
    };
}

/* Of files that were received there may be two with one fingerprint, which does not cover the weights themselves. */
static bool same_model(const struct holding *h, const struct model *m)
{
    return h->model && model_info(h->model)->fingerprint == model_info(m)->fingerprint &&
           !strcmp(gguf_path(model_gguf(h->model)), gguf_path(model_gguf(m)));
}

static bool same_stage(const struct holding *h, const struct model *m, const struct stage_options *o)
{
    if (!h->stage || !same_model(h, m))
        return false;
    const struct stage_options *have = stage_options(h->stage);
    return have->first_block == o->first_block && have->last_block == o->last_block && have->kv == o->kv &&
           have->kv_pages == o->kv_pages && have->max_tokens == o->max_tokens && have->max_context == o->max_context;
}

/* The activations' own two rows of buffers are small change beside a stage: they live in the margin that was kept. */
static int admit(const struct worker *w, const char *name, const struct stage_options *o, const struct stage_memory *m,
                 struct error *err)
{
    char we[UNITS_TEXT], em[UNITS_TEXT], he[UNITS_TEXT], kv[UNITS_TEXT], bu[UNITS_TEXT], to[UNITS_TEXT], ad[UNITS_TEXT];
    units_bytes_text(m->weights, we);
    units_bytes_text(m->embedding, em);
    units_bytes_text(m->head, he);
    units_bytes_text(m->kv, kv);
    units_bytes_text(m->buffers, bu);
    units_bytes_text(m->total, to);
    units_bytes_text(w->admitted_bytes, ad);
    if (m->total > w->admitted_bytes)
        return error_set(err, ERR_MEMORY,
                         "blocks %u-%u of %.100s do not fit: weights %s + embedding %s + head %s + cache %s + buffers "
                         "%s = %s, but %s are admitted here; use more nodes, a smaller type or a smaller cache",
                         o->first_block, o->last_block, name, we, em, he, kv, bu, to, ad);
    log_info("blocks %u-%u of %s: weights %s + embedding %s + head %s + cache %s + buffers %s = %s of %s",
             o->first_block, o->last_block, name, we, em, he, kv, bu, to, ad);
    return 0;
}

static int shelf_at_hand(struct holding *h, struct error *err)
{
    return h->shelf ? 0 : shelf_create(h->model, &h->shelf, err);
}

/* What the blocks that are on the shelf, but for first to last, hold of whole pages is for others to fetch, as far as so many
 * bytes go. Without memory for it others compute it. */
static void leave(struct compute *c, uint32_t first_block, uint32_t last_block, uint64_t bytes)
{
    struct holding *h = &c->holding;
    struct left_pages *pages = NULL;
    struct leaving *kv = NULL;
    uint64_t older = left_bytes(c->w->left);
    if (older > bytes)
        left_forget(c->w->left);
    else
        bytes -= older;
    if (!h->held || !h->table || left_pages_create(h->held, h->table, first_block, last_block, &pages))
        return;
    if (shelf_take_leaving(h->shelf, first_block, last_block, bytes, &kv, NULL))
        left_pages_destroy(pages);
    else
        left_add(c->w->left, model_info(h->model)->fingerprint, pages, kv);
}

void compute_leave(struct compute *c, const struct control_message *unload)
{
    struct holding *h = &c->holding;
    bool wanted = unload->u.unload.leave;
    if (wanted && h->model && !shelf_at_hand(h, NULL)) {
        disconnect(c);
        if (h->stage)
            shelf_put(h->shelf, h->stage);
        h->stage = NULL;
        leave(c, 1, 0, c->w->admitted_bytes);
    }
    left_turn(c->w->left, unload->epoch, wanted);
    compute_unload(c);
}

/* The weights that are in memory go on the shelf, as far as they are of this model and the new stage needs them; all
 * else of the old stage ends. Takes over m. */
static int clear_for(struct compute *c, const struct control_message *load, struct model *m,
                     const struct stage_options *o, uint64_t spare_bytes, struct error *err)
{
    struct holding *h = &c->holding;
    if (!same_model(h, m)) {
        holding_free(h);
        h->model = m;
    } else {
        model_close(m);
    }
    int rc = shelf_at_hand(h, err);
    if (!rc && h->stage) {
        shelf_put(h->shelf, h->stage);
        h->stage = NULL;
    }
    holding_end_stage(h);
    if (rc)
        return rc;
    if (load->u.load.leave)
        leave(c, o->first_block, o->last_block, spare_bytes);
    left_turn(c->w->left, load->epoch, load->u.load.leave);
    if (h->held) /* at once: if the load is stopped on its way, the blocks that left are known to be gone */
        held_pages_stage(h->held, o->first_block, o->last_block);
    shelf_keep_only(h->shelf, o->first_block, o->last_block);
    shelf_keep_kv(h->shelf, o->kv, o->kv_pages);
    return 0;
}

/* What is known of pages and rows goes on being true as far as the cache is the same; sequences are told anew. */
static int keep_pages(struct holding *h, const struct control_message *load, struct error *err)
{
    const struct stage_options *o = stage_options(h->stage);
    const struct model_info *info = model_info(h->model);
    if (h->table && (h->kv != o->kv || h->kv_pages != o->kv_pages || h->max_context != o->max_context ||
                     h->max_sequences != load->u.load.max_sequences))
        forget_pages(h);
    h->kv = o->kv;
    h->kv_pages = o->kv_pages;
    h->max_context = o->max_context;
    h->max_sequences = load->u.load.max_sequences;
    int rc = h->table ? 0 : sequence_table_create(h->max_sequences, o->max_context, o->kv_pages, info->vocabulary,
                                                  &h->table, err);
    if (!rc && !h->held)
        rc = held_pages_create(info->blocks, o->kv_pages, &h->held, err);
    if (rc)
        return rc;
    sequence_release_all(h->table);
    held_pages_stage(h->held, o->first_block, o->last_block);
    return 0;
}

/* Rows live in what the stage leaves of the admitted memory. */
static int keep_rows(struct compute *c, const struct control_message *load, struct error *err)
{
    struct holding *h = &c->holding;
    size_t row_bytes = activation_bytes((enum frame_codec)load->u.load.codec, 1, model_info(h->model)->width);
    uint64_t left = c->w->admitted_bytes > h->memory.total ? c->w->admitted_bytes - h->memory.total : 0,
             bytes = load->u.load.keep_bytes < left ? load->u.load.keep_bytes : left;
    if (h->rows && (!bytes || kept_rows_row_bytes(h->rows) != row_bytes || c->codec != load->u.load.codec)) {
        kept_rows_destroy(h->rows);
        h->rows = NULL;
    }
    int rc = bytes && !h->rows ? kept_rows_create(h->kv_pages, row_bytes, &h->rows, err) : 0;
    if (!rc && h->rows)
        kept_rows_begin(h->rows, load->u.load.has_next ? load->u.load.last_block + 1 : 0, bytes);
    return rc;
}

/* The first micro-batch shall find memory that was touched and code that has run, as all others do: it took five times as
 * long as the second. Costs about as much as one token. Only before anybody's pages are held: what it leaves in the cache
 * is nobody's. Where it fails, the first one is slow. */
static void warm_up(struct stage *stage)
{
    const struct stage_options *o = stage_options(stage);
    uint32_t most = o->max_tokens < o->max_context ? o->max_tokens : o->max_context;
    struct stage_probe probe = {.first_block = o->first_block,
                                .last_block = o->last_block,
                                .sequences = 1,
                                .tokens = most < WARM_UP_TOKENS ? most : WARM_UP_TOKENS,
                                .ends = true,
                                .warm = true,
                                .repeat = 1};
    struct stage_times times = {.blocks = mem_alloc((o->last_block - o->first_block + 1) * sizeof *times.blocks)};
    if (times.blocks)
        stage_probe(stage, &probe, &times);
    mem_free(times.blocks);
}

/* Fills c->holding. *read: bytes of weights that had to be read. Stopped in the middle, what was read stays on the
 * shelf. */
static int hold(struct compute *c, const struct mail *job, struct model *m, uint64_t *read, struct error *err)
{
    const struct control_message *load = &job->message;
    struct holding *h = &c->holding;
    struct stage_options o = options_of(c, load);
    const struct model_info *info = model_info(m);
    uint32_t width = info->width;
    bool received = slices_is(c->w->slices, m);
    int rc;
    *read = 0;
    if (same_stage(h, m, &o)) {
        model_close(m);
        left_turn(c->w->left, load->epoch, load->u.load.leave);
    } else {
        struct stage_memory need;
        struct progress progress = {.c = c, .job = job};
        stage_memory_need(m, &o, &need);
        if ((rc = admit(c->w, load->u.load.model, &o, &need, err))) {
            model_close(m);
            return rc;
        }
        uint64_t spare = c->w->admitted_bytes - need.total; /* beside the rows that it keeps */
        spare -= load->u.load.keep_bytes < spare ? load->u.load.keep_bytes : spare;
        if ((rc = clear_for(c, load, m, &o, spare, err)))
            return rc;
        o.progress = on_progress;
        o.progress_context = &progress;
        if (received) {
            o.await_tensor = await_tensor;
            o.await_context = &progress;
            if ((rc = slices_want(c->w->slices, h->model, h->shelf, o.first_block, o.last_block, err)))
                return rc;
        }
        o.shelf = h->shelf;
        o.read_bytes = read;
        h->activation_bytes = (size_t)o.max_tokens * width * sizeof(float);
        rc = stage_create(h->model, &o, &h->stage, err);
        if (received)
            slices_cancel(c->w->slices); /* all of it has come, or nothing is wanted any more */
        if (rc)
            return rc;
        shelf_destroy(h->shelf);
        h->shelf = NULL;
        if (!(h->in = mem_map(h->activation_bytes)) || !(h->out = mem_map(h->activation_bytes)))
            return error_set(err, ERR_NOMEM, "no memory for activations of %zu bytes", h->activation_bytes);
        stage_memory_used(h->stage, &h->memory);
        if (!h->held)
            warm_up(h->stage);
    }
    snprintf(h->name, sizeof h->name, "%s", load->u.load.model);
    rc = keep_pages(h, load, err);
    return rc ? rc : keep_rows(c, load, err);
}

/* What need not be computed again. Without memory to say so, all of it is. */
static void tell_held(const struct holding *h, struct control_message *m)
{
    uint32_t room = FRAME_HELD_PAGES_MAX;
    int count = held_pages_list(h->held, h->table, room, &m->u.loaded.held);
    m->u.loaded.held_count = count > 0 ? (uint32_t)count : 0;
    for (int i = 0; i < count; i++)
        room -= m->u.loaded.held[i].page_count;
    count = h->rows ? kept_rows_list(h->rows, room, &m->u.loaded.kept) : 0;
    m->u.loaded.kept_count = count > 0 ? (uint32_t)count : 0;
}

static void announce(struct compute *c, const struct mail *job, uint64_t read, uint64_t fetched)
{
    const struct holding *h = &c->holding;
    const struct stage_options *o = stage_options(h->stage);
    struct control_message m = {.kind = CONTROL_LOADED, .epoch = job->message.epoch, .request = job->message.request};
    m.u.loaded.weights_bytes = h->memory.weights;
    m.u.loaded.embedding_bytes = h->memory.embedding;
    m.u.loaded.head_bytes = h->memory.head;
    m.u.loaded.kv_bytes = h->memory.kv;
    m.u.loaded.buffers_bytes = h->memory.buffers;
    m.u.loaded.total_bytes = h->memory.total;
    m.u.loaded.read_bytes = read;
    m.u.loaded.fetched_bytes = fetched;
    tell_held(h, &m);
    struct control_loaded_stage loaded = {
        .fingerprint = model_info(h->model)->fingerprint,
        .first_block = o->first_block,
        .last_block = o->last_block,
        .kv_type = o->kv,
        .kv_pages = o->kv_pages,
        .memory_bytes = m.u.loaded.total_bytes,
    };
    snprintf(loaded.model, sizeof loaded.model, "%s", h->name);
    vitals_loaded(c, &loaded, job->message.epoch);
    atomic_store(&c->w->vitals.busy_us, 0);
    atomic_store(&c->w->vitals.state, WORKER_READY);
    compute_reply(c, &m, &job->peer);
}

void compute_load(struct compute *c, const struct mail *job)
{
    const struct control_message *load = &job->message;
    struct model *m = NULL;
    struct error err = {0};
    uint64_t read = 0, fetched = 0;
    int64_t start = clock_ms();
    if (c->draining) {
        error_set(&err, ERR_CANCELLED, "this worker is shutting down");
        compute_reply_failure(c, job, &err);
        return;
    }
    int rc = compute_open_model(c, job, load->u.load.model, load->u.load.fingerprint, &m, &err);
    if (!rc && (rc = check_load(load, m, c->session.epoch, &err)))
        model_close(m);
    if (!rc) {
        disconnect(c);
        atomic_store(&c->w->vitals.state, WORKER_LOADING);
        rc = hold(c, job, m, &read, &err);
    }
    if (!rc)
        fetched = compute_fetch_pages(c, job);
    if (!rc && load->u.load.has_next)
        rc = link_connect(c->w->hub, PLANE_DATA, load->u.load.next.endpoint, load->u.load.next.public_key, &c->next,
                          &err);
    if (rc) {
        /* A refusal before anything was touched leaves a running stage alone. */
        bool begun = atomic_load(&c->w->vitals.state) == WORKER_LOADING;
        if (begun && rc == ERR_CANCELLED)
            set_aside(c); /* something newer waits, which may want the same blocks */
        else if (begun)
            compute_unload(c);
        compute_reply_failure(c, job, &err);
        return;
    }
    snprintf(c->next_name, sizeof c->next_name, "%s", load->u.load.next.name);
    c->codec = (enum frame_codec)load->u.load.codec;
    throttle_forget(&c->throttle);
    kernels_set_deterministic(!load->u.load.inexact);
    c->attach_sent_ms = c->next_down_ms = 0;
    session_start(&c->session, load, model_info(c->holding.model)->width);
    char bytes[UNITS_TEXT], text[64] = "kept";
    units_bytes_text(read, bytes);
    if (read)
        snprintf(text, sizeof text, "%s read", bytes);
    log_info("epoch %llu: stage %u of %u, blocks %u-%u of %s, %s in %lld ms", (unsigned long long)load->epoch,
             load->u.load.stage, load->u.load.stages, load->u.load.first_block, load->u.load.last_block,
             load->u.load.model, text, (long long)(clock_ms() - start));
    announce(c, job, read, fetched);
}
