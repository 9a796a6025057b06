/* The device profile of this worker: one run of blocks of each kind is loaded, timed (execution/profile.c) and let go
 * of. Compute thread. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/units.h"
#include "execution/profile.h"
#include "worker/compute.h"

#define BUDGET_MS 2500
#define HEAD_BYTES_MAX ((uint64_t)256 << 20) /* a larger head is reckoned from the read bandwidth, not loaded */
#define KV_BYTES_MOST ((uint64_t)64 << 20)   /* for sequences to have pages of their own */

struct measuring {
    struct compute *c;
    const struct mail *job;
};

static void tell(void *context, uint64_t done, uint64_t total)
{
    struct measuring *m = context;
    struct control_message message = {
        .kind = CONTROL_PROGRESS, .epoch = m->job->message.epoch, .request = m->job->message.request};
    snprintf(message.u.progress.what, sizeof message.u.progress.what, "device");
    message.u.progress.done = done;
    message.u.progress.total = total;
    mailbox_put(&m->c->w->replies, &message, &m->job->peer);
}

/* The options of a stage that holds blocks first..last to be measured; with pages for as many sequences as is cheap. */
static struct stage_options options_of(const struct profiling *p, uint32_t first, uint32_t last, uint64_t kv_bytes)
{
    const struct profile_grid *g = &p->grid;
    uint32_t pages = (g->longest + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS, most = g->batches[g->batch_count - 1], n = 1;
    uint64_t page_bytes = 0;
    for (uint32_t b = first; b <= last; b++)
        page_bytes += model_block_cost(p->model, b, p->kv).kv_bytes_per_token * KV_PAGE_TOKENS;
    while (n < most && (n + 1) * pages * page_bytes <= kv_bytes)
        n++;
    return (struct stage_options){
        .first_block = first,
        .last_block = last,
        .kv = p->kv,
        .kv_pages = n * pages,
        .max_tokens = g->rows,
        .max_context = g->longest,
        .pool = p->pool,
    };
}

/* Shortens the run from its beginning until it fits beside what is loaded, or alone; sequences share pages before
 * nothing fits at all. */
static int admit(struct compute *c, const struct profiling *p, uint32_t first, uint32_t last, struct stage_options *o,
                 struct error *err)
{
    struct stage_memory need;
    char a[UNITS_TEXT], b[UNITS_TEXT];
    *o = options_of(p, first, last, KV_BYTES_MOST);
    stage_memory_need(p->model, o, &need);
    if (c->holding.stage && need.total + c->holding.memory.total > c->w->admitted_bytes) {
        log_info("unloaded, for there is no room to measure beside what was loaded");
        compute_unload(c);
    }
    while (need.total > c->w->admitted_bytes && first <= last) {
        *o = first < last ? options_of(p, ++first, last, KV_BYTES_MOST) : options_of(p, first++, last, 0);
        stage_memory_need(p->model, o, &need);
    }
    if (need.total <= c->w->admitted_bytes)
        return 0;
    return error_set(err, ERR_MEMORY, "not even block %u fits here to be measured: it takes %s, admitted are %s", last,
                     units_bytes_text(need.total, a), units_bytes_text(c->w->admitted_bytes, b));
}

static int measure_run(struct compute *c, struct profiling *p, uint32_t first, uint32_t last, struct error *err)
{
    struct stage *s = NULL;
    struct stage_options o;
    int rc = admit(c, p, first, last, &o, err);
    if (rc || (rc = stage_create(p->model, &o, &s, err)))
        return rc;
    first = o.first_block;
    log_debug("blocks %u-%u loaded for measuring", first, last);
    rc = profile_run(p, s, first, last, err);
    stage_destroy(s);
    return rc;
}

static int measure(struct compute *c, const struct mail *job, const struct model *m, struct control_message *out,
                   struct error *err)
{
    const struct model_info *info = model_info(m);
    struct measuring measuring = {c, job};
    struct profiling p = {.model = m,
                          .kv = (enum kv_type)job->message.u.probe.kv_type,
                          .pool = c->pool,
                          .slowdown = c->w->slowdown,
                          .deadline_ms = clock_ms() + BUDGET_MS,
                          .progress = tell,
                          .context = &measuring,
                          .out = out};
    profile_grid_plan(info, job->message.u.probe.context, job->message.u.probe.chunk, 0, 0, &p.grid);
    int rc = profile_begin(&p, err);
    uint32_t first, last, end = info->blocks - 1;
    /* A large head would come along with the last block. */
    uint32_t avoid = model_head_cost(m).weight_bytes <= HEAD_BYTES_MAX ? UINT32_MAX : end;
    uint32_t low =
        model_embedding_cost(m).weight_bytes <= HEAD_BYTES_MAX ? 0 : 1; /* and a large embedding with the first */
    while (!rc && low <= end && profile_next_run(&p, low, end, avoid, &first, &last))
        rc = measure_run(c, &p, first, last, err);
    while (!rc && low && profile_next_run(&p, 0, end, avoid, &first, &last))
        rc = measure_run(c, &p, first, last, err);
    return rc ? rc : profile_end(&p, c->w->admitted_bytes, err);
}

/* Whether two questions are the same one. */
static bool same_probe(const struct control_message *a, const struct control_message *b)
{
    return a->u.probe.fingerprint == b->u.probe.fingerprint && !strcmp(a->u.probe.model, b->u.probe.model) &&
           a->u.probe.kv_type == b->u.probe.kv_type && a->u.probe.context == b->u.probe.context &&
           a->u.probe.chunk == b->u.probe.chunk;
}

/* A reply with cells of its own. */
static int copy_profile(const struct control_message *from, struct control_message *to)
{
    uint32_t count = from->u.profile.cell_count;
    struct control_cell *cells = mem_zalloc(count, sizeof *cells);
    if (!cells)
        return ERR_NOMEM;
    if (count)
        memcpy(cells, from->u.profile.cells, count * sizeof *cells);
    *to = *from;
    to->u.profile.cells = cells;
    return 0;
}

static int measure_or_recall(struct compute *c, const struct mail *job, struct error *err)
{
    struct control_message profile = {.kind = CONTROL_PROFILE};
    struct model *m = NULL;
    const struct control_message *probe = &job->message;
    if (probe->u.probe.kv_type > KV_F32)
        return error_set(err, ERR_FORMAT, "cache type %u is not known", probe->u.probe.kv_type);
    if (c->has_profile && same_probe(&c->profile_of, probe)) {
        c->profile.u.profile.cached = true;
        return 0;
    }
    int64_t start = clock_ms();
    int rc = compute_open_model(c, job, probe->u.probe.model, probe->u.probe.fingerprint, &m, err);
    if (rc)
        return rc;
    struct control_message keyed = *probe;
    keyed.u.probe.fingerprint = model_info(m)->fingerprint;
    bool cached = !profile_cache_read(c, &keyed, &profile, NULL);
    if (!cached && !(rc = measure(c, job, m, &profile, err)))
        profile_cache_write(c, &keyed, &profile);
    model_close(m);
    if (rc) {
        control_free(&profile);
        return rc;
    }
    log_info("profile of %s: %u cells, %s in %lld ms", probe->u.probe.model, profile.u.profile.cell_count,
             cached ? "recalled" : "measured", (long long)(clock_ms() - start));
    if (c->has_profile)
        control_free(&c->profile);
    c->profile = profile;
    c->profile.u.profile.cached = cached;
    c->profile_of = *probe;
    c->has_profile = true;
    return 0;
}

void compute_probe(struct compute *c, const struct mail *job)
{
    struct control_message reply;
    struct error err = {0};
    int rc = measure_or_recall(c, job, &err);
    if (!rc && (rc = copy_profile(&c->profile, &reply)))
        error_set(&err, rc, "no memory for a profile");
    if (rc) {
        compute_reply_failure(c, job, &err);
        return;
    }
    reply.epoch = job->message.epoch;
    reply.request = job->message.request;
    compute_reply(c, &reply, &job->peer);
}
