/* Which cells of the grid are measured, in which order, and how often. Owns nothing but the profile it fills. */
#include "execution/profile.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"

#define PATIENCE_S 0.03 /* of one cell: more passes than the least fit into it */
#define PATIENCE_ONE_S 0.12 /* the same where one sequence decodes, which every plan needs to know well */
#define LONG_S 0.12     /* a pass this long is timed once and trusted */
#define PASSES_LEAST 4
#define PASSES_THROTTLED 12 /* twice as many where one sequence decodes */
#define PASSES_MOST 24
#define REST_MOST_S 0.01 /* of a throttled worker, between passes */
#define PAUSE_NS 400000 /* between decoding passes: the other stages' turn */
#define CACHE_TIMES 4   /* a run of blocks is so much larger than the last cache */
#define RUN_BYTES_LEAST ((uint64_t)16 << 20)
#define RUN_BYTES_MOST ((uint64_t)192 << 20)
#define LARGE_BYTES ((uint64_t)256 << 20) /* of memory that read bandwidth is measured over */
#define FAR_MOST 4096

static uint32_t clamp(uint32_t x, uint32_t low, uint32_t high)
{
    return x < low ? low : x > high ? high : x;
}

static void add(uint32_t *list, uint32_t *count, uint32_t value)
{
    if (!*count || list[*count - 1] < value)
        list[(*count)++] = value;
}

void profile_grid_plan(const struct model_info *info, uint32_t context, uint32_t chunk, uint32_t rows,
                       uint32_t positions, struct profile_grid *out)
{
    struct profile_grid g = {0};
    uint32_t most = info->context ? clamp(info->context, 2 * KV_PAGE_TOKENS, 1u << 17) : FAR_MOST;
    if (positions && positions < most)
        most = positions;
    context = clamp(context ? context : 1024, 2, most < 2 ? 2 : most);
    chunk = clamp(chunk ? chunk : 256, 8, 1024);
    if (chunk > context / 2)
        chunk = context / 2;
    if (rows && chunk > rows)
        chunk = rows;
    uint32_t far = clamp(context - 1, 1, FAR_MOST);
    if (far >= 5 * KV_PAGE_TOKENS) /* far enough apart to tell what a position costs */
        add(g.contexts, &g.context_count, KV_PAGE_TOKENS - 1);
    if (far > 1024)
        add(g.contexts, &g.context_count, far / 4);
    add(g.contexts, &g.context_count, far);
    for (uint32_t b = 1; b <= 16; b *= 2)
        if (!rows || b <= rows)
            add(g.batches, &g.batch_count, b);
    if (chunk >= 2) {
        add(g.chunks, &g.chunk_count, clamp(chunk / 8, 2, chunk));
        add(g.chunks, &g.chunk_count, clamp(chunk / 2, 2, chunk));
        add(g.chunks, &g.chunk_count, chunk);
        add(g.pasts, &g.past_count, 0);
        if (context - chunk)
            add(g.pasts, &g.past_count, clamp(context - chunk, 1, FAR_MOST / 2));
    }
    g.longest = far + 1;
    if (chunk >= 2 && g.pasts[g.past_count - 1] + chunk > g.longest)
        g.longest = g.pasts[g.past_count - 1] + chunk;
    g.rows = g.batches[g.batch_count - 1] > chunk ? g.batches[g.batch_count - 1] : chunk;
    *out = g;
}

int profile_begin(struct profiling *p, struct error *err)
{
    const struct model_info *info = model_info(p->model);
    const struct profile_grid *g = &p->grid;
    uint32_t cells = g->context_count * g->batch_count + g->chunk_count * g->past_count;
    p->kinds = 0;
    for (uint32_t b = 0; b < info->blocks; b++) {
        uint32_t kind = model_block_cost(p->model, b, p->kv).kind;
        if (kind >= PROFILE_KINDS_MAX)
            return error_set(err, ERR_BOUND, "more than %u kinds of blocks", PROFILE_KINDS_MAX);
        p->kinds = kind + 1 > p->kinds ? kind + 1 : p->kinds;
    }
    struct control_cell *room = mem_zalloc((size_t)p->kinds * cells + PROFILE_BATCHES, sizeof *room);
    if (!room)
        return error_set(err, ERR_NOMEM, "no memory for a profile");
    *p->out = (struct control_message){.kind = CONTROL_PROFILE};
    p->out->u.profile.cells = room;
    p->total = (uint64_t)p->kinds * cells;
    p->done = 0;
    return 0;
}

/* Twice the last cache and more, so that a pass finds nothing of the one before. */
static uint64_t run_bytes(void)
{
    struct cpu_info cpu;
    cpu_describe(&cpu);
    uint64_t last = cpu.l3_bytes ? cpu.l3_bytes : cpu.l2_bytes, bytes = CACHE_TIMES * last;
    return bytes < RUN_BYTES_LEAST ? RUN_BYTES_LEAST : bytes > RUN_BYTES_MOST ? RUN_BYTES_MOST : bytes;
}

