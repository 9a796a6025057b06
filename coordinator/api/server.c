/* Routes, keys, CORS, health; who may use the runner and when. Handlers run on HTTP threads. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/api/dashboard.h"
#include "coordinator/api/json_text.h"
#include "coordinator/api/server_state.h"

#define HTTP_THREADS 4
#define HTTP_CONNECTIONS 1024

static void handle_chat(struct api_server *s, struct http_call *call, unsigned key)
{
    completion_handle(s, call, key, true);
}

static void handle_text(struct api_server *s, struct http_call *call, unsigned key)
{
    completion_handle(s, call, key, false);
}

static void handle_tokenize(struct api_server *s, struct http_call *call, unsigned key)
{
    (void)key;
    tokenize_handle(s, call);
}

static void handle_detokenize(struct api_server *s, struct http_call *call, unsigned key)
{
    (void)key;
    detokenize_handle(s, call);
}

static void handle_health(struct api_server *s, struct http_call *call, unsigned key)
{
    (void)key;
    health_handle(s, call);
}

static void handle_status(struct api_server *s, struct http_call *call, unsigned key)
{
    (void)key;
    status_handle(s, call);
}

static void handle_metrics(struct api_server *s, struct http_call *call, unsigned key)
{
    struct runner_status status = {0};
    struct buffer b = {0};
    bool has = false;
    (void)key;
    enum api_health health = api_health_of(s, &status, &has);
    metrics_put(s->metrics, &b, has ? &status : NULL, health, (double)(clock_ms() - s->opened_ms) * 1e-3, http_live(s->http),
                s->o.model);
    runner_status_free(&status);
    api_reply(s, call, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

static void put_model(const struct api_server *s, struct buffer *b)
{
    buffer_puts(b, "{\"id\":");
    json_put_text(b, s->o.model, strlen(s->o.model));
    buffer_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"brigade\"}", s->created);
}

static void handle_models(struct api_server *s, struct http_call *call, unsigned key)
{
    struct buffer b = {0};
    (void)key;
    buffer_puts(&b, "{\"object\":\"list\",\"data\":[");
    put_model(s, &b);
    buffer_puts(&b, "]}");
    api_reply(s, call, 200, "application/json", &b);
}

#define MODEL_PATH "/v1/models/"
static void handle_model(struct api_server *s, struct http_call *call, unsigned key)
{
    struct buffer b = {0};
    struct api_error e = {0};
    const char *name = http_path(call) + strlen(MODEL_PATH);
    (void)key;
    if (strcmp(name, s->o.model)) {
        api_fail(&e, 404, "invalid_request_error", "model_not_found", "there is no model '%.100s' here; this one is '%.100s'",
                 name, s->o.model);
        api_reply_error(s, call, &e);
        return;
    }
    put_model(s, &b);
    api_reply(s, call, 200, "application/json", &b);
}

static void handle_dashboard(struct api_server *s, struct http_call *call, unsigned key)
{
    struct buffer b = {0};
    (void)key;
    buffer_append(&b, dashboard_html, dashboard_html_bytes);
    /* The page needs nothing from elsewhere, and the browser holds it to that. */
    http_header(call, "Content-Security-Policy",
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    http_header(call, "X-Content-Type-Options", "nosniff");
    api_reply(s, call, 200, "text/html; charset=utf-8", &b);
}

static const struct route {
    const char *path;
    bool post, open; /* open: no key needed */
    void (*handle)(struct api_server *s, struct http_call *call, unsigned key);
} routes[] = {
    {"/", false, true, handle_dashboard},
    {"/health", false, true, handle_health},
    {"/metrics", false, false, handle_metrics},
    {"/status", false, false, handle_status},
    {"/v1/models", false, false, handle_models},
    {MODEL_PATH, false, false, handle_model},
    {"/v1/chat/completions", true, false, handle_chat},
    {"/v1/completions", true, false, handle_text},
    {"/admin/drain", true, false, drain_handle},
    {"/admin/rebalance", true, false, rebalance_handle},
    {"/tokenize", true, false, handle_tokenize},
    {"/detokenize", true, false, handle_detokenize},
};

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (!strcmp(routes[i].path, path) ||
            (routes[i].handle == handle_model && !strncmp(path, MODEL_PATH, strlen(MODEL_PATH))))
            return &routes[i];
    return NULL;
}

/* ---- Replies -------------------------------------------------------------------------------------------------------- */

void api_put_cors(struct api_server *s, struct http_call *call)
{
    if (!*s->o.origin)
        return;
    http_header(call, "Access-Control-Allow-Origin", s->o.origin);
    http_header(call, "Access-Control-Expose-Headers", "Retry-After"); /* pages may read it */
    if (strcmp(s->o.origin, "*"))
        http_header(call, "Vary", "Origin");
}

