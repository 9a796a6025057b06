/* The device profile: how long one block of each kind takes here, over a grid of batch sizes, chunks and contexts, so
 * that the planner predicts with measurements. One block is loaded at a time, never the whole range. Compute thread.
 *
 * Time: every cell is timed a few times; once the budget is spent, what remains is timed once, and then left out (the
 * planner fills holes from the nearest cell). Small models take a few tens of milliseconds. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/units.h"
#include "worker/compute.h"

#define BUDGET_MS 2000
#define PATIENCE_MS 6         /* of one cell: repeats beyond three fit into it */
#define LONG_S 0.02
#define KINDS_MAX 64u
#define LARGE_MODEL_BYTES ((uint64_t)256 << 20) /* below, caches matter more than memory; see measure_peaks */
#define HEAD_BYTES_MAX ((uint64_t)256 << 20) /* a larger head is reckoned from the read bandwidth, not loaded */

static const uint32_t batches[] = {1, 2, 4, 8};
enum { BATCHES = sizeof batches / sizeof *batches, CONTEXTS = 3, CHUNKS = 3, PASTS = 2,
       CELLS = BATCHES * CONTEXTS + CHUNKS * PASTS };

struct grid {
    uint32_t contexts[CONTEXTS], context_count;
    uint32_t chunks[CHUNKS], chunk_count;
    uint32_t pasts[PASTS], past_count;
    uint32_t longest;         /* positions a sequence reaches */
};

static uint32_t clamp(uint32_t x, uint32_t low, uint32_t high)
{
    return x < low ? low : x > high ? high : x;
}

static void add(uint32_t *list, uint32_t *count, uint32_t value)
{
    if (!*count || list[*count - 1] < value)
        list[(*count)++] = value;
}

static void plan_grid(const struct control_message *probe, const struct model_info *info, struct grid *g)
{
    uint32_t most = info->context ? clamp(info->context, 2 * KV_PAGE_TOKENS, 1u << 17) : 4096;
    uint32_t context = clamp(probe->u.probe.context ? probe->u.probe.context : 1024, 2 * KV_PAGE_TOKENS, most);
    uint32_t chunk = clamp(probe->u.probe.chunk ? probe->u.probe.chunk : 256, 8, 1024);
    *g = (struct grid){0};
    if (chunk >= context)
        chunk = context / 2;
    uint32_t far = context - 1 > 4096 ? 4096 : context - 1;
    add(g->contexts, &g->context_count, KV_PAGE_TOKENS - 1);
    if (far > 1024)
        add(g->contexts, &g->context_count, far / 4);
    add(g->contexts, &g->context_count, far);
    add(g->chunks, &g->chunk_count, clamp(chunk / 8, 2, chunk));
    add(g->chunks, &g->chunk_count, clamp(chunk / 2, 2, chunk));
    add(g->chunks, &g->chunk_count, chunk);
    add(g->pasts, &g->past_count, 0);
    add(g->pasts, &g->past_count, clamp(context - chunk, 1, 2048));
    g->longest = far + 1;
    if (g->pasts[g->past_count - 1] + chunk > g->longest)
        g->longest = g->pasts[g->past_count - 1] + chunk;
}

struct measuring {
    struct compute *c;
    const struct mail *job;
    struct control_message *out;
    int64_t deadline_ms;
    uint64_t done, total;
};

static void tell(struct measuring *p)
{
    struct control_message m = {.kind = CONTROL_PROGRESS, .epoch = p->job->message.epoch,
                                .request = p->job->message.request};
    snprintf(m.u.progress.what, sizeof m.u.progress.what, "device");
    m.u.progress.done = p->done;
    m.u.progress.total = p->total;
    mailbox_put(&p->c->w->replies, &m, &p->job->peer);
}

