/* A worker of the simulation: the real claim, session and sequence table; loading and computing take simulated time. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "execution/batch_rows.h"
#include "execution/micro_batch.h"
#include "tests/coordinator/sim/sim.h"

#define TEND_US 300000
#define NEXT_DOWN_US 3000000
#define QUIET_US 1500000 /* as worker/fetch_pages.c */
#define LATE_US 3000000

static void say(uint32_t node, struct note note)
{
    if (w.node[node].control)
        sim_travel((struct mail){.kind = MAIL_NOTE_TO_CLUSTER,
                                 .from = node,
                                 .to = SIM_COORDINATOR,
                                 .note = note,
                                 .connection = w.node[node].control},
                   0, 0);
}

static void fail(uint32_t node, uint64_t request, uint64_t epoch, int code)
{
    say(node, (struct note){.kind = CONTROL_FAILURE, .request = request, .epoch = epoch, .code = code});
}

static struct link_peer peer_of(uint32_t node, uint64_t connection)
{
    struct link_peer p = {.size = sizeof connection};
    memcpy(p.id, &connection, sizeof connection);
    snprintf(p.public_key, sizeof p.public_key, "%s", node == SIM_COORDINATOR ? "coordinator" : w.node[node].key);
    return p;
}

static void end_stage(struct sim_node *n)
{
    session_end(&n->session);
}

/* Nothing is in memory any more. */
static void forget(struct sim_node *n)
{
    end_stage(n);
    sequence_table_destroy(n->table);
    held_pages_destroy(n->held);
    kept_rows_destroy(n->rows);
    n->table = NULL;
    n->held = NULL;
    n->rows = NULL;
    n->have = 0;
}

static void forget_left(struct sim_node *n)
{
    for (struct sim_left *l = n->left, *older; l; l = older) {
        older = l->older;
        left_pages_destroy(l->pages);
        mem_free(l);
    }
    n->left = NULL;
}

/* As worker/load.c: what blocks but first to last held is for others, with what left before and may still be wanted. */
static void leave(struct sim_node *n, uint32_t first, uint32_t last, uint64_t epoch, bool wanted)
{
    struct sim_left *l = wanted && n->held && n->table ? mem_zalloc(1, sizeof *l) : NULL;
    if (l) {
        if (left_pages_create(n->held, n->table, first, last, &l->pages))
            sim_broken("no memory");
        memcpy(l->cache, n->cache, sizeof l->cache);
        l->older = n->left;
        n->left = l;
    }
    n->left_epoch = epoch;
    if (!wanted)
        forget_left(n);
}

void worker_free(uint32_t node)
{
    forget(&w.node[node]);
    forget_left(&w.node[node]);
    control_free(&w.node[node].said);
}

void worker_start(uint32_t node)
{
    struct sim_node *n = &w.node[node];
    n->alive = true;
    n->life++;
    n->frozen_until = n->busy_until = 0;
    n->control = 0;
    memset(&n->claim, 0, sizeof n->claim);
    memset(&n->session, 0, sizeof n->session);
    n->claim_half_open = n->loading = false;
    n->load_number++;
    n->next = SIM_COORDINATOR;
    if (!n->cache)
        n->cache = mem_zalloc(SIM_PAGES, sizeof *n->cache);
}

void worker_end(uint32_t node)
{
    forget(&w.node[node]);
    forget_left(&w.node[node]);
    w.node[node].left_epoch = 0;
    w.node[node].alive = false;
    w.node[node].loading = false;
}

/* ---- Control ----------------------------------------------------------------------------------------------------- */

static void hello(uint32_t node, const struct note *note, uint64_t connection)
{
    struct sim_node *n = &w.node[node];
    struct link_peer peer = peer_of(SIM_COORDINATOR, connection);
    struct error why = {0};
    bool gone = n->claim.held && !n->claim_half_open && n->claim_connection != n->control;
    if (note->claim) {
        if (claim_ask(&n->claim, &peer, false, gone, w.now / 1000, &why)) {
            fail(node, note->request, note->epoch, ERR_BUSY);
            return;
        }
        n->claim_connection = connection;
        n->claim_half_open = false;
    }
    say(node, (struct note){.kind = CONTROL_WELCOME,
                            .request = note->request,
                            .epoch = n->epoch_loaded,
                            .claim = claim_is(&n->claim, &peer),
                            .a = n->session.active});
}

