/* Deep copies of micro-batches: sizes first, then one allocation, then the pieces. */
#include "coordinator/core/job.h"

#include <stdalign.h>
#include <string.h>

#include "base/memory.h"

/* A region handed out piece by piece, every piece aligned for anything. */
struct region {
    char *base; /* NULL while only counting */
    size_t used;
};

static void *take(struct region *r, const void *from, size_t count, size_t each)
{
    size_t align = alignof(max_align_t), at = (r->used + align - 1) / align * align;
    r->used = at + count * each;
    if (!r->base)
        return NULL;
    return count ? memcpy(r->base + at, from, count * each) : r->base + at;
}

static void lay_out(struct region *r, const struct frame_work *w)
{
    struct job *job = take(r, &(struct job){.work = *w}, 1, sizeof *job);
    struct frame_span *spans = take(r, w->spans, w->span_count, sizeof *spans);
    uint32_t *release = take(r, w->release, w->release_count, sizeof *release);
    struct frame_page_copy *copies = take(r, w->copies, w->copy_count, sizeof *copies);
    struct frame_share *shares = take(r, w->shares, w->share_count, sizeof *shares);
    if (job) {
        job->work.spans = spans;
        job->work.release = release;
        job->work.copies = copies;
        job->work.shares = shares;
    }
    for (uint32_t i = 0; i < w->span_count; i++) {
        const struct frame_span *span = &w->spans[i];
        const int32_t *tokens = take(r, span->tokens, span->first + span->count - span->known, sizeof *tokens);
        const uint32_t *pages = take(r, span->pages, span->page_count, sizeof *pages);
        struct frame_sampling *sampling = NULL;
        const struct frame_bias *bias = NULL;
        if (span->sampling) {
            sampling = take(r, span->sampling, 1, sizeof *sampling);
            bias = take(r, span->sampling->bias, span->sampling->bias_count, sizeof *bias);
        }
        if (!job)
            continue;
        spans[i].tokens = tokens;
        spans[i].pages = pages;
        spans[i].sampling = sampling;
        if (sampling)
            sampling->bias = bias;
    }
}

struct job *job_copy(const struct frame_work *work)
{
    struct region r = {0};
    lay_out(&r, work);
    if (!(r.base = mem_alloc(r.used)))
        return NULL;
    r.used = 0;
    lay_out(&r, work);
    return (struct job *)(void *)r.base;
}
