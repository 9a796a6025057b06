/* Matrix products over the pool. Work is split by panels of 16 rows or pairs of them; every row's columns come in
 * rising order, so neither the split nor the size of the batch touches a sum. Owns nothing; one op at a time for one
 * pool. */
#include <string.h>

#include "engine/kernels/blas.h"
#include "engine/kernels/numerics.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"

#define MAX_JOBS 8u
/* Activations of one pass over the weights stay within the second cache level; weights are read once a pass. */
#define CHUNK_BYTES ((size_t)512 << 10)
#define CHUNK_TOKENS 128u
#define STRIP 8u           /* blocks of 32 columns that all tokens of a chunk pass over before the next */
#define FETCH_AHEAD 18432u /* bytes of weights; whole pages ahead are slow where 11 lines a block are fetched */
#define EXPANDED_BLOCKS 8u /* blocks of 32 columns decoded at a time: one block of 256 */
#define EXPANDED_TOKENS 64u
#define EXPANDED_RUN 4u /* tokens multiplied at a time, at every level */
#define QUANTISE_GRAIN 8u

/* ---- Activations --------------------------------------------------------------------------------------------- */

size_t activations_bytes(uint32_t n, uint32_t cols)
{
    return ((size_t)n * ((cols + 31) / 32) * sizeof(struct act_block) + 63) / 64 * 64;
}

/* The records of tile j begin behind those of the tokens before it. */
static struct act_block *tile_blocks(const struct activations *a, struct tiles tiles, uint32_t j)
{
    return (struct act_block *)a->scratch + (size_t)tile_first(tiles, j) * (a->cols / 32);
}

static void quantise_tokens(void *context, size_t begin, size_t end, int thread)
{
    const struct activations *a = context;
    struct tiles tiles = tiles_of(a->n, kernels->tile_tokens);
    for (uint32_t j = 0; j < tiles.count; j++) {
        uint32_t first = tile_first(tiles, j), size = tile_size(tiles, j);
        for (uint32_t t = 0; t < size; t++)
            if (first + t >= begin && first + t < end)
                kernels->quantise(a->x + (first + t) * a->stride, a->cols, tile_blocks(a, tiles, j) + t, size);
    }
}

static void quantise_now(struct activations *a, struct pool *pool)
{
    if (a->quantised)
        return;
    pool_for(pool, a->n, QUANTISE_GRAIN, quantise_tokens, a);
    a->quantised = true;
}

void activations_set(struct activations *a, struct pool *pool, const float *x, size_t stride, uint32_t n, uint32_t cols,
                     void *scratch, bool want_quantised)
{
    *a = (struct activations){.n = n, .cols = cols, .x = x, .stride = stride, .scratch = scratch};
    if (want_quantised && cols % 32 == 0)
        quantise_now(a, pool);
}

/* ---- One panel against tokens -------------------------------------------------------------------------------- */

/* Where the activations of a product come from: all of a, or, of a product of floats, chosen tokens of it. */
struct tokens {
    const struct activations *a;
    const uint32_t *chosen; /* NULL: 0, 1, 2, … */
    uint32_t count;
};

