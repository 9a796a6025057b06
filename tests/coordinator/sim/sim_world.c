/* The simulated world: time, the network, accidents, and what must be true in the end. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "tests/coordinator/sim/sim.h"

struct world w;
bool sim_is_broken;

/* ---- Chance and words -------------------------------------------------------------------------------------------- */

uint32_t sim_below(uint32_t n)
{
    return (uint32_t)(hash_mix64(w.seed + ++w.draws * UINT64_C(0x9E3779B97F4A7C15)) % n);
}

bool sim_chance(uint32_t percent)
{
    return sim_below(100) < percent;
}

void sim_trace(const char *format, ...)
{
    va_list args;
    if (!w.tracing)
        return;
    printf("    %9.6f ", (double)w.now / 1e6);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

void sim_broken(const char *format, ...)
{
    va_list args;
    if (sim_is_broken)
        return;
    sim_is_broken = true;
    printf("    seed %llu, at %.6f s: ", (unsigned long long)w.seed, (double)w.now / 1e6);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

const char *sim_node_name(uint32_t node)
{
    return node == SIM_COORDINATOR ? "coordinator" : w.node[node].name;
}

int32_t sim_next_token(const int32_t *tokens, uint32_t count)
{
    return 1 + (int32_t)(hash_tokens(HASH_TOKENS_START, tokens, count) % (SIM_VOCABULARY - 1));
}

uint64_t sim_row(uint64_t hash, uint32_t boundary)
{
    return hash + boundary * UINT64_C(0x9E3779B97F4A7C15);
}

float sim_score(const int32_t *tokens, uint32_t count, int32_t next)
{
    return (float)(hash_token(hash_tokens(HASH_TOKENS_START, tokens, count), next) % 1000);
}

/* ---- What will happen -------------------------------------------------------------------------------------------- */

/* Where mails lie while they wait; the heap only points to them. */
static struct mail places[SIM_MAILS], *spare[SIM_MAILS];
static uint32_t places_used, spare_count;

static bool earlier(const struct mail *a, const struct mail *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void sink(uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= w.mail_count)
            return;
        if (child + 1 < w.mail_count && earlier(w.mails[child + 1], w.mails[child]))
            child++;
        if (!earlier(w.mails[child], w.mails[at]))
            return;
        struct mail *swap = w.mails[at];
        w.mails[at] = w.mails[child];
        w.mails[child] = swap;
        at = child;
    }
}

void sim_post(struct mail mail)
{
    if (w.mail_count == SIM_MAILS) {
        sim_broken("the simulated network overflows");
        sim_mail_free(&mail);
        return;
    }
    if (!mail.order)
        mail.order = ++w.orders;
    struct mail *place = spare_count ? spare[--spare_count] : &places[places_used++];
    *place = mail;
    uint32_t at = w.mail_count++;
    for (; at && earlier(place, w.mails[(at - 1) / 2]); at = (at - 1) / 2)
        w.mails[at] = w.mails[(at - 1) / 2];
    w.mails[at] = place;
}

static struct mail take_first(void)
{
    struct mail first = *w.mails[0];
    spare[spare_count++] = w.mails[0];
    w.mails[0] = w.mails[--w.mail_count];
    sink(0);
    return first;
}

void sim_mail_free(struct mail *mail)
{
    mem_free(mail->job);
    mem_free(mail->result);
    mem_free(mail->rows);
    mem_free(mail->pages);
    mail->pages = NULL;
    mail->job = NULL;
    mail->result = NULL;
    mail->rows = NULL;
}

bool sim_reachable(uint32_t a, uint32_t b)
{
    return w.away_until[a][b] <= w.now;
}

/* What travels keeps its order on each connection; while the two cannot reach each other it waits, as TCP does. */
void sim_travel(struct mail mail, int plane, int64_t after)
{
    int64_t *last = &w.last_at[plane][mail.from][mail.to], away = w.away_until[mail.from][mail.to];
    mail.at = w.now + after + 50 + sim_below(400) + (sim_chance(3) ? sim_below(60000) : 0);
    if (mail.at < away)
        mail.at = away + sim_below(20000);
    if (mail.at < *last)
        mail.at = *last;
    *last = mail.at;
    sim_post(mail);
    if (mail.kind == MAIL_NOTE_TO_CLUSTER && sim_chance(1)) { /* said twice: harmless */
        mail.at += sim_below(500000);
        mail.order = 0;
        sim_post(mail);
    }
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

static void disconnect(uint32_t node, bool tell)
{
    struct sim_node *n = &w.node[node];
    n->control = 0;
    if (tell && n->told_up) {
        n->told_up = false;
        sim_post((struct mail){.kind = MAIL_LINK, .to = node, .link = LINK_DOWN, .at = w.now + 50 + sim_below(2000)});
    }
}

static void connect_later(uint32_t node)
{
    sim_post((struct mail){.kind = MAIL_LINK, .to = node, .link = LINK_UP, .at = w.now + 50000 + sim_below(400000)});
}

static void deliver_link(const struct mail *mail)
{
    struct sim_node *n = &w.node[mail->to];
    if (!w.cluster)
        return;
    if (mail->link == LINK_DOWN) {
        if (n->control)
            return; /* another connection stands by now: that one was never seen to break */
        sim_trace("the connection to %s is down", n->name);
        coordinator_link(mail->to, LINK_DOWN);
        return;
    }
    if (n->control || !n->alive)
        return;
    if (!sim_reachable(mail->to, SIM_COORDINATOR) || n->frozen_until > w.now) {
        connect_later(mail->to);
        return;
    }
    n->control = ++w.connections;
    if (n->told_up) { /* it broke without our knowing */
        n->told_up = false;
        coordinator_link(mail->to, LINK_DOWN);
    }
    n->told_up = true;
    sim_trace("connected to %s", n->name);
    coordinator_link(mail->to, LINK_UP);
}

/* ---- Accidents --------------------------------------------------------------------------------------------------- */

static const char *const fault_names[FAULT_KINDS] = {"crashes",
                                                     "loses its power",
                                                     "is frozen",
                                                     "loses its control connection",
                                                     "cannot reach the coordinator",
                                                     "cannot reach",
                                                     "has a full disk",
                                                     "is told to stop",
                                                     "the coordinator is stopped",
                                                     "becomes slow",
                                                     "sees blocks move",
                                                     "is drained"};

static void part(uint32_t a, uint32_t b, int64_t until)
{
    if (w.away_until[a][b] < until)
        w.away_until[a][b] = w.away_until[b][a] = until;
}

static void strike(const struct fault *f)
{
    struct sim_node *n = &w.node[f->node];
    sim_trace("* %s %s %s for %.3f s", f->kind == FAULT_STOPPED ? "" : n->name, fault_names[f->kind],
              f->kind == FAULT_APART ? w.node[f->other].name : "", (double)f->lasts / 1e6);
    switch (f->kind) {
    case FAULT_CRASH:
    case FAULT_POWER:
    case FAULT_GOODBYE:
        if (!n->alive)
            return;
        if (f->kind == FAULT_GOODBYE && n->control)
            sim_travel((struct mail){.kind = MAIL_NOTE_TO_CLUSTER,
                                     .from = f->node,
                                     .to = SIM_COORDINATOR,
                                     .note = {.kind = CONTROL_FAILURE, .epoch = n->epoch_loaded, .code = ERR_CANCELLED},
                                     .connection = n->control},
                       0, 0);
        worker_end(f->node);
        disconnect(f->node, f->kind != FAULT_POWER);
        break;
    case FAULT_FREEZE:
        n->frozen_until = (n->frozen_until > w.now ? n->frozen_until : w.now) + f->lasts;
        break;
    case FAULT_RESET:
        if (!n->alive)
            return;
        n->claim_half_open = sim_chance(30);
        disconnect(f->node, true);
        connect_later(f->node);
        break;
    case FAULT_AWAY:
        part(f->node, SIM_COORDINATOR, w.now + f->lasts);
        break;
    case FAULT_APART:
        part(f->node, f->other, w.now + f->lasts);
        break;
    case FAULT_DISK:
        n->disk_full_until = w.now + f->lasts;
        break;
    case FAULT_STOPPED:
        w.stopped_until = (w.stopped_until > w.now ? w.stopped_until : w.now) + f->lasts;
        break;
    case FAULT_SLOW:
        n->busy_until = (n->busy_until > w.now ? n->busy_until : w.now) + f->lasts;
        break;
    case FAULT_MOVE:
        coordinator_moves(SIM_COORDINATOR, false);
        break;
    case FAULT_DRAIN:
        coordinator_moves(f->node, true);
        break;
    case FAULT_KINDS:
        break;
    }
}

static void heal(const struct fault *f)
{
    if (f->kind == FAULT_DRAIN)
        coordinator_moves(f->node, false);
    if (f->kind > FAULT_POWER && f->kind != FAULT_GOODBYE)
        return;
    if (w.node[f->node].alive)
        return;
    sim_trace("* %s is started again", w.node[f->node].name);
    worker_start(f->node);
    connect_later(f->node);
}

/* The coordinator ends and another one with its key begins: requests in flight are told, and asked again. */
static void restart_coordinator(void)
{
    sim_trace("* the coordinator ends; a new one begins");
    coordinator_end();
    for (uint32_t i = 0; i < w.nodes; i++) {
        w.node[i].control = 0;
        w.node[i].told_up = false;
        w.unsent_count[i] = 0;
        connect_later(i);
    }
    for (uint32_t i = 0; i < w.request_count; i++) {
        struct sim_request *r = &w.requests[i];
        if (r->submitted && r->finishes != 1)
            sim_broken("the coordinator ended, and request %u was told %u times", i, r->finishes);
        if (r->submitted && r->reason == FINISH_CANCELLED && !r->cancelled) {
            r->submitted = false;
            r->seen = r->finishes = 0;
            sim_post((struct mail){.kind = MAIL_REQUEST, .index = i, .at = w.now + SIM_S(0.2)});
        }
    }
    coordinator_start();
}

/* ---- Delivery ---------------------------------------------------------------------------------------------------- */

static bool goes_to_node(enum mail_kind kind, uint32_t to)
{
    return (kind == MAIL_NOTE_TO_NODE || kind == MAIL_WORK || kind == MAIL_ATTACH || kind == MAIL_LOADED ||
            kind == MAIL_TEND || kind == MAIL_ATTACHED || kind == MAIL_LATE || kind == MAIL_WANT || kind == MAIL_PAGES) &&
           to != SIM_COORDINATOR;
}

static bool goes_to_coordinator(const struct mail *mail)
{
    return mail->kind == MAIL_NOTE_TO_CLUSTER || mail->kind == MAIL_LINK || mail->kind == MAIL_RESULT ||
           mail->kind == MAIL_REQUEST || mail->kind == MAIL_CANCEL ||
           (mail->kind == MAIL_ATTACHED && mail->to == SIM_COORDINATOR);
}

/* In the order in which they were sent. */
static void put_off(struct mail *mail, int64_t until)
{
    struct mail later = *mail;
    later.at = until;
    mail->job = NULL;
    mail->result = NULL;
    mail->rows = NULL;
    mail->pages = NULL;
    sim_post(later);
}

static void deliver(struct mail *mail)
{
    struct sim_node *n = mail->to < SIM_NODES ? &w.node[mail->to] : NULL;
    if (w.stopped_until > w.now && goes_to_coordinator(mail)) {
        put_off(mail, w.stopped_until);
        return;
    }
    if (goes_to_node(mail->kind, mail->to)) {
        if (!n->alive)
            return;
        /* A frozen process hears everything when it thaws; while it computes, data and jobs wait. */
        int64_t until = n->frozen_until;
        if ((mail->kind == MAIL_WORK || mail->kind == MAIL_ATTACH || mail->kind == MAIL_LOADED) &&
            n->busy_until > until && n->busy_until > mail->at)
            until = n->busy_until;
        if (until > w.now) {
            put_off(mail, until);
            return;
        }
    }
    switch (mail->kind) {
    case MAIL_NOTE_TO_NODE:
        if (mail->connection == n->control)
            worker_hears(mail->to, &mail->note, mail->connection);
        break;
    case MAIL_NOTE_TO_CLUSTER:
        if (w.cluster && w.node[mail->from].told_up &&
            (mail->connection == w.node[mail->from].control || mail->note.kind == CONTROL_FAILURE))
            coordinator_hears(mail->from, &mail->note);
        break;
    case MAIL_LINK:
        deliver_link(mail);
        break;
    case MAIL_ATTACHED:
    case MAIL_RESULT:
        if (mail->to == SIM_COORDINATOR) {
            if (w.cluster && !w.failed)
                coordinator_takes(mail);
            break;
        }
        worker_takes(mail->to, mail);
        break;
    case MAIL_WORK:
    case MAIL_ATTACH:
        worker_takes(mail->to, mail);
        break;
    case MAIL_LOADED:
        worker_loaded(mail->to, mail->epoch);
        break;
    case MAIL_LATE:
        worker_late(mail->to, mail->epoch);
        break;
    case MAIL_WANT:
    case MAIL_PAGES:
        worker_pages(mail->to, mail);
        break;
    case MAIL_TEND:
        worker_tends(mail->to, mail->epoch);
        break;
    case MAIL_FAULT:
        strike(&w.faults[mail->index]);
        break;
    case MAIL_HEAL:
        heal(&w.faults[mail->index]);
        break;
    case MAIL_REQUEST:
        coordinator_submit(mail->index);
        break;
    case MAIL_CANCEL:
        coordinator_cancel(mail->index);
        break;
    case MAIL_RESTART:
        restart_coordinator();
        break;
    }
}

/* ---- A schedule -------------------------------------------------------------------------------------------------- */

static void draw_requests(void)
{
    w.request_count = 3 + sim_below(SIM_REQUESTS - 2);
    int32_t common[64];
    for (uint32_t i = 0; i < 64; i++)
        common[i] = (int32_t)sim_below(SIM_VOCABULARY);
    for (uint32_t i = 0; i < w.request_count; i++) {
        struct sim_request *r = &w.requests[i];
        uint32_t alike = sim_chance(50) ? sim_below(64) : 0;
        r->prompt = 1 + sim_below(80);
        r->max_tokens = 1 + sim_below(40);
        for (uint32_t p = 0; p < r->prompt; p++)
            r->tokens[p] = p < alike ? common[p] : (int32_t)sim_below(SIM_VOCABULARY);
        r->scores = r->prompt > 1 && sim_chance(10);
        if (r->scores)
            r->max_tokens = 0;
        r->deadline = sim_chance(5);
        for (uint32_t k = 0; k < r->max_tokens; k++)
            r->tokens[r->prompt + k] = sim_next_token(r->tokens, r->prompt + k);
        sim_post((struct mail){.kind = MAIL_REQUEST, .index = i, .at = SIM_S(0.5) + sim_below(SIM_S(2))});
        if (sim_chance(10))
            sim_post((struct mail){.kind = MAIL_CANCEL, .index = i, .at = SIM_S(0.6) + sim_below(SIM_S(4))});
    }
}

static void draw_faults(void)
{
    w.fault_count = sim_below(SIM_FAULTS + 1);
    int64_t at = SIM_S(0.9) + sim_below(SIM_S(1.5));
    for (uint32_t i = 0; i < w.fault_count; i++) {
        struct fault *f = &w.faults[i];
        *f = (struct fault){.kind = sim_below(FAULT_KINDS),
                            .node = sim_below(w.nodes),
                            .at = at,
                            .lasts = 20000 + sim_below(sim_chance(50) ? 400000 : 4000000)};
        f->other = (f->node + 1 + sim_below(w.nodes)) % w.nodes;
        if (f->other == f->node)
            f->other = SIM_NODES - 1;
        sim_post((struct mail){.kind = MAIL_FAULT, .index = i, .at = at});
        if (w.heals || sim_chance(40))
            sim_post((struct mail){.kind = MAIL_HEAL, .index = i, .at = at + f->lasts});
        at += sim_chance(50) ? sim_below(200000) : sim_below(SIM_S(2)); /* often into the middle of a recovery */
    }
    if (w.takeover)
        sim_post((struct mail){.kind = MAIL_RESTART, .at = SIM_S(1) + sim_below(SIM_S(3))});
}

static void draw_world(uint64_t seed, bool tracing)
{
    struct mail **mails = w.mails;
    struct cluster_actions actions = w.actions;
    uint64_t(*caches[SIM_NODES])[KV_PAGE_TOKENS][SIM_BLOCKS];
    for (uint32_t i = 0; i < SIM_NODES; i++)
        caches[i] = w.node[i].cache;
    memset(&w, 0, sizeof w);
    w.mails = mails ? mails : mem_zalloc(SIM_MAILS, sizeof *mails);
    places_used = spare_count = 0;
    w.actions = actions;
    w.seed = seed;
    w.tracing = tracing;
    w.now = 1;
    w.heals = seed % 4 != 3;
    w.takeover = seed % 8 == 5;
    w.rejoin = w.heals ? SIM_S(1000) : sim_below(2) ? SIM_S(2) : 0;
    w.stay = !w.heals && sim_chance(50);
    w.nodes = 1 + sim_below(SIM_NODES);
    w.rows_limit = sim_chance(60) ? 1 << 20 : sim_chance(50) ? sim_below(8000) : 0;
    for (uint32_t i = 0; i < w.nodes; i++) {
        struct sim_node *n = &w.node[i];
        n->cache = caches[i];
        caches[i] = NULL;
        snprintf(n->name, sizeof n->name, "node-%u", i);
        snprintf(n->endpoint, sizeof n->endpoint, "tcp://10.0.0.%u:7700", i + 1);
        snprintf(n->key, sizeof n->key, "key-%u", i);
        w.options[i] = (struct cluster_node_options){n->name, n->endpoint, n->key, 0};
        w.capacity[i] = SIM_BLOCKS / w.nodes + 1 + sim_below(SIM_BLOCKS);
        worker_start(i);
        sim_post((struct mail){.kind = MAIL_LINK, .to = i, .link = LINK_UP, .at = 1000 + sim_below(50000)});
    }
    for (uint32_t i = w.nodes; i < SIM_NODES; i++)
        w.node[i].cache = caches[i];
    draw_requests();
    draw_faults();
}

static bool all_ended(void)
{
    for (uint32_t i = 0; i < w.request_count; i++)
        if (!w.requests[i].finishes)
            return false;
    return true;
}

static void check_request(uint32_t i)
{
    const struct sim_request *r = &w.requests[i];
    if (r->finishes > 1)
        sim_broken("request %u ended %u times", i, r->finishes);
    if (!r->finishes) {
        if (!w.failed && !(w.refused && !r->submitted))
            sim_broken("request %u has not ended", i);
        return;
    }
    bool whole = r->reason == (r->scores ? FINISH_DONE : FINISH_LENGTH);
    if (whole && r->seen != r->max_tokens)
        sim_broken("request %u ended as whole with %u of %u tokens", i, r->seen, r->max_tokens);
    if (whole || r->cancelled || (r->reason == FINISH_ERROR && r->deadline))
        return;
    if (w.heals || r->reason != FINISH_ERROR)
        sim_broken("request %u ended as \"%s\": %s", i, finish_reason_name(r->reason), r->error);
    else if (!*r->error || strchr(r->error, '\n'))
        sim_broken("request %u ended with an error without a line", i);
}

void sim_run(uint64_t seed, bool tracing)
{
    const int64_t limit = SIM_S(240);
    sim_is_broken = false;
    draw_world(seed, tracing);
    coordinator_start();
    while (!sim_is_broken && !(all_ended() && w.now > SIM_S(3)) && w.now < limit) {
        int64_t tick = coordinator_next();
        int64_t earliest = w.now > w.stopped_until ? w.now : w.stopped_until;
        if (tick < earliest)
            tick = earliest;
        if (w.mail_count && w.mails[0]->at <= tick) {
            struct mail mail = take_first();
            if (mail.at > w.now)
                w.now = mail.at;
            deliver(&mail);
            sim_mail_free(&mail);
        } else if (tick < INT64_MAX) {
            w.now = tick > w.now ? tick : w.now;
        } else {
            break; /* it has failed, and nothing more will happen */
        }
        if (w.now >= w.stopped_until && (!w.mail_count || w.mails[0]->at > w.now))
            coordinator_turn();
    }
    if (!sim_is_broken)
        for (uint32_t i = 0; i < w.request_count; i++)
            check_request(i);
    if (w.heals && w.failed && !sim_is_broken && w.ever_ready)
        sim_broken("it failed, though everything came back: %s", w.failure.text);
    coordinator_end();
    while (w.mail_count) {
        sim_mail_free(w.mails[--w.mail_count]);
    }
    for (uint32_t i = 0; i < w.nodes; i++)
        worker_free(i);
}
