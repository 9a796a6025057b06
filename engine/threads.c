/* The compute pool. Owns its threads and their binding; never touches what the jobs compute.
 *
 * A job is a handful of fields and a ticket: (generation << 32 | pieces not yet taken). A thread takes a piece by
 * compare-and-swap of the ticket it read before it read the fields, so success proves that the fields were that
 * job's; a thread that comes late finds no pieces left and never holds anybody up. The caller works too, then waits
 * until every piece is done.
 *
 * Threads: pool_for from one thread at a time; workers are private to this file. */
#include "engine/threads.h"

#include <hwloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define MAX_THREADS 1024
#define DEFAULT_SPIN_US 50
#define PIECES_PER_THREAD 8 /* small enough pieces that a slow core does not hold up the others */

typedef void (*job_body)(void *context, size_t begin, size_t end, int thread);

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    int spin_us;
    bool bind;
    int first_core;
    struct worker *workers; /* threads - 1 of them */
    int started;
    hwloc_topology_t topology;
    hwloc_cpuset_t before; /* the creator's binding, given back at the end */

    _Atomic(job_body) body;
    _Atomic(void *) context;
    _Atomic size_t items, piece;
    _Atomic uint32_t pieces;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done;
    _Alignas(64) _Atomic int sleepers;
    _Atomic bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* ---- Where the cores are ------------------------------------------------------------------------------------- */

static hwloc_topology_t topology_load(void)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology))
        return NULL;
    if (hwloc_topology_load(topology)) {
        hwloc_topology_destroy(topology);
        return NULL;
    }
    return topology;
}

/* Cores in the order in which they should be used: the most efficient kind for speed first, then by place. */
static int core_kind(hwloc_topology_t topology, hwloc_obj_t core)
{
    int kind = hwloc_cpukinds_get_by_cpuset(topology, core->cpuset, 0);
    return kind < 0 ? 0 : kind;
}

static int count_cores(hwloc_topology_t topology)
{
    int cores = topology ? hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) : 0;
    if (cores < 1 && topology)
        cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU);
    return cores < 1 ? 1 : cores;
}

/* The rank-th core in that order, wrapping; NULL when hwloc knows no cores. */
static hwloc_obj_t core_of_rank(hwloc_topology_t topology, int rank)
{
    hwloc_obj_type_t type = HWLOC_OBJ_CORE;
    int cores = hwloc_get_nbobjs_by_type(topology, type);
    if (cores < 1) {
        type = HWLOC_OBJ_PU;
        cores = hwloc_get_nbobjs_by_type(topology, type);
    }
    if (cores < 1)
        return NULL;
    rank %= cores;
    int kinds = hwloc_cpukinds_get_nr(topology, 0);
    for (int kind = kinds > 1 ? kinds - 1 : 0; kind >= 0; kind--)
        for (int i = 0; i < cores; i++) {
            hwloc_obj_t core = hwloc_get_obj_by_type(topology, type, (unsigned)i);
            if ((kinds <= 1 || core_kind(topology, core) == kind) && rank-- == 0)
                return core;
        }
    return NULL;
}

static void bind_self(struct pool *pool, int index)
{
    hwloc_obj_t core = pool->topology ? core_of_rank(pool->topology, pool->first_core + index) : NULL;
    hwloc_cpuset_t one = core ? hwloc_bitmap_dup(core->cpuset) : NULL;
    if (!one)
        return;
    hwloc_bitmap_singlify(one);
    if (hwloc_set_cpubind(pool->topology, one, HWLOC_CPUBIND_THREAD))
        log_debug("thread %d cannot be bound to its core", index);
    hwloc_bitmap_free(one);
}

static void read_model(hwloc_topology_t topology, char *model, size_t size)
{
    hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    const char *name = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!name)
        name = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), "DMIProductName");
    if (name) {
        snprintf(model, size, "%s", name);
        return;
    }
    FILE *f = fopen("/sys/firmware/devicetree/base/model", "r"); /* how a board says what it is */
    if (f) {
        size_t n = fread(model, 1, size - 1, f);
        model[n] = 0;
        fclose(f);
    }
}

static struct cpu_info described;

static void describe_once(void)
{
    struct cpu_info *info = &described;
    hwloc_topology_t topology = topology_load();
    info->cores = count_cores(topology);
    info->kinds = 1;
    info->l1_bytes = (size_t)32 << 10;
    info->l2_bytes = (size_t)512 << 10;
    snprintf(info->model, sizeof info->model, "unknown");
    if (!topology)
        return;
    int kinds = hwloc_cpukinds_get_nr(topology, 0);
    info->kinds = kinds > 1 ? kinds : 1;
    read_model(topology, info->model, sizeof info->model);
    hwloc_obj_t core = core_of_rank(topology, 0);
    for (hwloc_obj_t o = core; o; o = o->parent) {
        if (o->type == HWLOC_OBJ_L1CACHE && o->attr->cache.size)
            info->l1_bytes = o->attr->cache.size;
        if (o->type == HWLOC_OBJ_L2CACHE && o->attr->cache.size)
            info->l2_bytes = o->attr->cache.size;
        if (o->type == HWLOC_OBJ_L3CACHE)
            info->l3_bytes = o->attr->cache.size;
    }
    hwloc_topology_destroy(topology);
}

void cpu_describe(struct cpu_info *out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, describe_once);
    *out = described;
}

/* ---- Work ---------------------------------------------------------------------------------------------------- */

