/* A slower board, for tests: a micro-batch is made to take `factor` times as long as one of its shape does here, in real
 * time, so that one machine can stand for unequal ones. The difference is slept (and its end spun, for precision), not
 * computed: nodes that share a machine's cores do not slow each other down by it. A board has a pace of its own, while
 * what disturbs a single micro-batch here (another worker's turn, another program's) would be multiplied with it; so the
 * fastest of the last ones of a shape is what is multiplied. One thread. */
#ifndef BRIGADE_EXECUTION_THROTTLE_H
#define BRIGADE_EXECUTION_THROTTLE_H

#include <stdint.h>

#define THROTTLE_MAX 1000.0
#define THROTTLE_SHAPES 64u
#define THROTTLE_KEPT 16u

struct throttle_shape {
    uint32_t blocks;                  /* when not the whole stage computes; 0: all */
    uint32_t tokens, sequences, past; /* past: positions looked back on, of the sequence that looks furthest */
};

struct throttle_row {
    uint32_t blocks, tokens, sequences, reach; /* reach: past, to a power of two */
    uint32_t count;
    int64_t ns[THROTTLE_KEPT];
};

struct throttle {
    double factor; /* 1 or less: none */
    struct throttle_row row[THROTTLE_SHAPES];
};

/* Waits until factor times the fastest of the last micro-batches of this shape (this one is one) have passed since
 * started_ns, by clock_ns. */
void throttle_wait(struct throttle *t, const struct throttle_shape *shape, int64_t started_ns);
/* Another stage: what was seen of the one before says nothing. Keeps the factor. */
void throttle_forget(struct throttle *t);

#endif
