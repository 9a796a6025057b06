/* The board's side of joining. One socket, to the coordinator that the token names. One thread beside the hub's. */
#include "worker/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/net.h"
#include "base/yaml.h"
#include "base/yaml_edit.h"
#include "proto/join.h"
#include "proto/link.h"

#define CONNECT_MS 4000 /* until the coordinator must have answered once */
#define REPEAT_MS 2000  /* what is not answered is asked again */

int worker_join_defaults(struct worker_options *o, struct error *err)
{
    char host[256], port[8];
    if (!*o->listen)
        snprintf(o->listen, sizeof o->listen, "tcp://0.0.0.0:7700");
    if (!net_split_endpoint(o->listen, host, sizeof host, port))
        return error_set(err, ERR_USAGE, "\"%.100s\" is no endpoint to listen at; write tcp://ADDRESS:PORT", o->listen);
    if (!strcmp(port, "*"))
        return error_set(err, ERR_USAGE, "a board that joins needs a port that stays; write --listen tcp://%s:7700",
                         host);
    if (!o->config_path && !(o->config_path = mem_strdup("worker.yaml")))
        return error_set(err, ERR_NOMEM, "no memory for a path");
    if (!o->key_path) {
        char *folder = file_folder(o->config_path);
        o->key_path = !folder                ? NULL
                      : !strcmp(folder, ".") ? mem_strdup("node.key")
                                             : mem_printf("%s/node.key", folder);
        mem_free(folder);
        if (!o->key_path)
            return error_set(err, ERR_NOMEM, "no memory for a path");
    }
    return 0;
}

/* Its own key, made now if there is none. */
static int own_key(const char *path, struct node_key **key, struct error *err)
{
    if (!access(path, F_OK))
        return key_load(path, key, err);
    int rc = key_generate(key, err);
    if (!rc && (rc = key_save(*key, path, err))) {
        key_free(*key);
        *key = NULL;
    }
    return rc;
}

/* Where coordinators and other boards will find this one. */
static int own_endpoint(const struct worker_options *o, const struct join_token *t, char *out, size_t size,
                        struct error *err)
{
    char host[256], port[8], address[NET_ADDRESS_TEXT];
    net_split_endpoint(o->listen, host, sizeof host, port);
    if (net_is_wildcard(host)) {
        int rc = net_address_toward(join_token_host(t), address, err);
        if (rc)
            return rc;
        snprintf(host, sizeof host, "%s", address);
    }
    return net_join_endpoint(host, port, out, size) ? 0 : error_set(err, ERR_USAGE, "%s: too long", o->listen);
}

/* ---- The conversation -------------------------------------------------------------------------------------------- */

struct talk {
    const struct join_token *token;
    const struct node_key *key;
    struct link *link;
    struct join_message ask;
    bool heard, waiting, done;
};

static int say(struct talk *t, const struct join_message *m, struct error *err)
{
    struct buffer bytes = {0};
    int rc = join_encode(m, &bytes, err);
    if (!rc)
        rc = link_send(t->link, NULL, &(struct frame_part){bytes.data, bytes.size}, 1, err);
    buffer_free(&bytes);
    return rc == ERR_BUSY || rc == ERR_LOST || rc == ERR_AUTH ? 0 : rc; /* the link's state tells; asked again later */
}

static int hear(struct talk *t, const struct join_message *m, struct error *err)
{
    struct join_message proof = {.kind = JOIN_PROOF};
    t->heard = true;
    switch (m->kind) {
    case JOIN_CHALLENGE:
        join_prove(t->token, key_public_text(t->key), m->nonce, proof.mac);
        return say(t, &proof, err);
    case JOIN_WAITING:
        if (!t->waiting)
            fprintf(stderr, "waiting for a yes at the coordinator\n");
        t->waiting = true;
        return 0;
    case JOIN_ANSWER:
        if (m->code == ERR_BUSY)
            return 0; /* asked again soon */
        t->done = true;
        return m->code ? error_set(err, m->code, "not let in: %s", m->text) : 0;
    default:
        return error_set(err, ERR_FORMAT, "the coordinator answers with a message that is not for boards");
    }
}

static int receive(struct talk *t, struct error *err)
{
    struct link_message in;
    struct join_message m;
    int got, rc = 0;
    while (!rc && !t->done && (got = link_receive(t->link, &in, err)) != 0) {
        if (got < 0)
            return got;
        rc = in.part_count == 1 ? join_decode(in.parts[0].data, in.parts[0].size, &m, err)
                                : error_set(err, ERR_FORMAT, "the coordinator answers in %zu parts", in.part_count);
        if (!rc)
            rc = hear(t, &m, err);
        link_message_free(&in);
    }
    return rc;
}

