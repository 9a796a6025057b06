/* `brigade drain` and `brigade rebalance`: ask a running `brigade serve` over its HTTP port. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/http_client.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"

#define PATIENCE_MS 30000

struct door {
    const char *host, *key;
    int64_t port;
    bool json;
};

/* Posts a JSON body (taken over); *out is the answer's object, json_decref it. */
static int post(const struct door *d, const char *path, json_t *body, json_t **out, struct error *err)
{
    struct buffer answer = {0};
    char url[300];
    bool bare6 = strchr(d->host, ':') && *d->host != '[';
    snprintf(url, sizeof url, bare6 ? "http://[%.250s]:%lld" : "http://%.250s:%lld", d->host, (long long)d->port);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    unsigned status = 0;
    json_t *root = NULL;
    struct http_question question = {url, path, d->key, text, PATIENCE_MS};
    int rc = text ? http_ask(&question, &status, &answer, err) : error_set(err, ERR_NOMEM, "out of memory");
    if (!rc && !(root = json_loads(answer.data, 0, NULL)))
        rc = error_set(err, ERR_FORMAT, "%s does not answer as 'brigade serve' does (HTTP status %u)", url, status);
    if (!rc && status != 200) {
        const char *why = json_string_value(json_object_get(json_object_get(root, "error"), "message"));
        rc = error_set(err, ERR_LOST, "%s", why ? why : "the server refused");
    }
    json_decref(body);
    free(text);
    buffer_free(&answer);
    if (rc) {
        json_decref(root);
        return rc;
    }
    *out = root;
    return 0;
}

/* The options both commands share, and one's own. */
static bool parse(struct door *d, bool *undo, int argc, char **argv, const struct command_help *help, const char **node,
                  int *code)
{
    const struct option table[] = {
        {"--host", 0, OPTION_TEXT, &d->host, "ADDRESS", "of the server (default 127.0.0.1)"},
        {"--port", 0, OPTION_INT, &d->port, "PORT", "of the server (default 8080)", 1, 65535},
        {"--api-key", 0, OPTION_TEXT, &d->key, "KEY", "one of the server's keys, when it has any"},
        {"--json", 0, OPTION_FLAG, &d->json, NULL, "print the server's answer as JSON"},
        {"--undo", 0, OPTION_FLAG, undo, NULL, "let the node work again"},
    };
    size_t words = 0, count = sizeof table / sizeof *table - (undo ? 0 : 1);
    enum options_outcome parsed = options_parse(argc, argv, table, count, help, node, node ? 1 : 0, &words);
    *code = parsed == OPTIONS_HELP ? 0 : 2;
    if (parsed == OPTIONS_OK && node && !words)
        *code = options_wrong(help, "no node: name the one to drain");
    return parsed == OPTIONS_OK && (!node || words);
}

int command_drain(int argc, char **argv)
{
    static const struct command_help help = {
        "brigade drain NODE [--undo] [--host ADDRESS] [--port PORT] [--api-key KEY]",
        "Takes a node out of a running 'brigade serve': its blocks move to the others, answers go on after a pause, "
        "and the\n"
        "board can be switched off. --undo lets it in again. Refused when the others cannot hold the model.",
        "brigade drain pi-kitchen",
    };
    struct door d = {.host = "127.0.0.1", .port = 8080};
    const char *node = NULL;
    bool undo = false;
    int code;
    if (!parse(&d, &undo, argc, argv, &help, &node, &code))
        return code;
    struct error err = {0};
    json_t *answer = NULL;
    if (post(&d, "/admin/drain", json_pack("{s:s, s:b}", "node", node, "undo", undo), &answer, &err))
        return output_failure(&err);
    if (d.json)
        return output_json(answer);
    json_decref(answer);
    printf(undo ? "%s works again\n" : "%s is drained; its blocks move to the others\n", node);
    return 0;
}

int command_rebalance(int argc, char **argv)
{
    static const struct command_help help = {
        "brigade rebalance [--host ADDRESS] [--port PORT] [--api-key KEY]",
        "Plans the stages of a running 'brigade serve' anew, with the stage times that were measured while it served. "
        "Blocks\n"
        "move if that is predicted to gain anything; answers go on after a pause.",
        "brigade rebalance",
    };
    struct door d = {.host = "127.0.0.1", .port = 8080};
    int code;
    if (!parse(&d, NULL, argc, argv, &help, NULL, &code))
        return code;
    struct error err = {0};
    json_t *answer = NULL;
    if (post(&d, "/admin/rebalance", json_object(), &answer, &err))
        return output_failure(&err);
    if (d.json)
        return output_json(answer);
    double gain = json_real_value(json_object_get(answer, "gain_percent"));
    json_decref(answer);
    if (gain > 0)
        printf("blocks move: predicted to be %.0f %% faster\n", gain);
    else
        printf("nothing moves: no plan is predicted to be faster\n");
    return 0;
}
