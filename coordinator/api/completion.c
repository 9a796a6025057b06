/* One HTTP request for completions: its choices are requests of the runner, whose tokens become events of a stream or
 * one whole answer.
 *
 * An HTTP thread parses and submits; the runner's thread writes; whoever notices a hang-up cancels. A choice belongs to
 * the runner's thread from its submission on. Counted references: one of the HTTP reply, one of each choice that runs. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "coordinator/api/prompt_log.h"
#include "coordinator/api/logprobs.h"
#include "coordinator/api/openai_request.h"
#include "coordinator/api/openai_response.h"
#include "coordinator/api/server_state.h"

struct completion;

struct choice {
    struct completion *whole;
    uint32_t index;
    uint64_t released;          /* bytes of generated text that went out */
    struct buffer text;         /* of a whole answer */
    struct logprobs logprobs;
    const char *finish_reason;
};

struct completion {
    struct api_server *server;
    struct runner *runner;      /* for its own thread */
    struct http_call *call;
    struct response_head head;
    char model[128];
    bool stream, wants_logprobs;
    atomic_uint references;
    atomic_bool dead;           /* nobody wants more of it */
    uint32_t prompt_count, per_prompt, choice_count;
    struct token_list *prompts;
    struct choice *choices;
    struct response_usage usage; /* the runner's thread, until all are finished */

    pthread_mutex_t lock;       /* what follows */
    uint64_t *ids;              /* of the runner; 0: not submitted */
    uint32_t running;           /* choices not finished, submitted or not */
    bool cancelled;
};

static void release(struct completion *c)
{
    if (atomic_fetch_sub(&c->references, 1) != 1)
        return;
    for (uint32_t i = 0; i < c->choice_count; i++) {
        buffer_free(&c->choices[i].text);
        logprobs_free(&c->choices[i].logprobs);
    }
    for (uint32_t i = 0; i < c->prompt_count; i++)
        token_list_free(&c->prompts[i]);
    mem_free(c->prompts);
    mem_free(c->choices);
    mem_free(c->ids);
    if (c->call)
        http_call_release(c->call);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

/* Ends all choices soon; with a runner that is known to live. */
static void cancel_all(struct completion *c, struct runner *runner)
{
    atomic_store(&c->dead, true);
    pthread_mutex_lock(&c->lock);
    bool first = !c->cancelled;
    c->cancelled = true; /* from now on submit_all cancels what it submits */
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; first && i < c->choice_count; i++) {
        pthread_mutex_lock(&c->lock);
        uint64_t id = c->ids[i];
        pthread_mutex_unlock(&c->lock);
        if (id)
            runner_cancel(runner, id);
    }
}

static void on_over(void *context, bool delivered)
{
    struct completion *c = context;
    if (!delivered) {
        metrics_hangup(c->server->metrics);
        atomic_store(&c->dead, true);
        pthread_rwlock_rdlock(&c->server->runner_lock);
        if (c->server->runner == c->runner) /* else it is gone and has finished everything itself */
            cancel_all(c, c->runner);
        pthread_rwlock_unlock(&c->server->runner_lock);
    }
    release(c);
}

/* ---- The runner's thread -------------------------------------------------------------------------------------------- */

static void fail(struct completion *c, const struct api_error *e, bool cancel)
{
    struct buffer b = {0};
    if (atomic_exchange(&c->dead, true))
        return;
    if (c->stream) {
        buffer_puts(&b, "data: ");
        api_error_put(&b, e);
        buffer_puts(&b, "\n\n");
        http_end(c->call, b.data);
        buffer_free(&b);
    } else {
        api_reply_error(c->server, c->call, e);
    }
    if (cancel)
        cancel_all(c, c->runner); /* on its own thread it lives, and its locks come before ours */
}

static void fail_memory(struct completion *c)
{
    struct api_error e;
    api_fail(&e, 500, "server_error", NULL, "out of memory for the answer");
    fail(c, &e, true);
}

/* Sends an event; a reader who does not read loses the stream. */
static void send_event(struct completion *c, struct buffer *event)
{
    struct api_error e;
    int rc = event->failed ? ERR_NOMEM : http_write(c->call, event->data, event->size);
    if (rc == ERR_BOUND) {
        metrics_slow_reader(c->server->metrics);
        api_fail(&e, 503, "server_error", "slow_reader", "%zu bytes wait to be read: the stream is ended",
                 c->server->o.stream_bytes_max);
        fail(c, &e, true);
    } else if (rc && rc != ERR_CANCELLED) { /* a client that is gone is noticed elsewhere */
        fail_memory(c);
    }
}