static int nobody_there(const struct talk *t, struct error *err)
{
    char why[128];
    link_explain(join_token_endpoint(t->token), 500, why, sizeof why);
    bool late = (int64_t)time(NULL) > join_token_expires_s(t->token);
    return error_set(err, ERR_TIMEOUT, "%s: %s; %s", join_token_endpoint(t->token),
                     *why ? why : "somebody answers, but not with the key of this token",
                     late ? "by this board's clock the token has expired: ask for another one ('brigade invite')"
                          : "does 'brigade invite' still wait there, and can this board reach it?");
}

/* Asks, and again, until there is an answer. */
static int converse(struct talk *t, const volatile sig_atomic_t *stop, struct error *err)
{
    int64_t started = clock_ms(), asked = 0;
    while (!t->done) {
        int64_t now = clock_ms();
        bool ready;
        int rc = 0;
        if (*stop)
            return error_set(err, ERR_CANCELLED, "stopped before the coordinator had answered");
        if (!t->heard && now - started > CONNECT_MS)
            return nobody_there(t, err);
        if (t->heard && link_state(t->link, NULL, 0) == LINK_DOWN && now - asked > REPEAT_MS)
            return error_set(err, ERR_LOST,
                             "%s: the coordinator went away before it had answered; ask for another token",
                             join_token_endpoint(t->token));
        if (!asked || now - asked >= REPEAT_MS) {
            asked = now;
            rc = say(t, &t->ask, err);
        }
        if (!rc && (rc = link_wait(&t->link, 1, NULL, 100, &ready)) < 0)
            return error_set(err, rc, "waiting for the coordinator: %s", error_name(rc));
        rc = receive(t, err);
        if (rc)
            return rc;
    }
    return 0;
}

int worker_join(struct worker_options *o, const volatile sig_atomic_t *stop, struct error *err)
{
    struct join_token *token = NULL;
    struct node_key *key = NULL;
    struct hub *hub = NULL;
    struct talk t = {.ask = {.kind = JOIN_ASK}};
    char fingerprint[JOIN_FINGERPRINT_TEXT];
    int rc;
    if ((rc = join_token_read(o->join, &token, err)) || (rc = own_key(o->key_path, &key, err)) ||
        (rc = own_endpoint(o, token, t.ask.endpoint, sizeof t.ask.endpoint, err)) ||
        (rc = hub_create(key, &hub, err)) ||
        (rc = link_connect(hub, PLANE_JOIN, join_token_endpoint(token), join_token_key(token), &t.link, err)))
        goto done;
    t.token = token;
    t.key = key;
    snprintf(t.ask.name, sizeof t.ask.name, "%s", o->name);
    snprintf(t.ask.program_version, sizeof t.ask.program_version, "%s", BRIGADE_VERSION);
    join_fingerprint(key_public_text(key), fingerprint);
    fprintf(stderr, "asking %s to let \"%s\" at %s in; this board's fingerprint is %s\n", join_token_endpoint(token),
            o->name, t.ask.endpoint, fingerprint);
    if ((rc = converse(&t, stop, err)) || (rc = worker_join_remember(o, join_token_key(token), err)))
        goto done;
    rc = worker_options_allow(o, join_token_key(token), err);
done:
    link_close(t.link, 100);
    hub_destroy(hub);
    key_free(key);
    join_token_free(token);
    return rc;
}

/* ---- worker.yaml ------------------------------------------------------------------------------------------------- */

/* A path for the settings file: a bare name when it lies beside the file, else absolute. */
static void put_path(struct buffer *out, const char *config, const char *path)
{
    char *folder = file_folder(config), *own = file_folder(path);
    char *here = folder ? realpath(folder, NULL) : NULL, *there = own ? realpath(own, NULL) : NULL;
    const char *slash = strrchr(path, '/'), *bare = slash ? slash + 1 : path;
    char *full = realpath(path, NULL);
    if (here && there && !strcmp(here, there) && strcmp(bare, ".") && strcmp(bare, ".."))
        buffer_printf(out, "\"%s\"", bare);
    else
        buffer_printf(out, "\"%s\"", full ? full : path);
    free(here); /* the C library's own allocations */
    free(there);
    free(full);
    mem_free(folder);
    mem_free(own);
}

