/* POST /admin/drain and /admin/rebalance: what a person asks of a running cluster. Only with an API key, or without
 * keys from this machine, and then not from a page in a browser. HTTP threads. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/api/server_state.h"

/* The runner, when the caller may move it; else a reply has been sent. */
static struct runner *borrow_for_admin(struct api_server *s, struct http_call *call, unsigned key)
{
    struct api_error e = {0};
    struct runner *runner = NULL;
    if (!key && !http_from_here(call))
        api_fail(&e, 403, "invalid_request_error", "forbidden",
                 "without API keys the cluster is commanded from the server's own machine only, by programs");
    else
        runner = api_borrow(s, &e);
    if (!runner)
        api_reply_error(s, call, &e);
    return runner;
}

static void reply(struct api_server *s, struct http_call *call, json_t *root)
{
    struct buffer b = {0};
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    buffer_puts(&b, text ? text : "{}");
    free(text);
    json_decref(root);
    api_reply(s, call, 200, "application/json", &b);
}

static void refuse(struct api_server *s, struct http_call *call, const struct error *why)
{
    struct api_error e = {0};
    if (why->code == ERR_NOTFOUND)
        api_fail(&e, 404, "invalid_request_error", "no_such_node", "%s", why->text);
    else if (why->code == ERR_BUSY || why->code == ERR_INFEASIBLE || why->code == ERR_MEMORY || why->code == ERR_USAGE)
        api_fail(&e, 409, "invalid_request_error", "not_possible", "%s", why->text);
    else
        api_from_error(&e, why);
    api_reply_error(s, call, &e);
}

void drain_handle(struct api_server *s, struct http_call *call, unsigned key)
{
    const struct buffer *body = http_body(call);
    json_t *root = json_loadb(body->data ? body->data : "", body->size, 0, NULL);
    const char *node = json_string_value(json_object_get(root, "node"));
    bool undo = json_is_true(json_object_get(root, "undo"));
    struct error err = {0};
    struct runner *runner = node ? borrow_for_admin(s, call, key) : NULL;
    if (!node) {
        struct api_error e = {0};
        api_refuse(&e, NULL, "node", "the body must be {\"node\": NAME}, with \"undo\": true to let it in again");
        api_reply_error(s, call, &e);
    } else if (runner) {
        int rc = runner_drain(runner, node, !undo, &err);
        api_unborrow(s);
        if (rc)
            refuse(s, call, &err);
        else
            reply(s, call, json_pack("{s:s, s:b}", "node", node, "drained", !undo));
    }
    json_decref(root);
}

void rebalance_handle(struct api_server *s, struct http_call *call, unsigned key)
{
    struct error err = {0};
    double gain = 0;
    struct runner *runner = borrow_for_admin(s, call, key);
    if (!runner)
        return;
    int rc = runner_rebalance(runner, &gain, &err);
    api_unborrow(s);
    if (rc)
        refuse(s, call, &err);
    else
        reply(s, call, json_pack("{s:b, s:f}", "moves", gain > 0, "gain_percent", gain));
}