bool profile_next_run(const struct profiling *p, uint32_t low, uint32_t high, uint32_t avoid, uint32_t *first,
                      uint32_t *last)
{
    uint32_t found = UINT32_MAX;
    for (uint32_t b = high + 1; b-- > low;) {
        uint32_t kind = model_block_cost(p->model, b, p->kv).kind;
        if (p->measured[kind])
            continue;
        found = b;
        if (b != avoid)
            break;
    }
    if (found == UINT32_MAX)
        return false;
    /* Its kind may also be found beside the block to avoid. */
    uint64_t bytes = model_block_cost(p->model, found, p->kv).read_bytes, most = run_bytes();
    uint32_t from = found;
    while (from > low) {
        uint64_t more = model_block_cost(p->model, from - 1, p->kv).read_bytes;
        if (bytes + more > most)
            break;
        bytes += more;
        from--;
    }
    *first = from;
    *last = found;
    return true;
}

/* ---- One cell ---------------------------------------------------------------------------------------------------- */

struct pausing {
    double slowdown;
    bool pause;
};

/* What a stage of a pipe does between micro-batches: it is as slow as it shall be, then waits for its next turn. */
static void between(void *context, double seconds)
{
    const struct pausing *pausing = context;
    int64_t turn_ns = PAUSE_NS;
    if (pausing->slowdown > 1) { /* as long as it shall take is not needed: long enough for the caches to cool */
        double rest = seconds * (pausing->slowdown - 1);
        turn_ns += (int64_t)((rest < REST_MOST_S ? rest : REST_MOST_S) * 1e9);
    }
    if (pausing->pause || pausing->slowdown > 1)
        clock_sleep_ns(turn_ns);
}

static void keep(struct profiling *p, uint32_t kind, uint32_t sequences, uint32_t tokens, uint32_t past, double seconds)
{
    seconds = (seconds > 0 ? seconds : 1e-9) * p->slowdown;
    p->out->u.profile.cells[p->out->u.profile.cell_count++] =
        (struct control_cell){kind, sequences, tokens, past, seconds};
    log_debug("kind %d: %u x %u tokens after %u: %.1f us", (int)kind, sequences, tokens, past, seconds * 1e6);
}

/* The first pass tells how many more are affordable; a long one is trusted as it is. */
static int time_run(struct profiling *p, struct stage *s, struct stage_probe *o, struct stage_times *t,
                    struct error *err)
{
    struct pausing pausing = {p->slowdown, o->tokens == 1};
    bool late = clock_ms() > p->deadline_ms;
    o->between = between;
    o->context = &pausing;
    o->repeat = 1;
    o->warm = true;
    o->fastest = p->slowdown > 1; /* as throttle_wait sees it */
    int64_t start = clock_ns();
    int rc = stage_probe(s, o, t);
    double once = (double)(clock_ns() - start) * 1e-9;
    if (!rc && !late && once < LONG_S) {
        double patience = o->sequences == 1 && o->tokens == 1 ? PATIENCE_ONE_S : PATIENCE_S;
        int most = (int)(patience / (once > 1e-6 ? once : 1e-6));
        int least = p->slowdown <= 1 ? PASSES_LEAST : patience > PATIENCE_S ? 2 * PASSES_THROTTLED : PASSES_THROTTLED;
        o->repeat = most < least ? least : most > PASSES_MOST ? PASSES_MOST : most;
        rc = stage_probe(s, o, t);
    }
    return rc ? error_set(err, rc, "cannot measure blocks %u-%u with %u x %u tokens after %u: %s", o->first_block,
                          o->last_block, o->sequences, o->tokens, o->past, error_name(rc))
              : 0;
}

/* Decoding: a pass through the whole run tells about every kind in it. */
static int measure_decode(struct profiling *p, struct stage *s, struct stage_probe o, const bool *wanted,
                          double *blocks, struct error *err)
{
    struct stage_times t = {.blocks = blocks};
    int rc = time_run(p, s, &o, &t, err);
    if (rc)
        return rc;
    for (uint32_t kind = 0; kind < p->kinds; kind++) {
        double sum = 0;
        uint32_t count = 0;
        for (uint32_t b = o.first_block; b <= o.last_block; b++)
            if (model_block_cost(p->model, b, p->kv).kind == kind) {
                sum += blocks[b - o.first_block];
                count++;
            }
        if (wanted[kind] && count)
            keep(p, kind, o.sequences, 1, o.past, sum / count);
    }
    if (o.ends && t.head > 0 && o.past == p->grid.contexts[0]) {
        keep(p, FRAME_KIND_HEAD, o.sequences, 1, 0, t.head);
        if (o.sequences == 1)
            p->out->u.profile.head_seconds = t.head * p->slowdown;
    }
    if (o.ends && t.embedding > 0 && o.sequences == 1)
        p->out->u.profile.embedding_seconds = t.embedding * p->slowdown;
    if (o.sequences == 1 && o.past == p->grid.contexts[0])
        p->rest_seconds = t.rest * p->slowdown;
    return 0;
}