static void put_settings(struct buffer *out, const struct worker_options *o, const char *coordinator_key)
{
    buffer_printf(out,
                  "# This board's settings, written when it joined. Start it with: brigade-worker --config %s\n"
                  "version: 1\nname: \"%s\"\nlisten: \"%s\"\nkey: ",
                  o->config_path, o->name, o->listen);
    put_path(out, o->config_path, o->key_path);
    buffer_printf(out, "   # secret\nallow:   # the coordinators that may command it\n  - \"%s\"\nmodels:\n",
                  coordinator_key);
    for (uint32_t i = 0; i < o->model_count; i++) {
        buffer_puts(out, "  - ");
        put_path(out, o->config_path, o->models[i]);
        buffer_puts(out, "\n");
    }
    if (o->cache_path) {
        buffer_puts(out, "cache: ");
        put_path(out, o->config_path, o->cache_path);
        buffer_puts(out, "\n");
    }
    if (o->memory_bytes)
        buffer_printf(out, "memory: \"%llu\"\n", (unsigned long long)o->memory_bytes);
    if (o->threads > 0)
        buffer_printf(out, "threads: %d\n", o->threads);
    if (!o->announce)
        buffer_puts(out, "announce: false\n");
    if (o->awake)
        buffer_puts(out, "awake: true\n");
    if (o->weights_port > 0)
        buffer_printf(out, "weights_port: %d\n", o->weights_port);
    if (o->cache_bytes)
        buffer_printf(out, "cache_limit: \"%llu\"\n", (unsigned long long)o->cache_bytes);
    if (o->data_port > 0)
        buffer_printf(out, "data_port: %d\n", o->data_port);
}

/* Whether it can be read again; on success *named: it has a name. */
static int check_settings(const char *path, const struct buffer *text, bool *named, struct error *err)
{
    struct yaml_doc *doc = NULL;
    int rc = yaml_read_text(&doc, path, text->data ? text->data : "", text->size, err);
    if (!rc)
        *named = yaml_find(yaml_root(doc), "name") != NULL;
    yaml_doc_free(doc);
    return rc;
}

/* The file as it was, with the coordinator among those allowed and the name it joined under, unless it has one or the
 * host's own will do. */
static int add_to_settings(const struct worker_options *o, const struct buffer *before, const char *coordinator_key,
                           struct buffer *after, struct error *err)
{
    const char *text = before->data ? before->data : "";
    char host[sizeof o->name] = "";
    bool named = false;
    int rc = strstr(text, coordinator_key)
                 ? buffer_append(after, text, before->size)
                 : yaml_add_item(o->config_path, text, before->size, "allow",
                                 &(struct yaml_pair){NULL, coordinator_key}, 1, after, err);
    if (!rc)
        rc = check_settings(o->config_path, after, &named, err);
    if (rc || named || (!gethostname(host, sizeof host - 1) && !strcmp(host, o->name)))
        return rc;
    buffer_printf(after, "%s# The name under which it joined.\nname: \"%s\"\n",
                  after->size && after->data[after->size - 1] != '\n' ? "\n" : "", o->name);
    return after->failed ? error_set(err, after->failed, "%s: no memory for it", o->config_path)
                         : check_settings(o->config_path, after, &named, err);
}

int worker_join_remember(const struct worker_options *o, const char *coordinator_key, struct error *err)
{
    struct buffer before = {.limit = YAML_MAX_BYTES}, after = {0};
    bool named;
    int rc;
    if (access(o->config_path, F_OK)) {
        put_settings(&after, o, coordinator_key);
        rc = after.failed ? error_set(err, after.failed, "%s: no memory for it", o->config_path)
                          : check_settings(o->config_path, &after, &named, err);
        if (!rc)
            rc = file_create(o->config_path, after.data, after.size, 0644, err);
    } else if (!(rc = file_read(o->config_path, &before, err)) &&
               !(rc = add_to_settings(o, &before, coordinator_key, &after, err)) && after.size != before.size) {
        rc = file_replace(o->config_path, after.data, after.size, err);
    }
    buffer_free(&before);
    buffer_free(&after);
    if (rc)
        error_prefix(err, "this board is let in, but cannot remember it; start it with --allow %s", coordinator_key);
    else
        fprintf(stderr, "let in; settings are in %s: later, 'brigade-worker --config %s' is enough\n", o->config_path,
                o->config_path);
    return rc;
}
