/* Private to proto/: the bounds of a data frame's fields, proven alike before sending and after receiving. Pure. */
#ifndef BRIGADE_PROTO_FRAME_CHECK_H
#define BRIGADE_PROTO_FRAME_CHECK_H

#include "proto/frame.h"

/* Sums that follow from the fields. */
struct work_sums {
    uint32_t tokens;        /* Σ count */
    size_t token_bytes;     /* 4 · Σ (first + count - known) */
    size_t page_count;
    size_t activation_bytes;
};

/* ERR_BOUND or ERR_FORMAT with a line naming the span and the field; sums are set on success. Does not look at the
 * tokens, at w->tokens, nor at the byte counts: the caller compares those with the sums. */
int frame_check_work(const struct frame_work *w, struct work_sums *sums, struct error *err);
/* float_bytes is set to 4 · Σ float_count. */
int frame_check_result(const struct frame_result *r, size_t *float_bytes, struct error *err);

#endif
