/* `brigade drain` and `brigade rebalance`: ask a running `brigade serve` over its HTTP port. One thread. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"

#define REPLY_BYTES_MAX 65536
#define PATIENCE_S 30

struct door {
    const char *host, *key;
    int64_t port;
    bool json;
};

static int dial(const struct door *d, int *out, struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    char port[16];
    snprintf(port, sizeof port, "%lld", (long long)d->port);
    int rc = getaddrinfo(d->host, port, &hints, &found), fd = -1, why = ECONNREFUSED;
    if (rc)
        return error_set(err, ERR_IO, "%s: %s", d->host, gai_strerror(rc));
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(fd, a->ai_addr, a->ai_addrlen)) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0)
        return error_set(err, ERR_IO,
                         "no server at %s port %lld: %s; is 'brigade serve' running there? (--host, --port)", d->host,
                         (long long)d->port, strerror(why));
    *out = fd;
    return 0;
}

/* Sends all of it and reads until the other side closes. */
static int exchange(int fd, const struct buffer *request, struct buffer *answer, struct error *err)
{
    for (size_t at = 0; at < request->size;) {
        ssize_t n = send(fd, (const char *)request->data + at, request->size - at, MSG_NOSIGNAL);
        if (n <= 0)
            return error_set(err, ERR_IO, "cannot send to the server: %s", strerror(errno));
        at += (size_t)n;
    }
    for (;;) {
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0)
            return error_set(err, ERR_TIMEOUT, "the server did not answer within %d s", PATIENCE_S);
        if (!n)
            return answer->failed ? error_set(err, answer->failed, "the server's answer is too long") : 0;
        buffer_append(answer, bytes, (size_t)n);
    }
}

/* Posts a JSON body; *out is the answer's object, json_decref it. */
static int post(const struct door *d, const char *path, json_t *body, json_t **out, struct error *err)
{
    struct buffer request = {0}, answer = {.limit = REPLY_BYTES_MAX};
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    int fd = -1, status = 0, rc = text ? 0 : error_set(err, ERR_NOMEM, "out of memory");
    json_decref(body);
    if (!rc) {
        buffer_printf(&request,
                      "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\n", path,
                      d->host);
        if (d->key)
            buffer_printf(&request, "Authorization: Bearer %s\r\n", d->key);
        buffer_printf(&request, "Content-Length: %zu\r\n\r\n%s", strlen(text), text);
        rc = request.failed ? error_set(err, request.failed, "out of memory") : dial(d, &fd, err);
    }
    if (!rc && !(rc = exchange(fd, &request, &answer, err)))
        buffer_putc(&answer, 0);
    const char *reply = answer.data, *content = reply ? strstr(reply, "\r\n\r\n") : NULL;
    json_t *root = NULL;
    if (!rc && (!content || sscanf(reply, "HTTP/1.1 %d", &status) != 1 || !(root = json_loads(content + 4, 0, NULL))))
        rc = error_set(err, ERR_FORMAT, "%s port %lld does not answer as 'brigade serve' does", d->host,
                       (long long)d->port);
    if (!rc && status != 200) {
        const char *why = json_string_value(json_object_get(json_object_get(root, "error"), "message"));
        rc = error_set(err, ERR_LOST, "%s", why ? why : "the server refused");
    }
    if (fd >= 0)
        close(fd);
    free(text);
    buffer_free(&request);
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
