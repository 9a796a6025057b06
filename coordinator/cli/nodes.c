/* `brigade nodes`: who is in cluster.yaml, who is on the network, and taking one out; `brigade revoke` is the same last
 * thing by another name. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/net.h"
#include "base/units.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "coordinator/core/cluster_file.h"
#include "proto/discovery.h"
#include "proto/join.h"

static const struct command_help nodes_help = {
    "brigade nodes [-c cluster.yaml] [--discover [--wait S]] [--json] | nodes remove NAME [-c cluster.yaml]",
    "Lists the nodes of a cluster, without asking them anything ('brigade status' and 'brigade doctor' do). "
    "--discover\n"
    "asks the local network (multicast DNS, _brigade._tcp) for workers and says which are in the cluster; a board that "
    "is\n"
    "not comes in with 'brigade invite'. 'nodes remove NAME' is 'brigade revoke NAME'.",
    "brigade nodes -c cluster.yaml\nbrigade nodes --discover",
};

static const struct command_help revoke_help = {
    "brigade revoke NAME [-c cluster.yaml] [--json]",
    "Takes a node out of cluster.yaml, with the links that name it; comments and order stay. A coordinator that runs\n"
    "drops the node within a second and goes on with the others. Its key comes back in with a new invitation only.",
    "brigade revoke pi-kitchen -c cluster.yaml",
};

static int revoke(const char *config, const char *name, bool json, struct error *err)
{
    struct config_node was;
    char fingerprint[JOIN_FINGERPRINT_TEXT];
    int rc = cluster_file_remove(config, name, &was, err);
    if (rc)
        return rc;
    join_fingerprint(was.public_key, fingerprint);
    if (json)
        return output_json(json_pack("{s:s, s:s, s:s}", "revoked", was.name, "endpoint", was.endpoint, "public_key",
                                     was.public_key))
                   ? error_set(err, ERR_IO, "cannot write the answer")
                   : 0;
    printf("%s: \"%s\" (%s, fingerprint %s) is out; a running coordinator drops it within a second\n", config, was.name,
           was.endpoint, fingerprint);
    return 0;
}

/* The node of the cluster that has this key; NULL when none has. */
static const struct config_node *find(const struct config *c, const char *public_key)
{
    for (uint32_t i = 0; c && i < c->node_count; i++)
        if (!strcmp(c->nodes[i].public_key, public_key))
            return &c->nodes[i];
    return NULL;
}

static int list(const struct config *c, bool json, struct error *err)
{
    static const char *const heads[] = {"node", "endpoint", "fingerprint", "memory cap"};
    struct table *t = json ? NULL : table_create(4);
    json_t *nodes = json ? json_array() : NULL;
    char fingerprint[JOIN_FINGERPRINT_TEXT], memory[UNITS_TEXT];
    for (size_t i = 0; t && i < 4; i++)
        table_cell(t, "%s", heads[i]);
    for (uint32_t i = 0; i < c->node_count; i++) {
        const struct config_node *n = &c->nodes[i];
        join_fingerprint(n->public_key, fingerprint);
        if (json)
            json_array_append_new(nodes, json_pack("{s:s, s:s, s:s, s:s, s:I}", "name", n->name, "endpoint",
                                                   n->endpoint, "public_key", n->public_key, "fingerprint", fingerprint,
                                                   "memory_bytes", (json_int_t)n->memory_bytes));
        table_cell(t, "%s", n->name);
        table_cell(t, "%s", n->endpoint);
        table_cell(t, "%s", fingerprint);
        table_cell(t, "%s", n->memory_bytes ? units_bytes_text(n->memory_bytes, memory) : "-");
    }
    if (json)
        return output_json(json_pack("{s:o}", "nodes", nodes)) ? error_set(err, ERR_IO, "cannot write the list") : 0;
    if (c->node_count)
        table_print(t);
    else
        printf("%s: no nodes yet; 'brigade invite -c %s' lets a board in\n", c->path, c->path);
    table_destroy(t);
    return 0;
}

