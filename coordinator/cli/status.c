/* `brigade status`: what the nodes of a cluster are and do, without disturbing them. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/status.h"
#include "base/units.h"

static const struct command_help help = {
    "brigade status -c cluster.yaml [--watch [--interval S]] [--json]",
    "Asks every node who it is, what it holds and how busy it is. Claims nothing: safe while another coordinator runs.",
    "brigade status -c cluster.yaml --watch",
};

static json_t *node_json(const struct runner_node *n)
{
    json_t *node = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:i}",
                             "name", n->name, "endpoint", n->endpoint, "state", n->state, "detail", n->detail, "public_key",
                             n->public_key, "version", n->version, "isa", n->isa, "cpu", n->cpu, "cores", (int)n->cores,
                             "threads", (int)n->threads, "memory_bytes", (json_int_t)n->memory_bytes, "resident_bytes",
                             (json_int_t)n->resident_bytes, "busy_us", (json_int_t)n->busy_us, "microbatches",
                             (json_int_t)n->microbatches, "tokens", (json_int_t)n->tokens, "bytes_in", (json_int_t)n->bytes_in,
                             "bytes_out", (json_int_t)n->bytes_out, "rtt_ms", n->rtt_seconds * 1e3, "refused", (int)n->refused);
    if (node && n->model[0])
        json_object_set_new(node, "loaded", json_pack("{s:s, s:i, s:i}", "model", n->model, "first_block", (int)n->first_block,
                                                      "last_block", (int)n->last_block));
    if (node) {
        json_object_set_new(node, "machine", json_integer(n->machine));
        json_object_set_new(node, "weights_in", json_integer((json_int_t)n->weights_in));
        json_object_set_new(node, "weights_out", json_integer((json_int_t)n->weights_out));
    }
    if (node && n->decode_seconds > 0) {
        json_object_set_new(node, "decode_ms", json_real(n->decode_seconds * 1e3));
        json_object_set_new(node, "decode_predicted_ms", n->expected_seconds > 0 ? json_real(n->expected_seconds * 1e3)
                                                                                : json_null());
    }
    if (node && n->temperature_millic)
        json_object_set_new(node, "temperature_c", json_real(n->temperature_millic / 1e3));
    if (node && n->energy_measured)
        json_object_set_new(node, "watts", json_real(n->watts));
    return node;
}

json_t *status_json(const struct runner_status *s)
{
    json_t *nodes = json_array(), *links = json_array();
    for (uint32_t i = 0; i < s->node_count; i++)
        json_array_append_new(nodes, node_json(&s->nodes[i]));
    for (uint32_t i = 0; i < s->link_count; i++)
        json_array_append_new(links, json_pack("{s:s, s:s, s:f, s:f, s:b}", "from", s->links[i].from, "to", s->links[i].to,
                                               "bytes_per_s", s->links[i].bytes_per_s, "rtt_ms", s->links[i].rtt_seconds * 1e3,
                                               "measured", s->links[i].measured));
    return json_pack("{s:o, s:o}", "nodes", nodes, "links", links);
}

static void status_print(const struct runner_status *s)
{
    const char *heads[] = {"node", "state", "endpoint", "isa", "cores", "memory", "holds", "rtt", "decode", "predicted"};
    struct table *t = table_create(sizeof heads / sizeof *heads);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        table_cell(t, "%s", heads[i]);
    for (uint32_t i = 0; i < s->node_count; i++) {
        const struct runner_node *n = &s->nodes[i];
        char memory[UNITS_TEXT];
        table_cell(t, "%s", n->name);
        table_cell(t, "%s", n->state);
        table_cell(t, "%s", n->endpoint);
        table_cell(t, "%s", n->isa[0] ? n->isa : "-");
        table_cell(t, "%u", n->cores);
        table_cell(t, "%s", n->memory_bytes ? units_bytes_text(n->memory_bytes, memory) : "-");
        if (n->model[0])
            table_cell(t, "%s blocks %u-%u", n->model, n->first_block, n->last_block);
        else
            table_cell(t, "-");
        table_cell(t, n->rtt_seconds > 0 ? "%.2f ms" : "-", n->rtt_seconds * 1e3);
        table_cell(t, n->decode_seconds > 0 ? "%.3g ms" : "-", n->decode_seconds * 1e3);
        if (n->decode_seconds > 0 && n->expected_seconds > 0)
            table_cell(t, "%.3g ms (%+.0f %%)", n->expected_seconds * 1e3,
                       (n->decode_seconds / n->expected_seconds - 1) * 100);
        else
            table_cell(t, "-");
    }
    table_print(t);
    table_destroy(t);
    for (uint32_t i = 0; i < s->node_count; i++)
        if (s->nodes[i].detail[0])
            printf("%s: %s\n", s->nodes[i].name, s->nodes[i].detail);
}

/* One look: opens, prints, closes, so that a watch also notices a changed cluster.yaml. */
static int look(struct compute_options *compute, struct error *err)
{
    struct runner *runner = NULL;
    struct runner_status status = {0};
    int rc = compute_open(compute, &runner, err);
    if (!rc)
        rc = runner_status(runner, &status, err);
    if (!rc && compute->json) {
        rc = output_document(status_json(&status), err);
    } else if (!rc) {
        status_print(&status);
        rc = output_text("", 0, err); /* at once, also into a pipe */
    }
    runner_status_free(&status);
    runner_close(runner);
    return rc;
}

int command_status(int argc, char **argv)
{
    struct compute_options compute = {.goal = RUNNER_LOOK};
    bool watch = false;
    double interval = 2;
    const struct option table[] = {
        {"--config", 'c', OPTION_TEXT, &compute.config, "FILE", "cluster.yaml (default: the one here)"},
        {"--watch", 'w', OPTION_FLAG, &watch, NULL, "look again until interrupted"},
        {"--interval", 0, OPTION_NUMBER, &interval, "S", "seconds between looks (default 2)", 0.1, 3600},
        {"--json", 0, OPTION_FLAG, &compute.json, NULL, "print {\"nodes\": [...]}, one object a look"},
    };
    size_t words;
    enum options_outcome parsed = options_parse(argc, argv, table, sizeof table / sizeof *table, &help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (!compute.config)
        compute.config = "cluster.yaml";
    struct error err = {0};
    int rc;
    do {
        if (watch && !compute.json && output_on_terminal())
            fputs("\033[H\033[2J", stdout);
        rc = look(&compute, &err);
        if (!rc && watch && !compute_interrupted)
            usleep((useconds_t)(interval * 1e6));
    } while (!rc && watch && !compute_interrupted && !output_unread());
    /* A watch ends when it is told to, or when nobody reads it any more. */
    return rc && !(watch && (rc == ERR_CANCELLED || output_unread())) ? output_failure(&err) : 0;
}
