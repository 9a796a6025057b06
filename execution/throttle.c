/* Sleeps until shortly before the time, then spins. Owns nothing. */
#include "execution/throttle.h"

#include "base/clock.h"

#define SPIN_NS 100000 /* how late a sleeper may wake */

static void wait_until(int64_t end)
{
    clock_sleep_ns(end - clock_ns() - SPIN_NS);
    while (clock_ns() < end)
        ;
}

static struct throttle_row *find_row(struct throttle *t, const struct throttle_shape *shape)
{
    uint32_t reach = 0;
    for (uint32_t past = shape->past; past; past >>= 1)
        reach++;
    struct throttle_row *row = &t->row[(shape->blocks * 11 + shape->tokens * 7 + shape->sequences * 3 + reach) % THROTTLE_SHAPES];
    if (row->blocks != shape->blocks || row->tokens != shape->tokens || row->sequences != shape->sequences ||
        row->reach != reach)
        *row = (struct throttle_row){
            .blocks = shape->blocks, .tokens = shape->tokens, .sequences = shape->sequences, .reach = reach};
    return row;
}

void throttle_wait(struct throttle *t, const struct throttle_shape *shape, int64_t started_ns)
{
    if (t->factor <= 1)
        return;
    struct throttle_row *row = find_row(t, shape);
    row->ns[row->count++ % THROTTLE_KEPT] = clock_ns() - started_ns;
    int64_t least = row->ns[0];
    for (uint32_t i = 1; i < row->count && i < THROTTLE_KEPT; i++)
        least = row->ns[i] < least ? row->ns[i] : least;
    wait_until(started_ns + (int64_t)((double)least * t->factor));
}

void throttle_forget(struct throttle *t)
{
    *t = (struct throttle){.factor = t->factor};
}
