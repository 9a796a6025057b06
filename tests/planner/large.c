/* How long large plans take and how far they are proven: the figures of docs/planner.md. Not a test: it reads a clock.
 * Run: large [problems] */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/memory.h"
#include "planner/explain.h"
#include "tests/planner/oracle.h"

static const double tightness[] = {1.1, 1.3, 1.6, 2.2, 3, 5, 12};

/* `devices` devices of the problem's own, each repeated; links between repeats of one are its own local network. */
static struct plan_problem *repeat(const struct plan_problem *p, int devices)
{
    struct plan_problem *q = plan_problem_new(p->model.blocks, devices);
    if (!q)
        return NULL;
    int types = p->devices;
    for (int k = 0; k < p->model.blocks; k++)
        q->model.block[k] = p->model.block[k];
    q->model.hidden = p->model.hidden;
    q->model.embedding_bytes = p->model.embedding_bytes;
    q->model.head_weight_bytes = p->model.head_weight_bytes;
    q->model.head_flops_per_token = p->model.head_flops_per_token;
    q->workload = p->workload;
    q->coordinator = mem_strdup("desk");
    for (int d = 0; d < devices; d++) {
        q->device[d] = p->device[d % types];
        q->device[d].name = mem_printf("e%d", d);
        q->device[d].memory *= types / (double)devices;
    }
    for (int a = 0; a <= devices; a++)
        for (int b = 0; b <= devices; b++) {
            int x = a == devices ? types : a % types, y = b == devices ? types : b % types;
            struct plan_link local = {1e8 * (1 + x), 1e-4 * (1 + x), 0};
            q->link[a * (devices + 1) + b] = x == y ? local : p->link[x * (types + 1) + y];
        }
    return q;
}

static double seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static void measure(const char *name, int problems, int devices, int types, int blocks, int flavour)
{
    for (int o = 0; o < PLAN_OBJECTIVES; o++) {
        double sum = 0, most = 0, gap = 0, gaps = 0, why_most = 0;
        int solved = 0, exact = 0;
        for (int i = 0; i < problems; i++) {
            struct oracle_random r = {.state = 1000 + (uint64_t)i};
            struct plan_problem *p = oracle_problem(&r, types, blocks, flavour, tightness[i % 7]), *q;
            struct plan plan;
            struct plan_reasons *why = NULL;
            if (!p)
                exit(1);
            if (types < devices) {
                q = repeat(p, devices);
                plan_problem_free(p);
                if (!(p = q))
                    exit(1);
            }
            p->objective = (enum plan_objective)o;
            double begin = seconds();
            int rc = plan_solve(p, NULL, &plan, NULL);
            double took = seconds() - begin;
            if (!rc) {
                double g = plan_gap_percent(&plan);
                solved++;
                exact += g <= 0;
                sum += took;
                most = took > most ? took : most;
                gap = g > gap ? g : gap;
                gaps += g;
                begin = seconds();
                if (plan_explain(&why, p, NULL, &plan, NULL))
                    exit(1);
                took = seconds() - begin;
                why_most = took > why_most ? took : why_most;
            }
            plan_reasons_free(why);
            plan_problem_free(p);
        }
        printf("| %s | %s | %d of %d | %d | %.2f %% | %.2f %% | %.2f s | %.2f s | %.2f s |\n", name,
               plan_objective_name((enum plan_objective)o), solved, problems, exact, solved ? gaps / solved : 0, gap,
               solved ? sum / solved : 0, most, why_most);
    }
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 70;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("| problem | objective | feasible | proven optimal | mean gap | largest gap | mean time | longest | longest "
           "explanation |\n|---|---|---|---|---|---|---|---|---|\n");
    measure("80 blocks, 16 devices", n, 16, 16, 80, ORACLE_PLAIN);
    measure("80 uneven blocks, 16 devices", n, 16, 16, 80, ORACLE_UNEVEN_BLOCKS);
    measure("126 blocks, 64 devices of 8 types", n, 64, 8, 126, ORACLE_PLAIN);
    return 0;
}