static int measure_cell(struct measuring *p, struct stage *s, uint32_t block, struct control_cell cell,
                        struct error *err)
{
    struct control_message *out = p->out;
    bool late = clock_ms() > p->deadline_ms;
    bool first = !out->u.profile.cell_count;
    p->done++;
    if (late && !first && cell.sequences > 1)
        return 0;
    /* One run tells whether more are affordable: a short one may be long by chance, a long one is trusted. */
    double once = stage_probe_block(s, block, cell.sequences, cell.tokens, cell.past, 1);
    int repeats = once > 0 ? (int)(PATIENCE_MS * 1e-3 / once) : 0;
    cell.seconds = once;
    if (!late && once > 0 && once < LONG_S)
        cell.seconds = stage_probe_block(s, block, cell.sequences, cell.tokens, cell.past,
                                         repeats < 3 ? 3 : repeats > 9 ? 9 : repeats);
    if (cell.seconds < 0)
        return error_set(err, (int)cell.seconds, "cannot measure block %u with %u x %u tokens after %u: %s", block,
                         cell.sequences, cell.tokens, cell.past, error_name((int)cell.seconds));
    cell.seconds = (cell.seconds > 0 ? cell.seconds : 1e-9) * p->c->w->slowdown;
    out->u.profile.cells[out->u.profile.cell_count++] = cell;
    log_debug("block %u: %u x %u tokens after %u: %.1f us", block, cell.sequences, cell.tokens, cell.past,
              cell.seconds * 1e6);
    return 0;
}

static int measure_block(struct measuring *p, struct stage *s, uint32_t block, uint32_t kind, const struct grid *g,
                         struct error *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < g->context_count && !rc; i++)
        for (uint32_t b = 0; b < BATCHES && !rc; b++)
            rc = measure_cell(p, s, block, (struct control_cell){kind, batches[b], 1, g->contexts[i], 0}, err);
    tell(p);
    for (uint32_t k = 0; k < g->chunk_count && !rc; k++)
        for (uint32_t i = 0; i < g->past_count && !rc; i++)
            rc = measure_cell(p, s, block, (struct control_cell){kind, 1, g->chunks[k], g->pasts[i], 0}, err);
    tell(p);
    return rc;
}

static int admit(const struct compute *c, uint64_t need, uint32_t block, struct error *err)
{
    char a[UNITS_TEXT], b[UNITS_TEXT];
    if (need <= c->w->admitted_bytes)
        return 0;
    return error_set(err, ERR_MEMORY, "not even block %u fits here to be measured: it takes %s, admitted are %s", block,
                     units_bytes_text(need, a), units_bytes_text(c->w->admitted_bytes, b));
}

