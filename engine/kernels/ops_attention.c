/* Attention over pages. Query heads that share a kv head, of neighbouring queries of one sequence, form a unit of up to
 * 16 rows that reads each page once. Units go over the pool; a thread takes several kv heads of the same queries page
 * by page, for they lie side by side and memory is at its best in long streams. When there are fewer units than
 * threads, a long context is cut at its segments of 512 positions instead, where the sum is cut in any case. Owns
 * nothing. */
#include <math.h>
#include <string.h>

#include "engine/kernels/kv.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"

#define PARTS_AHEAD 2u /* how far K and V of kv heads are fetched ahead of use, in the order of use */
#define SEGMENT 512u
#define SEGMENT_PAGES (SEGMENT / KV_PAGE_TOKENS)
#define GROUPS_AT_ONCE 64u
#define UNITS_AT_ONCE 8u /* of the same queries, by one thread */
#define ROWS_AT_ONCE 32u /* that they have together */

struct work {
    const struct attention_shape *shape;
    const uint8_t *base;
    size_t page_stride;
    struct kv_layout layout;
    const struct attention_query *queries;
    struct {
        uint32_t first, count; /* neighbouring queries of one sequence */
    } groups[GROUPS_AT_ONCE];
    uint32_t group_count, head_parts; /* the heads of one kv head in parts of ≤ UNIT_ROWS */
    uint32_t group_units;             /* units of one group: kv heads × head_parts */
    size_t row_floats;                /* context rounded up to pages, and one more */
    float *scratch;
    size_t thread_floats;
    struct unit *unit; /* when cut at segments: the one in work */
};

struct row {
    const float *q;
    float *out;
    uint32_t low, high; /* sees positions low ≤ p < high */
    uint32_t head;
};

struct unit {
    struct row rows[UNIT_ROWS];
    float *q; /* q[d·count + r], in the scratch */
    uint32_t count, kv_head;
    const uint32_t *pages;
    uint32_t first_page, last_page; /* both read */
    float *scores;                  /* count rows, row_floats apart; [0] is the first position of first_page */
    float *sums, *partial;          /* sums: v_dim a row; partial: a segment's */
    float inverse[UNIT_ROWS];
};