static void begin_load(uint32_t node, const struct note *note)
{
    struct sim_node *n = &w.node[node];
    if (n->loading)
        fail(node, n->load.request, n->load.epoch, ERR_CANCELLED);
    if (note->epoch <= n->session.epoch) {
        fail(node, note->request, note->epoch, ERR_ORDER);
        return;
    }
    end_stage(n);
    leave(n, note->first, note->last, note->epoch, note->leave);
    if (n->held)
        held_pages_stage(n->held, note->first, note->last);
    for (uint32_t b = 0; b < SIM_BLOCKS; b++)
        n->have &= b < note->first || b > note->last ? ~(1u << b) : ~0u; /* gone, also if this load is stopped */
    n->session.epoch = note->epoch - 1; /* nothing older is taken from now on */
    n->fetching = 0;
    n->loading = true;
    n->load = *note;
    n->load_number++;
    int64_t begin = n->busy_until > w.now ? n->busy_until : w.now;
    sim_post((struct mail){
        .kind = MAIL_LOADED, .to = node, .epoch = n->load_number, .at = begin + 5000 + sim_below(300000)});
}

static void begin_fetching(uint32_t node);

/* As worker/load.c: pages and rows outlive the epoch, sequences are told anew. */
static void keep_pages(struct sim_node *n)
{
    struct error err = {0};
    int rc = n->table ? 0 : sequence_table_create(SIM_SEQUENCES * 2, SIM_CONTEXT, SIM_PAGES, SIM_VOCABULARY, &n->table,
                                                  &err);
    if (!rc && !n->held)
        rc = held_pages_create(SIM_BLOCKS, SIM_PAGES, &n->held, &err);
    if (!rc && !n->rows)
        rc = kept_rows_create(SIM_PAGES, sizeof(uint64_t), &n->rows, &err);
    if (rc)
        sim_broken("%s", err.text);
    sequence_release_all(n->table);
    held_pages_stage(n->held, n->load.first, n->load.last);
    n->rows_limit = w.rows_limit ? sim_below(2) + w.rows_limit : 0;
    kept_rows_begin(n->rows, n->load.next == SIM_COORDINATOR ? 0 : n->load.last + 1, n->rows_limit);
}

static void list_pages(struct sim_node *n)
{
    control_free(&n->said);
    n->said = (struct control_message){.kind = CONTROL_LOADED, .epoch = n->load.epoch};
    n->said.u.loaded.held_count =
        (uint32_t)held_pages_list(n->held, n->table, FRAME_HELD_PAGES_MAX, &n->said.u.loaded.held);
    n->said.u.loaded.kept_count = (uint32_t)kept_rows_list(n->rows, FRAME_HELD_PAGES_MAX, &n->said.u.loaded.kept);
}

void worker_loaded(uint32_t node, uint64_t number)
{
    struct sim_node *n = &w.node[node];
    if (!n->alive || !n->loading || number != n->load_number)
        return;
    uint32_t want = 0, read = 0;
    for (uint32_t b = n->load.first; b <= n->load.last; b++)
        want |= 1u << b;
    if (n->disk_full_until > w.now && want & ~n->have) {
        n->loading = false;
        fail(node, n->load.request, n->load.epoch, ERR_IO);
        return;
    }
    for (uint32_t b = 0; b < SIM_BLOCKS; b++)
        read += want >> b & ~n->have >> b & 1;
    for (uint32_t b = 0; b < SIM_BLOCKS; b++)
        for (uint32_t p = 0; want & ~n->have & 1u << b && p < SIM_PAGES * KV_PAGE_TOKENS; p++)
            n->cache[p / KV_PAGE_TOKENS][p % KV_PAGE_TOKENS][b] = 0; /* a new block begins with an empty cache */
    n->have = want;
    n->read += read;
    keep_pages(n);
    sim_trace("%s has blocks %u-%u of epoch %llu (%u read)", n->name, n->load.first, n->load.last,
              (unsigned long long)n->load.epoch, read);
    n->load.a = read;
    begin_fetching(node);
}

/* ---- Pages of blocks that others had ----------------------------------------------------------------------------- */

/* The load is done. */
static void end_load(uint32_t node)
{
    struct sim_node *n = &w.node[node];
    n->loading = false;
    n->fetching = 0;
    list_pages(n);
    struct control_message load = {.kind = CONTROL_LOAD, .epoch = n->load.epoch};
    load.u.load.stage = n->load.stage;
    load.u.load.stages = n->load.stages;
    load.u.load.max_tokens = SIM_CHUNK + SIM_SEQUENCES;
    snprintf(load.u.load.previous_key, sizeof load.u.load.previous_key, "%s",
             n->load.previous == SIM_COORDINATOR ? "coordinator" : w.node[n->load.previous].key);
    snprintf(load.u.load.coordinator_key, sizeof load.u.load.coordinator_key, "coordinator");
    session_start(&n->session, &load, SIM_WIDTH);
    n->next = n->load.next;
    n->epoch_loaded = n->load.epoch;
    say(node, (struct note){.kind = CONTROL_LOADED, .request = n->load.request, .epoch = n->load.epoch, .a = n->load.a});
    worker_tends(node, n->session.epoch);
}