/* Loads one block and times it; with the head, when it is the last block and the head is not too large. */
static int measure_kind(struct measuring *p, const struct model *m, uint32_t block, uint32_t kind, const struct grid *g,
                        bool head, struct error *err)
{
    struct compute *c = p->c;
    struct stage *s = NULL;
    uint32_t rows = g->chunks[g->chunk_count - 1] > 8 ? g->chunks[g->chunk_count - 1] : 8;
    struct stage_options o = {
        .first_block = block,
        .last_block = block,
        .kv = (enum kv_type)p->job->message.u.probe.kv_type,
        .kv_pages = (g->longest + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
        .max_tokens = rows,
        .max_context = g->longest,
        .pool = c->pool,
    };
    struct stage_memory need;
    stage_memory_need(m, &o, &need);
    if (c->holding.stage && need.total + c->holding.memory.total > c->w->admitted_bytes) {
        log_info("unloaded, for there is no room to measure beside what was loaded");
        compute_unload(c);
    }
    int rc = admit(c, need.total, block, err);
    if (rc || (rc = stage_create(m, &o, &s, err)))
        return rc;
    log_debug("block %u loaded for measuring", block);
    rc = measure_block(p, s, block, kind, g, err);
    if (!rc && head) {
        double seconds = stage_probe_head(s, 1, clock_ms() > p->deadline_ms ? 1 : 5);
        p->out->u.profile.head_seconds = seconds > 0 ? seconds * c->w->slowdown : 0;
    }
    stage_destroy(s);
    return rc;
}

static void nothing(void *context, size_t begin, size_t end, int thread)
{
    (void)context;
    (void)begin;
    (void)end;
    (void)thread;
}

/* What a micro-batch of one token costs beside its blocks: a frame taken apart, one put together, a wake-up of the
 * pool. The sockets' part is in the links' round trips. */
static double measure_overhead(struct compute *c)
{
    int32_t token = 1;
    struct frame_span span = {.sequence = 1, .count = 1, .next_token = -1, .tokens = &token};
    struct frame_work w = {.span_count = 1, .spans = &span};
    struct buffer header = {0}, tokens = {0};
    double best = 1;
    for (int i = 0; i < 16; i++) {
        struct data_frame f;
        int64_t start = clock_ns();
        buffer_clear(&header);
        buffer_clear(&tokens);
        if (!frame_encode_work(&w, &header, &tokens, NULL)) {
            struct frame_part parts[2] = {{header.data, header.size}, {tokens.data, tokens.size}};
            if (!frame_decode_data(parts, 2, &f, NULL))
                frame_free(&f);
        }
        pool_for(c->pool, (size_t)pool_threads(c->pool), 1, nothing, NULL);
        double seconds = (double)(clock_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
    }
    buffer_free(&header);
    buffer_free(&tokens);
    return best;
}

/* Read bandwidth and int8 peak. The bandwidth of memory is measured over a buffer of hundreds of megabytes, which a
 * small model does not need (its weights lie in caches) and a small board cannot spare: then it is what the first
 * block's decode read. */
static void measure_peaks(struct compute *c, const struct model *m, enum kv_type kv, struct control_message *out)
{
    const struct control_cell *cell = out->u.profile.cells;
    int64_t start = clock_ms();
    if (model_info(m)->weight_bytes >= LARGE_MODEL_BYTES && c->w->admitted_bytes >= 4 * LARGE_MODEL_BYTES)
        out->u.profile.read_bytes_per_s = probe_read_bandwidth(c->pool, 60) / c->w->slowdown;
    else
        for (uint32_t b = 0; b < model_info(m)->blocks; b++)
            if (model_block_cost(m, b, kv).kind == cell->kind)
                out->u.profile.read_bytes_per_s = (double)model_block_cost(m, b, kv).read_bytes / cell->seconds;
    out->u.profile.int8_macs_per_s = probe_int8_peak(c->pool, 20) / c->w->slowdown;
    log_debug("peaks measured in %lld ms", (long long)(clock_ms() - start));
}

static int measure(struct compute *c, const struct mail *job, const struct model *m, struct control_message *out,
                   struct error *err)
{
    const struct model_info *info = model_info(m);
    enum kv_type kv = (enum kv_type)job->message.u.probe.kv_type;
    struct grid g;
    struct measuring p = {.c = c, .job = job, .out = out, .deadline_ms = clock_ms() + BUDGET_MS};
    uint32_t block_of[KINDS_MAX], kinds = 0, last = info->blocks - 1;
    plan_grid(&job->message, info, &g);
    /* The last block that is of a kind stands for it, so that the head comes with one of them. */
    for (uint32_t b = 0; b < info->blocks; b++) {
        uint32_t kind = model_block_cost(m, b, kv).kind;
        if (kind >= KINDS_MAX)
            return error_set(err, ERR_BOUND, "more than %u kinds of blocks", KINDS_MAX);
        block_of[kind] = b;
        kinds = kind + 1 > kinds ? kind + 1 : kinds;
    }
    out->u.profile.cells = mem_zalloc((size_t)kinds * CELLS, sizeof *out->u.profile.cells);
    if (!out->u.profile.cells)
        return error_set(err, ERR_NOMEM, "no memory for a profile");
    p.total = (uint64_t)kinds * (g.context_count * BATCHES + g.chunk_count * g.past_count);
    struct block_cost head = model_head_cost(m);
    bool measure_head = head.weight_bytes <= HEAD_BYTES_MAX;
    for (uint32_t k = 0; k < kinds; k++) {
        /* A large head would come along with the last block: take an earlier one of its kind, if there is one. */
        uint32_t block = block_of[k];
        for (uint32_t b = 0; block == last && !measure_head && b < last; b++)
            if (model_block_cost(m, b, kv).kind == k && (b || last == 1))
                block = b;
        int rc = measure_kind(&p, m, block, k, &g, measure_head && block == last, err);
        if (rc)
            return rc;
    }
    measure_peaks(c, m, kv, out);
    if (!measure_head && out->u.profile.read_bytes_per_s > 0)
        out->u.profile.head_seconds = (double)head.read_bytes / out->u.profile.read_bytes_per_s;
    if (out->u.profile.read_bytes_per_s > 0)
        out->u.profile.embedding_seconds = 4.0 * info->width / out->u.profile.read_bytes_per_s;
    out->u.profile.overhead_seconds = measure_overhead(c) * c->w->slowdown;
    return 0;
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
    int rc = compute_find_model(c->w->options, probe->u.probe.model, probe->u.probe.fingerprint, &m, err);
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