/* Takes and runs pieces until none of the present job is left. */
static void work(struct pool *pool, int thread)
{
    uint64_t ticket = atomic_load(&pool->ticket);
    while ((uint32_t)ticket) {
        job_body body = atomic_load_explicit(&pool->body, memory_order_relaxed);
        void *context = atomic_load_explicit(&pool->context, memory_order_relaxed);
        size_t items = atomic_load_explicit(&pool->items, memory_order_relaxed);
        size_t piece = atomic_load_explicit(&pool->piece, memory_order_relaxed);
        uint32_t pieces = atomic_load_explicit(&pool->pieces, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1))
            continue; /* ticket now holds what is there */
        size_t begin = (size_t)(pieces - (uint32_t)ticket) * piece;
        size_t end = begin + piece < items ? begin + piece : items;
        body(context, begin, end, thread);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
        ticket = atomic_load(&pool->ticket);
    }
}

static bool has_work(struct pool *pool)
{
    return (uint32_t)atomic_load(&pool->ticket) || atomic_load(&pool->stop);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    if (pool->bind)
        bind_self(pool, worker->index);
    while (!atomic_load(&pool->stop)) {
        work(pool, worker->index);
        int64_t until = clock_us() + pool->spin_us;
        bool found = false;
        while (!(found = has_work(pool)) && clock_us() < until)
            for (int i = 0; i < 16 && !has_work(pool); i++)
                relax();
        if (found)
            continue;
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->sleepers, 1);
        while (!has_work(pool))
            pthread_cond_wait(&pool->wake, &pool->lock);
        atomic_fetch_sub(&pool->sleepers, 1);
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

static void wake_sleepers(struct pool *pool)
{
    if (!atomic_load(&pool->sleepers))
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void pool_for(struct pool *pool, size_t items, size_t grain, job_body body, void *context)
{
    if (!items)
        return;
    grain = grain ? grain : 1;
    if (!pool || pool->started == 0 || items <= grain) {
        body(context, 0, items, 0);
        return;
    }
    size_t grains = (items + grain - 1) / grain, most = (size_t)(pool->started + 1) * PIECES_PER_THREAD;
    size_t piece = grain * ((grains + most - 1) / most);
    uint32_t pieces = (uint32_t)((items + piece - 1) / piece);
    atomic_store_explicit(&pool->body, body, memory_order_relaxed);
    atomic_store_explicit(&pool->context, context, memory_order_relaxed);
    atomic_store_explicit(&pool->items, items, memory_order_relaxed);
    atomic_store_explicit(&pool->piece, piece, memory_order_relaxed);
    atomic_store_explicit(&pool->pieces, pieces, memory_order_relaxed);
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    uint64_t generation = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, generation << 32 | pieces);
    wake_sleepers(pool);
    work(pool, 0);
    for (unsigned spins = 0; atomic_load_explicit(&pool->done, memory_order_acquire) != pieces; spins++) {
        if (spins < 2000)
            relax();
        else
            sched_yield(); /* whoever has the last piece may be waiting for this very core */
    }
}

/* ---- Life ---------------------------------------------------------------------------------------------------- */

int pool_create(const struct pool_options *options, struct pool **out, struct error *err)
{
    if (options->threads < 0 || options->threads > MAX_THREADS || options->first_core < 0)
        return error_set(err, ERR_USAGE, "threads must be between 1 and %d (0: one for each core), not %d", MAX_THREADS,
                         options->threads);
    struct cpu_info cpu;
    cpu_describe(&cpu);
    int threads = options->threads ? options->threads : cpu.cores;
    struct pool *pool = mem_map(sizeof *pool);
    if (!pool)
        return error_set(err, ERR_NOMEM, "out of memory for a pool of %d threads", threads);
    pool->threads = threads;
    pool->spin_us = options->spin_us > 0 ? options->spin_us : DEFAULT_SPIN_US;
    pool->bind = options->bind;
    pool->first_core = options->first_core;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->workers = mem_zalloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        pool_destroy(pool);
        return error_set(err, ERR_NOMEM, "out of memory for a pool of %d threads", threads);
    }
    if (pool->bind) {
        pool->topology = topology_load();
        pool->before = pool->topology ? hwloc_bitmap_alloc() : NULL;
        if (pool->before && hwloc_get_cpubind(pool->topology, pool->before, HWLOC_CPUBIND_THREAD)) {
            hwloc_bitmap_free(pool->before);
            pool->before = NULL;
        }
    }
    for (int i = 1; i < threads; i++) {
        struct worker *worker = &pool->workers[i - 1];
        worker->pool = pool;
        worker->index = i;
        int rc = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (rc) {
            pool_destroy(pool);
            return error_set(err, ERR_NOMEM, "thread %d of %d cannot be started: %s; ask for fewer threads", i + 1,
                             threads, strerror(rc));
        }
        pool->started = i;
    }
    if (pool->bind)
        bind_self(pool, 0);
    *out = pool;
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    if (pool->before) {
        hwloc_set_cpubind(pool->topology, pool->before, HWLOC_CPUBIND_THREAD);
        hwloc_bitmap_free(pool->before);
    }
    if (pool->topology)
        hwloc_topology_destroy(pool->topology);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    mem_free(pool->workers);
    mem_unmap(pool, sizeof *pool);
}

int pool_threads(const struct pool *pool)
{
    return pool ? pool->threads : 1;
}