static void ask_for(uint32_t node, uint32_t fetch, uint32_t block, int64_t after)
{
    const struct note *load = &w.node[node].load;
    w.node[node].fetching |= 1u << block;
    sim_travel((struct mail){.kind = MAIL_WANT, .from = node, .to = load->fetch[fetch].from, .epoch = load->epoch,
                             .fetch = fetch, .index = block, .note = *load},
               1, after);
}

static void begin_fetching(uint32_t node)
{
    struct sim_node *n = &w.node[node];
    n->fetch_begun = n->heard = w.now;
    for (uint32_t f = 0; f < n->load.fetch_count; f++)
        for (uint32_t b = n->load.fetch[f].first; b <= n->load.fetch[f].last; b++)
            ask_for(node, f, b, 0);
    if (n->fetching)
        worker_late(node, n->load_number);
    else
        end_load(node);
}

void worker_late(uint32_t node, uint64_t number)
{
    struct sim_node *n = &w.node[node];
    if (!n->alive || !n->loading || number != n->load_number || !n->fetching)
        return;
    if (w.now - n->heard > QUIET_US || w.now - n->fetch_begun > LATE_US)
        end_load(node); /* without what has not come */
    else
        sim_post((struct mail){.kind = MAIL_LATE, .to = node, .epoch = number, .at = w.now + 100000});
}

/* The one who had the block. */
static void answer_want(uint32_t node, const struct mail *mail)
{
    struct sim_node *n = &w.node[node];
    struct sim_pages *pages = mem_zalloc(1, sizeof *pages);
    for (uint32_t i = 0; n->left_epoch == mail->epoch && i < mail->note.page_count; i++) {
        uint32_t p = mail->note.pages[i];
        const uint64_t *hashes = NULL;
        for (const struct sim_left *l = n->left; l && !hashes; l = l->older)
            if ((hashes = left_pages_find(l->pages, mail->index, p, mail->note.hashes[i]))) {
                pages->held[p] = true;
                memcpy(pages->hash[p], hashes, sizeof pages->hash[p]);
                for (uint32_t k = 0; k < KV_PAGE_TOKENS; k++)
                    pages->cache[p][k] = l->cache[p][k][mail->index];
            }
    }
    sim_travel((struct mail){.kind = MAIL_PAGES, .from = node, .to = mail->from, .epoch = mail->epoch, .fetch = mail->fetch,
                             .index = mail->index, .pages = pages, .soon = n->left_epoch < mail->epoch},
               1, 0);
}

void worker_pages(uint32_t node, const struct mail *mail)
{
    struct sim_node *n = &w.node[node];
    if (mail->kind == MAIL_WANT) {
        answer_want(node, mail);
        return;
    }
    if (!n->loading || mail->epoch != n->load.epoch || !(n->fetching >> mail->index & 1))
        return;
    n->heard = w.now;
    if (mail->soon) {
        ask_for(node, mail->fetch, mail->index, 10000);
        return;
    }
    for (uint32_t i = 0; i < n->load.page_count; i++) {
        uint32_t p = n->load.pages[i];
        if (!mail->pages->held[p] || !held_pages_adopt(n->held, n->table, mail->index, p, mail->pages->hash[p]))
            continue;
        w.fetched++;
        for (uint32_t k = 0; k < KV_PAGE_TOKENS; k++)
            n->cache[p][k][mail->index] = mail->pages->cache[p][k];
    }
    n->fetching &= ~(1u << mail->index);
    if (!n->fetching)
        end_load(node);
}

void worker_hears(uint32_t node, const struct note *note, uint64_t connection)
{
    struct sim_node *n = &w.node[node];
    struct link_peer peer = peer_of(SIM_COORDINATOR, connection);
    claim_seen(&n->claim, &peer, w.now / 1000);
    if (note->kind == CONTROL_HELLO) {
        hello(node, note, connection);
        return;
    }
    if (note->kind == CONTROL_HEARTBEAT) {
        say(node, (struct note){.kind = CONTROL_HEARTBEAT_REPLY,
                                .a = note->a,
                                .b = note->b,
                                .code = n->loading          ? 1
                                        : n->session.active ? 2
                                                            : 0});
        return;
    }
    if (!claim_is(&n->claim, &peer)) {
        fail(node, note->request, note->epoch, ERR_AUTH);
    } else if (note->kind == CONTROL_LOAD) {
        begin_load(node, note);
    } else if (note->kind == CONTROL_UNLOAD) {
        if (n->loading)
            fail(node, n->load.request, n->load.epoch, ERR_CANCELLED);
        n->loading = false;
        leave(n, 1, 0, note->epoch, note->leave);
        forget(n);
    }
}