void api_note_reply(struct api_server *s, struct http_call *call, unsigned status)
{
    const struct route *route = find_route(http_path(call));
    metrics_reply(s->metrics, route ? route->path : "other", status);
}

void api_reply(struct api_server *s, struct http_call *call, unsigned status, const char *type, struct buffer *body)
{
    api_put_cors(s, call);
    api_note_reply(s, call, status);
    http_reply(call, status, type, body);
}

void api_reply_error(struct api_server *s, struct http_call *call, const struct api_error *e)
{
    struct buffer b = {0};
    api_error_put(&b, e);
    api_reply(s, call, e->status, "application/json", &b);
}

static void reply_preflight(struct api_server *s, struct http_call *call)
{
    struct buffer empty = {0};
    if (*s->o.origin) {
        http_header(call, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
        http_header(call, "Access-Control-Allow-Headers", "*, Authorization, Content-Type");
        http_header(call, "Access-Control-Max-Age", "86400");
    }
    http_header(call, "Allow", "GET, POST, OPTIONS");
    api_reply(s, call, 204, "text/plain", &empty);
}

static void on_request(void *context, struct http_call *call)
{
    struct api_server *s = context;
    struct api_error e = {0};
    const char *method = http_method(call);
    const struct route *route = find_route(http_path(call));
    unsigned key = 0;
    if (!strcmp(method, "OPTIONS")) {
        reply_preflight(s, call);
        return;
    }
    if (s->keys && !(route && route->open) && !(key = api_keys_find(s->keys, http_authorization(call)))) {
        http_header(call, "WWW-Authenticate", "Bearer");
        api_fail(&e, 401, "invalid_request_error", "invalid_api_key", "%s",
                 http_authorization(call) ? "the API key is not one of this server's"
                                          : "this server wants an API key: send 'Authorization: Bearer KEY'");
    } else if (!route) {
        api_fail(&e, 404, "invalid_request_error", "not_found", "there is no '%.100s' here", http_path(call));
    } else if (route->post ? strcmp(method, "POST") : strcmp(method, "GET") && strcmp(method, "HEAD")) {
        http_header(call, "Allow", route->post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
        api_fail(&e, 405, "invalid_request_error", "method_not_allowed", "'%s' takes %s, not %.20s", route->path,
                 route->post ? "POST" : "GET", method);
    } else {
        route->handle(s, call, key);
        return;
    }
    api_reply_error(s, call, &e);
}

static void on_refused(void *context, struct http_call *call, enum http_refusal why)
{
    struct api_server *s = context;
    struct api_error e = {0};
    if (why == HTTP_STRANGE_CODING)
        api_fail(&e, 501, "invalid_request_error", "transfer_encoding", "this server reads Transfer-Encoding: chunked, or none");
    else
        api_fail(&e, 413, "invalid_request_error", "request_too_large", "the body has more than the %zu bytes that this server takes",
                 s->o.body_bytes_max);
    api_reply_error(s, call, &e);
}

/* ---- The runner ----------------------------------------------------------------------------------------------------- */

struct runner *api_borrow(struct api_server *s, struct api_error *e)
{
    pthread_rwlock_rdlock(&s->runner_lock);
    if (s->runner && !atomic_load(&s->stopping))
        return s->runner;
    pthread_rwlock_unlock(&s->runner_lock);
    if (atomic_load(&s->stopping)) {
        api_fail(e, 503, "server_error", "stopping", "the server is stopping");
    } else {
        pthread_mutex_lock(&s->note_lock);
        api_fail(e, 503, "server_error", s->trouble.code ? "cluster_lost" : "loading",
                 s->trouble.code ? "the model is not available now: %s" : "the model is loading (%s); try again soon",
                 s->trouble.code ? s->trouble.text : s->progress);
        pthread_mutex_unlock(&s->note_lock);
    }
    return NULL;
}

void api_unborrow(struct api_server *s)
{
    pthread_rwlock_unlock(&s->runner_lock);
}

enum api_health api_health_of(struct api_server *s, struct runner_status *status, bool *has_status)
{
    pthread_rwlock_rdlock(&s->runner_lock);
    enum api_health health = s->was_ready ? API_DEGRADED : API_LOADING;
    *has_status = s->runner && !runner_status(s->runner, status, NULL);
    pthread_rwlock_unlock(&s->runner_lock);
    if (*has_status)
        health = status->phase == RUNNER_READY ? API_READY : API_DEGRADED;
    for (uint32_t i = 0; *has_status && i < status->node_count; i++)
        if (status->nodes[i].has_stage && strcmp(status->nodes[i].state, "ready"))
            health = API_DEGRADED;
    return atomic_load(&s->stopping) ? API_STOPPING : health;
}

void api_progress(struct api_server *s, const struct runner_progress *p)
{
    pthread_mutex_lock(&s->note_lock);
    snprintf(s->progress, sizeof s->progress, "%s%s%.60s%s%.60s", runner_phase_name(p->phase), p->node ? " " : "",
             p->node ? p->node : "", p->what && *p->what ? ": " : "", p->what ? p->what : "");
    pthread_mutex_unlock(&s->note_lock);
}

int api_attach(struct api_server *s, struct runner *r, struct error *err)
{
    struct chat_prompt *chat = NULL;
    int rc = chat_prompt_open(runner_tokenizer(r), &chat, err);
    if (rc)
        return rc;
    const struct model_info *info = model_info(runner_model(r));
    uint32_t print = hash_crc32(hash_crc32(0, BRIGADE_VERSION, strlen(BRIGADE_VERSION)), &info->fingerprint,
                                sizeof info->fingerprint);
    pthread_rwlock_wrlock(&s->runner_lock);
    snprintf(s->fingerprint, sizeof s->fingerprint, "fp_%08x", print);
    s->runner = r;
    s->chat = chat;
    s->was_ready = true;
    pthread_rwlock_unlock(&s->runner_lock);
    pthread_mutex_lock(&s->note_lock);
    s->trouble = (struct error){0};
    snprintf(s->progress, sizeof s->progress, "ready");
    pthread_mutex_unlock(&s->note_lock);
    api_refresh(s);
    return 0;
}

void api_detach(struct api_server *s, const char *why)
{
    pthread_mutex_lock(&s->note_lock);
    error_set(&s->trouble, ERR_LOST, "%s", why);
    pthread_mutex_unlock(&s->note_lock);
    pthread_rwlock_wrlock(&s->runner_lock);
    struct chat_prompt *chat = s->chat;
    s->runner = NULL;
    s->chat = NULL;
    pthread_rwlock_unlock(&s->runner_lock);
    chat_prompt_close(chat);
}

bool api_has_template(struct api_server *s)
{
    pthread_rwlock_rdlock(&s->runner_lock);
    bool has = s->chat && !chat_prompt_is_plain(s->chat);
    pthread_rwlock_unlock(&s->runner_lock);
    return has;
}

void api_refresh(struct api_server *s)
{
    char *text = s->runner ? status_plan_json(s->runner) : NULL; /* only this thread attaches and detaches */
    if (!text)
        return;
    pthread_mutex_lock(&s->note_lock);
    char *old = s->plan_json;
    s->plan_json = text;
    pthread_mutex_unlock(&s->note_lock);
    mem_free(old);
}

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

static void destroy(struct api_server *s)
{
    api_keys_free(s->keys);
    metrics_destroy(s->metrics);
    mem_free(s->plan_json);
    pthread_rwlock_destroy(&s->runner_lock);
    pthread_mutex_destroy(&s->note_lock);
    mem_free(s);
}

int api_open(const struct api_options *options, struct api_server **out, struct error *err)
{
    struct api_server *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NOMEM, "out of memory for the server");
    s->o = *options;
    s->opened_ms = clock_ms();
    s->created = (long long)time(NULL);
    atomic_init(&s->stopping, false);
    pthread_rwlock_init(&s->runner_lock, NULL);
    pthread_mutex_init(&s->note_lock, NULL);
    snprintf(s->progress, sizeof s->progress, "starting");
    struct http_options http = {
        .host = s->o.host,
        .port = s->o.port,
        .body_bytes_max = s->o.body_bytes_max,
        .stream_bytes_max = s->o.stream_bytes_max,
        .body_seconds = s->o.read_seconds,
        .threads = HTTP_THREADS,
        .connections = HTTP_CONNECTIONS,
        .on_request = on_request,
        .on_refused = on_refused,
        .context = s,
    };
    int rc = (s->metrics = metrics_create()) ? 0 : error_set(err, ERR_NOMEM, "out of memory for the server");
    if (!rc && s->o.key_path)
        rc = api_keys_read(s->o.key_path, &s->keys, err);
    pthread_rwlock_wrlock(&s->runner_lock); /* a request that is quicker than http_open waits for s->http */
    if (!rc)
        rc = http_open(&http, &s->http, err);
    pthread_rwlock_unlock(&s->runner_lock);
    if (rc) {
        destroy(s);
        return rc;
    }
    *out = s;
    return 0;
}

uint16_t api_port(const struct api_server *s)
{
    return http_port(s->http);
}

void api_stop(struct api_server *s)
{
    atomic_store(&s->stopping, true);
    http_stop_accepting(s->http);
}

unsigned api_live(struct api_server *s)
{
    return http_live(s->http);
}

void api_close(struct api_server *s)
{
    if (!s)
        return;
    http_close(s->http);
    destroy(s);
}
