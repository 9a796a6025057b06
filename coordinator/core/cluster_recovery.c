/* What goes wrong in a cluster, and what is done about it: losses, refusals and failures end everything while nothing
 * ran yet; afterwards they end the epoch, and the next one is planned over whatever is left. Pure; one owner thread. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/core/cluster_state.h"

#define GREET_AGAIN_US INT64_C(1000000) /* a lost node whose connection stands is asked so often */
#define GREET_REFUSED_US INT64_C(2000000) /* and one that was refused: another release may run there by now */
#define SHUN_US INT64_C(30000000)       /* a node that could not load is left out of plans for so long */
#define SHUN_SHORT_US INT64_C(10000000) /* times its failures: one whose stage failed more than once */
#define BROKEN_US INT64_C(60000000)     /* two nodes that cannot reach each other are kept apart for so long */
#define SETTLE_MOST 4                   /* times settle_us: news that keep coming are not waited for any longer */

bool cluster_recovers(const struct cluster *c)
{
    return c->recover && c->served && c->phase != CLUSTER_HAS_FAILED;
}

void cluster_fail(struct cluster *c, int code, const char *format, ...)
{
    if (c->phase == CLUSTER_HAS_FAILED)
        return;
    struct error error;
    va_list args;
    va_start(args, format);
    error_vset(&error, code, format, args);
    va_end(args);
    if (c->data_open)
        cluster_act(c, CLUSTER_CLOSE_DATA, CLUSTER_NODES_MAX);
    c->data_open = false;
    c->phase = CLUSTER_HAS_FAILED;
    cluster_act(c, CLUSTER_FAILED, CLUSTER_NODES_MAX)->error = error;
}

void cluster_what_it_did(const struct cluster_node *n, enum node_state state, char *text, size_t size)
{
    static const char *const what[] = {
        [NODE_CONNECTING] = "connecting to it",    [NODE_GREETING] = "greeting it",
        [NODE_IDLE] = "it waited for work",        [NODE_PROFILING] = "it measured itself",
        [NODE_MEASURING] = "it measured its link",
    };
    if (n->has_stage && state >= NODE_LOADING)
        snprintf(text, size, "it %s blocks %u-%u", state == NODE_LOADING ? "loaded" : "ran", n->first_block,
                 n->last_block);
    else
        snprintf(text, size, "%s", state < NODE_LOADING ? what[state] : "it waited for work");
}

/* ---- The end of an epoch ----------------------------------------------------------------------------------------- */

static void tell(struct cluster *c, uint32_t node, const struct error *error)
{
    cluster_act(c, CLUSTER_TROUBLE, node)->error = *error;
}

static void settle(struct cluster *c)
{
    if (c->phase != CLUSTER_SETTLING)
        c->settle_until = c->now_us + SETTLE_MOST * c->settle_us;
    c->phase = CLUSTER_SETTLING;
    c->settle_at = c->now_us + c->settle_us;
}

static void end_epoch(struct cluster *c)
{
    if (c->data_open)
        cluster_act(c, CLUSTER_CLOSE_DATA, CLUSTER_NODES_MAX);
    c->data_open = false;
    c->attach_deadline = NEVER;
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *m = &c->members[i];
        if (m->node.state < NODE_LOADING || m->node.state > NODE_READY)
            continue;
        m->node.state = NODE_IDLE;
        m->request = 0;
        m->deadline = NEVER;
    }
    if (!c->interrupted) {
        c->interrupted = true;
        c->interrupted_at = c->now_us;
        c->rejoin_deadline = c->now_us + c->rejoin_us;
    }
    settle(c);
}

void cluster_interrupt(struct cluster *c, int code, const char *format, ...)
{
    struct error error;
    va_list args;
    va_start(args, format);
    error_vset(&error, code, format, args);
    va_end(args);
    if (!cluster_recovers(c)) {
        cluster_fail(c, code, "%s", error.text);
        return;
    }
    tell(c, CLUSTER_NODES_MAX, &error);
    snprintf(c->outage, sizeof c->outage, "%s", error.text);
    end_epoch(c);
}

void cluster_shun(struct cluster *c, uint32_t node, int64_t for_us)
{
    c->members[node].shunned_until = c->now_us + for_us;
}

/* ---- Nodes ------------------------------------------------------------------------------------------------------- */

static void take_out(struct cluster *c, struct member *m, enum node_state state, const char *why)
{
    m->node.state = state;
    m->request = 0;
    m->deadline = m->next_beat = NEVER;
    m->unanswered_since = 0;
    m->greet_at = NEVER;
    if (cluster_recovers(c))
        m->node.welcomed = m->node.has_loaded = m->leaves = false; /* it has to say again who it is and what it holds */
    if (cluster_recovers(c) && m->node.linked)
        m->greet_at = c->now_us + (state == NODE_LOST ? GREET_AGAIN_US : GREET_REFUSED_US);
    snprintf(m->node.detail, sizeof m->node.detail, "%s", why);
}

