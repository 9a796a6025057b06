/* When to move blocks though nothing was lost: measured stage times have drifted from the plan. Damped: the gain must
 * be there for a while, moves are far apart, and one that made things worse is taken back. Pure; one owner thread. */
#ifndef BRIGADE_COORDINATOR_CORE_REBALANCE_H
#define BRIGADE_COORDINATOR_CORE_REBALANCE_H

#include <stdbool.h>
#include <stdint.h>

#define REBALANCE_GAIN 0.10
#define REBALANCE_HOLD_US INT64_C(30000000)   /* the gain must be there for so long */
#define REBALANCE_APART_US INT64_C(300000000) /* between two moves */
#define REBALANCE_JUDGE_US INT64_C(30000000)  /* after a move, before it is judged */
#define REBALANCE_WORSE 1.05                  /* a round that takes so much longer than before: back */

struct rebalance { /* start from {0} */
    int64_t hold_us, apart_us, judge_us; /* what is said above, unless 0 */
    bool promising, moved, judging;
    int64_t since_us, moved_us;
    double before_seconds;
};

enum rebalance_verdict { REBALANCE_STAY, REBALANCE_MOVE, REBALANCE_BACK };

/* A look at things: gain of the best plan over what runs (0.1: 10 %), and what a round of decoding takes now (0: not
 * known). MOVE and BACK are to be carried out at once. */
enum rebalance_verdict rebalance_look(struct rebalance *r, double gain, double round_seconds, int64_t now_us);
/* Something else changed what runs: nothing is judged by what came before. */
void rebalance_forget(struct rebalance *r, int64_t now_us);

#endif
