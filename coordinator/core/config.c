/* Reads cluster.yaml into plain structs. Owns nothing else; touches no key file and no network; any thread. */
#include "coordinator/core/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/units.h"
#include "base/yaml.h"
#include "proto/activation.h"

static int read_quantity(const struct yaml_value *map, const char *key, int (*parse)(const char *, double *),
                         const char *example, double *out, struct error *err)
{
    const char *text = NULL;
    double value;
    int rc = yaml_want_text(map, key, &text, err);
    if (rc || !text)
        return rc;
    if ((rc = parse(text, &value)))
        return yaml_error(yaml_find(map, key), err, rc, "\"%.40s\" is not %s", text, example);
    *out = value;
    return 0;
}

/* "tcp://HOST:PORT", the host not a wildcard. */
static int check_endpoint(const struct yaml_value *v, const char *endpoint, struct error *err)
{
    const char *host = endpoint + 6, *colon = strrchr(endpoint, ':');
    int64_t port;
    if (strncmp(endpoint, "tcp://", 6) || !colon || colon <= host)
        return yaml_error(v, err, ERR_FORMAT, "\"%.80s\" is not tcp://HOST:PORT", endpoint);
    if (*host == '*' || strpbrk(endpoint, " \t"))
        return yaml_error(v, err, ERR_FORMAT, "\"%.80s\" names no host to connect to", endpoint);
    if (units_parse_int(colon + 1, 1, 65535, &port))
        return yaml_error(v, err, ERR_FORMAT, "\"%.20s\" is not a port from 1 to 65535", colon + 1);
    return 0;
}

static int read_node(const struct yaml_value *v, const struct config *c, struct config_node *node, struct error *err)
{
    static const char *const known[] = {"name", "endpoint", "public_key", "memory", NULL};
    const char *name, *endpoint, *key, *memory = NULL;
    int rc;
    if ((rc = yaml_only_keys(v, known, err)) || (rc = yaml_need_text(v, "name", &name, err)) ||
        (rc = yaml_need_text(v, "endpoint", &endpoint, err)) || (rc = yaml_need_text(v, "public_key", &key, err)) ||
        (rc = yaml_want_text(v, "memory", &memory, err)))
        return rc;
    const struct yaml_value *at_name = yaml_find(v, "name"), *at_endpoint = yaml_find(v, "endpoint"),
                            *at_key = yaml_find(v, "public_key");
    if (!*name || strlen(name) >= sizeof node->name)
        return yaml_error(at_name, err, ERR_FORMAT, "a name has 1 to %zu characters", sizeof node->name - 1);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == '"')
            return yaml_error(at_name, err, ERR_FORMAT, "a name holds no quotes and no control characters");
    if (strlen(endpoint) >= sizeof node->endpoint)
        return yaml_error(at_endpoint, err, ERR_BOUND, "longer than %zu characters", sizeof node->endpoint - 1);
    if ((rc = check_endpoint(at_endpoint, endpoint, err)))
        return rc;
    if (!key_text_valid(key))
        return yaml_error(at_key, err, ERR_FORMAT,
                          "not a public key (40 characters of Z85; `brigade keygen` and the worker print theirs)");
    for (uint32_t i = 0; i < c->node_count; i++) {
        if (!strcmp(c->nodes[i].name, name))
            return yaml_error(at_name, err, ERR_FORMAT, "\"%.64s\" is already the name of nodes[%u]", name, i);
        if (!strcmp(c->nodes[i].endpoint, endpoint))
            return yaml_error(at_endpoint, err, ERR_FORMAT, "%.80s is already the endpoint of \"%.64s\"", endpoint,
                              c->nodes[i].name);
        if (!strcmp(c->nodes[i].public_key, key))
            return yaml_error(at_key, err, ERR_FORMAT, "already the key of \"%.64s\"; every node has its own",
                              c->nodes[i].name);
    }
    if (memory && (units_parse_bytes(memory, &node->memory_bytes) || !node->memory_bytes))
        return yaml_error(yaml_find(v, "memory"), err, ERR_FORMAT, "\"%.40s\" is not a size such as 6G or 512M",
                          memory);
    snprintf(node->name, sizeof node->name, "%s", name);
    snprintf(node->endpoint, sizeof node->endpoint, "%s", endpoint);
    snprintf(node->public_key, sizeof node->public_key, "%s", key);
    return 0;
}