static int discover(const struct config *c, double seconds, bool json, struct error *err)
{
    static const char *const heads[] = {"worker", "endpoint", "fingerprint", "program", "in the cluster"};
    struct dns_sd_service *found = NULL;
    size_t count = 0;
    int rc = discovery_ask((int)(seconds * 1000), &found, &count, err);
    if (rc)
        return rc;
    struct table *t = json ? NULL : table_create(5);
    json_t *workers = json ? json_array() : NULL;
    for (size_t i = 0; t && i < 5; i++)
        table_cell(t, "%s", heads[i]);
    for (size_t i = 0; i < count; i++) {
        const struct dns_sd_service *s = &found[i];
        const struct config_node *known = find(c, s->public_key);
        char endpoint[64], fingerprint[JOIN_FINGERPRINT_TEXT] = "?";
        snprintf(endpoint, sizeof endpoint, "tcp://%u.%u.%u.%u:%u", s->address[0], s->address[1], s->address[2],
                 s->address[3], s->port);
        if (*s->public_key)
            join_fingerprint(s->public_key, fingerprint);
        if (json)
            json_array_append_new(workers, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", s->name, "endpoint",
                                                     endpoint, "public_key", s->public_key, "fingerprint", fingerprint,
                                                     "version", s->version, "in_cluster_as", known ? known->name : ""));
        table_cell(t, "%s", *s->name ? s->name : s->instance);
        table_cell(t, "%s", endpoint);
        table_cell(t, "%s", fingerprint);
        table_cell(t, "%s", s->version);
        table_cell(t, "%s%s", known ? "as " : "no", known ? known->name : "");
    }
    mem_free(found);
    if (json)
        return output_json(json_pack("{s:o}", "workers", workers)) ? error_set(err, ERR_IO, "cannot write the list")
                                                                   : 0;
    if (count)
        table_print(t);
    else
        printf("no worker answers on this network; workers on loopback, behind routers or started with --announce off "
               "do not\n");
    table_destroy(t);
    return 0;
}

int command_nodes(int argc, char **argv)
{
    const char *config = "cluster.yaml", *words[2] = {0};
    bool json = false, asks = false, given = false;
    double wait = 1.5;
    const struct option table[] = {
        {"--config", 'c', OPTION_TEXT, &config, "FILE", "cluster.yaml (default: the one here)"},
        {"--discover", 0, OPTION_FLAG, &asks, NULL, "ask the local network for workers"},
        {"--wait", 0, OPTION_NUMBER, &wait, "S", "seconds to listen for them (default 1.5)", 0.1, 60},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"nodes\": [...]} or {\"workers\": [...]}"},
    };
    size_t count;
    const char *standard = config;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &nodes_help, words, 2, &count);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (count && strcmp(words[0], "remove"))
        return options_wrong(&nodes_help, "'%s' is nothing that can be done with nodes (remove NAME)", words[0]);
    if (count == 1)
        return options_wrong(&nodes_help, "remove which node? Give its name");
    struct error err = {0};
    struct config *c = NULL;
    given = config != standard;
    int rc = count ? revoke(config, words[1], json, &err) : 0;
    if (!count) {
        rc = config_read(config, &c, &err);
        if (rc == ERR_NOTFOUND && asks && !given) /* nothing to compare with */
            rc = 0;
        else if (rc == ERR_NOTFOUND)
            error_set(&err, rc, "%s: there is no such file; 'brigade init %s' makes one", config, config);
        if (!rc)
            rc = asks ? discover(c, wait, json, &err) : list(c, json, &err);
    }
    config_free(c);
    return rc ? output_failure(&err) : 0;
}

int command_revoke(int argc, char **argv)
{
    const char *config = "cluster.yaml", *name = NULL;
    bool json = false;
    const struct option table[] = {
        {"--config", 'c', OPTION_TEXT, &config, "FILE", "cluster.yaml (default: the one here)"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"revoked\": ...}"},
    };
    size_t count;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &revoke_help, &name, 1, &count);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (!count)
        return options_wrong(&revoke_help, "revoke which node? 'brigade nodes' lists them");
    struct error err = {0};
    return revoke(config, name, json, &err) ? output_failure(&err) : 0;
}
