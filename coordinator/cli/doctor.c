/* `brigade doctor`: is every node of the cluster well, and what to change. */
#include <signal.h>
#include <stdio.h>

#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "coordinator/core/examine.h"

static const struct command_help help = {
    "brigade doctor [-c cluster.yaml] [--wait S] [--all] [--json]",
    "Examines every node of a cluster: reach, key, versions, memory that can be admitted, temperature and throttling, "
    "link,\n"
    "MTU, clock. Says what to change. Claims nothing: safe while a coordinator runs. Exits with 1 when something is "
    "wrong.",
    "brigade doctor -c cluster.yaml --all",
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* What most nodes have. */
static uint32_t common_kernels(const struct node_facts *facts, uint32_t count)
{
    uint32_t best = 0, votes = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t same = 0;
        for (uint32_t k = 0; k < count; k++)
            same += facts[i].welcomed && facts[k].welcomed && facts[k].kernels_version == facts[i].kernels_version;
        if (same > votes) {
            votes = same;
            best = facts[i].kernels_version;
        }
    }
    return best;
}

static json_t *findings_json(const struct node_facts *n, const struct findings *f)
{
    static const char *const levels[] = {"good", "hint", "bad"};
    json_t *list = json_array();
    for (size_t i = 0; i < f->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "check", f->list[i].check, "level",
                                              levels[f->list[i].level], "text", f->list[i].text));
    json_t *node = json_pack("{s:s, s:s, s:b, s:o}", "name", n->node->name, "endpoint", n->node->endpoint, "well",
                             !findings_bad(f), "findings", list);
    if (node && n->reported)
        json_object_set_new(node, "report",
                            json_pack("{s:I, s:I, s:f, s:i, s:s, s:f}", "memory_available",
                                      (json_int_t)n->report.memory_available, "memory_admitted",
                                      (json_int_t)n->report.memory_admitted, "temperature_c",
                                      n->report.temperature_millic / 1e3, "mtu", (int)n->report.mtu, "interface",
                                      n->report.interface, "clock_offset_ms", (double)n->clock_offset_us / 1e3));
    return node;
}

static void print_node(const struct node_facts *n, const struct findings *f, bool all)
{
    static const char *const marks[] = {"ok", "hint", "BAD"};
    size_t good = 0;
    printf("%s  %s\n", n->node->name, n->node->endpoint);
    for (size_t i = 0; i < f->count; i++) {
        good += f->list[i].level == FINDING_GOOD;
        if (all || f->list[i].level != FINDING_GOOD)
            printf("  %-4s  %-12s %s\n", marks[f->list[i].level], f->list[i].check, f->list[i].text);
    }
    if (!all && good)
        printf("  ok    %zu more check%s\n", good, good > 1 ? "s" : "");
}

static int report(const struct node_facts *facts, uint32_t count, bool all, bool json, bool *well)
{
    struct findings f;
    json_t *nodes = json ? json_array() : NULL;
    uint32_t bad = 0, kernels = common_kernels(facts, count);
    for (uint32_t i = 0; i < count; i++) {
        diagnose(&facts[i], kernels, &f);
        bad += findings_bad(&f);
        if (json)
            json_array_append_new(nodes, findings_json(&facts[i], &f));
        else
            print_node(&facts[i], &f, all);
    }
    *well = !bad;
    if (json)
        return output_json(json_pack("{s:b, s:o}", "well", !bad, "nodes", nodes));
    if (bad)
        printf("%u of %u node%s: something is wrong\n", bad, count, count > 1 ? "s" : "");
    else
        printf("%u node%s: well\n", count, count > 1 ? "s" : "");
    return 0;
}

int command_doctor(int argc, char **argv)
{
    const char *path = "cluster.yaml";
    bool json = false, all = false, well = false;
    double wait = 5;
    const struct option table[] = {
        {"--config", 'c', OPTION_TEXT, &path, "FILE", "cluster.yaml (default: the one here)"},
        {"--wait", 0, OPTION_NUMBER, &wait, "S", "longest wait for answers (default 5)", 0.5, 120},
        {"--all", 'a', OPTION_FLAG, &all, NULL, "show also what is good"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"well\": ..., \"nodes\": [{\"findings\": [...]}]}"},
    };
    size_t words;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    struct error err = {0};
    struct config *config = NULL;
    struct node_facts *facts = NULL;
    int rc = config_read(path, &config, &err);
    if (!rc && !config->node_count)
        rc = error_set(&err, ERR_NOTFOUND, "%s: has no nodes yet; 'brigade invite -c %s' lets a board in", path, path);
    if (!rc && !(facts = mem_zalloc(config->node_count, sizeof *facts)))
        rc = error_set(&err, ERR_NOMEM, "out of memory for %u nodes", config->node_count);
    if (!rc)
        rc = examine(config, (int)(wait * 1000), &interrupted, facts, &err);
    int code = rc ? output_failure(&err) : report(facts, config->node_count, all, json, &well);
    mem_free(facts);
    config_free(config);
    return code ? code : !well;
}
