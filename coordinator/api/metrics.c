/* Histograms and counters under one lock, and their text in Prometheus's exposition format 0.0.4. */
#include "coordinator/api/metrics.h"

#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/api/json_text.h"

static const double bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
#define BOUNDS (sizeof bounds / sizeof *bounds)
#define REPLIES_MAX 128

struct histogram {
    uint64_t counts[BOUNDS + 1];
    double sum;
};

enum { TTFT, TPOT, E2EL, QUEUED, HISTOGRAMS };

struct metrics {
    pthread_mutex_t lock;
    struct histogram histograms[HISTOGRAMS];
    uint64_t finished[FINISH_ERROR + 1];
    uint64_t prompt_tokens, generated_tokens, hangups, slow_readers;
    struct {
        const char *path;
        unsigned status;
        uint64_t count;
    } replies[REPLIES_MAX];
    unsigned reply_kinds;
    bool energy_known;      /* the readings of the first scrape */
    double first_joules;
    uint64_t first_tokens, first_requests;
};

struct metrics *metrics_create(void)
{
    struct metrics *m = mem_zalloc(1, sizeof *m);
    if (m)
        pthread_mutex_init(&m->lock, NULL);
    return m;
}

void metrics_destroy(struct metrics *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

static void observe(struct histogram *h, double seconds)
{
    size_t i = 0;
    while (i < BOUNDS && seconds > bounds[i])
        i++;
    h->counts[i]++;
    h->sum += seconds;
}

void metrics_finish(struct metrics *m, const struct request_finish *f)
{
    const struct request_timing *t = &f->timing;
    pthread_mutex_lock(&m->lock);
    m->finished[f->reason]++;
    m->prompt_tokens += f->prompt_tokens;
    m->generated_tokens += f->generated_tokens;
    if (t->started_us)
        observe(&m->histograms[QUEUED], (double)(t->started_us - t->arrived_us) * 1e-6);
    if (t->first_token_us)
        observe(&m->histograms[TTFT], (double)(t->first_token_us - t->arrived_us) * 1e-6);
    if (f->generated_tokens > 1)
        observe(&m->histograms[TPOT], (double)(t->last_token_us - t->first_token_us) * 1e-6 / (f->generated_tokens - 1));
    if (f->reason == FINISH_STOP || f->reason == FINISH_LENGTH)
        observe(&m->histograms[E2EL], (double)(t->finished_us - t->arrived_us) * 1e-6);
    pthread_mutex_unlock(&m->lock);
}

void metrics_reply(struct metrics *m, const char *path, unsigned status)
{
    unsigned i = 0;
    pthread_mutex_lock(&m->lock);
    while (i < m->reply_kinds && (m->replies[i].status != status || strcmp(m->replies[i].path, path)))
        i++;
    if (i < REPLIES_MAX) {
        m->replies[i].path = path;
        m->replies[i].status = status;
        m->replies[i].count++;
        if (i == m->reply_kinds)
            m->reply_kinds++;
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_hangup(struct metrics *m)
{
    pthread_mutex_lock(&m->lock);
    m->hangups++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_slow_reader(struct metrics *m)
{
    pthread_mutex_lock(&m->lock);
    m->slow_readers++;
    pthread_mutex_unlock(&m->lock);
}

double metrics_mean_seconds(struct metrics *m)
{
    uint64_t n = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i <= BOUNDS; i++)
        n += m->histograms[E2EL].counts[i];
    double mean = n ? m->histograms[E2EL].sum / (double)n : 0;
    pthread_mutex_unlock(&m->lock);
    return mean;
}

/* ---- The text ------------------------------------------------------------------------------------------------------- */

static void put_family(struct buffer *b, const char *name, const char *type, const char *help)
{
    buffer_printf(b, "# HELP brigade_%s %s\n# TYPE brigade_%s %s\n", name, help, name, type);
}

static void put_value(struct buffer *b, const char *name, const char *type, const char *help, double value)
{
    put_family(b, name, type, help);
    buffer_printf(b, "brigade_%s %.17g\n", name, value);
}

static void put_histogram(struct buffer *b, const char *name, const char *help, const struct histogram *h)
{
    uint64_t n = 0;
    put_family(b, name, "histogram", help);
    for (size_t i = 0; i < BOUNDS; i++) {
        n += h->counts[i];
        buffer_printf(b, "brigade_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], (unsigned long long)n);
    }
    n += h->counts[BOUNDS];
    buffer_printf(b, "brigade_%s_bucket{le=\"+Inf\"} %llu\nbrigade_%s_sum %.9g\nbrigade_%s_count %llu\n", name,
                  (unsigned long long)n, name, h->sum, name, (unsigned long long)n);
}

static void put_own(const struct metrics *m, struct buffer *b)
{
    put_histogram(b, "ttft_seconds", "Time to first token, from arrival.", &m->histograms[TTFT]);
    put_histogram(b, "tpot_seconds", "Time per output token after the first.", &m->histograms[TPOT]);
    put_histogram(b, "e2el_seconds", "End-to-end latency of answers that came to their end.", &m->histograms[E2EL]);
    put_histogram(b, "queue_seconds", "From arrival to the first computed token.", &m->histograms[QUEUED]);
    put_family(b, "requests_finished_total", "counter", "Finished generations by reason.");
    for (int i = FINISH_STOP; i <= FINISH_ERROR; i++)
        buffer_printf(b, "brigade_requests_finished_total{reason=\"%s\"} %llu\n", finish_reason_name((enum finish_reason)i),
                      (unsigned long long)m->finished[i]);
    put_value(b, "prompt_tokens_total", "counter", "Prompt tokens of finished generations.", (double)m->prompt_tokens);
    put_value(b, "generated_tokens_total", "counter", "Generated tokens of finished generations.", (double)m->generated_tokens);
    put_value(b, "hangups_total", "counter", "Clients that went away before their answer was whole.", (double)m->hangups);
    put_value(b, "slow_readers_total", "counter", "Streams ended because the client did not read them.", (double)m->slow_readers);
    put_family(b, "http_replies_total", "counter", "Replies by path and status.");
    for (unsigned i = 0; i < m->reply_kinds; i++)
        buffer_printf(b, "brigade_http_replies_total{path=\"%s\",status=\"%u\"} %llu\n", m->replies[i].path,
                      m->replies[i].status, (unsigned long long)m->replies[i].count);
}

static void put_label(struct buffer *b, const char *name, const char *value)
{
    buffer_printf(b, "%s=", name);
    json_put_text(b, value, strlen(value)); /* the same escapes for backslash, quote and line end */
}

static void put_stages(const struct runner_status *s, struct buffer *b)
{
    static const struct {
        const char *name, *help;
    } families[] = {
        {"stage_busy_seconds_total", "Time that a stage computed, by its own clock."},
        {"stage_wait_seconds_total", "Time between having a micro-batch and starting it."},
        {"stage_microbatches_total", "Micro-batches computed."},
        {"stage_tokens_total", "Tokens computed, prompts' and generated ones."},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        put_family(b, families[f].name, "counter", families[f].help);
        for (uint32_t i = 0; i < s->stage_count; i++) {
            const struct runner_stage *t = &s->stages[i];
            const double values[] = {t->compute_seconds, t->wait_seconds, (double)t->microbatches, (double)t->tokens};
            buffer_printf(b, "brigade_%s{stage=\"%u\"} %.17g\n", families[f].name, i, values[f]);
        }
    }
    put_family(b, "stage_decode_seconds", "gauge", "Median time of the last micro-batches that only decoded.");
    for (uint32_t i = 0; i < s->stage_count; i++)
        buffer_printf(b, "brigade_stage_decode_seconds{stage=\"%u\"} %.9g\n", i, s->stages[i].decode_seconds);
    put_family(b, "stage_batch_tokens", "gauge", "Mean tokens of a micro-batch.");
    for (uint32_t i = 0; i < s->stage_count; i++)
        buffer_printf(b, "brigade_stage_batch_tokens{stage=\"%u\"} %.9g\n", i,
                      s->stages[i].microbatches ? (double)s->stages[i].tokens / (double)s->stages[i].microbatches : 0.0);
}

static void put_nodes(const struct runner_status *s, struct buffer *b)
{
    static const struct {
        const char *name, *type, *help;
    } families[] = {
        {"node_ready", "gauge", "1 when the node is ready."},
        {"node_memory_bytes", "gauge", "Memory admitted."},
        {"node_resident_bytes", "gauge", "Memory in use by the worker."},
        {"node_busy_seconds_total", "counter", "Time that the node computed."},
        {"node_bytes_in_total", "counter", "Bytes of frames received."},
        {"node_bytes_out_total", "counter", "Bytes of frames sent."},
        {"node_weights_in_bytes_total", "counter", "Bytes of model files received."},
        {"node_weights_out_bytes_total", "counter", "Bytes of model files sent."},
        {"node_refused_total", "counter", "Connections refused for their key."},
        {"node_rtt_seconds", "gauge", "Round trip of heartbeats."},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        put_family(b, families[f].name, families[f].type, families[f].help);
        for (uint32_t i = 0; i < s->node_count; i++) {
            const struct runner_node *n = &s->nodes[i];
            const double values[] = {!strcmp(n->state, "ready"), (double)n->memory_bytes, (double)n->resident_bytes,
                                     (double)n->busy_us * 1e-6, (double)n->bytes_in, (double)n->bytes_out,
                                     (double)n->weights_in, (double)n->weights_out, (double)n->refused, n->rtt_seconds};
            buffer_printf(b, "brigade_%s{", families[f].name);
            put_label(b, "node", n->name);
            buffer_printf(b, "} %.17g\n", values[f]);
        }
    }
    put_family(b, "link_bytes_per_second", "gauge", "Bandwidth of a link, measured or from the configuration.");
    for (uint32_t i = 0; i < s->link_count; i++) {
        buffer_puts(b, "brigade_link_bytes_per_second{");
        put_label(b, "from", s->links[i].from);
        buffer_putc(b, ',');
        put_label(b, "to", s->links[i].to);
        buffer_printf(b, "} %.9g\n", s->links[i].bytes_per_s);
    }
}

static void put_batches(const struct scheduler_batches *batches, struct buffer *b)
{
    uint64_t n = 0;
    put_family(b, "microbatch_tokens", "histogram", "Micro-batches by their tokens.");
    for (unsigned i = 0; i + 1 < SCHEDULER_BATCH_BUCKETS; i++) {
        n += batches->buckets[i];
        buffer_printf(b, "brigade_microbatch_tokens_bucket{le=\"%u\"} %llu\n", 1u << i, (unsigned long long)n);
    }
    buffer_printf(b,
                  "brigade_microbatch_tokens_bucket{le=\"+Inf\"} %llu\nbrigade_microbatch_tokens_sum %llu\n"
                  "brigade_microbatch_tokens_count %llu\n",
                  (unsigned long long)batches->count, (unsigned long long)batches->tokens,
                  (unsigned long long)batches->count);
}

static void put_runner(const struct runner_status *s, struct buffer *b)
{
    put_value(b, "requests_running", "gauge", "Sequences that compute now.", s->running);
    put_value(b, "requests_queued", "gauge", "Requests that wait.", s->queued);
    put_value(b, "kv_pages", "gauge", "Pages of the cache.", s->pages);
    put_value(b, "kv_pages_used", "gauge", "Pages in use.", s->pages_used);
    put_value(b, "kv_pages_idle", "gauge", "Pages kept for prompts that begin like earlier ones; free when needed.",
              s->pages_idle);
    put_value(b, "prefix_hits_total", "counter", "Requests that began on kept pages.", (double)s->prefix_hits);
    put_value(b, "prefix_misses_total", "counter", "Requests that found no kept page.", (double)s->prefix_misses);
    put_value(b, "prompt_tokens_shared_total", "counter", "Prompt tokens found on kept pages and not computed again.",
              (double)s->tokens_shared);
    put_value(b, "preemptions_total", "counter", "Times a request made room for others, to be computed again later.",
              (double)s->preempted);
    put_batches(&s->batches, b);
    put_value(b, "microbatches_in_flight", "gauge", "Micro-batches under way.", s->microbatches);
    put_value(b, "microbatches_in_flight_max", "gauge", "Most micro-batches that may be under way.", s->microbatches_max);
    put_value(b, "tokens_in_total", "counter", "Prompt tokens computed.", (double)s->tokens_in);
    put_value(b, "tokens_out_total", "counter", "Tokens generated.", (double)s->tokens_out);
    put_value(b, "requests_done_total", "counter", "Generations that came to their end.", (double)s->requests_done);
    put_value(b, "requests_failed_total", "counter", "Generations that failed.", (double)s->requests_failed);
    put_value(b, "requests_cancelled_total", "counter", "Generations that were cancelled.", (double)s->requests_cancelled);
    put_value(b, "recoveries_total", "counter", "Losses and moves after which the answers went on.", s->recoveries);
    put_value(b, "recovery_seconds", "gauge", "How long the last one took.", s->recovery_seconds);
    put_family(b, "replay_tokens_total", "counter",
               "Tokens of sequences that lived through a loss or a move: kept by all stages, filled in from what stages "
               "had sent on, computed again.");
    buffer_printf(b,
                  "brigade_replay_tokens_total{how=\"kept\"} %llu\nbrigade_replay_tokens_total{how=\"resent\"} %llu\n"
                  "brigade_replay_tokens_total{how=\"computed\"} %llu\n",
                  (unsigned long long)s->replay_kept, (unsigned long long)s->replay_resent,
                  (unsigned long long)s->replay_computed);
    put_value(b, "epoch", "gauge", "Epoch of the plan in use.", (double)s->epoch);
    put_stages(s, b);
    put_value(b, "energy_machines_measured", "gauge", "Machines whose energy is measured; without one the energy is absent.",
              s->energy.measured);
    if (s->energy.measured) {
        put_value(b, "energy_joules_total", "counter", "Energy of the machines that are measured, idle time included.",
                  s->energy.joules);
        put_value(b, "power_watts", "gauge", "Their power now.", s->energy.watts);
    }
    if (s->node_count)
        put_nodes(s, b);
}

/* Since the first look at it: what a token and a request have cost, idle time included. */
static void put_energy_cost(struct metrics *m, const struct runner_status *s, struct buffer *b)
{
    if (!s->energy.measured)
        return;
    if (!m->energy_known || s->energy.joules < m->first_joules) {
        m->energy_known = true;
        m->first_joules = s->energy.joules;
        m->first_tokens = s->tokens_out;
        m->first_requests = s->requests_done;
    }
    double joules = s->energy.joules - m->first_joules;
    if (s->tokens_out > m->first_tokens)
        put_value(b, "joules_per_token", "gauge", "Energy for each generated token, since the first scrape.",
                  joules / (double)(s->tokens_out - m->first_tokens));
    if (s->requests_done > m->first_requests)
        put_value(b, "joules_per_request", "gauge", "Energy for each request that came to its end, since the first scrape.",
                  joules / (double)(s->requests_done - m->first_requests));
}

void metrics_put(struct metrics *m, struct buffer *b, const struct runner_status *status, int health, double uptime_seconds,
                 unsigned http_live, const char *model)
{
    put_family(b, "info", "gauge", "Version and model.");
    buffer_puts(b, "brigade_info{version=\"" BRIGADE_VERSION "\",");
    put_label(b, "model", model);
    buffer_puts(b, "} 1\n");
    put_value(b, "health", "gauge", "0 loading, 1 ready, 2 degraded, 3 stopping.", health);
    put_value(b, "uptime_seconds", "gauge", "Since the server was started.", uptime_seconds);
    put_value(b, "http_requests_live", "gauge", "HTTP requests being answered.", http_live);
    pthread_mutex_lock(&m->lock);
    put_own(m, b);
    if (status)
        put_energy_cost(m, status, b);
    pthread_mutex_unlock(&m->lock);
    if (status)
        put_runner(status, b);
}
