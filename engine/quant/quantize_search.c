/* The scale searches. Sums run in eight lanes so that compilers may use vectors without changing a bit. Pure. */
#include "engine/quant/quantize_search.h"

#include <math.h>
#include <stddef.h>

#include "engine/quant/codebook.h"
#include "engine/quant/half.h"

#define LANES 8

static float lane_sum(const float lanes[LANES])
{
    float half[4];
    for (int i = 0; i < 4; i++)
        half[i] = lanes[i] + lanes[i + 4];
    return (half[0] + half[2]) + (half[1] + half[3]);
}

uint16_t search_f16(float v)
{
    return f32_to_f16(search_clamp(v, -65504.0f, 65504.0f));
}

/* 1 / v, or 0 where that would not be finite. */
static float inverse(float v)
{
    float i = v != 0 ? 1.0f / v : 0;
    return isfinite(i) ? i : 0;
}

void search_assign(const float *x, int n, float d, int low, int high, int8_t *q)
{
    float inv = inverse(d);
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)search_round(search_clamp(x[i] * inv, (float)low, (float)high));
}

void search_assign_minimum(const float *x, int n, float d, float m, int top, uint8_t *q)
{
    float inv = inverse(d);
    for (int i = 0; i < n; i++)
        q[i] = (uint8_t)search_round(search_clamp((x[i] - m) * inv, 0, (float)top));
}

/* --- x = d * q --- */

struct fit {
    float d;
    float gain; /* how much of the weighted square of x the fit explains */
};

static struct fit fit_scale(const float *x, const float *w, int n, float inv, float low, float high)
{
    float xq[LANES] = {0}, qq[LANES] = {0};
    for (int i = 0; i < n; i += LANES)
        for (int k = 0; k < LANES; k++) {
            float q = search_round(search_clamp(x[i + k] * inv, low, high)), wq = w[i + k] * q;
            xq[k] += wq * x[i + k];
            qq[k] += wq * q;
        }
    float sxq = lane_sum(xq), sqq = lane_sum(qq);
    if (!(sqq > 0))
        return (struct fit){0, 0};
    float d = sxq / sqq;
    return (struct fit){d, d * sxq};
}

float search_scale(const float *x, const float *w, int n, int range)
{
    float extreme = 0, low = (float)-range, high = (float)(range - 1);
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    float inv = inverse(extreme);
    if (inv == 0)
        return 0;
    /* The extreme meets the long end of the range, or (other sign of d) the short end; or stays somewhat outside. */
    struct fit best = {0, 0};
    for (int k = -12; k <= 9; k++) {
        struct fit long_end = fit_scale(x, w, n, (low - 0.1f * (float)k) * inv, low, high);
        struct fit short_end = fit_scale(x, w, n, (high + 0.1f * (float)k) * inv, low, high);
        if (long_end.gain > best.gain)
            best = long_end;
        if (short_end.gain > best.gain)
            best = short_end;
    }
    for (int step = 0; step < 4; step++) {
        struct fit next = fit_scale(x, w, n, inverse(best.d), low, high);
        if (!(next.gain > best.gain))
            break;
        best = next;
    }
    return best.d;
}

/* --- x = d * q + m --- */

struct line {
    float d, m;
    float loss; /* the weighted square of what is left, less that of x itself */
};

static struct line fit_line(const float *x, const float *w, int n, float inv, float m, int top, int nonpositive,
                            float sum_w, float sum_wx)
{
    float q1[LANES] = {0}, q2[LANES] = {0}, qx[LANES] = {0}, high = (float)top;
    for (int i = 0; i < n; i += LANES)
        for (int k = 0; k < LANES; k++) {
            float q = search_round(search_clamp((x[i + k] - m) * inv, 0, high)), wq = w[i + k] * q;
            q1[k] += wq;
            q2[k] += wq * q;
            qx[k] += wq * x[i + k];
        }
    double sq = (double)lane_sum(q1), sqq = (double)lane_sum(q2), sqx = (double)lane_sum(qx);
    double sw = (double)sum_w, sx = (double)sum_wx;
    double determinant = sw * sqq - sq * sq, d, low;
    if (!(determinant > 0))
        return (struct line){0, 0, 0};
    d = (sw * sqx - sx * sq) / determinant;
    low = (sqq * sx - sq * sqx) / determinant;
    if (nonpositive && low > 0) {
        low = 0;
        d = sqx / sqq;
    }
    if (!(d > 0))
        return (struct line){0, 0, 0};
    /* sum w (x - d q - m)^2 - sum w x^2, for any d and m */
    double loss = d * d * sqq + low * low * sw + 2 * d * low * sq - 2 * d * sqx - 2 * low * sx;
    return (struct line){(float)d, (float)low, (float)loss};
}

