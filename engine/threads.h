/* The pool that computes: N threads (the caller is one of them), bound to cores through hwloc, spinning briefly
 * between jobs and then asleep. Work is split by rows, heads or tokens, never by a sum, so no result depends on N. */
#ifndef BRIGADE_ENGINE_THREADS_H
#define BRIGADE_ENGINE_THREADS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct pool;

struct pool_options {
    int threads;   /* 0: one for each physical core this process may use (the fast kind first on big.LITTLE) */
    bool bind;     /* bind each thread to a core; off when several pools share a machine's cores by chance */
    int spin_us;   /* how long an idle worker spins before it sleeps; 0: a default of about 50 */
    int first_core; /* rank of the first core to use, in hwloc's order; wraps. For several workers on one machine. */
};

/* Starts the pool. *out is the caller's: pool_destroy joins all threads. One job at a time, from one thread. */
int pool_create(const struct pool_options *options, struct pool **out, struct error *err);
void pool_destroy(struct pool *pool); /* NULL is fine */
int pool_threads(const struct pool *pool); /* NULL counts as 1: every op below also runs without a pool */

/* Runs body(context, begin, end, thread) over [0, items) cut into pieces of at least `grain` items (pieces start at
 * multiples of grain); returns when all are done. Threads take pieces as they come free. */
void pool_for(struct pool *pool, size_t items, size_t grain,
              void (*body)(void *context, size_t begin, size_t end, int thread), void *context);

/* What hwloc found: for logs, profiles and tile sizes. */
struct cpu_info {
    int cores;          /* physical cores this process may use */
    int kinds;          /* 1, or more on big.LITTLE */
    size_t l1_bytes;    /* data cache of one core */
    size_t l2_bytes;
    size_t l3_bytes;    /* 0 when there is none */
    char model[64];
};
void cpu_describe(struct cpu_info *out);

#endif