static bool is_loopback(const char *endpoint)
{
    return !strncmp(endpoint, "tcp://127.", 10) || !strncmp(endpoint, "tcp://localhost:", 16) ||
           !strncmp(endpoint, "tcp://[::1]:", 12);
}

/* Nodes connect to each other at these addresses too. */
static int check_reach(const struct yaml_value *list, const struct config *c, struct error *err)
{
    uint32_t loopback = UINT32_MAX, other = UINT32_MAX;
    for (uint32_t i = 0; i < c->node_count; i++)
        *(is_loopback(c->nodes[i].endpoint) ? &loopback : &other) = i;
    if (loopback == UINT32_MAX || other == UINT32_MAX)
        return 0;
    return yaml_error(yaml_find(yaml_item(list, loopback), "endpoint"), err, ERR_FORMAT,
                      "%.80s can be reached from this machine only, but \"%.64s\" is on another: give the address that "
                      "both can reach",
                      c->nodes[loopback].endpoint, c->nodes[other].name);
}

static int read_nodes(const struct yaml_value *root, struct config *c, struct error *err)
{
    const struct yaml_value *list;
    int rc = yaml_need_sequence(root, "nodes", 0, CONFIG_NODES_MAX, &list, err);
    if (rc)
        return rc;
    if (!(c->nodes = mem_zalloc(yaml_count(list) + 1, sizeof *c->nodes)))
        return error_set(err, ERR_NOMEM, "%s: out of memory", c->path);
    for (size_t i = 0; i < yaml_count(list); i++) {
        if ((rc = read_node(yaml_item(list, i), c, &c->nodes[i], err)))
            return rc;
        c->node_count++;
    }
    return check_reach(list, c, err);
}

static int find_node(const struct config *c, const struct yaml_value *map, const char *key, uint32_t *out,
                     struct error *err)
{
    const char *name;
    int rc = yaml_need_text(map, key, &name, err);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < c->node_count; i++)
        if (!strcmp(c->nodes[i].name, name)) {
            *out = i;
            return 0;
        }
    return yaml_error(yaml_find(map, key), err, ERR_FORMAT, "no node has the name \"%.64s\"", name);
}

static int read_links(const struct yaml_value *root, struct config *c, struct error *err)
{
    static const char *const known[] = {"from", "to", "bandwidth", "rtt", NULL};
    const struct yaml_value *list = NULL;
    int rc = yaml_want_sequence(root, "links", 0, CONFIG_LINKS_MAX, &list, err);
    if (rc || !list)
        return rc;
    if (!(c->links = mem_zalloc(yaml_count(list) + 1, sizeof *c->links)))
        return error_set(err, ERR_NOMEM, "%s: out of memory", c->path);
    for (size_t i = 0; i < yaml_count(list); i++) {
        const struct yaml_value *v = yaml_item(list, i);
        struct config_link *link = &c->links[i];
        if ((rc = yaml_only_keys(v, known, err)) || (rc = find_node(c, v, "from", &link->from, err)) ||
            (rc = find_node(c, v, "to", &link->to, err)))
            return rc;
        if (link->from == link->to)
            return yaml_error(v, err, ERR_FORMAT, "a link needs two different nodes");
        for (uint32_t k = 0; k < c->link_count; k++)
            if (c->links[k].from == link->from && c->links[k].to == link->to)
                return yaml_error(v, err, ERR_FORMAT, "the link from \"%.64s\" to \"%.64s\" is already links[%u]",
                                  c->nodes[link->from].name, c->nodes[link->to].name, k);
        if (!yaml_find(v, "bandwidth") || !yaml_find(v, "rtt"))
            return yaml_error(v, err, ERR_FORMAT, "a link needs both bandwidth and rtt (leave it out to measure it)");
        if ((rc = read_quantity(v, "bandwidth", units_parse_rate, "a rate such as 900Mbit or 117MB", &link->bytes_per_s,
                                err)) ||
            (rc = read_quantity(v, "rtt", units_parse_seconds, "a time such as 0.4ms", &link->rtt_seconds, err)))
            return rc;
        c->link_count++;
    }
    return 0;
}