static size_t row_floats_of(uint32_t context)
{
    return ((size_t)context + 2 * KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
}

static size_t v_floats(const struct attention_shape *shape)
{
    return UNIT_ROWS * (size_t)kv_v_step(shape->kv.v_dim);
}

static size_t q_floats(const struct attention_shape *shape)
{
    return UNIT_ROWS * (size_t)shape->kv.k_dim;
}

static size_t segments_of(uint32_t context)
{
    return context / SEGMENT + 2;
}

/* Scores of all rows, then what each unit has. */
static size_t thread_floats_of(const struct attention_shape *shape, size_t row_floats)
{
    return ROWS_AT_ONCE * row_floats + UNITS_AT_ONCE * (q_floats(shape) + 2 * v_floats(shape));
}

size_t attention_scratch_bytes(const struct attention_shape *shape, int threads, uint32_t context)
{
    size_t cut = UNIT_ROWS * row_floats_of(context) + q_floats(shape) + (segments_of(context) + 1) * v_floats(shape);
    size_t all = thread_floats_of(shape, row_floats_of(context)) * (size_t)threads;
    return (all > cut ? all : cut) * sizeof(float) + 64;
}

/* One of the unit's pages; past its last page, the last. */
static const uint8_t *page_of(const struct work *w, const struct unit *u, uint32_t page)
{
    page = page < u->last_page ? page : u->last_page;
    return w->base + u->pages[page] * w->page_stride;
}

/* The part of the unit's kv head in it. */
static const uint8_t *k_of(const struct work *w, const struct unit *u, uint32_t page)
{
    return page_of(w, u, page) + u->kv_head * w->layout.k_bytes;
}

static const uint8_t *v_of(const struct work *w, const struct unit *u, uint32_t page)
{
    return page_of(w, u, page) + w->layout.v_offset + u->kv_head * w->layout.v_bytes;
}

/* Unit number `index` of the present groups: rows, what they see, what is read. */
static void unit_make(const struct work *w, size_t index, struct unit *u)
{
    const struct attention_shape *shape = w->shape;
    uint32_t heads = shape->heads / shape->kv.kv_heads;
    uint32_t part = (uint32_t)(index % w->head_parts);
    index /= w->head_parts;
    u->kv_head = (uint32_t)(index % shape->kv.kv_heads);
    uint32_t group = (uint32_t)(index / shape->kv.kv_heads);
    const struct attention_query *queries = w->queries + w->groups[group].first;
    uint32_t head_begin = heads * part / w->head_parts, head_end = heads * (part + 1) / w->head_parts;
    uint32_t low = UINT32_MAX, high = 0;
    u->pages = queries->pages;
    u->count = w->groups[group].count * (head_end - head_begin);
    uint32_t r = 0;
    for (uint32_t i = 0; i < w->groups[group].count; i++)
        for (uint32_t h = head_begin; h < head_end; h++) {
            struct row *row = &u->rows[r];
            row->head = u->kv_head * heads + h;
            row->q = queries[i].q + (size_t)row->head * shape->kv.k_dim;
            row->out = queries[i].out + (size_t)row->head * shape->kv.v_dim;
            row->high = queries[i].position + 1;
            row->low = shape->window && row->high > shape->window ? row->high - shape->window : 0;
            for (uint32_t d = 0; d < shape->kv.k_dim; d++)
                u->q[d * u->count + r] = row->q[d];
            r++;
            low = row->low < low ? row->low : low;
            high = row->high > high ? row->high : high;
        }
    u->first_page = low / KV_PAGE_TOKENS;
    u->last_page = (high - 1) / KV_PAGE_TOKENS;
}

/* Of units of the same queries. */
static void units_scores(const struct work *w, struct unit *units, uint32_t count, uint32_t page_begin,
                         uint32_t page_end)
{
    const struct attention_shape *shape = w->shape;
    for (uint32_t page = page_begin; page < page_end; page++)
        for (uint32_t i = 0; i < count; i++) {
            const struct unit *u = &units[i], *next = &units[(i + PARTS_AHEAD) % count];
            kernels->scores[shape->kv.type](k_of(w, u, page), k_of(w, next, page + (i + PARTS_AHEAD) / count),
                                            shape->kv.k_dim, u->q, u->count, shape->scale,
                                            u->scores + (size_t)(page - u->first_page) * KV_PAGE_TOKENS, w->row_floats);
        }
}

/* Scores of row r to weights e, and 1/sum. */
static void row_weights(const struct work *w, struct unit *u, uint32_t r)
{
    const struct attention_shape *shape = w->shape;
    uint32_t from = u->first_page * KV_PAGE_TOKENS, begin = u->rows[r].low - from, end = u->rows[r].high - from;
    float *s = u->scores + r * w->row_floats;
    if (shape->softcap != 0)
        kernels->softcap(s + begin, shape->softcap, end - begin);
    float max = kernels->maximum(s, begin, end);
    const float *sink = shape->sinks ? &shape->sinks[u->rows[r].head] : NULL;
    if (sink && *sink > max)
        max = *sink;
    float sum = kernels->exp_sum(s, begin, end, max);
    if (sink) {
        float last = *sink - max;
        kernels->exp_sum(&last, 0, 1, 0);
        sum += last;
    }
    u->inverse[r] = 1.0f / sum;
}

static uint32_t slots_begin(const struct row *row, uint32_t page)
{
    uint32_t from = page * KV_PAGE_TOKENS;
    return row->low <= from ? 0 : row->low - from < KV_PAGE_TOKENS ? row->low - from : KV_PAGE_TOKENS;
}

static uint32_t slots_end(const struct row *row, uint32_t page)
{
    uint32_t from = page * KV_PAGE_TOKENS;
    return row->high <= from ? 0 : row->high - from < KV_PAGE_TOKENS ? row->high - from : KV_PAGE_TOKENS;
}

static void unit_values(const struct work *w, const struct unit *u, uint32_t page, const uint8_t *next_v)
{
    const struct attention_shape *shape = w->shape;
    size_t step = kv_v_step(shape->kv.v_dim);
    const uint8_t *v = v_of(w, u, page);
    const float *e = u->scores + (size_t)(page - u->first_page) * KV_PAGE_TOKENS;
    for (uint32_t r = 0, next; r < u->count; r = next) { /* rows that see the same slots go together */
        uint32_t begin = slots_begin(&u->rows[r], page), end = slots_end(&u->rows[r], page);
        for (next = r + 1;
             next < u->count && slots_begin(&u->rows[next], page) == begin && slots_end(&u->rows[next], page) == end;
             next++)
            ;
        if (begin < end)
            kernels->values[shape->kv.type](v, next_v, shape->kv.v_dim, e + r * w->row_floats, w->row_floats, next - r,
                                            begin, end, u->partial + r * step, step);
    }
}

/* The weighted values of one segment, from 0, into the units' partial: of units of the same queries. */
static void units_segment(const struct work *w, const struct unit *units, uint32_t count, uint32_t segment)
{
    size_t step = kv_v_step(w->shape->kv.v_dim);
    uint32_t page = segment * SEGMENT_PAGES, last = page + SEGMENT_PAGES - 1;
    page = page > units->first_page ? page : units->first_page;
    last = last < units->last_page ? last : units->last_page;
    for (uint32_t i = 0; i < count; i++)
        memset(units[i].partial, 0, units[i].count * step * sizeof *units[i].partial);
    for (; page <= last; page++)
        for (uint32_t i = 0; i < count; i++)
            unit_values(w, &units[i], page,
                        v_of(w, &units[(i + PARTS_AHEAD) % count], page + (i + PARTS_AHEAD) / count));
}

static void add_partial(const struct work *w, struct unit *u, uint32_t row, const float *partial)
{
    size_t step = kv_v_step(w->shape->kv.v_dim);
    kernels->add(u->sums + row * step, partial + row * step, w->shape->kv.v_dim);
}

static void row_finish(const struct work *w, struct unit *u, uint32_t r)
{
    const float *sums = u->sums + r * (size_t)kv_v_step(w->shape->kv.v_dim);
    for (uint32_t d = 0; d < w->shape->kv.v_dim; d++)
        u->rows[r].out[d] = sums[d] * u->inverse[r];
}

/* Whole units by one thread: as many of the same queries as it may take, from unit `first` on. Returns how many. */
static uint32_t run_units(const struct work *w, size_t first, size_t end, float *scratch)
{
    struct unit units[UNITS_AT_ONCE];
    uint32_t count = 0, rows = 0;
    units->first_page = units->last_page = 0; /* a compiler cannot see that there is one at least */
    size_t last = first - first % w->group_units + w->group_units; /* behind the group's last */
    float *own = scratch + ROWS_AT_ONCE * w->row_floats;
    while (count < UNITS_AT_ONCE && first + count < end && first + count < last) {
        struct unit *u = &units[count];
        u->q = own;
        u->sums = own + q_floats(w->shape);
        u->partial = u->sums + v_floats(w->shape);
        u->scores = scratch + rows * w->row_floats;
        unit_make(w, first + count, u);
        if (rows + u->count > ROWS_AT_ONCE)
            break;
        memset(u->sums, 0, v_floats(w->shape) * sizeof *u->sums);
        own = u->partial + v_floats(w->shape);
        rows += u->count;
        count++;
    }
    units_scores(w, units, count, units->first_page, units->last_page + 1);
    for (struct unit *u = units; u < units + count; u++)
        for (uint32_t r = 0; r < u->count; r++)
            row_weights(w, u, r);
    for (uint32_t s = units->first_page / SEGMENT_PAGES; s <= units->last_page / SEGMENT_PAGES; s++) {
        units_segment(w, units, count, s);
        for (struct unit *u = units; u < units + count; u++)
            for (uint32_t r = 0; r < u->count; r++)
                add_partial(w, u, r, u->partial);
    }
    for (struct unit *u = units; u < units + count; u++)
        for (uint32_t r = 0; r < u->count; r++)
            row_finish(w, u, r);
    return count;
}

static void units_body(void *context, size_t begin, size_t end, int thread)
{
    struct work *w = context;
    while (begin < end)
        begin += run_units(w, begin, end, w->scratch + (size_t)thread * w->thread_floats);
}

/* One unit by all threads: scores by segment, weights by row, values by segment, sums by row. */
static void cut_scores(void *context, size_t begin, size_t end, int thread)
{
    struct work *w = context;
    struct unit *u = w->unit;
    uint32_t first = u->first_page / SEGMENT_PAGES;
    uint32_t page = (first + (uint32_t)begin) * SEGMENT_PAGES, stop = (first + (uint32_t)end) * SEGMENT_PAGES;
    units_scores(w, u, 1, page > u->first_page ? page : u->first_page, stop <= u->last_page ? stop : u->last_page + 1);
}

static void cut_weights(void *context, size_t begin, size_t end, int thread)
{
    struct work *w = context;
    for (size_t r = begin; r < end; r++)
        row_weights(w, w->unit, (uint32_t)r);
}

static void cut_values(void *context, size_t begin, size_t end, int thread)
{
    struct work *w = context;
    struct unit u = *w->unit;
    for (size_t s = begin; s < end; s++) {
        u.partial = w->unit->partial + s * v_floats(w->shape);
        units_segment(w, &u, 1, u.first_page / SEGMENT_PAGES + (uint32_t)s);
    }
}

static void unit_cut(struct pool *pool, struct work *w, size_t index)
{
    struct unit u;
    u.q = w->scratch;
    u.scores = u.q + q_floats(w->shape);
    unit_make(w, index, &u);
    u.sums = u.scores + UNIT_ROWS * w->row_floats;
    u.partial = u.sums + v_floats(w->shape);
    memset(u.sums, 0, v_floats(w->shape) * sizeof *u.sums);
    w->unit = &u;
    uint32_t segments = u.last_page / SEGMENT_PAGES - u.first_page / SEGMENT_PAGES + 1;
    pool_for(pool, segments, 1, cut_scores, w);
    pool_for(pool, u.count, 1, cut_weights, w);
    pool_for(pool, segments, 1, cut_values, w);
    for (uint32_t s = 0; s < segments; s++)
        for (uint32_t r = 0; r < u.count; r++)
            add_partial(w, &u, r, u.partial + s * v_floats(w->shape));
    for (uint32_t r = 0; r < u.count; r++)
        row_finish(w, &u, r);
}

/* The next groups of neighbouring queries, from query `first`; returns the first query not taken. */
static uint32_t take_groups(struct work *w, uint32_t first, uint32_t n, uint32_t most)
{
    w->group_count = 0;
    while (first < n && w->group_count < GROUPS_AT_ONCE) {
        uint32_t count = 1;
        while (count < most && first + count < n && w->queries[first + count].pages == w->queries[first].pages)
            count++;
        w->groups[w->group_count].first = first;
        w->groups[w->group_count++].count = count;
        first += count;
    }
    return first;
}

void op_attention(struct pool *pool, const struct attention_shape *shape, const void *pool_base, size_t page_stride,
                  const struct attention_query *queries, uint32_t n, void *scratch, uint32_t context)
{
    uint32_t heads = shape->heads / shape->kv.kv_heads;
    struct work w = {
        .shape = shape,
        .base = pool_base,
        .page_stride = page_stride,
        .layout = kv_layout_of(&shape->kv),
        .queries = queries,
        .head_parts = (heads + UNIT_ROWS - 1) / UNIT_ROWS,
        .row_floats = row_floats_of(context),
        .scratch = scratch,
    };
    w.thread_floats = thread_floats_of(shape, w.row_floats);
    w.group_units = shape->kv.kv_heads * w.head_parts;
    uint32_t together = heads < UNIT_ROWS ? UNIT_ROWS / heads : 1;
    for (uint32_t first = 0; first < n;) {
        first = take_groups(&w, first, n, together);
        size_t units = (size_t)w.group_count * w.group_units;
        uint32_t longest = 0;
        for (uint32_t g = 0; g < w.group_count; g++) {
            uint32_t position = queries[w.groups[g].first + w.groups[g].count - 1].position;
            longest = position > longest ? position : longest;
        }
        if (units < (size_t)pool_threads(pool) && longest >= 2 * SEGMENT) {
            for (size_t i = 0; i < units; i++)
                unit_cut(pool, &w, i);
        } else {
            pool_for(pool, units, 1, units_body, &w);
        }
    }
}
