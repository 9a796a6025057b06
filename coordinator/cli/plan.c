/* `brigade plan`: the partition, its prediction, and why; from measured profiles or from numbers in a file. */
#include <stdio.h>
#include <string.h>

#include "base/yaml.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "planner/json.h"

static const struct command_help help = {
    "brigade plan (-m MODEL [-c cluster.yaml | --stages K] | --what-if FILE) [options]",
    "Shows how a model's blocks are divided, what that is predicted to give, and why. With -m the nodes are measured; with\n"
    "--what-if the numbers come from a file and no hardware is needed.",
    "brigade plan -c cluster.yaml -m model.gguf\n"
    "brigade plan --what-if shopping.yaml --json",
};

/* Explains a plan and prints it, for people or as JSON. */
static int show(const struct plan_problem *problem, const struct plan_options *options, const struct plan *plan, bool json,
                struct error *err)
{
    struct plan_reasons *why = NULL;
    struct buffer text = {0};
    int rc = plan_explain(&why, problem, options, plan, err);
    if (!rc && json)
        rc = output_json(plan_to_json(problem, plan, why)) ? error_set(err, ERR_IO, "cannot write the plan") : 0;
    else if (!rc)
        rc = plan_text(&text, problem, plan, why) ? error_set(err, ERR_NOMEM, "out of memory for the plan")
                                                  : output_text(text.data, text.size, err);
    buffer_free(&text);
    plan_reasons_free(why);
    return rc;
}

/* --stages and --split as the planner's constraints. counts has room for the split. */
static struct plan_options constraints(const struct compute_options *compute, int *counts)
{
    struct plan_options options = {.stages = (int)compute->stages};
    for (size_t i = 0; i < compute->split.count; i++)
        counts[i] = (int)compute->split.values[i];
    if (compute->split.count) {
        options.stages = (int)compute->split.count;
        options.counts = counts;
    }
    return options;
}

static int plan_file(const char *path, const struct compute_options *compute, struct error *err)
{
    struct yaml_doc *doc = NULL;
    struct plan_problem *problem = NULL;
    struct plan plan;
    int counts[PLAN_MAX_DEVICES];
    if (compute->split.count > PLAN_MAX_DEVICES)
        return error_set(err, ERR_USAGE, "--split names %zu stages; at most %d", compute->split.count, PLAN_MAX_DEVICES);
    struct plan_options options = constraints(compute, counts);
    int rc = yaml_read_file(&doc, path, err);
    if (!rc)
        rc = plan_problem_from_yaml(&problem, doc, err);
    if (!rc && compute->objective)
        rc = plan_objective_parse(compute->objective, &problem->objective, err);
    if (!rc)
        rc = plan_solve(problem, &options, &plan, err);
    if (!rc)
        rc = show(problem, &options, &plan, compute->json, err);
    plan_problem_free(problem);
    yaml_doc_free(doc);
    return rc;
}

static int plan_cluster(struct compute_options *compute, struct error *err)
{
    struct runner *runner = NULL;
    int counts[PLAN_MAX_DEVICES];
    int rc = compute_open(compute, &runner, err);
    if (!rc) {
        struct plan_options options = constraints(compute, counts);
        rc = show(runner_problem(runner), &options, runner_plan(runner), compute->json, err);
    }
    runner_close(runner);
    return rc;
}

int command_plan(int argc, char **argv)
{
    struct compute_options compute = {.goal = RUNNER_PLAN, .predict = true};
    const char *what_if = NULL;
    int64_t prompt_tokens = 0, output_tokens = 0, concurrency = 0;
    const struct option own[] = {
        {"--what-if", 0, OPTION_TEXT, &what_if, "FILE", "plan from numbers in this file"},
        {"--prompt-tokens", 0, OPTION_INT, &prompt_tokens, "N", "prompt length to plan for (default 512)", 1, 1 << 24},
        {"--output-tokens", 0, OPTION_INT, &output_tokens, "N", "answer length to plan for (default 128)", 1, 1 << 24},
        {"--concurrency", 0, OPTION_INT, &concurrency, "N", "sequences at once to plan for (default 1)", 1, 4096},
    };
    int code;
    if (!compute_parse(&compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    if (what_if && (compute.model || compute.config))
        return options_wrong(&help, "--what-if takes everything from its file; -m and -c do not go with it");
    compute.prompt_tokens = (uint32_t)prompt_tokens;
    compute.output_tokens = (uint32_t)output_tokens;
    compute.concurrency = (uint32_t)concurrency;
    struct error err = {0};
    int rc = what_if ? plan_file(what_if, &compute, &err) : plan_cluster(&compute, &err);
    compute_release(&compute);
    return what_if && rc ? output_failure(&err) : options_exit(&help, rc, &err);
}