static int read_kv(const struct yaml_value *root, struct config *c, struct error *err)
{
    static const char *const known[] = {"type", "tokens", NULL};
    static const char *const types[] = {[KV_F16] = "f16", [KV_Q8] = "q8", [KV_F32] = "f32"};
    const struct yaml_value *kv = NULL;
    const char *type = NULL;
    int64_t tokens = 0;
    int rc = yaml_want_mapping(root, "kv", &kv, err);
    if (rc || !kv)
        return rc;
    if ((rc = yaml_only_keys(kv, known, err)) || (rc = yaml_want_text(kv, "type", &type, err)) ||
        (rc = yaml_want_int(kv, "tokens", KV_PAGE_TOKENS, INT64_C(1) << 30, &tokens, err)))
        return rc;
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i], type)) {
            c->kv_type = (enum kv_type)i;
            c->kv_type_given = true;
        }
    if (type && !c->kv_type_given)
        return yaml_error(yaml_find(kv, "type"), err, ERR_FORMAT, "\"%.40s\" is not f16, q8 or f32", type);
    c->kv_tokens = (uint32_t)tokens;
    return 0;
}

static int read_heartbeat(const struct yaml_value *root, struct config *c, struct error *err)
{
    static const char *const known[] = {"interval", "lost", NULL};
    const struct yaml_value *map = NULL;
    double interval = c->heartbeat_us / 1e6, lost = c->lost_us / 1e6;
    int rc = yaml_want_mapping(root, "heartbeat", &map, err);
    if (rc || !map)
        return rc;
    if ((rc = yaml_only_keys(map, known, err)) ||
        (rc = read_quantity(map, "interval", units_parse_seconds, "a time such as 200ms", &interval, err)) ||
        (rc = read_quantity(map, "lost", units_parse_seconds, "a time such as 1s", &lost, err)))
        return rc;
    if (interval < 0.01 || interval > 60)
        return yaml_error(map, err, ERR_BOUND, "interval must be from 10ms to 60s");
    if (lost < 2 * interval || lost > 600)
        return yaml_error(map, err, ERR_BOUND, "lost must be at least twice the interval and at most 600s");
    c->heartbeat_us = (int64_t)(interval * 1e6);
    c->lost_us = (int64_t)(lost * 1e6);
    return 0;
}

static int read_recovery(const struct yaml_value *root, struct config *c, struct error *err)
{
    static const char *const known[] = {"enabled", "rejoin", "keep", NULL};
    const struct yaml_value *map = NULL;
    const char *keep = NULL;
    double rejoin = c->rejoin_us / 1e6;
    int rc = yaml_want_mapping(root, "recovery", &map, err);
    if (rc || !map)
        return rc;
    if ((rc = yaml_only_keys(map, known, err)) || (rc = yaml_want_bool(map, "enabled", &c->recover, err)) ||
        (rc = read_quantity(map, "rejoin", units_parse_seconds, "a time such as 30s", &rejoin, err)) ||
        (rc = yaml_want_text(map, "keep", &keep, err)))
        return rc;
    if (keep && units_parse_bytes(keep, &c->keep_bytes))
        return yaml_error(yaml_find(map, "keep"), err, ERR_FORMAT, "\"%.40s\" is not a size such as 64M or 0", keep);
    if (!c->recover)
        c->keep_bytes = 0;
    if (rejoin < 0 || rejoin > 86400)
        return yaml_error(map, err, ERR_BOUND, "rejoin must be from 0s to 86400s");
    c->rejoin_us = (int64_t)(rejoin * 1e6);
    return 0;
}

static int read_rebalance(const struct yaml_value *root, struct config *c, struct error *err)
{
    static const char *const known[] = {"enabled", "hold", "apart", "judge", NULL};
    const struct yaml_value *map = NULL;
    double hold = c->rebalance_hold_us / 1e6, apart = c->rebalance_apart_us / 1e6, judge = c->rebalance_judge_us / 1e6;
    int rc = yaml_want_mapping(root, "rebalance", &map, err);
    if (rc || !map)
        return rc;
    if ((rc = yaml_only_keys(map, known, err)) || (rc = yaml_want_bool(map, "enabled", &c->rebalance, err)) ||
        (rc = read_quantity(map, "hold", units_parse_seconds, "a time such as 30s", &hold, err)) ||
        (rc = read_quantity(map, "apart", units_parse_seconds, "a time such as 5m", &apart, err)) ||
        (rc = read_quantity(map, "judge", units_parse_seconds, "a time such as 30s", &judge, err)))
        return rc;
    if (hold < 1 || apart < 1 || judge < 1 || hold > 86400 || apart > 86400 || judge > 86400)
        return yaml_error(map, err, ERR_BOUND, "hold, apart and judge must be from 1s to 86400s");
    c->rebalance_hold_us = (int64_t)(hold * 1e6);
    c->rebalance_apart_us = (int64_t)(apart * 1e6);
    c->rebalance_judge_us = (int64_t)(judge * 1e6);
    return 0;
}

