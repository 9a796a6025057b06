/* What the transformer asks of the machine. This is the whole face of engine/kernels/.
 *
 * Every op gives the same bits at every ISA level, for every thread count and every batch, because the order of each
 * floating-point operation is fixed here and nowhere else ("canonical order"); kernels/scalar.c is that text as code.
 *
 * Canonical order
 * - fma(a, b, c) is one rounding; all else is single IEEE-754 binary32 operations, round to nearest even, no flush to
 *   zero. No libm: exp, tanh, sin, cos, log come from kernels/maths.h.
 * - tree16(l): l[i] += l[i+8] for i < 8, then +4, +2, +1: l[0].
 * - dot16(a, b, n): 16 lanes from 0; element i goes to lane i mod 16 by fma, i rising; tree16.
 * - Float weights (F32, F16, BF16; narrow types widen exactly): y = dot16(w_row, x).
 * - Quantised weights: x is quantised in blocks of 32: d = amax/127 (one division), q = rint(x · (127/amax)) (0 when
 *   amax is 0). acc from 0; for each block of 32 columns rising: acc = fma(d_w·d, (float)idot, acc), the integer dot
 *   exact. For types with minima or sub-scales the exact sequence stands in numerics.h beside each type.
 * - Attention, one query and head: s[p] = (fma chain over d rising of q[d]·k[p][d], from 0) · scale, then the soft cap
 *   if any; m = max s; e[p] = exp(s[p] - m); sum: lane p mod 16 by absolute position p, rising, then tree16 (plus the
 *   sink's exp last, if any; then m = max(m, sink)); out[d] = (Σ over segments of 512 absolute positions, rising: the
 * segment's fma chain over p of e[p]·v[p][d], from 0, segments added in order from 0) · (1/sum).
 * - rms_norm: r = 1/sqrt(dot16(x,x)/n + eps); y = (x·r)·w.  layer_norm: mean = sum16(x)/n (lanes as dot16, adds);
 *   v = dot16(x-mean, x-mean)/n; y = fma((x-mean)·(1/sqrt(v+eps)), w, b).
 */
#ifndef BRIGADE_ENGINE_KERNELS_OPS_H
#define BRIGADE_ENGINE_KERNELS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/quant/types.h"
#include "engine/threads.h"

/* ---- ISA level ---------------------------------------------------------------------------------------------- */

/* Chooses the table for this CPU once, or the one BRIGADE_ISA names (scalar, avx2, avxvnni, avx512, neon, dotprod,
 * i8mm); ERR_UNSUPPORTED names what this CPU has. Must come before any other op; logs its choice. Later calls do
 * nothing. */
int kernels_init(struct error *err);
const char *kernels_isa(void); /* "avx512" */
/* Every level this CPU can run, scalar first, NULL-terminated; and switching between them (tests and benches only,
 * while no matrix packed for another level is alive: layouts differ). */
const char *const *kernels_levels(void);
int kernels_force(const char *level, struct error *err);
/* A number that changes whenever kernels' speed or layout may: part of the profile cache's key. */
uint32_t kernels_version(void);
/* On from the start. Off lets OpenBLAS do float prefill: faster, but its sums have an order of their own, so invariance
 * ends there. Quantised weights never use it. Set before work begins. */
void kernels_set_deterministic(bool on);

/* ---- Weights ------------------------------------------------------------------------------------------------ */

/* A matrix of `rows` outputs by `cols` inputs, laid out as this level's kernels want it. */
struct matrix {
    uint32_t type; /* enum tensor_type of the source */
    uint32_t rows, cols;
    size_t bytes; /* of data; 0 while it borrows the source */
    void *data;
    const void *source; /* set while the layout is the file's own: borrowed, must outlive the matrix */
};

bool matrix_supported(uint32_t type, uint32_t cols);
/* Bytes that matrix_load will own (0 when it would borrow). For admission. */
size_t matrix_bytes(uint32_t type, uint32_t rows, uint32_t cols);
/* Lays out rows·type_row_bytes(type, cols) bytes at `source`. borrow: keep pointing into source where the layout
 * allows; else always copy, so that the file can be released. Uses the pool. Free with matrix_free. */
int matrix_load(struct matrix *m, struct pool *pool, uint32_t type, uint32_t rows, uint32_t cols, const void *source,
                bool borrow, struct error *err);
void matrix_free(struct matrix *m);
/* One row as floats (embedding lookup): out[cols]. Exactly dequantize_row of the source row. */
void matrix_row(const struct matrix *m, uint32_t row, float *out);

/* ---- Activations -------------------------------------------------------------------------------------------- */

/* n rows of cols floats and, once quantised, their 8-bit form; made once a layer and used by several matrices. */
struct activations {
    uint32_t n, cols;
    const float *x; /* n rows, `stride` floats apart; borrowed */
    size_t stride;
    void *scratch; /* the 8-bit form, activations_bytes() of the caller's memory, 64-byte aligned */
    bool quantised;
};

size_t activations_bytes(uint32_t n, uint32_t cols);
/* Points a at x; the 8-bit form is made on first need by op_linear (or now, with want_quantised). */
void activations_set(struct activations *a, struct pool *pool, const float *x, size_t stride, uint32_t n, uint32_t cols,
                     void *scratch, bool want_quantised);

