/* The door: options and their defaults, submissions by any thread through a mailbox, stepping. Owns everything a runner
 * holds and takes it down in order; what happens in between stands in bring_up.c and loop.c. */
#include "coordinator/core/runner.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/sensors.h"
#include "coordinator/core/runner_state.h"
#include "proto/rehearsal.h"

#define REBALANCE_LEAST 0.01 /* a gain below is noise, even when someone asks */

const char *runner_phase_name(enum runner_phase phase)
{
    static const char *const names[] = {"starting", "connecting", "profiling", "measuring",
                                        "planning", "loading",    "ready",     "failed", "waiting"};
    return (unsigned)phase < sizeof names / sizeof *names ? names[phase] : "unknown";
}

void runner_tell(struct runner *r, const char *node, const char *what, uint64_t done, uint64_t total)
{
    struct runner_progress progress = {r->phase, node, what ? what : "", done, total};
    if (r->o.on_progress)
        r->o.on_progress(r->o.context, &progress);
}

void runner_enter_phase(struct runner *r, enum runner_phase phase)
{
    if (r->phase == phase)
        return;
    r->phase = phase;
    runner_tell(r, NULL, "", 0, 0);
}

int runner_interrupted(const struct runner *r, struct error *err)
{
    return r->o.interrupt && *r->o.interrupt ? error_set(err, ERR_CANCELLED, "interrupted") : 0;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* Cache and context: what was asked for, else what the config says, else something that fits most boards. */
static int settle_cache(struct runner *r, struct error *err)
{
    struct runner_options *o = &r->o;
    const struct model_info *info = model_info(r->model);
    uint32_t trained = info->context ? info->context : 4096;
    r->kv = o->kv_given ? o->kv : r->config ? r->config->kv_type : KV_F16;
    if (!o->kv_tokens && r->config)
        o->kv_tokens = r->config->kv_tokens;
    if (!o->max_context) {
        o->max_context = trained < 4096 ? trained : 4096;
        if (o->kv_tokens && o->kv_tokens < o->max_context)
            o->max_context = o->kv_tokens;
    }
    if (!o->kv_tokens) {
        /* A sequence takes whole pages. */
        uint64_t pages = (o->max_context + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
                 all = o->sequences * pages * KV_PAGE_TOKENS,
                 enough = o->max_context > 16384 ? o->max_context : 16384;
        o->kv_tokens = (uint32_t)(all < enough ? all : enough);
    }
    if (o->kv_tokens < o->max_context)
        return error_set(err, ERR_USAGE,
                         "a cache of %u tokens cannot hold one context of %u tokens; raise the cache or "
                         "lower the context",
                         o->kv_tokens, o->max_context);
    r->kv_pages = (uint32_t)(((uint64_t)o->kv_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS);
    return 0;
}

static int settle_options(struct runner *r, struct error *err)
{
    struct runner_options *o = &r->o;
    o->sequences = o->sequences ? o->sequences : 16;
    o->queue = o->queue ? o->queue : 256;
    o->chunk_tokens = o->chunk_tokens ? o->chunk_tokens : 256;
    o->prompt_tokens = o->prompt_tokens ? o->prompt_tokens : 512;
    o->output_tokens = o->output_tokens ? o->output_tokens : 128;
    o->concurrency = o->concurrency ? o->concurrency : 1;
    if (o->sequences > FRAME_SPANS_MAX)
        return error_set(err, ERR_USAGE, "%u sequences at once; at most %u", o->sequences, FRAME_SPANS_MAX);
    if (o->chunk_tokens > FRAME_TOKENS_MAX - FRAME_SPANS_MAX)
        return error_set(err, ERR_USAGE, "chunks of %u tokens; at most %u", o->chunk_tokens,
                         FRAME_TOKENS_MAX - FRAME_SPANS_MAX);
    if (o->prompt_tokens > PLAN_MAX_CHUNKS * o->chunk_tokens)
        o->prompt_tokens = PLAN_MAX_CHUNKS * o->chunk_tokens; /* the workload planned for, no limit of what runs */
    for (uint32_t i = 0; o->split && i < o->split_count; i++)
        if (!o->split[i])
            return error_set(err, ERR_USAGE, "stage %u of the split has no block", i + 1);
    r->max_tokens = o->chunk_tokens + o->sequences;
    o->inexact |= r->config && !r->config->deterministic;
    bool asked_auto = o->codec == RUNNER_CODEC_AUTO || (!o->codec && r->config && r->config->codec_auto);
    r->codec = asked_auto ? CODEC_F32
               : o->codec ? (enum frame_codec)o->codec
               : r->config && r->config->codec ? r->config->codec : CODEC_F32;
    r->may_round = asked_auto;
    return 0;
}

static int open_model(struct runner *r, struct error *err)
{
    int rc;
    if (!r->o.model_path)
        return error_set(err, ERR_USAGE, "no model is given");
    if ((rc = kernels_init(err)) || (rc = model_open(r->o.model_path, &r->model, err)) ||
        (rc = tokenizer_open(model_gguf(r->model), &r->tokenizer, err)))
        return rc;
    return settle_cache(r, err);
}

int runner_prepare(struct runner *r, uint32_t stages, struct error *err)
{
    struct scheduler_options o = {
        .pages = r->kv_pages,
        .page_tokens = KV_PAGE_TOKENS,
        .max_context = r->o.max_context,
        .sequences = r->o.sequences,
        .queue = r->o.queue,
        .chunk_tokens = r->o.chunk_tokens,
        .want_trace = true,
        .stages = stages,
        .fixed_groups = r->o.microbatches > 0,
    };
    /* In this process stages compute one after the other. On workers each has a micro-batch at first; what they measure
     * may say that more (hops take long) or fewer (one stage is slow) are better. */
    o.groups = r->remote ? stages : 1;
    if (r->remote && r->o.objective == RUNNER_THROUGHPUT && r->plan.microbatches > 0)
        o.groups = (uint32_t)r->plan.microbatches;
    o.in_flight = !r->remote ? 1 : o.groups > 2 * stages ? o.groups : 2 * stages;
    if (r->o.microbatches)
        o.groups = o.in_flight = r->o.microbatches;
    r->groups = o.groups;
    r->next_deadline = INT64_MAX;
    int rc = r->scheduler ? scheduler_regroup(r->scheduler, stages, o.groups, o.in_flight, err)
                          : scheduler_create(&o, &r->scheduler, err);
    if (rc)
        return rc;
    struct stage_meter *meter = NULL;
    rc = stage_meter_create(stages, &meter, err);
    if (!rc) {
        stage_meter_destroy(r->meter);
        r->meter = meter;
    }
    return rc;
}

int runner_open(const struct runner_options *options, struct runner **out, struct error *err)
{
    struct runner *r = mem_zalloc(1, sizeof *r);
    struct error local = {0};
    err = err ? err : &local;
    if (!r)
        return error_set(err, ERR_NOMEM, "out of memory for the runner");
    r->o = *options;
    r->phase = RUNNER_STARTING;
    r->next_id = 1;
    r->mail_end = &r->mail;
    pthread_mutex_init(&r->state_lock, NULL);
    pthread_mutex_init(&r->mail_lock, NULL);
    int rc = 0;
    if (r->o.config_path)
        rc = config_read(r->o.config_path, &r->config, err);
    if (r->config) {
        r->rebalance.hold_us = r->config->rebalance_hold_us;
        r->rebalance.apart_us = r->config->rebalance_apart_us;
        r->rebalance.judge_us = r->config->rebalance_judge_us;
    }
    if (!rc)
        rc = settle_options(r, err);
    if (!rc && r->o.goal != RUNNER_LOOK)
        rc = open_model(r, err);
    if (!rc && r->o.goal == RUNNER_LOOK && !r->config)
        rc = error_set(err, ERR_USAGE, "there is no cluster to look at: give its cluster.yaml");
    if (!rc)
        rc = waker_create(&r->waker, err);
    if (!rc && r->o.awake)
        rc = awake_begin(&r->awake, AWAKE_PATH, err);
    if (!rc && !r->config && !r->o.stages)
        rc = energy_start(sensors_root(), &r->energy, err);
    if (!rc)
        rc = r->config || r->o.stages ? bring_up_cluster(r, err) : bring_up_here(r, err);
    if (rc) {
        runner_close(r);
        return rc;
    }
    runner_enter_phase(r, RUNNER_READY);
    *out = r;
    return 0;
}

static void drop_mail(struct runner *r)
{
    while (r->mail) {
        struct letter *next = r->mail->next;
        if (r->mail->request) {
            request_finish(r->mail->request, FINISH_CANCELLED, NULL, clock_us());
            request_destroy(r->mail->request);
        }
        mem_free(r->mail);
        r->mail = next;
    }
    r->mail_end = &r->mail;
}

void runner_close(struct runner *r)
{
    struct error gone = {0};
    if (!r)
        return;
    error_set(&gone, ERR_CANCELLED, "the runner was closed");
    pthread_mutex_lock(&r->mail_lock);
    r->closed = true;
    if (!r->closed_why.code)
        r->closed_why = gone;
    pthread_mutex_unlock(&r->mail_lock);
    drop_mail(r);
    if (r->scheduler)
        scheduler_cancel_all(r->scheduler, clock_us());
    scheduler_destroy(r->scheduler);
    refill_destroy(r->refill);
    stage_meter_destroy(r->meter);
    pipeline_destroy(r->pipe);
    for (uint32_t i = 0; i < r->control_count; i++)
        if (r->controls[i].link)
            link_close(r->controls[i].link, 0);
    offer_stop(r->offer);
    cluster_destroy(r->cluster);
    cluster_actions_free(&r->actions);
    spawn_stop(r->spawn);
    energy_close(r->energy);
    awake_end(&r->awake);
    rehearsal_destroy(r->rehearsal);
    if (r->hub)
        hub_destroy(r->hub);
    if (r->key)
        key_free(r->key);
    if (r->waker)
        waker_destroy(r->waker);
    plan_problem_free(r->problem);
    mem_free(r->token_rtt_seconds);
    mem_free(r->corrections);
    config_free(r->config);
    tokenizer_close(r->tokenizer);
    model_close(r->model);
    mem_free(r->controls);
    mem_free(r->wait_links);
    mem_free(r->wait_ready);
    pthread_mutex_destroy(&r->state_lock);
    pthread_mutex_destroy(&r->mail_lock);
    mem_free(r);
}

const struct model *runner_model(const struct runner *r)
{
    return r->model;
}

const struct tokenizer *runner_tokenizer(const struct runner *r)
{
    return r->tokenizer;
}

uint32_t runner_max_context(const struct runner *r)
{
    return r->o.max_context;
}

const struct plan *runner_plan(const struct runner *r)
{
    return r->planned ? &r->plan : NULL;
}

const struct plan_problem *runner_problem(const struct runner *r)
{
    return r->problem;
}

uint32_t runner_chunk(const struct runner *r)
{
    return r->o.chunk_tokens;
}

uint32_t runner_microbatches(const struct runner *r)
{
    return r->groups;
}

/* ---- The mailbox (any thread) ------------------------------------------------------------------------------------ */

int runner_submit(struct runner *r, const struct request_options *options, uint64_t *id, struct error *err)
{
    struct request *request = NULL;
    struct letter *letter = NULL;
    if (!r->model || !r->scheduler)
        return error_set(err, ERR_USAGE, "this runner only looks or plans; it answers no requests");
    pthread_mutex_lock(&r->mail_lock);
    int rc = 0;
    if (r->closed)
        rc = error_set(err, r->closed_why.code, "%s", r->closed_why.text);
    else if (r->inside >= r->o.sequences + r->o.queue)
        rc = error_set(err, ERR_BUSY, "%u requests run or wait already: the queue is full, try again later", r->inside);
    if (!rc) {
        r->inside++;
        *id = r->next_id++;
    }
    uint64_t mine = rc ? 0 : *id;
    pthread_mutex_unlock(&r->mail_lock);
    if (rc)
        return rc;
    rc = request_create(options, mine, r->tokenizer, model_info(r->model)->vocabulary, r->o.max_context, clock_us(),
                        &request, err);
    if (!rc && !(letter = mem_zalloc(1, sizeof *letter)))
        rc = error_set(err, ERR_NOMEM, "out of memory for a request");
    pthread_mutex_lock(&r->mail_lock);
    if (rc) {
        r->inside--;
    } else {
        letter->request = request;
        *r->mail_end = letter;
        r->mail_end = &letter->next;
    }
    pthread_mutex_unlock(&r->mail_lock);
    if (rc)
        request_destroy(request);
    else
        waker_ring(r->waker);
    return rc;
}

void runner_cancel(struct runner *r, uint64_t id)
{
    struct letter *letter = mem_zalloc(1, sizeof *letter);
    if (!letter)
        return; /* the request runs to its end */
    letter->cancel = id;
    pthread_mutex_lock(&r->mail_lock);
    *r->mail_end = letter;
    r->mail_end = &letter->next;
    pthread_mutex_unlock(&r->mail_lock);
    waker_ring(r->waker);
}

void runner_wake(struct runner *r)
{
    waker_ring(r->waker);
}

bool runner_busy(const struct runner *r)
{
    struct runner *shared = (struct runner *)(uintptr_t)r;
    pthread_mutex_lock(&shared->mail_lock);
    bool busy = shared->inside > 0;
    pthread_mutex_unlock(&shared->mail_lock);
    return busy;
}

void runner_refuse(struct runner *r, const struct error *why)
{
    pthread_mutex_lock(&r->mail_lock);
    r->closed = true;
    r->closed_why = *why;
    pthread_mutex_unlock(&r->mail_lock);
}

void runner_reopen(struct runner *r)
{
    pthread_mutex_lock(&r->mail_lock);
    r->closed = false;
    r->closed_why = (struct error){0};
    pthread_mutex_unlock(&r->mail_lock);
}

/* ---- Stepping ---------------------------------------------------------------------------------------------------- */

/* Ends everything with the failure, and refuses what comes later. */
static int give_up(struct runner *r, struct error *err)
{
    pthread_mutex_lock(&r->mail_lock);
    r->closed = true;
    r->closed_why = r->failure;
    struct letter *mail = r->mail;
    r->mail = NULL;
    r->mail_end = &r->mail;
    pthread_mutex_unlock(&r->mail_lock);
    if (r->scheduler)
        scheduler_fail(r->scheduler, &r->failure, clock_us());
    while (mail) {
        struct letter *next = mail->next;
        if (mail->request) {
            request_finish(mail->request, FINISH_ERROR, &r->failure, clock_us());
            request_destroy(mail->request);
        }
        mem_free(mail);
        mail = next;
    }
    pthread_mutex_lock(&r->mail_lock);
    r->inside = 0;
    pthread_mutex_unlock(&r->mail_lock);
    r->phase = RUNNER_FAILED;
    return error_set(err, r->failure.code, "%s", r->failure.text);
}

int runner_step(struct runner *r, int timeout_ms, struct error *err)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : clock_us() + (int64_t)timeout_ms * 1000;
    struct error failure = {0};
    int rc = runner_interrupted(r, err);
    if (rc)
        return rc;
    for (;;) {
        pthread_mutex_lock(&r->state_lock);
        r->progressed = false;
        rc = r->failure.code ? r->failure.code : loop_pass(r, &failure);
        if (rc && !r->failure.code)
            r->failure = failure;
        if (r->failure.code)
            rc = give_up(r, err);
        pthread_mutex_unlock(&r->state_lock);
        if (rc || r->progressed || clock_us() >= until)
            return rc;
        if ((rc = loop_wait(r, until, err)))
            return rc;
        if ((rc = runner_interrupted(r, err)))
            return rc;
    }
}

/* ---- Moves that a person asks for (any thread) -------------------------------------------------------------------- */

static int can_move(const struct runner *r, struct error *err)
{
    if (!r->cluster || r->o.no_recovery)
        return error_set(err, ERR_USAGE, "there is no cluster whose blocks could move%s",
                         r->cluster ? ": recovery is switched off" : "");
    return r->flowing ? 0 : error_set(err, ERR_BUSY, "blocks are on the move already; try again in a moment");
}

int runner_drain(struct runner *r, const char *node, bool drained, struct error *err)
{
    pthread_mutex_lock(&r->state_lock);
    uint32_t i = 0, n = r->cluster ? cluster_node_count(r->cluster) : 0;
    int rc = can_move(r, err);
    while (i < n && strcmp(cluster_node_at(r->cluster, i)->name, node))
        i++;
    if (!rc && i == n)
        rc = error_set(err, ERR_NOTFOUND, "no node has the name \"%.64s\"", node);
    if (!rc && cluster_node_at(r->cluster, i)->drained != drained) {
        cluster_set_drained(r->cluster, i, drained);
        if (drained && (rc = replan_possible(r, err))) {
            error_prefix(err, "without \"%.64s\"", node);
            cluster_set_drained(r->cluster, i, false);
        }
        if (!rc && (!drained || cluster_node_at(r->cluster, i)->has_stage))
            snprintf(r->asked_move, sizeof r->asked_move, "worker \"%.64s\" is %s", node,
                     drained ? "drained: its blocks move" : "to work again");
    }
    pthread_mutex_unlock(&r->state_lock);
    waker_ring(r->waker);
    return rc;
}

int runner_rebalance(struct runner *r, double *gain_percent, struct error *err)
{
    double gain = 0;
    pthread_mutex_lock(&r->state_lock);
    int rc = can_move(r, err);
    if (!rc && !replan_gain(r, &gain))
        gain = 0; /* nothing was measured yet that could speak for a move */
    if (!rc && gain > REBALANCE_LEAST)
        snprintf(r->asked_move, sizeof r->asked_move, "rebalancing: another plan is %.0f %% faster", gain * 100);
    pthread_mutex_unlock(&r->state_lock);
    waker_ring(r->waker);
    if (!rc)
        *gain_percent = gain > REBALANCE_LEAST ? gain * 100 : 0;
    return rc;
}