/* ---- Data -------------------------------------------------------------------------------------------------------- */

void worker_tends(uint32_t node, uint64_t epoch)
{
    struct sim_node *n = &w.node[node];
    if (!n->alive || !n->session.active || n->session.epoch != epoch || n->next == SIM_COORDINATOR ||
        n->session.next_attached)
        return;
    sim_travel((struct mail){.kind = MAIL_ATTACH, .from = node, .to = n->next, .epoch = epoch, .role = 1}, 1, 0);
    sim_post((struct mail){.kind = MAIL_TEND, .to = node, .epoch = epoch, .at = w.now + TEND_US});
}

static void attached(uint32_t node, uint32_t to, uint32_t role, uint64_t connection)
{
    sim_travel((struct mail){.kind = MAIL_ATTACHED,
                             .from = node,
                             .to = to,
                             .epoch = w.node[node].session.epoch,
                             .role = role,
                             .connection = connection},
               1, 0);
}

/* The caches of this stage's blocks, position by position: what they build on must be there, in every block; so must be
 * what blocks that are left out are said to hold; what the others compute is there then. */
static void compute_span(struct sim_node *n, const struct batch_span *s, uint32_t from, uint32_t end, const uint64_t *in,
                         uint64_t *out)
{
    uint64_t hash = HASH_TOKENS_START;
    for (uint32_t p = 0; p < s->first + s->count; p++) {
        hash = hash_token(hash, s->tokens[p]);
        uint64_t *slot = n->cache[s->pages[p / KV_PAGE_TOKENS]][p % KV_PAGE_TOKENS];
        for (uint32_t b = from; p >= s->first && b < end; b++)
            slot[b] = hash;
        for (uint32_t b = n->load.first; b <= n->load.last; b++)
            if (slot[b] != hash)
                sim_broken("block %u on %s builds on position %u of page %u, which does not hold these tokens", b, n->name,
                           p, s->pages[p / KV_PAGE_TOKENS]);
        if (p < s->first)
            continue;
        if (in && from < end && in[p - s->first] != sim_row(hash, from))
            sim_broken("block %u on %s is given other activations than those of position %u", from, n->name, p);
        out[p - s->first] = sim_row(hash, n->load.last + 1);
    }
}

/* All blocks, or this stage's share where only gaps are filled. *out: the rows for the next stage, or NULL. */
static int compute_blocks(struct sim_node *n, const struct mail *mail, const struct frame_share *share,
                          struct batch_span *spans, uint64_t **out, struct error *err)
{
    const struct frame_work *f = &mail->job->work;
    uint32_t from = share ? share->first_block : n->load.first, end = share ? share->end_block : n->load.last + 1;
    uint64_t *rows = mem_zalloc(f->tokens + 1, sizeof *rows), *own = mem_zalloc(f->tokens + 1, sizeof *own);
    const uint64_t *in = share && share->kept ? own : mail->rows;
    int rc = share && share->kept ? batch_rows_gather(n->rows, n->table, spans, f->span_count, from, own, err) : 0;
    if (!in && from < end && from > 0)
        sim_broken("%s is given nothing for block %u", n->name, from);
    for (uint32_t i = 0, at = 0; i < f->span_count && !rc; at += spans[i++].count)
        compute_span(n, &spans[i], from, end, in ? in + at : NULL, rows + at);
    if (share && from == end && share->send)
        memcpy(rows, own, f->tokens * sizeof *rows); /* sent again */
    else if (!rc && !session_is_last(&n->session) && end == n->load.last + 1 && from < end)
        batch_rows_keep(n->rows, n->table, spans, f->span_count, end, rows);
    if (kept_rows_bytes(n->rows) > n->rows_limit)
        sim_broken("%s keeps %llu bytes of rows", n->name, (unsigned long long)kept_rows_bytes(n->rows));
    mem_free(own);
    if (share && !share->send) {
        mem_free(rows);
        rows = NULL;
    }
    *out = rows;
    return rc;
}