static bool is_float(uint32_t type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

/* The record of one token's block. */
static const struct act_block *token_block(const struct activations *a, struct tiles tiles, uint32_t token,
                                           uint32_t block)
{
    uint32_t j = token / tiles.most;
    return tile_blocks(a, tiles, j) + (size_t)block * tile_size(tiles, j) + (token - tile_first(tiles, j));
}

static void store_panel(const float *acc, uint32_t rows, uint32_t tokens, float *y, size_t ldy)
{
    for (uint32_t t = 0; t < tokens; t++)
        memcpy(y + t * ldy, acc + t * PAIR_ROWS, rows * sizeof *y);
}

/* Decodes EXPANDED_BLOCKS or fewer blocks of up to 16 rows of the file. */
static void expand(const struct matrix *w, uint32_t row, uint32_t rows, uint32_t block, uint32_t blocks,
                   struct panel32 *out)
{
    const struct type_info *info = type_info(w->type);
    size_t row_bytes = type_row_bytes(w->type, w->cols);
    uint32_t each = info->block_values / 32, flip = kernels->flip * UINT32_C(0x01010101);
    const uint8_t *base = (const uint8_t *)(w->data ? w->data : w->source) + row * row_bytes;
    for (uint32_t r = 0; r < PANEL_ROWS; r++)
        for (uint32_t b = 0; b < blocks; b += each) {
            struct block32 parts[8];
            if (r < rows)
                numerics_decode(w->type, base + r * row_bytes + (block + b) / each * (size_t)info->block_bytes, parts);
            else
                memset(parts, 0, sizeof parts);
            for (uint32_t i = 0; i < each; i++) {
                struct panel32 *p = &out[b + i];
                for (uint32_t g = 0; g < 8; g++) {
                    uint32_t four;
                    memcpy(&four, parts[i].q + 4 * g, sizeof four);
                    four ^= flip;
                    memcpy(p->q[g][r], &four, sizeof four);
                }
                for (uint32_t g = 0; g < 2; g++) {
                    p->scale[g][r] = parts[i].scale[g];
                    p->offset[g][r] = parts[i].offset[g];
                }
            }
        }
}

/* A type without a layout of its own: decode a strip once, use it for many tokens. */
static void panel_expanded(const struct matrix *w, uint32_t row, uint32_t rows, const struct tokens *in, float *y,
                           size_t ldy)
{
    struct numerics shape = numerics_of(w->type);
    struct tiles tiles = tiles_of(in->a->n, kernels->tile_tokens);
    uint32_t blocks = w->cols / 32;
    for (uint32_t first = 0; first < in->count; first += EXPANDED_TOKENS) {
        _Alignas(64) float acc[EXPANDED_TOKENS * PAIR_ROWS] = {0};
        _Alignas(64) struct panel32 strip[EXPANDED_BLOCKS];
        uint32_t tokens = in->count - first < EXPANDED_TOKENS ? in->count - first : EXPANDED_TOKENS;
        for (uint32_t b = 0; b < blocks; b += EXPANDED_BLOCKS) {
            uint32_t width = blocks - b < EXPANDED_BLOCKS ? blocks - b : EXPANDED_BLOCKS;
            expand(w, row, rows, b, width, strip);
            for (uint32_t t = 0, size; t < tokens; t += size) {
                struct act_block gathered[EXPANDED_RUN * EXPANDED_BLOCKS], *to = gathered;
                size = tokens - t < EXPANDED_RUN ? tokens - t : EXPANDED_RUN;
                for (uint32_t i = 0; i < width; i++)
                    for (uint32_t k = 0; k < size; k++)
                        *to++ = *token_block(in->a, tiles, first + t + k, b + i);
                kernels->expanded(strip, gathered, width, size, shape.groups, shape.offset, acc + t * PAIR_ROWS);
            }
        }
        store_panel(acc, rows, tokens, y + first * ldy, ldy);
    }
}

/* Rows that go together: a panel, or a pair. */
static uint32_t unit_rows(void)
{
    return kernels->pairs ? PAIR_ROWS : PANEL_ROWS;
}

/* Whole units of a packed type against one tile: one stream of memory and one call, which the core's own prefetching
 * follows best when left nearly alone; only where arithmetic takes longer than memory does fetching all of it ahead
 * help. Returns how many. */
static size_t panels_streamed(const struct matrix *w, enum layout layout, size_t begin, size_t end,
                              const struct tokens *in, float *y, size_t ldy)
{
    size_t whole = w->rows / unit_rows();
    end = end < whole ? end : whole;
    if (begin >= end)
        return 0;
    size_t bytes = layout_panel_bytes(layout, unit_rows(), w->cols);
    const uint8_t *panels = (const uint8_t *)w->data + begin * bytes;
    struct panel_run run = {.panels = panels,
                            .count = (uint32_t)(end - begin),
                            .pair = kernels->pairs,
                            .a = in->a->scratch,
                            .step = in->count,
                            .blocks = w->cols / 32,
                            .tokens = in->count,
                            .out = y + begin * unit_rows(),
                            .stride = ldy};
    if (run.tokens >= kernels->fetch_tokens[layout])
        run.fetch = (struct fetch){panels + FETCH_AHEAD, bytes / run.blocks, true};
    kernels->panel[layout](&run);
    return end - begin;
}

/* One panel or two of a packed type against the tokens of tiles [tile_begin, tile_end), a few at a time. Strips of
 * columns stay in the nearest cache while all tokens pass over them; meanwhile each run fetches its part of the next
 * strip, so that memory never rests. */
static void panels_packed(const struct matrix *w, enum layout layout, uint32_t row, uint32_t rows,
                          const struct tokens *in, uint32_t tile_begin, uint32_t tile_end, float *y, size_t ldy)
{
    bool pair = rows > PANEL_ROWS;
    uint32_t wide = pair ? PAIR_ROWS : PANEL_ROWS;
    const uint8_t *panel = (const uint8_t *)w->data + layout_panel_bytes(layout, row, w->cols);
    struct tiles tiles = tiles_of(in->count, kernels->tile_tokens);
    uint32_t blocks = w->cols / 32, begin = tile_first(tiles, tile_begin), end = tile_first(tiles, tile_end);
    _Alignas(64) float acc[CHUNK_TOKENS * PAIR_ROWS];
    uint32_t most = kernels->run_tokens[layout], runs = 0;
    for (uint32_t j = tile_begin; j < tile_end; j++)
        runs += (tile_size(tiles, j) + most - 1) / most;
    bool far = kernels->pairs && tile_end - tile_begin > 1; /* measured: other strips are wanted near */
    for (uint32_t b = 0; b < blocks; b += STRIP) {
        uint32_t width = blocks - b < STRIP ? blocks - b : STRIP;
        size_t strip_bytes = layout_panel_bytes(layout, wide, width * 32);
        const uint8_t *strip = panel + layout_panel_bytes(layout, wide, b * 32);
        struct panel_run run = {.panels = strip,
                                .count = 1,
                                .pair = pair,
                                .goes_on = b > 0,
                                .blocks = width,
                                .out = acc,
                                .stride = PAIR_ROWS,
                                .fetch = {strip + strip_bytes, (strip_bytes / width + runs - 1) / runs, far}};
        for (uint32_t j = tile_begin; j < tile_end; j++) {
            run.step = tile_size(tiles, j);
            run.a = tile_blocks(in->a, tiles, j) + (size_t)b * run.step;
            for (uint32_t left = run.step; left; left -= run.tokens, run.a += run.tokens) {
                run.tokens = left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
                kernels->panel[layout](&run);
                run.out += run.tokens * PAIR_ROWS;
                run.fetch.from += width * run.fetch.step;
            }
        }
    }
    store_panel(acc, rows, end - begin, y + begin * ldy, ldy);
}

static void panel_float(const struct matrix *w, uint32_t row, uint32_t rows, const struct tokens *in,
                        uint32_t tile_begin, uint32_t tile_end, float *y, size_t ldy)
{
    const struct activations *a = in->a;
    kernel_float *dot = w->type == TYPE_F32   ? kernels->dot_f32
                        : w->type == TYPE_F16 ? kernels->dot_f16
                                              : kernels->dot_bf16;
    uint32_t each = w->type == TYPE_F32 ? 4 : 2;
    size_t step = kernels->float_rows ? float_group_bytes(each, w->cols) : (size_t)each * w->cols;
    const uint8_t *base = w->data ? w->data : w->source;
    base += (kernels->float_rows ? row / kernels->float_rows : row) * step;
    if (in->chosen) {
        for (uint32_t t = 0; t < in->count; t++)
            dot(base, step, rows, a->x + in->chosen[t] * a->stride, a->stride, 1, a->cols, y + t * ldy, ldy);
        return;
    }
    struct tiles tiles = tiles_of(in->count, kernels->tile_tokens);
    for (uint32_t j = tile_begin; j < tile_end; j++)
        dot(base, step, rows, a->x + tile_first(tiles, j) * a->stride, a->stride, tile_size(tiles, j), a->cols,
            y + tile_first(tiles, j) * ldy, ldy);
}

/* ---- All rows of several matrices --------------------------------------------------------------------------- */

struct linear_work {
    const struct linear_job *jobs;
    size_t count;
    struct tokens tokens;
};

static size_t units_of(const struct matrix *w)
{
    return w->rows / unit_rows() + (w->rows % unit_rows() != 0);
}

/* Units [begin, end) of one matrix. */
static void run_units(const struct linear_job *job, const struct tokens *in, size_t begin, size_t end)
{
    const struct matrix *w = job->w;
    enum layout layout = is_float(w->type) ? LAYOUT_EXPANDED : layout_of(w->type);
    struct tiles tiles = tiles_of(in->count, kernels->tile_tokens);
    size_t token_bytes = is_float(w->type) ? w->cols * sizeof(float) : w->cols / 32 * sizeof(struct act_block);
    size_t chunk = CHUNK_BYTES / (token_bytes * kernels->tile_tokens);
    chunk = chunk > CHUNK_TOKENS / kernels->tile_tokens ? CHUNK_TOKENS / kernels->tile_tokens : chunk ? chunk : 1;
    for (uint32_t j = 0; j < tiles.count; j += (uint32_t)chunk) {
        uint32_t tile_end = j + chunk < tiles.count ? j + (uint32_t)chunk : tiles.count;
        size_t u = begin;
        if (is_float(w->type) && tiles.count == 1 && !in->chosen) {
            size_t row = begin * unit_rows(), last = end * unit_rows() < w->rows ? end * unit_rows() : w->rows;
            panel_float(w, (uint32_t)row, (uint32_t)(last - row), in, 0, 1, job->y + row, job->ldy);
            continue;
        }
        if (layout != LAYOUT_EXPANDED && in->count <= kernels->run_tokens[layout])
            u += panels_streamed(job->w, layout, begin, end, in, job->y, job->ldy);
        for (; u < end; u++) {
            uint32_t row = (uint32_t)u * unit_rows(), rows = w->rows - row < unit_rows() ? w->rows - row : unit_rows();
            float *y = job->y + row;
            if (is_float(w->type))
                panel_float(w, row, rows, in, j, tile_end, y, job->ldy);
            else if (layout != LAYOUT_EXPANDED)
                panels_packed(w, layout, row, rows, in, j, tile_end, y, job->ldy);
            else if (j == 0)
                for (uint32_t r = 0; r < rows; r += PANEL_ROWS)
                    panel_expanded(w, row + r, rows - r < PANEL_ROWS ? rows - r : PANEL_ROWS, in, y + r, job->ldy);
        }
    }
}

static void linear_body(void *context, size_t begin, size_t end, int thread)
{
    const struct linear_work *work = context;
    size_t before = 0;
    for (size_t i = 0; i < work->count && before < end; i++) {
        size_t units = units_of(work->jobs[i].w);
        size_t from = begin > before ? begin - before : 0, to = end - before < units ? end - before : units;
        if (from < to)
            run_units(&work->jobs[i], &work->tokens, from, to);
        before += units;
    }
}

static void run(struct pool *pool, const struct linear_work *work)
{
    size_t units = 0;
    for (size_t i = 0; i < work->count; i++)
        units += units_of(work->jobs[i].w);
    pool_for(pool, units, 1, linear_body, (void *)work);
}

void op_linear_many(struct pool *pool, const struct linear_job *jobs, size_t count, struct activations *a)
{
    if (!a->n)
        return;
    struct linear_job rest[MAX_JOBS];
    struct linear_work work = {rest, 0, {a, NULL, a->n}};
    for (size_t i = 0; i < count; i++) {
        if (is_float(jobs[i].w->type)) {
            if (blas_linear(pool, jobs[i].w, a, jobs[i].y, jobs[i].ldy))
                continue;
        } else {
            quantise_now(a, pool);
        }
        rest[work.count++] = jobs[i];
        if (work.count == MAX_JOBS) {
            run(pool, &work);
            work.count = 0;
        }
    }
    run(pool, &work);
}

void op_linear(struct pool *pool, const struct matrix *w, struct activations *a, float *y, size_t ldy)
{
    op_linear_many(pool, &(struct linear_job){w, y, ldy}, 1, a);
}

struct gather {
    const struct activations *from, *to;
    const uint32_t *rows_of;
};

static void gather_tokens(void *context, size_t begin, size_t end, int thread)
{
    const struct gather *g = context;
    struct tiles all = tiles_of(g->from->n, kernels->tile_tokens), tiles = tiles_of(g->to->n, kernels->tile_tokens);
    for (uint32_t j = 0; j < tiles.count; j++) {
        uint32_t first = tile_first(tiles, j), size = tile_size(tiles, j);
        for (uint32_t t = first; t < first + size; t++) {
            if (t < begin || t >= end)
                continue;
            const struct act_block *in = token_block(g->from, all, g->rows_of[t], 0);
            struct act_block *out = tile_blocks(g->to, tiles, j) + (t - first);
            size_t step = (size_t)(token_block(g->from, all, g->rows_of[t], 1) - in);
            for (uint32_t b = 0; b < g->from->cols / 32; b++)
                out[(size_t)b * size] = in[b * step];
        }
    }
}

void op_linear_gather(struct pool *pool, const struct linear_job *jobs, size_t count, struct activations *a,
                      const uint32_t *rows_of, uint32_t m, void *scratch)
{
    struct activations few = {.n = m, .cols = a->cols, .scratch = scratch};
    struct linear_job quantised[MAX_JOBS];
    struct linear_work work = {quantised, 0, {&few, NULL, m}};
    for (size_t i = 0; m && i < count; i++) {
        if (is_float(jobs[i].w->type)) {
            run(pool, &(struct linear_work){&jobs[i], 1, {a, rows_of, m}});
            continue;
        }
        if (!few.quantised) {
            struct gather g = {a, &few, rows_of};
            quantise_now(a, pool);
            pool_for(pool, m, QUANTISE_GRAIN, gather_tokens, &g);
            few.quantised = true;
        }
        quantised[work.count++] = jobs[i];
        if (work.count == MAX_JOBS) {
            run(pool, &work);
            work.count = 0;
        }
    }
    run(pool, &work);
}
