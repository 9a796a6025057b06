/* The pipe in this process. Owns the thread pool, the stages and the sequence table, all touched by the compute thread
 * alone from its start to its end; the loop's thread and it share two queues under one lock. */
#include "coordinator/core/pipeline_local.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/machine.h"
#include "base/memory.h"
#include "base/units.h"
#include "coordinator/core/job.h"
#include "coordinator/core/local_profile.h"
#include "engine/model/sequence.h"
#include "execution/micro_batch.h"

struct answer {
    struct answer *next;
    struct frame_result result;
    char error_text[sizeof((struct error *)0)->text];
};

struct local_pipe {
    struct pipeline base;
    struct pipeline_local_options o;
    uint32_t *last_block;
    uint64_t admissible;
    pthread_t thread;
    bool started;

    /* the compute thread's own */
    struct pool *pool;
    struct stage **stages;
    struct sequence_table *table;
    float *activations[2];
    size_t activation_bytes;
    struct batch_span *spans;
    struct span_result *results;
    struct control_message profile;
    bool profiled;

    /* shared, under lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *jobs, **jobs_end;
    struct answer *answers, **answers_end;
    bool stop, loaded;
    int load_code;
    struct error load_error;
    char what[64];
    uint64_t done, total;
    uint32_t loading_stage;
};

/* ---- Loading (compute thread) ------------------------------------------------------------------------------------ */

static int note_progress(void *context, uint64_t done, uint64_t total)
{
    struct local_pipe *l = context;
    pthread_mutex_lock(&l->lock);
    snprintf(l->what, sizeof l->what, "weights");
    l->done = done;
    l->total = total;
    bool stop = l->stop;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return stop || (l->o.interrupt && *l->o.interrupt);
}

static struct stage_options options_of(struct local_pipe *l, uint32_t stage)
{
    return (struct stage_options){
        .first_block = stage ? l->last_block[stage - 1] + 1 : 0,
        .last_block = l->last_block[stage],
        .kv = l->o.kv,
        .kv_pages = l->o.kv_pages,
        .max_tokens = l->o.max_tokens,
        .max_context = l->o.max_context,
        .pool = l->pool,
        .progress = note_progress,
        .progress_context = l,
    };
}

/* Refuses what does not fit, with the arithmetic. */
static int admit(struct local_pipe *l, struct error *err)
{
    struct stage_memory sum = {0};
    for (uint32_t s = 0; s < l->o.stage_count; s++) {
        struct stage_options o = options_of(l, s);
        struct stage_memory m;
        stage_memory_need(l->o.model, &o, &m);
        sum.weights += m.weights;
        sum.embedding += m.embedding;
        sum.head += m.head;
        sum.kv += m.kv;
        sum.buffers += m.buffers;
        sum.total += m.total;
    }
    uint64_t available = machine_memory_available(), margin = machine_memory_margin();
    l->admissible = available > margin ? available - margin : 0;
    if (!available || sum.total <= l->admissible)
        return 0;
    char w[UNITS_TEXT], e[UNITS_TEXT], h[UNITS_TEXT], k[UNITS_TEXT], b[UNITS_TEXT], t[UNITS_TEXT], a[UNITS_TEXT],
        g[UNITS_TEXT];
    return error_set(
        err, ERR_MEMORY,
        "this machine cannot hold the model: weights %s + embedding %s + head %s + cache %s (%u tokens) + "
        "buffers %s = %s, but %s are available less a margin of %s; use a smaller cache, a smaller type or "
        "more nodes",
        units_bytes_text(sum.weights, w), units_bytes_text(sum.embedding, e), units_bytes_text(sum.head, h),
        units_bytes_text(sum.kv, k), l->o.kv_pages * KV_PAGE_TOKENS, units_bytes_text(sum.buffers, b),
        units_bytes_text(sum.total, t), units_bytes_text(available, a), units_bytes_text(margin, g));
}

static int load(struct local_pipe *l, struct error *err)
{
    const struct model_info *info = model_info(l->o.model);
    struct pool_options pool = {.threads = l->o.threads, .bind = true};
    int rc;
    kernels_set_deterministic(!l->o.inexact);
    if ((rc = kernels_init(err)) || (rc = pool_create(&pool, &l->pool, err)) || (rc = admit(l, err)) ||
        (rc = sequence_table_create(l->o.max_sequences, l->o.max_context, l->o.kv_pages, info->vocabulary, &l->table,
                                    err)))
        return rc;
    l->activation_bytes = (size_t)l->o.max_tokens * info->width * sizeof(float);
    for (int i = 0; i < 2 && l->o.stage_count > 1; i++)
        if (!(l->activations[i] = mem_map(l->activation_bytes)))
            return error_set(err, ERR_NOMEM, "out of memory for activations");
    for (uint32_t s = 0; s < l->o.stage_count; s++) {
        struct stage_options o = options_of(l, s);
        if ((rc = stage_create(l->o.model, &o, &l->stages[s], err)))
            return rc;
    }
    if (l->o.measure) {
        pthread_mutex_lock(&l->lock);
        snprintf(l->what, sizeof l->what, "measuring");
        l->done = l->total = 0;
        pthread_mutex_unlock(&l->lock);
        if ((rc = local_profile(l->o.model, l->stages, l->o.stage_count, l->pool, &l->profile, err)))
            return rc;
        l->profiled = true;
    }
    return 0;
}

static void unload(struct local_pipe *l)
{
    for (uint32_t s = 0; s < l->o.stage_count; s++)
        stage_destroy(l->stages[s]);
    if (l->table)
        sequence_table_destroy(l->table);
    for (int i = 0; i < 2; i++)
        if (l->activations[i])
            mem_unmap(l->activations[i], l->activation_bytes);
    pool_destroy(l->pool);
}

/* ---- Computing (compute thread) ---------------------------------------------------------------------------------- */

static int forward(struct local_pipe *l, const struct frame_work *w, struct frame_trace *trace, struct error *err)
{
    for (uint32_t s = 0; s < l->o.stage_count; s++) {
        bool last = s + 1 == l->o.stage_count;
        trace[s] = (struct frame_trace){.stage = s, .received_us = (uint64_t)clock_us()};
        trace[s].started_us = trace[s].received_us;
        int rc = stage_forward(l->stages[s], l->spans, w->span_count, s ? l->activations[(s - 1) & 1] : NULL,
                               last ? NULL : l->activations[s & 1], last ? l->results : NULL, err);
        if (rc)
            return rc;
        trace[s].finished_us = trace[s].sent_us = (uint64_t)clock_us();
    }
    return 0;
}

/* One allocation: the answer, its spans, traces, alternatives and floats. NULL when out of memory. */
static struct answer *write_answer(struct local_pipe *l, const struct frame_work *w, const struct frame_trace *trace,
                                   int rc, const struct error *error)
{
    struct frame_span_result spans[FRAME_SPANS_MAX]; /* as the stages left them */
    uint32_t count = rc ? 0 : w->span_count;
    size_t floats = 0, tops = 0;
    if (count)
        micro_batch_results(w, l->results, model_info(l->o.model)->vocabulary, spans);
    for (uint32_t i = 0; i < count; i++) {
        floats += spans[i].float_count;
        tops += spans[i].top_count;
    }
    size_t bytes = sizeof(struct answer) + count * sizeof *spans + l->o.stage_count * sizeof *trace +
                   tops * sizeof(struct frame_chosen) + floats * sizeof(float);
    struct answer *a = mem_zalloc(1, bytes);
    if (!a)
        return NULL;
    a->result.epoch = w->epoch;
    a->result.microbatch = w->microbatch;
    if (rc) {
        snprintf(a->error_text, sizeof a->error_text, "%s", error->text);
        a->result.error_code = rc;
        a->result.error_text = a->error_text;
        return a;
    }
    struct frame_trace *traces = (struct frame_trace *)(void *)(a + 1);
    struct frame_span_result *span = (struct frame_span_result *)(void *)(traces + l->o.stage_count);
    struct frame_chosen *top = (struct frame_chosen *)(void *)(span + count);
    float *values = (float *)(void *)(top + tops);
    memcpy(traces, trace, l->o.stage_count * sizeof *traces);
    a->result.trace = traces;
    a->result.trace_count = w->want_trace ? l->o.stage_count : 0;
    a->result.spans = span;
    a->result.span_count = count;
    a->result.float_bytes = floats * sizeof *values;
    for (uint32_t i = 0; i < count; i++, span++) {
        *span = spans[i];
        if (span->top_count)
            span->top = memcpy(top, span->top, span->top_count * sizeof *top);
        if (span->float_count)
            span->floats = memcpy(values, span->floats, span->float_count * sizeof *values);
        top += span->top_count;
        values += span->float_count;
    }
    return a;
}

static struct answer *compute(struct local_pipe *l, const struct job *job)
{
    struct error error = {0};
    struct frame_trace trace[FRAME_STAGES_MAX];
    const struct batch_place place = {.table = l->table, .stages = l->stages, .stage_count = l->o.stage_count};
    int rc = micro_batch_apply(&job->work, &place, l->spans, &error);
    if (!rc)
        rc = forward(l, &job->work, trace, &error);
    return write_answer(l, &job->work, trace, rc, &error);
}

static void *compute_thread(void *context)
{
    struct local_pipe *l = context;
    struct error error = {0};
    int rc = load(l, &error);
    pthread_mutex_lock(&l->lock);
    l->load_code = rc;
    l->load_error = error;
    l->loaded = true;
    pthread_cond_broadcast(&l->changed);
    while (!rc && !l->stop) {
        struct job *job = l->jobs;
        if (!job) {
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        if (!(l->jobs = job->next))
            l->jobs_end = &l->jobs;
        pthread_mutex_unlock(&l->lock);
        struct answer *answer = compute(l, job);
        mem_free(job);
        pthread_mutex_lock(&l->lock);
        if (!answer) { /* the pipe is broken: poll will say so */
            l->load_code = rc = error_set(&l->load_error, ERR_NOMEM, "out of memory for a result");
        } else {
            *l->answers_end = answer;
            l->answers_end = &answer->next;
        }
        waker_ring(l->o.waker);
    }
    pthread_mutex_unlock(&l->lock);
    unload(l);
    return NULL;
}

/* ---- The loop's side --------------------------------------------------------------------------------------------- */

static int local_submit(struct pipeline *p, const struct frame_work *work, struct error *err)
{
    struct local_pipe *l = (struct local_pipe *)p;
    struct job *job = job_copy(work);
    if (!job)
        return error_set(err, ERR_NOMEM, "out of memory for a micro-batch of %u tokens", work->tokens);
    pthread_mutex_lock(&l->lock);
    *l->jobs_end = job;
    l->jobs_end = &job->next;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

static int local_poll(struct pipeline *p, struct pipeline_result *out, struct error *err)
{
    struct local_pipe *l = (struct local_pipe *)p;
    pthread_mutex_lock(&l->lock);
    struct answer *a = l->answers;
    int rc = a ? 1 : l->load_code;
    if (a && !(l->answers = a->next))
        l->answers_end = &l->answers;
    if (rc < 0 && err)
        *err = l->load_error;
    pthread_mutex_unlock(&l->lock);
    if (a) {
        out->result = a->result;
        out->memory = a;
    }
    return rc;
}

static void local_release(struct pipeline *p, struct pipeline_result *result)
{
    (void)p;
    mem_free(result->memory);
    result->memory = NULL;
}

static void local_destroy(struct pipeline *p)
{
    struct local_pipe *l = (struct local_pipe *)p;
    if (l->started) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    while (l->jobs) {
        struct job *next = l->jobs->next;
        mem_free(l->jobs);
        l->jobs = next;
    }
    while (l->answers) {
        struct answer *next = l->answers->next;
        mem_free(l->answers);
        l->answers = next;
    }
    if (l->profiled)
        control_free(&l->profile);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    mem_free(l->last_block);
    mem_free(l->stages);
    mem_free(l->spans);
    mem_free(l->results);
    mem_free(l);
}

static const struct pipeline_kind local_kind = {local_submit, local_poll, local_release, local_destroy};

/* Waits for the compute thread to have loaded, passing its progress on. */
static int await_load(struct local_pipe *l, struct error *err)
{
    pthread_mutex_lock(&l->lock);
    while (!l->loaded) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 100000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&l->changed, &l->lock, &until);
        char what[sizeof l->what];
        memcpy(what, l->what, sizeof what);
        uint64_t done = l->done, total = l->total;
        pthread_mutex_unlock(&l->lock);
        if (l->o.on_progress)
            l->o.on_progress(l->o.context, what, done, total);
        pthread_mutex_lock(&l->lock);
    }
    int rc = l->load_code;
    if (rc && err)
        *err = l->load_error;
    pthread_mutex_unlock(&l->lock);
    return rc;
}

int pipeline_local_create(const struct pipeline_local_options *o, struct pipeline **out, struct error *err)
{
    struct local_pipe *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NOMEM, "out of memory for the pipeline");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    l->base.kind = &local_kind;
    l->o = *o;
    l->jobs_end = &l->jobs;
    l->answers_end = &l->answers;
    int rc = 0;
    if (o->stage_count > FRAME_STAGES_MAX) {
        rc = error_set(err, ERR_BOUND, "%u stages; at most %u", o->stage_count, FRAME_STAGES_MAX);
    } else if (!(l->last_block = mem_zalloc(o->stage_count, sizeof *l->last_block)) ||
               !(l->stages = mem_zalloc(o->stage_count, sizeof *l->stages)) ||
               !(l->spans = mem_zalloc(FRAME_SPANS_MAX, sizeof *l->spans)) ||
               !(l->results = mem_zalloc(FRAME_SPANS_MAX, sizeof *l->results))) {
        rc = error_set(err, ERR_NOMEM, "out of memory for the pipeline");
    } else {
        memcpy(l->last_block, o->last_block, o->stage_count * sizeof *l->last_block);
        l->o.last_block = l->last_block;
        int failed = pthread_create(&l->thread, NULL, compute_thread, l);
        if (failed)
            rc = error_set(err, ERR_IO, "cannot start the compute thread: %s", strerror(failed));
        l->started = !failed;
    }
    if (!rc)
        rc = await_load(l, err);
    if (rc) {
        local_destroy(&l->base);
        return rc;
    }
    *out = &l->base;
    return 0;
}

int pipeline_local_threads(const struct pipeline *p)
{
    return pool_threads(((const struct local_pipe *)p)->pool);
}

void pipeline_local_memory(const struct pipeline *p, uint32_t stage, struct stage_memory *out)
{
    stage_memory_used(((const struct local_pipe *)p)->stages[stage], out);
}

const struct control_message *pipeline_local_profile(const struct pipeline *p)
{
    const struct local_pipe *l = (const struct local_pipe *)p;
    return l->profiled ? &l->profile : NULL;
}

uint64_t pipeline_local_admissible(const struct pipeline *p)
{
    return ((const struct local_pipe *)p)->admissible;
}