/* Whether the work of the present epoch rests on it. */
static bool needed(const struct cluster *c, const struct cluster_node *n)
{
    return n->has_stage && (c->phase == CLUSTER_SETTLING || c->phase >= CLUSTER_LOADING);
}

void cluster_lose(struct cluster *c, uint32_t node, const char *why)
{
    struct member *m = &c->members[node];
    char doing[96];
    cluster_what_it_did(&m->node, m->node.state, doing, sizeof doing);
    take_out(c, m, NODE_LOST, why);
    if (c->goal == CLUSTER_LOOK || (!cluster_recovers(c) && c->phase == CLUSTER_IS_READY && !m->node.has_stage))
        return; /* nobody depends on it */
    if (!cluster_recovers(c)) {
        cluster_fail(c, ERR_LOST,
                     "worker \"%s\" was lost (%s) while %s; check its power, network and log, then start again",
                     m->node.name, why, doing);
    } else if (needed(c, &m->node)) {
        cluster_interrupt(c, ERR_LOST, "worker \"%s\" was lost (%s) while %s", m->node.name, why, doing);
    } else {
        struct error error;
        error_set(&error, ERR_LOST, "worker \"%s\" was lost (%s); nothing rested on it", m->node.name, why);
        tell(c, node, &error);
    }
}

void cluster_refuse(struct cluster *c, uint32_t node, int code, const char *text)
{
    struct member *m = &c->members[node];
    struct error error;
    if (m->node.state == NODE_LOST || m->node.state == NODE_REFUSED) {
        if (cluster_recovers(c)) {
            m->node.state = NODE_REFUSED;
            m->greet_at = m->node.linked ? c->now_us + GREET_REFUSED_US : NEVER;
            snprintf(m->node.detail, sizeof m->node.detail, "%s", text);
        }
        return;
    }
    bool again = m->node.state == NODE_GREETING && !strncmp(m->node.detail, text, sizeof m->node.detail - 1);
    take_out(c, m, NODE_REFUSED, text);
    if (c->goal == CLUSTER_LOOK || (again && cluster_recovers(c) && !needed(c, &m->node)))
        return; /* it was said before */
    error_set(&error, code, "worker \"%s\" at %s: %s", m->node.name, m->node.endpoint, text);
    if (cluster_recovers(c) && !needed(c, &m->node))
        tell(c, node, &error);
    else
        cluster_interrupt(c, code, "%s", error.text);
}

void cluster_refuse_greeting(struct cluster *c, uint32_t node, const char *why)
{
    take_out(c, &c->members[node], NODE_LOST, why);
}

/* What a stage of the present epoch says by itself. */
static void stage_failed(struct cluster *c, uint32_t node, int code, const char *text)
{
    struct member *m = &c->members[node];
    if (code == ERR_LOST && m->node.stage + 1 < c->load.stage_count) {
        struct pair *p = cluster_pair(c, node, c->stages[m->node.stage + 1].node);
        if (p)
            p->broken_until = c->now_us + BROKEN_US;
    } else if (++m->failures > 1) {
        cluster_shun(c, node, m->failures * SHUN_SHORT_US);
    }
    cluster_interrupt(c, code, "worker \"%s\" (blocks %u-%u): %s", m->node.name, m->node.first_block,
                      m->node.last_block, text);
}

void cluster_failure(struct cluster *c, uint32_t node, const struct control_message *msg, bool answers)
{
    struct member *m = &c->members[node];
    int code = msg->u.failure.code ? msg->u.failure.code : ERR_INTERNAL;
    const char *text = msg->u.failure.text;
    if (!cluster_recovers(c)) {
        if (answers || (!msg->request && msg->epoch == c->epoch))
            cluster_refuse(c, node, code, text);
    } else if (answers && m->node.state == NODE_GREETING) {
        cluster_refuse_greeting(c, node, text); /* another coordinator's for now, as a rule: asked again */
    } else if (answers && m->node.state == NODE_LOADING) {
        m->failures++;
        cluster_shun(c, node, SHUN_US);
        cluster_interrupt(c, code, "worker \"%s\" cannot load blocks %u-%u: %s", m->node.name, m->node.first_block,
                          m->node.last_block, text);
    } else if (!msg->request && code == ERR_CANCELLED && m->node.welcomed) {
        cluster_lose(c, node, text); /* it says goodbye */
    } else if (!msg->request && msg->epoch == c->epoch && m->node.has_stage && c->phase >= CLUSTER_LOADING) {
        stage_failed(c, node, code, text);
    }
}

/* ---- No plan ----------------------------------------------------------------------------------------------------- */