static struct sim_result *make_result(struct sim_node *n, const struct frame_work *f, const struct batch_span *spans)
{
    struct sim_result *r = mem_zalloc(1, sizeof *r);
    uint32_t floats = 0;
    r->result = (struct frame_result){.epoch = n->session.epoch,
                                      .microbatch = f->microbatch,
                                      .spans = r->spans,
                                      .span_count = f->span_count,
                                      .stage = n->session.stage};
    for (uint32_t i = 0; i < f->span_count; i++) {
        const struct batch_span *s = &spans[i];
        struct frame_span_result *out = &r->spans[i];
        uint32_t end = s->first + s->count;
        *out = (struct frame_span_result){.sequence = f->spans[i].sequence, .position = end, .want = s->want};
        if (s->want == WANT_TOKEN)
            out->chosen.token = sim_next_token(s->tokens, end);
        if (s->want != WANT_SCORES)
            continue;
        out->floats = &r->floats[floats];
        out->float_count = s->count;
        for (uint32_t p = s->first; p < end; p++)
            r->floats[floats++] = sim_score(s->tokens, p + 1, p + 1 < end ? s->tokens[p + 1] : s->next_token);
    }
    return r;
}

static void compute(uint32_t node, const struct mail *mail)
{
    struct sim_node *n = &w.node[node];
    struct frame_work *f = &mail->job->work;
    struct batch_span spans[64];
    struct error err = {0};
    struct sim_result *result = NULL;
    n->busy_until = (n->busy_until > w.now ? n->busy_until : w.now) + 200 + sim_below(3000);
    int64_t after = n->busy_until - w.now;
    const struct batch_place place = {
        .table = n->table,
        .held = n->held,
        .first_block = n->load.first,
        .last_block = n->load.last,
        .share = f->share_count ? &f->shares[n->session.stage] : NULL,
    };
    uint64_t *rows = NULL;
    if (f->filled) {
        kept_rows_free(n->rows);
        forget_left(n);
    }
    int rc = micro_batch_apply(f, &place, spans, &err);
    if (!rc)
        rc = compute_blocks(n, mail, place.share, spans, &rows, &err);
    if (rc) {
        mem_free(rows);
        sim_broken("%s refuses micro-batch %llu: %s", n->name, (unsigned long long)f->microbatch, err.text);
        return;
    }
    if (!session_is_last(&n->session)) {
        struct job *onward = job_copy(f);
        onward->work.codec = rows ? CODEC_F32 : CODEC_NONE;
        onward->work.width = rows ? SIM_WIDTH : 0;
        sim_travel((struct mail){.kind = MAIL_WORK,
                                 .from = node,
                                 .to = n->next,
                                 .epoch = n->session.epoch,
                                 .job = onward,
                                 .rows = rows},
                   1, after);
        return;
    }
    mem_free(rows);
    result = make_result(n, f, spans);
    uint64_t connection;
    memcpy(&connection, n->session.receiver.id, sizeof connection);
    if (!n->session.has_receiver)
        connection = UINT64_MAX;
    sim_travel((struct mail){.kind = MAIL_RESULT,
                             .from = node,
                             .to = SIM_COORDINATOR,
                             .epoch = n->session.epoch,
                             .result = result,
                             .connection = connection},
               1, after);
}

void worker_takes(uint32_t node, const struct mail *mail)
{
    struct sim_node *n = &w.node[node];
    struct link_peer from = peer_of(mail->from, mail->connection);
    struct data_frame f = {.epoch = mail->epoch, .role = mail->role};
    struct error why = {0};
    if (mail->kind == MAIL_ATTACHED) { /* over our link to the next stage */
        f.kind = DATA_ATTACHED;
        uint64_t feed;
        memcpy(&feed, n->session.feed.id, sizeof feed);
        if (session_next(&n->session, &f))
            attached(node, n->load.previous, 1, n->load.previous == SIM_COORDINATOR ? feed : 0);
        return;
    }
    f.kind = mail->kind == MAIL_WORK ? DATA_WORK : DATA_ATTACH;
    if (mail->kind == MAIL_WORK) {
        f.work = mail->job->work;
        f.microbatch = f.work.microbatch;
    }
    switch (session_receive(&n->session, &from, &f, &why)) {
    case SESSION_COMPUTE:
        compute(node, mail);
        break;
    case SESSION_GREET:
        attached(node, mail->from, mail->role, mail->connection);
        break;
    case SESSION_FAIL:
        sim_broken("%s cannot compute micro-batch %llu: %s", n->name, (unsigned long long)f.microbatch, why.text);
        break;
    default: /* old, early or not for us: dropped, as the worker does */
        if (mail->kind == MAIL_WORK)
            sim_trace("%s drops micro-batch %llu of epoch %llu: %s", n->name, (unsigned long long)f.microbatch,
                      (unsigned long long)mail->epoch, why.text);
        break;
    }
}
