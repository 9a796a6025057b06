/* What server.c, completion.c and status_page.c share. Nobody else includes this. */
#ifndef BRIGADE_COORDINATOR_API_SERVER_STATE_H
#define BRIGADE_COORDINATOR_API_SERVER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "coordinator/api/api_error.h"
#include "coordinator/api/http.h"
#include "coordinator/api/keys.h"
#include "coordinator/api/metrics.h"
#include "coordinator/api/server.h"
#include "coordinator/core/chat_prompt.h"

enum api_health { API_LOADING, API_READY, API_DEGRADED, API_STOPPING };

struct api_server {
    struct api_options o;
    struct http_server *http;
    struct api_keys *keys;         /* NULL: everyone may */
    struct metrics *metrics;
    int64_t opened_ms;
    long long created;             /* when the model was made available, of the calendar */
    atomic_bool stopping;

    /* Readers use the runner; the writer attaches and detaches it. */
    pthread_rwlock_t runner_lock;
    struct runner *runner;
    struct chat_prompt *chat;
    char fingerprint[24];
    bool was_ready;

    pthread_mutex_t note_lock;     /* what follows; never held while calling out */
    char progress[192];            /* what loading does now, or why there is no runner */
    struct error trouble;          /* code 0: none */
    char *plan_json;               /* of the plan in use; NULL before the first */
};

/* The caller's answer (status, JSON) with CORS and counting. Takes the body. */
void api_reply(struct api_server *s, struct http_call *call, unsigned status, const char *type, struct buffer *body);
void api_reply_error(struct api_server *s, struct http_call *call, const struct api_error *e);
void api_note_reply(struct api_server *s, struct http_call *call, unsigned status);
void api_put_cors(struct api_server *s, struct http_call *call);

/* The runner for as long as the caller needs it, then api_unborrow; NULL and a 503 in *e when there is none now. */
struct runner *api_borrow(struct api_server *s, struct api_error *e);
void api_unborrow(struct api_server *s);
enum api_health api_health_of(struct api_server *s, struct runner_status *status, bool *has_status);

/* completion.c */
void completion_handle(struct api_server *s, struct http_call *call, unsigned key, bool chat);
/* status_page.c */
void status_handle(struct api_server *s, struct http_call *call);
void health_handle(struct api_server *s, struct http_call *call);
char *status_plan_json(const struct runner *r); /* the runner's thread; NULL when out of memory */
/* admin.c */
void drain_handle(struct api_server *s, struct http_call *call, unsigned key);
void rebalance_handle(struct api_server *s, struct http_call *call, unsigned key);
/* text_handlers.c */
void tokenize_handle(struct api_server *s, struct http_call *call);
void detokenize_handle(struct api_server *s, struct http_call *call);

#endif
