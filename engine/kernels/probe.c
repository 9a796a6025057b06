/* What this machine can do at best: bytes read and int8 products a second. Uses the pool's threads; no state. */
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/kernels/ops.h"
#include "engine/kernels/table.h"

#define READ_GRAIN ((size_t)256 << 10)
#define READ_SLICE ((size_t)32 << 20) /* timed at once, by each thread: short, so that some run undisturbed */
#define MAX_PROBE_THREADS 1024

struct read_job {
    const uint8_t *data;
    uint64_t sums[MAX_PROBE_THREADS]; /* so that nothing read is for nothing */
};

static void read_piece(void *context, size_t begin, size_t end, int thread)
{
    struct read_job *job = context;
    job->sums[thread % MAX_PROBE_THREADS] += kernels->probe_read(job->data + begin, end - begin);
}

double probe_read_bandwidth(struct pool *pool, int ms)
{
    struct cpu_info cpu;
    cpu_describe(&cpu);
    size_t bytes = 4 * (cpu.l3_bytes + (size_t)pool_threads(pool) * cpu.l2_bytes);
    size_t least = (size_t)256 << 20, most = (size_t)512 << 20;
    bytes = bytes < least ? least : bytes > most ? most : bytes;
    size_t slice = READ_SLICE * (size_t)pool_threads(pool);
    slice = slice > bytes / 2 ? bytes / 2 : slice;
    struct read_job *job = mem_zalloc(1, sizeof *job);
    uint8_t *data = mem_map(bytes);
    double best = 0;
    if (job && data) {
        memset(data, 1, bytes);
        int64_t until = clock_ns() + (int64_t)ms * 1000000;
        do
            for (size_t at = 0; at + slice <= bytes; at += slice) {
                int64_t t0 = clock_ns();
                job->data = data + at;
                pool_for(pool, slice, READ_GRAIN, read_piece, job);
                double rate = (double)slice / ((double)(clock_ns() - t0) * 1e-9);
                best = rate > best ? rate : best;
            }
        while (clock_ns() < until);
    }
    if (data)
        mem_unmap(data, bytes);
    mem_free(job);
    return best;
}

struct dot_job {
    uint64_t rounds;
    uint64_t done[MAX_PROBE_THREADS];
};

static void dot_piece(void *context, size_t begin, size_t end, int thread)
{
    struct dot_job *job = context;
    for (size_t i = begin; i < end; i++)
        job->done[thread % MAX_PROBE_THREADS] += kernels->probe_dot(job->rounds);
}

double probe_int8_peak(struct pool *pool, int ms)
{
    struct dot_job *job = mem_zalloc(1, sizeof *job);
    double best = 0;
    if (!job)
        return 0;
    job->rounds = 20000;
    int64_t until = clock_ns() + (int64_t)ms * 1000000;
    do {
        memset(job->done, 0, sizeof job->done);
        int64_t t0 = clock_ns();
        pool_for(pool, 8 * (size_t)pool_threads(pool), 1, dot_piece, job);
        double seconds = (double)(clock_ns() - t0) * 1e-9;
        uint64_t done = 0;
        for (int i = 0; i < MAX_PROBE_THREADS; i++)
            done += job->done[i];
        best = seconds > 0 && (double)done / seconds > best ? (double)done / seconds : best;
    } while (clock_ns() < until);
    mem_free(job);
    return best;
}
