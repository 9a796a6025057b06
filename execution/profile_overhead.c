/* A micro-batch's bookkeeping, done for real on made-up frames: what a worker does with one beside its blocks. */
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/sample.h"
#include "execution/micro_batch.h"
#include "execution/profile.h"
#include "proto/activation.h"

#define ROUNDS 24
#define PAUSE_NS 400000 /* long enough for the pool to fall asleep, as it does while other stages work */

struct dry_run {
    struct buffer header, tokens, activations, onward_header, onward_tokens;
    struct sequence_table *table;
    uint64_t hash;
    uint32_t page;
    float *values;
};

static void nothing(void *context, size_t begin, size_t end, int thread)
{
    (void)context;
    (void)begin;
    (void)end;
    (void)thread;
}

/* The frame of position `at` of a sequence, as the stage before would send it. */
static int prepare(struct dry_run *r, uint32_t at, uint32_t width)
{
    int32_t token = (int32_t)(at % 7);
    r->hash = hash_tokens(at ? r->hash : HASH_TOKENS_START, &token, 1);
    struct frame_span span = {.sequence = 1,
                              .first = at,
                              .known = at,
                              .count = 1,
                              .next_token = -1,
                              .tokens = &token,
                              .hash = r->hash,
                              .pages = &r->page,
                              .page_count = !at,
                              .page_offset = at != 0};
    struct frame_work w = {.span_count = 1,
                           .spans = &span,
                           .codec = CODEC_F32,
                           .width = width,
                           .tokens = 1,
                           .token_bytes = sizeof token,
                           .want_trace = true,
                           .microbatch = at + 1u,
                           .activation_bytes = activation_bytes(CODEC_F32, 1, width)};
    buffer_clear(&r->header);
    buffer_clear(&r->tokens);
    buffer_clear(&r->activations);
    char *room = buffer_reserve(&r->activations, w.activation_bytes);
    int rc = room ? frame_encode_work(&w, &r->header, &r->tokens, NULL) : ERR_NOMEM;
    if (rc)
        return rc;
    memset(room, 0, w.activation_bytes);
    r->activations.size = w.activation_bytes;
    return 0;
}

/* What the worker does: frame apart, sequence applied, pool woken, next frame together. A throttle slows what lies between
 * the frames. */
static int perform(struct dry_run *r, struct pool *pool, uint32_t width, double slowdown, double *seconds)
{
    struct data_frame f;
    struct batch_span span;
    struct frame_part parts[3] = {
        {r->header.data, r->header.size}, {r->tokens.data, r->tokens.size}, {r->activations.data, r->activations.size}};
    int64_t start = clock_ns();
    int rc = frame_decode_data(parts, 3, &f, NULL);
    if (rc)
        return rc;
    int64_t inside = clock_ns();
    rc = micro_batch_apply(&f.work, &(struct batch_place){.table = r->table}, &span, NULL);
    pool_for(pool, (size_t)pool_threads(pool), 1, nothing, NULL);
    inside = clock_ns() - inside;
    buffer_clear(&r->onward_header);
    buffer_clear(&r->onward_tokens);
    if (!rc)
        rc = frame_encode_work(&f.work, &r->onward_header, &r->onward_tokens, NULL);
    activation_encode(CODEC_F32, r->values, 1, width, (void *)(uintptr_t)r->activations.data);
    *seconds = ((double)(clock_ns() - start) + (double)inside * (slowdown - 1)) * 1e-9;
    frame_free(&f);
    return rc;
}

double profile_overhead(struct pool *pool, uint32_t width, double slowdown)
{
    struct dry_run r = {.values = mem_zalloc(width, sizeof(float))};
    double times[ROUNDS];
    int rc = r.values ? sequence_table_create(1, KV_PAGE_TOKENS, 1, 8, &r.table, NULL) : ERR_NOMEM;
    for (int i = -1; i < ROUNDS && !rc; i++) { /* the first warms up */
        if (!(rc = prepare(&r, (uint32_t)(i + 1), width))) {
            clock_sleep_ns(PAUSE_NS);
            rc = perform(&r, pool, width, slowdown, &times[i < 0 ? 0 : i]);
        }
    }
    sequence_table_destroy(r.table);
    buffer_free(&r.header);
    buffer_free(&r.tokens);
    buffer_free(&r.activations);
    buffer_free(&r.onward_header);
    buffer_free(&r.onward_tokens);
    mem_free(r.values);
    return rc ? rc : sample_usual(times, ROUNDS);
}