float search_scale_minimum(const float *x, const float *w, int n, int top, int nonpositive, float *minimum)
{
    float low = x[0], high = x[0], lanes_w[LANES] = {0}, lanes_x[LANES] = {0};
    for (int i = 0; i < n; i += LANES)
        for (int k = 0; k < LANES; k++) {
            low = x[i + k] < low ? x[i + k] : low;
            high = x[i + k] > high ? x[i + k] : high;
            lanes_w[k] += w[i + k];
            lanes_x[k] += w[i + k] * x[i + k];
        }
    if (nonpositive && low > 0)
        low = 0;
    float sum_w = lane_sum(lanes_w), sum_wx = lane_sum(lanes_x), inv = inverse(high - low);
    if (inv == 0) { /* all the same */
        *minimum = low;
        return 0;
    }
    struct line best = {0, low, 0};
    for (int k = -10; k <= 12; k++) {
        struct line next =
            fit_line(x, w, n, ((float)top + 0.1f * (float)k) * inv, low, top, nonpositive, sum_w, sum_wx);
        if (next.loss < best.loss)
            best = next;
    }
    for (int step = 0; step < 6 && best.d > 0; step++) {
        struct line next = fit_line(x, w, n, inverse(best.d), best.m, top, nonpositive, sum_w, sum_wx);
        if (!(next.loss < best.loss))
            break;
        best = next;
    }
    if (!(best.d > 0)) { /* no fit beat x = 0: the plain line through both ends */
        best.d = (high - low) / (float)top;
        best.m = low;
    }
    *minimum = best.m;
    return best.d;
}

/* --- x = d * codebook[q] --- */

static int nearest_code(float v)
{
    int q = 0;
    for (int step = 8; step; step /= 2) /* the highest code whose lower border v is not under */
        if (v > 0.5f * (float)(codebook_iq4[q + step - 1] + codebook_iq4[q + step]))
            q += step;
    return q;
}

void search_assign_codebook(const float *x, int n, float d, uint8_t *q)
{
    float inv = inverse(d);
    for (int i = 0; i < n; i++)
        q[i] = (uint8_t)nearest_code(x[i] * inv);
}

static struct fit fit_codebook(const float *x, const float *w, int n, float inv)
{
    float xq[LANES] = {0}, qq[LANES] = {0};
    for (int i = 0; i < n; i++) {
        float q = (float)codebook_iq4[nearest_code(x[i] * inv)], wq = w[i] * q;
        xq[i % LANES] += wq * x[i];
        qq[i % LANES] += wq * q;
    }
    float sxq = lane_sum(xq), sqq = lane_sum(qq);
    if (!(sqq > 0))
        return (struct fit){0, 0};
    float d = sxq / sqq;
    return (struct fit){d, d * sxq};
}

float search_codebook(const float *x, const float *w, int n)
{
    float extreme = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    float inv = inverse(extreme);
    if (inv == 0)
        return 0;
    struct fit best = {0, 0};
    for (int k = -7; k <= 7; k++) {
        struct fit long_end = fit_codebook(x, w, n, ((float)codebook_iq4[0] + 2.0f * (float)k) * inv);
        struct fit short_end = fit_codebook(x, w, n, ((float)codebook_iq4[15] + 2.0f * (float)k) * inv);
        if (long_end.gain > best.gain)
            best = long_end;
        if (short_end.gain > best.gain)
            best = short_end;
    }
    for (int step = 0; step < 4; step++) {
        struct fit next = fit_codebook(x, w, n, inverse(best.d));
        if (!(next.gain > best.gain))
            break;
        best = next;
    }
    return best.d;
}
