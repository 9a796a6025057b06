/* A brute-force planner for small problems, written from the text of the what-if model alone: it shares no code with
 * planner/, only the problem's numbers. And the random problems that both are asked about. */
#ifndef BRIGADE_TESTS_PLANNER_ORACLE_H
#define BRIGADE_TESTS_PLANNER_ORACLE_H

#include <stdint.h>

#include "planner/problem.h"

struct oracle_answer {
    int feasible;
    double value;               /* TPOT, cycle or TTFT of the best plan, seconds */
    int stages, order[8];       /* of the plan that the tie rule picks among the best */
    long plans;                 /* how many were compared */
};

/* Constraints: stages 0 for any; counts and order NULL for free ones. */
struct oracle_answer oracle_solve(const struct plan_problem *p, int stages, const int *counts, const int *order);
/* The value of one given plan, or INFINITY when it does not fit. */
double oracle_value(const struct plan_problem *p, int stages, const int *order, const int *counts);

/* A small deterministic generator. */
struct oracle_random {
    uint64_t state;
};
double oracle_uniform(struct oracle_random *r, double low, double high);
double oracle_spread(struct oracle_random *r, double low, double high); /* log-uniform */
int oracle_below(struct oracle_random *r, int n);

enum oracle_flavour {
    ORACLE_PLAIN = 0,
    ORACLE_UNEVEN_BLOCKS = 1, /* blocks differ */
    ORACLE_TWINS = 2,         /* some devices are identical */
    ORACLE_ROUND = 4,         /* powers of two only, so that ties are exact and common */
    ORACLE_FLAT_LINKS = 8,    /* one link for all pairs */
};
/* A problem; tightness: what the devices' memory is of the model's, 0.8 scarce to 4 ample. Freed by the caller. */
struct plan_problem *oracle_problem(struct oracle_random *r, int devices, int blocks, int flavour, double tightness);

#endif