/* y[t·ldy + r] = Σ_c w[r][c]·x[t][c] for all rows and tokens (t < a->n). cols must agree. */
void op_linear(struct pool *pool, const struct matrix *w, struct activations *a, float *y, size_t ldy);
/* Several matrices over the same activations in one go (q, k, v; gate, up): one fork, one join. */
struct linear_job {
    const struct matrix *w;
    float *y;
    size_t ldy;
};
void op_linear_many(struct pool *pool, const struct linear_job *jobs, size_t count, struct activations *a);
/* Chosen experts: the same with m rows of a alone, rows_of[i] giving y's row i. scratch: activations_bytes(m, a->cols)
 * of the caller's memory, where their 8-bit form is laid side by side; another than a's. */
void op_linear_gather(struct pool *pool, const struct linear_job *jobs, size_t count, struct activations *a,
                      const uint32_t *rows_of, uint32_t m, void *scratch);

/* ---- Element-wise, norms, positions (x: n rows, `stride` floats apart; rows are independent) -------------------- */

void op_rms_norm(struct pool *pool, const float *x, size_t stride, uint32_t n, uint32_t cols, const float *weight,
                 float eps, float *y, size_t ldy); /* weight NULL: ones. y may be x. */
void op_layer_norm(struct pool *pool, const float *x, size_t stride, uint32_t n, uint32_t cols, const float *weight,
                   const float *bias, float eps, float *y, size_t ldy);
void op_add(struct pool *pool, float *x, const float *y, size_t count); /* x += y */
void op_add_bias(struct pool *pool, float *x, size_t stride, uint32_t n, uint32_t cols, const float *bias);
void op_scale(struct pool *pool, float *x, float factor, size_t count);
void op_fma(struct pool *pool, float *x, const float *y, float factor, size_t count); /* x = fma(y, factor, x) */
void op_silu_mul(struct pool *pool, const float *gate, const float *up, float *y, size_t count);
void op_gelu_mul(struct pool *pool, const float *gate, const float *up, float *y, size_t count); /* tanh form */
void op_gelu(struct pool *pool, float *x, size_t count); /* tanh form, in place */
void op_relu(struct pool *pool, float *x, size_t count);
void op_softcap(struct pool *pool, float *x, float cap, size_t count); /* x = cap·tanh(x/cap) */
/* In-place softmax of each row: m = max, e = exp(x-m), sum by 16 lanes and tree16, times 1/sum. */
void op_softmax(struct pool *pool, float *x, size_t stride, uint32_t n, uint32_t cols);

/* Rotates heads·head_dim floats of each of n rows. cos/sin: n rows of rotary/2 values made by rope_angles. neox: pairs
 * are (i, i + rotary/2), else (2i, 2i+1). a' = fma(a, c, -(b·s)); b' = fma(b, c, a·s). Dims past rotary are left. */
void op_rope(struct pool *pool, float *x, size_t stride, uint32_t n, uint32_t heads, uint32_t head_dim, uint32_t rotary,
             bool neox, const float *cosines, const float *sines);
/* cos and sin of position·inverse_frequency[i], computed in double and rounded, times magnitude. */
void rope_angles(uint32_t position, const double *inverse_frequency, uint32_t half, float magnitude, float *cosines,
                 float *sines);

/* ---- KV cache and attention --------------------------------------------------------------------------------- */

#define KV_PAGE_TOKENS 32u /* positions in a page */

enum kv_type { KV_F16, KV_Q8, KV_F32 };

/* Shape of one block's cache. A page holds KV_PAGE_TOKENS positions of all kv heads: K transposed, so that positions
 * lie in vector lanes, V by rows. Layout is private to kernels; sizes come from kv_page_bytes. */
struct kv_shape {
    enum kv_type type;
    uint32_t kv_heads, k_dim, v_dim; /* dims of one head */
};
size_t kv_page_bytes(const struct kv_shape *shape); /* K and V of one block, one page; a multiple of 64 */
/* Stores one position: k[kv_heads·k_dim], v[kv_heads·v_dim] into slot (position mod KV_PAGE_TOKENS) of a page. */
void kv_store(const struct kv_shape *shape, void *page, uint32_t slot, const float *k, const float *v);

struct attention_shape {
    struct kv_shape kv;
    uint32_t heads; /* query heads; head h reads kv head h / (heads / kv_heads) */
    float scale;
    float softcap;      /* 0: none */
    uint32_t window;    /* positions seen, the query's own included; 0: all */
    const float *sinks; /* one logit a head, or NULL */
};
struct attention_query {
    const float *q;        /* heads·k_dim, rotated */
    float *out;            /* heads·v_dim */
    uint32_t position;     /* sees positions ≤ this one */
    const uint32_t *pages; /* page table of its sequence: pages[p / KV_PAGE_TOKENS] */
};
/* All queries (any mix of sequences; neighbours of one sequence are computed together). Page i of the block's pool
 * starts at pool_base + i·page_stride. scratch: attention_scratch_bytes(threads, longest context). */
size_t attention_scratch_bytes(const struct attention_shape *shape, int threads, uint32_t context);
void op_attention(struct pool *pool, const struct attention_shape *shape, const void *pool_base, size_t page_stride,
                  const struct attention_query *queries, uint32_t n, void *scratch, uint32_t context);

/* ---- Probes (for `bench` and the profile) --------------------------------------------------------------------- */

/* Best of a few timed runs. Read bandwidth over a buffer far larger than the caches with all the pool's threads
 * (bytes/s), and int8 multiply-accumulates a second at this level's own dot instruction. Each takes about `ms`. */
double probe_read_bandwidth(struct pool *pool, int ms);
double probe_int8_peak(struct pool *pool, int ms);

#endif
