/* `brigade plan`: the partition, its prediction, and why; from measured profiles or from numbers in a file. */
#include <stdio.h>
#include <string.h>

#include "base/yaml.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/prediction.h"
#include "planner/plan.h"

static const struct command_help help = {
    "brigade plan (-m MODEL [-c cluster.yaml | --stages K] | --what-if FILE) [options]",
    "Shows how a model's blocks are divided, what that is predicted to give, and why. With -m the nodes are measured; with\n"
    "--what-if the numbers come from a file and no hardware is needed.",
    "brigade plan -c cluster.yaml -m model.gguf\n"
    "brigade plan --what-if shopping.yaml --json",
};

int command_plan(int argc, char **argv)
{
    struct compute_options compute = {.goal = RUNNER_PLAN, .predict = true};
    const char *what_if = NULL;
    struct option table[COMPUTE_OPTIONS + 1];
    size_t rows = compute_option_rows(&compute, table);
    const struct option own[] = {
        {"--what-if", 0, OPTION_TEXT, &what_if, "FILE", "plan from numbers in this file"},
    };
    memcpy(table + rows, own, sizeof own);
    rows += sizeof own / sizeof *own;
    size_t words;
    enum options_outcome parsed = options_parse(argc, argv, table, rows, &help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    struct error err = {0};
    struct runner *runner = NULL;
    int rc = compute_open(&compute, &runner, &err);
    int code = rc == ERR_USAGE ? options_wrong(&help, "%s", err.text) : rc ? output_failure(&err) : 0;
    if (!rc) {
        prediction_plan_table(runner);
        prediction_print_bench(runner);
    }
    runner_close(runner);
    compute_release(&compute);
    return code;
}