static void tell(struct profiling *p, uint64_t cells)
{
    p->done += cells;
    if (p->progress)
        p->progress(p->context, p->done, p->total);
}

static bool stage_has_head(const struct profiling *p, const struct stage *s)
{
    return stage_options(s)->last_block == model_info(p->model)->blocks - 1;
}

int profile_run(struct profiling *p, struct stage *s, uint32_t first, uint32_t last, struct error *err)
{
    const struct profile_grid *g = &p->grid;
    bool wanted[PROFILE_KINDS_MAX] = {false}, head = stage_has_head(p, s) && !p->out->u.profile.head_seconds;
    uint32_t block_of[PROFILE_KINDS_MAX], kinds = 0;
    double *blocks = mem_zalloc(last - first + 1u, sizeof *blocks);
    int rc = blocks ? 0 : error_set(err, ERR_NOMEM, "no memory for a profile");
    for (uint32_t b = first; b <= last; b++) {
        uint32_t kind = model_block_cost(p->model, b, p->kv).kind;
        block_of[kind] = b;
        kinds += !p->measured[kind] && !wanted[kind];
        wanted[kind] = !p->measured[kind];
    }
    for (uint32_t c = 0; c < g->context_count && !rc; c++) {
        for (uint32_t i = 0; i < g->batch_count && !rc; i++) {
            bool late = clock_ms() > p->deadline_ms;
            if ((late && i && p->out->u.profile.cell_count) || (!kinds && (!head || c)))
                continue;
            struct stage_probe o = {.first_block = first,
                                    .last_block = last,
                                    .sequences = g->batches[i],
                                    .tokens = 1,
                                    .past = g->contexts[c],
                                    .ends = head || first == 0};
            rc = measure_decode(p, s, o, wanted, blocks, err);
        }
        tell(p, (uint64_t)kinds * g->batch_count);
    }
    for (uint32_t kind = 0; kind < p->kinds && !rc; kind++) {
        for (uint32_t k = 0; k < g->chunk_count && wanted[kind] && !rc; k++)
            for (uint32_t i = 0; i < g->past_count && !rc; i++) {
                struct stage_probe o = {.first_block = block_of[kind],
                                        .last_block = block_of[kind],
                                        .sequences = 1,
                                        .tokens = g->chunks[k],
                                        .past = g->pasts[i]};
                struct stage_times t = {.blocks = blocks};
                if (!(rc = time_run(p, s, &o, &t, err)))
                    keep(p, kind, 1, o.tokens, o.past, blocks[0]);
            }
        if (wanted[kind])
            tell(p, (uint64_t)g->chunk_count * g->past_count);
        p->measured[kind] |= wanted[kind];
    }
    mem_free(blocks);
    return rc;
}

/* ---- The rest ---------------------------------------------------------------------------------------------------- */

/* The bandwidth of memory is measured over hundreds of megabytes, which a small model does not need (its weights lie in
 * caches) and a small board cannot spare: then it is what the first block's decode read. */
static void measure_peaks(struct profiling *p, uint64_t spare_bytes)
{
    const struct control_cell *cell = p->out->u.profile.cells;
    const struct model_info *info = model_info(p->model);
    if (info->weight_bytes >= LARGE_BYTES && spare_bytes >= 4 * LARGE_BYTES)
        p->out->u.profile.read_bytes_per_s = probe_read_bandwidth(p->pool, 60) / p->slowdown;
    else
        for (uint32_t b = 0; b < info->blocks; b++)
            if (model_block_cost(p->model, b, p->kv).kind == cell->kind)
                p->out->u.profile.read_bytes_per_s =
                    (double)model_block_cost(p->model, b, p->kv).read_bytes / cell->seconds;
    p->out->u.profile.int8_macs_per_s = probe_int8_peak(p->pool, 20) / p->slowdown;
}

int profile_end(struct profiling *p, uint64_t spare_bytes, struct error *err)
{
    const struct model_info *info = model_info(p->model);
    measure_peaks(p, spare_bytes);
    double read = p->out->u.profile.read_bytes_per_s, overhead = profile_overhead(p->pool, info->width, p->slowdown);
    if (overhead < 0)
        return error_set(err, (int)overhead, "cannot measure a micro-batch's overhead: %s", error_name((int)overhead));
    p->out->u.profile.overhead_seconds = overhead + p->rest_seconds;
    if (!p->out->u.profile.head_seconds && read > 0)
        p->out->u.profile.head_seconds = (double)model_head_cost(p->model).read_bytes / read;
    if (!p->out->u.profile.embedding_seconds && read > 0)
        p->out->u.profile.embedding_seconds = 4.0 * info->width / read;
    return 0;
}
