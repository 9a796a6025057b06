/* Sums and medians of what stages report with each result. Owns its arrays; pure; one owner thread. */
#include "coordinator/core/stage_meter.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { KEPT = 64, UNDER_WAY = 1024 };

struct stage_row {
    struct runner_stage sums;
    double decode[KEPT]; /* seconds of the last decoding micro-batches */
    double sequences[KEPT], context[KEPT]; /* of them: how many, and how far they looked back on average */
    int64_t at_us[KEPT];                   /* when the result came */
    uint32_t decode_count;
};

struct stage_meter {
    uint32_t stages;
    struct stage_row *rows;
    struct {
        uint64_t id;
        int64_t at_us;
        uint32_t tokens;
        double context;
        bool decodes;
    } sent[UNDER_WAY];             /* by id modulo UNDER_WAY */
    double round[KEPT], hop[KEPT]; /* seconds of the last decoding rounds */
    uint32_t round_count;
};

int stage_meter_create(uint32_t stages, struct stage_meter **out, struct error *err)
{
    struct stage_meter *m = mem_zalloc(1, sizeof *m);
    if (!m || !(m->rows = mem_zalloc(stages, sizeof *m->rows))) {
        stage_meter_destroy(m);
        return error_set(err, ERR_NOMEM, "out of memory for the meter of %u stages", stages);
    }
    m->stages = stages;
    *out = m;
    return 0;
}

void stage_meter_destroy(struct stage_meter *m)
{
    if (m)
        mem_free(m->rows);
    mem_free(m);
}

void stage_meter_sent(struct stage_meter *m, const struct frame_work *work, int64_t now_us)
{
    bool decodes = true;
    double context = 0;
    for (uint32_t i = 0; i < work->span_count; i++)
        decodes &= work->spans[i].count == 1 && work->spans[i].first > 0;
    m->sent[work->microbatch % UNDER_WAY].id = work->microbatch;
    m->sent[work->microbatch % UNDER_WAY].at_us = now_us;
    m->sent[work->microbatch % UNDER_WAY].tokens = work->tokens;
    for (uint32_t i = 0; i < work->span_count; i++)
        context += (double)work->spans[i].first / work->span_count;
    m->sent[work->microbatch % UNDER_WAY].context = context;
    m->sent[work->microbatch % UNDER_WAY].decodes = decodes;
}

static void add_round(struct stage_meter *m, double seconds, double computed)
{
    m->round[m->round_count % KEPT] = seconds;
    m->hop[m->round_count % KEPT] = (seconds - computed) / (m->stages + 1);
    m->round_count++;
}

void stage_meter_result(struct stage_meter *m, const struct frame_result *result, int64_t now_us)
{
    double computed = 0;
    uint32_t seen = 0;
    bool known = m->sent[result->microbatch % UNDER_WAY].id == result->microbatch;
    for (uint32_t i = 0; known && i < result->trace_count; i++) {
        const struct frame_trace *t = &result->trace[i];
        if (t->stage >= m->stages || t->finished_us < t->started_us || t->started_us < t->received_us)
            continue;
        struct stage_row *row = &m->rows[t->stage];
        double seconds = (double)(t->finished_us - t->started_us) / 1e6;
        computed += seconds;
        seen++;
        row->sums.microbatches++;
        row->sums.tokens += m->sent[result->microbatch % UNDER_WAY].tokens;
        row->sums.compute_seconds += seconds;
        row->sums.wait_seconds += (double)(t->started_us - t->received_us) / 1e6;
        if (m->sent[result->microbatch % UNDER_WAY].decodes) {
            uint32_t at = row->decode_count++ % KEPT;
            row->decode[at] = seconds;
            row->sequences[at] = m->sent[result->microbatch % UNDER_WAY].tokens;
            row->context[at] = m->sent[result->microbatch % UNDER_WAY].context;
            row->at_us[at] = now_us;
        }
    }
    if (known && seen == m->stages && m->sent[result->microbatch % UNDER_WAY].decodes)
        add_round(m, (double)(now_us - m->sent[result->microbatch % UNDER_WAY].at_us) / 1e6, computed);
}

uint32_t stage_meter_count(const struct stage_meter *m)
{
    return m->stages;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the values a ring of KEPT holds after `count` of them came; 0 for none. */
static double median(const double *ring, uint32_t count)
{
    double sorted[KEPT];
    uint32_t n = count < KEPT ? count : KEPT;
    memcpy(sorted, ring, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    return n ? (sorted[n / 2] + sorted[(n - 1) / 2]) / 2 : 0;
}

static double mean(const double *ring, uint32_t count)
{
    double sum = 0;
    uint32_t n = count < KEPT ? count : KEPT;
    for (uint32_t i = 0; i < n; i++)
        sum += ring[i];
    return n ? sum / n : 0;
}

/* Half of the time went into values of this size or larger; never the largest alone, and 0 for fewer than two. Sorts. */
static double weighted_median(double *sorted, uint32_t n)
{
    double all = 0;
    if (n < 2)
        return 0;
    qsort(sorted, n, sizeof *sorted, by_size);
    for (uint32_t i = 0; i < n; i++)
        all += sorted[i];
    uint32_t at = n - 2;
    for (double longer = sorted[n - 1] + sorted[at]; longer < all / 2; longer += sorted[at])
        at--;
    return sorted[at];
}

void stage_meter_since(const struct stage_meter *m, int64_t since_us, struct runner_stage *out)
{
    for (uint32_t s = 0; s < m->stages; s++) {
        const struct stage_row *row = &m->rows[s];
        double decode[KEPT], sequences[KEPT], context[KEPT];
        uint32_t n = 0, all = row->decode_count < KEPT ? row->decode_count : KEPT;
        for (uint32_t i = 0; i < all; i++) {
            if (row->at_us[i] < since_us)
                continue;
            decode[n] = row->decode[i];
            sequences[n] = row->sequences[i];
            context[n++] = row->context[i];
        }
        out[s] = row->sums;
        out[s].decode_seconds = median(decode, n);
        out[s].decode_typical = weighted_median(decode, n);
        out[s].decode_sequences = mean(sequences, n);
        out[s].decode_context = mean(context, n);
        out[s].decodes = n;
    }
}

void stage_meter_read(const struct stage_meter *m, struct runner_stage *out)
{
    stage_meter_since(m, INT64_MIN, out);
}

void stage_meter_rounds(const struct stage_meter *m, double *round_seconds, double *hop_seconds)
{
    *round_seconds = median(m->round, m->round_count);
    *hop_seconds = median(m->hop, m->round_count);
}