/* Patience has ended: for the requests, or for everything. */
static void lose_patience(struct cluster *c)
{
    char waited[64] = "";
    if (c->rejoin_us)
        snprintf(waited, sizeof waited, "; waited %.1f s for it to come back", (double)c->rejoin_us / 1e6);
    if (!c->stay) {
        cluster_fail(c, ERR_LOST, "%s%s; check power, network and logs", c->outage, waited);
        return;
    }
    struct error error;
    error_set(&error, ERR_LOST, "%s%s", c->outage, waited);
    c->gave_up = true;
    cluster_act(c, CLUSTER_GIVE_UP, CLUSTER_NODES_MAX)->error = error;
}

void cluster_unplanned(struct cluster *c, const struct error *why)
{
    if (!cluster_recovers(c)) {
        cluster_fail(c, why->code, "%s", why->text);
        return;
    }
    /* The arithmetic belongs to the reason; a reason that already holds one is replaced from its beginning. */
    char *tail = strstr(c->outage, "; without it: ");
    size_t at = tail ? (size_t)(tail - c->outage) : strlen(c->outage);
    snprintf(c->outage + at, sizeof c->outage - at, "; without it: %s", why->text);
    bool first = c->phase != CLUSTER_WAITING;
    c->phase = CLUSTER_WAITING;
    if (c->now_us >= c->rejoin_deadline && !c->gave_up) {
        lose_patience(c);
    } else if (first && !c->gave_up) {
        struct error error;
        error_set(&error, ERR_LOST, "%s; waiting up to %.1f s for it to come back", why->text,
                  (double)(c->rejoin_deadline - c->now_us) / 1e6);
        tell(c, CLUSTER_NODES_MAX, &error);
    }
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

void cluster_recovery_tick(struct cluster *c)
{
    if (!cluster_recovers(c))
        return;
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *m = &c->members[i];
        if (m->greet_at <= c->now_us && m->node.linked && (m->node.state == NODE_LOST || m->node.state == NODE_REFUSED))
            cluster_greet(c, i);
        if (m->shunned_until && m->shunned_until <= c->now_us) {
            m->shunned_until = 0;
            c->news = true;
        }
    }
    for (uint32_t k = 0; k < c->pair_count; k++)
        if (c->pairs[k].broken_until && c->pairs[k].broken_until <= c->now_us) {
            c->pairs[k].broken_until = 0;
            c->news = true;
        }
    if (c->phase == CLUSTER_WAITING && c->now_us >= c->rejoin_deadline && !c->gave_up)
        lose_patience(c);
}

/* A node whose connection stands and that has been asked who it is: it may be here in a moment. */
static bool expects_someone(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].node.state == NODE_GREETING)
            return true;
    return false;
}

void cluster_recovery_advance(struct cluster *c)
{
    if (!cluster_recovers(c))
        return;
    if (c->phase == CLUSTER_WAITING && c->news)
        settle(c);
    if (c->phase == CLUSTER_SETTLING && c->now_us >= c->settle_at &&
        (!expects_someone(c) || c->now_us >= c->settle_until)) {
        c->phase = CLUSTER_PLANNING;
        c->plan_asked = c->news = false;
    }
}

int64_t cluster_recovery_next(const struct cluster *c)
{
    int64_t next = NEVER;
    if (!cluster_recovers(c))
        return next;
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *m = &c->members[i];
        if ((m->node.state == NODE_LOST || m->node.state == NODE_REFUSED) && m->greet_at < next)
            next = m->greet_at;
        if (m->shunned_until && m->shunned_until < next)
            next = m->shunned_until;
    }
    if (c->phase == CLUSTER_SETTLING && c->settle_at < next)
        next = c->settle_at > c->now_us ? c->settle_at : c->settle_until;
    if (c->phase == CLUSTER_WAITING && !c->gave_up && c->rejoin_deadline < next)
        next = c->rejoin_deadline;
    return next;
}

/* ---- What it knows ----------------------------------------------------------------------------------------------- */

bool cluster_node_usable(const struct cluster *c, uint32_t node)
{
    const struct member *m = &c->members[node];
    return m->node.welcomed && !m->node.drained && !m->shunned_until && (m->node.profiled || !c->profile) &&
           m->node.state >= NODE_IDLE && m->node.state <= NODE_READY;
}

const char *cluster_outage(const struct cluster *c)
{
    return c->interrupted ? c->outage : "";
}

uint32_t cluster_recoveries(const struct cluster *c)
{
    return c->recoveries;
}

void cluster_set_drained(struct cluster *c, uint32_t node, bool drained)
{
    c->members[node].node.drained = drained;
    c->news |= !drained;
}

void cluster_set_slow(struct cluster *c, uint32_t node, bool slow)
{
    c->members[node].node.slow = slow;
}

void cluster_set_pace(struct cluster *c, uint32_t node, double decode_seconds, double expected_seconds)
{
    c->members[node].node.decode_ns = (uint64_t)(decode_seconds * 1e9 + 0.5);
    c->members[node].node.expected_ns = (uint64_t)(expected_seconds * 1e9 + 0.5);
}