static void send_chunk(struct choice *ch, const char *text, size_t bytes, const char *finish_reason)
{
    struct completion *c = ch->whole;
    struct buffer event = {0}, logprobs = {0};
    if (ch->logprobs.ready)
        logprobs_put(&ch->logprobs, &logprobs);
    struct response_choice part = {
        .index = ch->index,
        .text = text,
        .text_bytes = bytes,
        .logprobs = logprobs.data,
        .finish_reason = finish_reason,
    };
    response_put_chunk(&event, &c->head, &part);
    send_event(c, &event);
    buffer_free(&event);
    buffer_free(&logprobs);
}

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    struct choice *ch = context;
    struct completion *c = ch->whole;
    int rc = 0;
    (void)id;
    if (atomic_load(&c->dead))
        return;
    ch->released += token->text_bytes;
    if (c->wants_logprobs) {
        rc = logprobs_add(&ch->logprobs, token);
        if (!rc)
            rc = logprobs_release(&ch->logprobs, ch->released, false);
    }
    if (!rc && !c->stream)
        rc = buffer_append(&ch->text, token->text, token->text_bytes);
    if (rc)
        fail_memory(c);
    else if (c->stream && (token->text_bytes || ch->logprobs.ready))
        send_chunk(ch, token->text, token->text_bytes, NULL);
}

/* The last words of a choice. */
static void finish_choice(struct choice *ch, const struct request_finish *finish)
{
    struct completion *c = ch->whole;
    int rc = 0;
    ch->released += finish->text_bytes;
    ch->finish_reason = finish_reason_name(finish->reason);
    if (c->wants_logprobs)
        rc = logprobs_release(&ch->logprobs, ch->released, !finish->stop);
    if (!rc && !c->stream)
        rc = buffer_append(&ch->text, finish->text, finish->text_bytes);
    if (rc) {
        fail_memory(c);
    } else if (c->stream) {
        if (c->head.chat && (finish->text_bytes || ch->logprobs.ready)) {
            send_chunk(ch, finish->text, finish->text_bytes, NULL);
            send_chunk(ch, "", 0, ch->finish_reason);
        } else {
            send_chunk(ch, finish->text, finish->text_bytes, ch->finish_reason);
        }
    }
}

static void finish_all(struct completion *c)
{
    struct buffer b = {0};
    if (atomic_load(&c->dead))
        return;
    if (c->stream) {
        if (c->head.include_usage) {
            response_put_usage_chunk(&b, &c->head, &c->usage);
            send_event(c, &b);
            buffer_free(&b);
        }
        if (!atomic_load(&c->dead))
            http_end(c->call, RESPONSE_DONE);
        return;
    }
    response_begin(&b, &c->head);
    for (uint32_t i = 0; i < c->choice_count; i++) {
        struct choice *ch = &c->choices[i];
        struct buffer logprobs = {0};
        if (c->wants_logprobs)
            logprobs_put(&ch->logprobs, &logprobs);
        response_put_choice(&b, &c->head,
                            &(struct response_choice){
                                .index = i,
                                .text = ch->text.data ? ch->text.data : "",
                                .text_bytes = ch->text.size,
                                .logprobs = logprobs.data,
                                .finish_reason = ch->finish_reason,
                            });
        buffer_free(&logprobs);
    }
    response_finish(&b, &c->usage);
    if (b.failed) {
        buffer_free(&b);
        fail_memory(c);
    } else {
        api_reply(c->server, c->call, 200, "application/json", &b);
    }
}

static void one_less(struct completion *c)
{
    pthread_mutex_lock(&c->lock);
    bool last = --c->running == 0;
    pthread_mutex_unlock(&c->lock);
    if (last)
        finish_all(c);
    release(c);
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct choice *ch = context;
    struct completion *c = ch->whole;
    struct api_error e;
    (void)id;
    metrics_finish(c->server->metrics, finish);
    c->usage.completion_tokens += finish->generated_tokens;
    if (finish->reason == FINISH_ERROR) {
        static const struct error unknown = {ERR_INTERNAL, "the request failed"};
        api_from_error(&e, finish->error ? finish->error : &unknown);
        fail(c, &e, true);
    } else if (finish->reason == FINISH_CANCELLED) {
        api_fail(&e, 503, "server_error", "cancelled", "the server is stopping");
        fail(c, &e, false); /* of a client that is gone: nobody hears it */
    } else if (!atomic_load(&c->dead)) {
        finish_choice(ch, finish);
    }
    one_less(c);
}

/* ---- An HTTP thread ------------------------------------------------------------------------------------------------- */

static int tokens_of_array(const json_t *ids, struct token_list *out, struct api_error *e)
{
    size_t n = json_array_size(ids);
    int32_t *copy = mem_resize(NULL, n, sizeof *copy);
    if (!copy)
        return api_fail(e, 500, "server_error", NULL, "out of memory for the prompt");
    for (size_t i = 0; i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        copy[i] = id < 0 || id > INT32_MAX ? -1 : (int32_t)id; /* -1: refused with its position when submitted */
    }
    *out = (struct token_list){.ids = copy, .count = n, .capacity = n};
    return 0;
}

