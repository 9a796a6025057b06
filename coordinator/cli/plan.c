/* `brigade plan`: the partition, its prediction, and why; from measured profiles or from numbers in a file. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/yaml.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/tokens.h"
#include "planner/json.h"
#include "planner/simulate.h"

static const struct command_help help = {
    "brigade plan (-m MODEL [-c cluster.yaml | --stages K] | --what-if FILE) [options]",
    "Shows how a model's blocks are divided, what that is predicted to give, and why. With -m the nodes are measured; with\n"
    "--what-if the numbers come from a file and no hardware is needed.",
    "brigade plan -c cluster.yaml -m model.gguf\n"
    "brigade plan --what-if shopping.yaml --gantt plan.svg\n"
    "brigade plan --what-if shopping.yaml --simulate requests.csv --slo ttft=1s,tpot=200ms --json",
};

/* What is wanted beside the plan itself. */
struct plan_asked {
    const char *what_if, *gantt, *requests, *slo;
    bool json;
};

static int write_gantt(const char *path, const struct plan_problem *problem, const struct plan *plan, struct error *err)
{
    struct buffer svg = {0};
    int rc = plan_gantt_svg(&svg, problem, plan, err);
    FILE *f = rc ? NULL : fopen(path, "wb");
    if (!rc && !f)
        rc = error_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (f) {
        bool whole = fwrite(svg.data, 1, svg.size, f) == svg.size;
        if (fclose(f) || !whole)
            rc = error_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    }
    buffer_free(&svg);
    return rc;
}

static int simulate(const struct plan_asked *asked, const struct plan_problem *problem, const struct plan *plan,
                    struct plan_simulation *out, struct error *err)
{
    struct buffer text = {0};
    struct plan_request *requests = NULL;
    struct plan_slo slo = {INFINITY, INFINITY};
    size_t count;
    int rc = asked->slo ? plan_slo_parse(asked->slo, &slo, err) : 0;
    if (!rc)
        rc = tokens_read_text(NULL, asked->requests, &text, err);
    if (!rc)
        rc = plan_requests_parse(&requests, &count, asked->requests, text.data, text.size, err);
    if (!rc)
        rc = plan_simulate(out, problem, plan, requests, count, asked->slo ? &slo : NULL, NULL, NULL, err);
    mem_free(requests);
    buffer_free(&text);
    return rc;
}

/* Explains a plan and prints it, for people or as JSON; simulates and draws when asked to. */
static int show(const struct plan_asked *asked, const struct plan_problem *problem, const struct plan_options *options,
                const struct plan *plan, struct error *err)
{
    struct plan_reasons *why = NULL;
    struct plan_simulation simulation;
    struct buffer text = {0};
    int rc = plan_explain(&why, problem, options, plan, err);
    if (!rc && asked->requests)
        rc = simulate(asked, problem, plan, &simulation, err);
    if (!rc && asked->gantt)
        rc = write_gantt(asked->gantt, problem, plan, err);
    if (!rc && asked->json) {
        json_t *document = plan_to_json(problem, plan, why);
        if (asked->requests && json_object_set_new(document, "simulation", plan_simulation_to_json(problem, plan, &simulation)))
            rc = error_set(err, ERR_NOMEM, "out of memory for the simulation");
        if (output_json(document))
            rc = error_set(err, ERR_IO, "cannot write the plan");
    } else if (!rc) {
        if (plan_text(&text, problem, plan, why) ||
            (asked->requests && plan_simulation_text(&text, problem, plan, &simulation)))
            rc = error_set(err, ERR_NOMEM, "out of memory for the plan");
        else
            rc = output_text(text.data, text.size, err);
    }
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

static int plan_file(const struct plan_asked *asked, const struct compute_options *compute, struct error *err)
{
    struct yaml_doc *doc = NULL;
    struct plan_problem *problem = NULL;
    struct plan plan;
    int counts[PLAN_MAX_DEVICES];
    if (compute->split.count > PLAN_MAX_DEVICES)
        return error_set(err, ERR_USAGE, "--split names %zu stages; at most %d", compute->split.count, PLAN_MAX_DEVICES);
    struct plan_options options = constraints(compute, counts);
    int rc = yaml_read_file(&doc, asked->what_if, err);
    if (!rc)
        rc = plan_problem_from_yaml(&problem, doc, err);
    if (!rc && compute->objective)
        rc = plan_objective_parse(compute->objective, &problem->objective, err);
    if (!rc)
        rc = plan_solve(problem, &options, &plan, err);
    if (!rc)
        rc = show(asked, problem, &options, &plan, err);
    plan_problem_free(problem);
    yaml_doc_free(doc);
    return rc;
}

static int plan_cluster(const struct plan_asked *asked, struct compute_options *compute, struct error *err)
{
    struct runner *runner = NULL;
    int counts[PLAN_MAX_DEVICES];
    int rc = compute_open(compute, &runner, err);
    if (!rc) {
        struct plan_options options = constraints(compute, counts);
        rc = show(asked, runner_problem(runner), &options, runner_plan(runner), err);
    }
    runner_close(runner);
    return rc;
}

int command_plan(int argc, char **argv)
{
    struct compute_options compute = {.goal = RUNNER_PLAN, .predict = true};
    struct plan_asked asked = {0};
    int64_t prompt_tokens = 0, output_tokens = 0, concurrency = 0;
    const struct option own[] = {
        {"--what-if", 0, OPTION_TEXT, &asked.what_if, "FILE", "plan from numbers in this file"},
        {"--prompt-tokens", 0, OPTION_INT, &prompt_tokens, "N", "prompt length to plan for (default 512)", 1, 1 << 24},
        {"--output-tokens", 0, OPTION_INT, &output_tokens, "N", "answer length to plan for (default 128)", 1, 1 << 24},
        {"--concurrency", 0, OPTION_INT, &concurrency, "N", "sequences at once to plan for (default 1)", 1, 4096},
        {"--gantt", 0, OPTION_TEXT, &asked.gantt, "FILE", "draw a decode step and a chunked prefill as SVG"},
        {"--simulate", 0, OPTION_TEXT, &asked.requests, "FILE", "queue these requests: arrival_s,prompt_tokens,output_tokens"},
        {"--slo", 0, OPTION_TEXT, &asked.slo, "BOUNDS", "goodput of the simulation under ttft=1s,tpot=200ms"},
    };
    int code;
    if (!compute_parse(&compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    if (asked.slo && !asked.requests)
        return options_wrong(&help, "--slo needs --simulate");
    asked.json = compute.json;
    if (asked.what_if && (compute.model || compute.config))
        return options_wrong(&help, "--what-if takes everything from its file; -m and -c do not go with it");
    compute.prompt_tokens = (uint32_t)prompt_tokens;
    compute.output_tokens = (uint32_t)output_tokens;
    compute.concurrency = (uint32_t)concurrency;
    struct error err = {0};
    int rc = asked.what_if ? plan_file(&asked, &compute, &err) : plan_cluster(&asked, &compute, &err);
    compute_release(&compute);
    return asked.what_if && rc ? output_failure(&err) : options_exit(&help, rc, &err);
}
