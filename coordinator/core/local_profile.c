/* The device profile of this process: a small grid of block times from the loaded stages themselves. */
#include "coordinator/core/local_profile.h"

#include "base/memory.h"

enum { BATCHES = 3, CONTEXTS = 2, CHUNKS = 3, PASTS = 2, CELLS_A_KIND = BATCHES * CONTEXTS + CHUNKS * PASTS };

static const uint32_t batches[BATCHES] = {1, 4, 16};

/* The stage and the first of its blocks of a kind; false when no stage has one. */
static bool find_kind(const struct model *m, struct stage *const *stages, uint32_t stage_count, uint32_t kind,
                      struct stage **stage, uint32_t *block)
{
    for (uint32_t s = 0; s < stage_count; s++) {
        const struct stage_options *o = stage_options(stages[s]);
        for (uint32_t b = o->first_block; b <= o->last_block; b++)
            if (model_block_cost(m, b, o->kv).kind == kind) {
                *stage = stages[s];
                *block = b;
                return true;
            }
    }
    return false;
}

static int measure(struct control_message *out, struct stage *stage, uint32_t block, struct control_cell cell,
                   struct error *err)
{
    cell.seconds = stage_probe_block(stage, block, cell.sequences, cell.tokens, cell.past, 3);
    if (cell.seconds < 0)
        return error_set(err, (int)cell.seconds, "cannot measure block %u with %u x %u tokens: %s", block,
                         cell.sequences, cell.tokens, error_name((int)cell.seconds));
    out->u.profile.cells[out->u.profile.cell_count++] = cell;
    return 0;
}

static int measure_kind(struct control_message *out, struct stage *stage, uint32_t block, uint32_t kind,
                        struct error *err)
{
    const struct stage_options *o = stage_options(stage);
    uint32_t room = o->kv_pages * KV_PAGE_TOKENS, chunk = o->max_tokens < 256 ? o->max_tokens : 256;
    uint32_t longest = o->max_context < room ? o->max_context : room;
    int rc = 0;
    for (int b = 0; b < BATCHES && !rc; b++) {
        /* A whole number of pages each, and room for the new token. */
        uint32_t share = room / batches[b] / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
        uint32_t far = share < longest ? share : longest;
        far = far > 512 ? 512 : far;
        if (batches[b] > o->max_tokens || (b && far < 2 * KV_PAGE_TOKENS))
            break;
        if (far < 2 * KV_PAGE_TOKENS) { /* a cache of a page: only its start can be measured */
            rc = measure(out, stage, block, (struct control_cell){kind, 1, 1, 0, 0}, err);
            break;
        }
        rc = measure(out, stage, block, (struct control_cell){kind, batches[b], 1, KV_PAGE_TOKENS, 0}, err);
        if (!rc && far >= 5 * KV_PAGE_TOKENS) /* far enough apart to tell what a position costs */
            rc = measure(out, stage, block, (struct control_cell){kind, batches[b], 1, far - KV_PAGE_TOKENS, 0}, err);
    }
    uint32_t sizes[CHUNKS] = {chunk / 8, chunk / 2, chunk};
    for (int k = 0; k < CHUNKS && !rc; k++) {
        if (sizes[k] > longest)
            sizes[k] = longest;
        if (sizes[k] < 2 || (k && sizes[k] == sizes[k - 1]))
            continue;
        rc = measure(out, stage, block, (struct control_cell){kind, 1, sizes[k], 0, 0}, err);
        uint32_t past = longest - sizes[k] < 512 ? (longest - sizes[k]) / KV_PAGE_TOKENS * KV_PAGE_TOKENS : 512;
        if (!rc && past)
            rc = measure(out, stage, block, (struct control_cell){kind, 1, sizes[k], past, 0}, err);
    }
    return rc;
}

int local_profile(const struct model *m, struct stage *const *stages, uint32_t stage_count, struct pool *pool,
                  struct control_message *out, struct error *err)
{
    const struct model_info *info = model_info(m);
    uint32_t kinds = 0;
    for (uint32_t b = 0; b < info->blocks; b++) {
        uint32_t kind = model_block_cost(m, b, stage_options(stages[0])->kv).kind;
        kinds = kind + 1 > kinds ? kind + 1 : kinds;
    }
    struct control_message p = {.kind = CONTROL_PROFILE};
    if (!(p.u.profile.cells = mem_zalloc((size_t)kinds * CELLS_A_KIND, sizeof *p.u.profile.cells)))
        return error_set(err, ERR_NOMEM, "out of memory for a device profile");
    int rc = 0;
    for (uint32_t kind = 0; kind < kinds && !rc; kind++) {
        struct stage *stage;
        uint32_t block;
        if (find_kind(m, stages, stage_count, kind, &stage, &block))
            rc = measure_kind(&p, stage, block, kind, err);
    }
    if (!rc) {
        double head = stage_probe_head(stages[stage_count - 1], 1, 3);
        p.u.profile.head_seconds = head > 0 ? head : 0;
        p.u.profile.read_bytes_per_s = probe_read_bandwidth(pool, 60);
        p.u.profile.int8_macs_per_s = probe_int8_peak(pool, 30);
        p.u.profile.overhead_seconds = 20e-6; /* two thread wake-ups a micro-batch */
        *out = p;
    } else {
        control_free(&p);
    }
    return rc;
}