static int encode_prompt(const struct tokenizer *t, const json_t *prompt, struct token_list *out, struct api_error *e)
{
    struct error err = {0};
    if (json_is_array(prompt))
        return tokens_of_array(prompt, out, e);
    int rc = tokenizer_encode(t, json_string_value(prompt), json_string_length(prompt),
                              TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, out, &err);
    return rc ? api_from_error(e, &err) : 0;
}

/* One list of ids a prompt. */
static int encode_prompts(struct completion *c, const struct api_request *r, const struct tokenizer *t, struct api_error *e)
{
    struct error err = {0};
    const json_t *p = r->prompt;
    bool several = json_is_array(p) && !json_is_integer(json_array_get(p, 0));
    size_t count = several ? json_array_size(p) : 1;
    if (count * r->choices > API_CHOICES_MAX)
        return api_refuse(e, "invalid_value", several ? "prompt" : "n", "%zu prompts with %u choices each; at most %d in all",
                          count, r->choices, API_CHOICES_MAX);
    if (!(c->prompts = mem_zalloc(count, sizeof *c->prompts)))
        return api_fail(e, 500, "server_error", NULL, "out of memory for the prompts");
    c->prompt_count = (uint32_t)count;
    if (r->chat) {
        if (!chat_prompt_encode(c->server->chat, r->messages, r->template_variables, &c->prompts[0], &err))
            return 0;
        int rc = api_from_error(e, &err);
        if (e->status == 400)
            snprintf(e->param, sizeof e->param, "messages");
        return rc;
    }
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = encode_prompt(t, several ? json_array_get(p, i) : p, &c->prompts[i], e);
    return rc;
}

static int make_choices(struct completion *c, const struct api_request *r, const struct tokenizer *t, struct api_error *e)
{
    c->per_prompt = r->choices;
    uint32_t n = c->prompt_count * r->choices;
    c->choices = mem_zalloc(n, sizeof *c->choices);
    c->ids = mem_zalloc(n, sizeof *c->ids);
    if (!c->choices || !c->ids)
        return api_fail(e, 500, "server_error", NULL, "out of memory for %u choices", n);
    c->choice_count = c->running = n;
    for (uint32_t i = 0; i < n; i++) {
        c->choices[i].whole = c;
        c->choices[i].index = i;
        c->choices[i].logprobs.tokenizer = t;
        c->choices[i].logprobs.chat = r->chat;
    }
    for (uint32_t i = 0; i < c->prompt_count; i++)
        c->usage.prompt_tokens += c->prompts[i].count;
    return 0;
}

/* What stands in front of the generated text: the role, or an echoed prompt. */
static int begin_choices(struct completion *c, const struct api_request *r, const struct tokenizer *t, struct api_error *e)
{
    int rc = 0;
    for (uint32_t i = 0; i < c->choice_count && !rc; i++) {
        struct choice *ch = &c->choices[i];
        struct buffer text = {0}, event = {0};
        if (r->echo) {
            const json_t *p = json_is_string(r->prompt) ? r->prompt : json_array_get(r->prompt, i / c->per_prompt);
            const struct token_list *ids = &c->prompts[i / c->per_prompt];
            struct error err = {0};
            if (json_is_string(p))
                rc = buffer_append(&text, json_string_value(p), json_string_length(p));
            else if ((rc = tokenizer_decode(t, ids->ids, ids->count, DETOKENIZER_START, &text, &err)))
                rc = api_from_error(e, &err), snprintf(e->param, sizeof e->param, "prompt");
        }
        if (!rc && !c->stream) {
            ch->text = text;
            text = (struct buffer){0};
        } else if (!rc && (r->chat || r->echo)) {
            struct response_choice part = {
                .index = i, .role = r->chat, .text = text.data ? text.data : "", .text_bytes = text.size};
            response_put_chunk(&event, &c->head, &part);
            rc = event.failed ? ERR_NOMEM : http_write(c->call, event.data, event.size);
            if (rc == ERR_BOUND)
                rc = api_refuse(e, NULL, "echo", "the prompt is too long to be echoed in a stream");
        }
        if (rc && !e->status)
            rc = api_fail(e, 500, "server_error", NULL, "out of memory for the answer");
        buffer_free(&text);
        buffer_free(&event);
    }
    return rc;
}

/* Only echoed: nothing runs. */
static void finish_echo(struct completion *c)
{
    for (uint32_t i = 0; i < c->choice_count; i++) {
        c->choices[i].finish_reason = "length";
        if (c->stream)
            send_chunk(&c->choices[i], "", 0, "length");
    }
    finish_all(c);
}