/* `file` as seen from the folder of `path`. */
static char *beside(const char *path, const char *file)
{
    const char *slash = strrchr(path, '/');
    if (*file == '/' || !slash)
        return mem_strdup(file);
    return mem_printf("%.*s/%s", (int)(slash - path), path, file);
}

static int read_document(const struct yaml_doc *doc, struct config *c, struct error *err)
{
    static const char *const known[] = {"version",     "coordinator",   "nodes",     "links", "kv",
                                        "activations", "deterministic", "heartbeat", "recovery", "rebalance", NULL};
    static const char *const known_coordinator[] = {"key", NULL};
    const struct yaml_value *root = yaml_root(doc), *coordinator;
    const char *key, *codec = NULL;
    int64_t version;
    int rc;
    if ((rc = yaml_only_keys(root, known, err)) || (rc = yaml_need_int(root, "version", 1, 1, &version, err)) ||
        (rc = yaml_need_mapping(root, "coordinator", &coordinator, err)) ||
        (rc = yaml_only_keys(coordinator, known_coordinator, err)) ||
        (rc = yaml_need_text(coordinator, "key", &key, err)) || (rc = read_nodes(root, c, err)) ||
        (rc = read_links(root, c, err)) || (rc = read_kv(root, c, err)) ||
        (rc = yaml_want_text(root, "activations", &codec, err)) ||
        (rc = yaml_want_bool(root, "deterministic", &c->deterministic, err)) || (rc = read_heartbeat(root, c, err)) ||
        (rc = read_recovery(root, c, err)) || (rc = read_rebalance(root, c, err)))
        return rc;
    if (!*key)
        return yaml_error(yaml_find(coordinator, "key"), err, ERR_FORMAT, "a file name is needed");
    c->codec_auto = codec && !strcmp(codec, "auto");
    if (codec && !c->codec_auto) {
        int parsed = codec_parse(codec);
        if (parsed <= CODEC_NONE || parsed >= CODEC_COUNT)
            return yaml_error(yaml_find(root, "activations"), err, ERR_FORMAT,
                              "\"%.40s\" is not f32, f16, bf16, q8 or auto", codec);
        c->codec = (enum frame_codec)parsed;
    }
    if (!(c->key_path = beside(c->path, key)))
        return error_set(err, ERR_NOMEM, "%s: out of memory", c->path);
    return 0;
}

static int take_document(const char *path, struct yaml_doc *doc, struct config **out, struct error *err)
{
    struct config *c = mem_zalloc(1, sizeof *c);
    int rc = c && (c->path = mem_strdup(path)) ? 0 : error_set(err, ERR_NOMEM, "%s: out of memory", path);
    if (!rc) {
        c->kv_type = KV_F16;
        c->deterministic = true;
        c->heartbeat_us = CONFIG_HEARTBEAT_US;
        c->lost_us = CONFIG_LOST_US;
        c->recover = true;
        c->rejoin_us = CONFIG_REJOIN_US;
        c->keep_bytes = CONFIG_KEEP_BYTES;
        c->rebalance = true;
        c->rebalance_hold_us = CONFIG_REBALANCE_HOLD_US;
        c->rebalance_apart_us = CONFIG_REBALANCE_APART_US;
        c->rebalance_judge_us = CONFIG_REBALANCE_JUDGE_US;
        rc = read_document(doc, c, err);
    }
    yaml_doc_free(doc);
    if (rc) {
        config_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

int config_read(const char *path, struct config **out, struct error *err)
{
    struct yaml_doc *doc;
    int rc = yaml_read_file(&doc, path, err);
    return rc ? rc : take_document(path, doc, out, err);
}

int config_read_text(const char *path, const char *text, size_t bytes, struct config **out, struct error *err)
{
    struct yaml_doc *doc;
    int rc = yaml_read_text(&doc, path, text, bytes, err);
    return rc ? rc : take_document(path, doc, out, err);
}

void config_free(struct config *c)
{
    if (!c)
        return;
    mem_free(c->path);
    mem_free(c->key_path);
    mem_free(c->nodes);
    mem_free(c->links);
    mem_free(c);
}