/* Gives the choices to the runner. After a failure those already given are cancelled and nothing more is written. */
static int submit_all(struct completion *c, const struct api_request *r, struct runner *runner, uint64_t client,
                      struct api_error *e)
{
    struct error err = {0};
    int rc = 0;
    uint32_t i = 0;
    for (; i < c->choice_count && !rc; i++) {
        const struct token_list *prompt = &c->prompts[i / c->per_prompt];
        struct request_options o = r->asked;
        uint64_t id = 0;
        o.prompt = prompt->ids;
        o.prompt_count = prompt->count;
        o.sampling.seed += i % c->per_prompt;
        o.client = client;
        o.deadline_us = (int64_t)c->server->o.request_seconds * 1000000;
        o.on_token = on_token;
        o.on_finish = on_finish;
        o.context = &c->choices[i];
        atomic_fetch_add(&c->references, 1);
        rc = runner_submit(runner, &o, &id, &err);
        if (!rc && c->server->o.log_prompts)
            prompt_log(runner_tokenizer(runner), id, prompt->ids, prompt->count);
        if (rc) {
            atomic_fetch_sub(&c->references, 1);
            break;
        }
        pthread_mutex_lock(&c->lock);
        c->ids[i] = id;
        bool cancelled = c->cancelled;
        pthread_mutex_unlock(&c->lock);
        if (cancelled)
            runner_cancel(runner, id);
    }
    if (!rc)
        return 0;
    atomic_store(&c->dead, true);
    pthread_mutex_lock(&c->lock);
    c->running -= c->choice_count - i;
    c->cancelled = true;
    pthread_mutex_unlock(&c->lock);
    for (uint32_t j = 0; j < i; j++)
        runner_cancel(runner, c->ids[j]);
    rc = api_from_error(e, &err);
    if (err.code == ERR_BOUND)
        snprintf(e->param, sizeof e->param, "%s", r->chat ? "messages" : "prompt");
    return rc;
}

static void put_retry_after(struct api_server *s, struct http_call *call)
{
    char seconds[16];
    double mean = ceil(metrics_mean_seconds(s->metrics));
    snprintf(seconds, sizeof seconds, "%d", mean < 1 ? 1 : mean > 60 ? 60 : (int)mean);
    http_header(call, "Retry-After", seconds);
}

static struct completion *create(struct api_server *s, struct http_call *call, struct runner *runner,
                                 const struct api_request *r)
{
    struct completion *c = mem_zalloc(1, sizeof *c);
    if (!c)
        return NULL;
    atomic_init(&c->references, 1);
    pthread_mutex_init(&c->lock, NULL);
    c->server = s;
    c->call = call;
    http_call_retain(call);
    c->stream = r->stream;
    c->wants_logprobs = r->logprobs;
    c->runner = runner;
    snprintf(c->model, sizeof c->model, "%s", s->o.model);
    response_head_start(&c->head, r->chat, r->include_usage, c->model, s->fingerprint);
    return c;
}

static int start(struct completion *c, struct api_request *r, struct runner *runner, uint64_t client, struct api_error *e)
{
    const struct tokenizer *t = runner_tokenizer(runner);
    int rc = encode_prompts(c, r, t, e);
    if (!rc)
        rc = make_choices(c, r, t, e);
    if (!rc)
        rc = begin_choices(c, r, t, e);
    if (rc)
        return rc;
    if (!r->asked.max_tokens)
        finish_echo(c);
    else
        rc = submit_all(c, r, runner, client, e);
    return rc;
}

void completion_handle(struct api_server *s, struct http_call *call, unsigned key, bool chat)
{
    struct api_request r;
    struct api_error e = {0};
    const struct buffer *body = http_body(call);
    struct completion *c = NULL;
    int rc = api_parse_request(chat, body->data ? body->data : "", body->size, &r, &e);
    struct runner *runner = rc ? NULL : api_borrow(s, &e);
    if (runner) {
        c = create(s, call, runner, &r);
        rc = c ? start(c, &r, runner, key ? key : http_peer(call), &e)
               : api_fail(&e, 500, "server_error", NULL, "out of memory for the request");
        api_unborrow(s);
    } else {
        rc = ERR_USAGE;
    }
    if (rc) {
        if (e.status == 429 || e.status == 503)
            put_retry_after(s, call);
        api_reply_error(s, call, &e);
        if (c)
            release(c);
    } else {
        if (r.stream) {
            api_put_cors(s, call);
            http_header(call, "Cache-Control", "no-cache");
            http_header(call, "X-Accel-Buffering", "no"); /* proxies that would collect the stream */
            http_stream(call, "text/event-stream; charset=utf-8");
            api_note_reply(s, call, 200);
        }
        http_on_over(call, on_over, c); /* takes our reference */
    }
    api_request_free(&r);
}
