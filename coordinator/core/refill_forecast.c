/* The nodes' words of what they hold, as they will say them, put together before they do. */
#include "coordinator/core/refill_forecast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/core/runner_state.h"
#include "planner/cost.h"

#define IDLE_SECONDS 0.25 /* pages that nobody waits for are fetched for so long at most */

/* One move of blocks: what there is to know of it. */
struct moving {
    const struct runner *r;
    const struct cluster_load *load;
    uint32_t count; /* of the pages listed */
};

/* The blocks that a node had in the stages before; false: none. */
static bool had(const struct runner *r, uint32_t node, uint32_t *first, uint32_t *last, bool *sends)
{
    for (uint32_t s = 0; s < r->layout.stages; s++)
        if (r->layout.stage[s].node == node && cluster_node_at(r->cluster, node)->welcomed) {
            *first = r->layout.stage[s].first_block;
            *last = r->layout.stage[s].last_block;
            *sends = s + 1 < r->layout.stages;
            return true;
        }
    return false;
}

/* What a stage's node will say that it holds: its own blocks, and with `fetched` those that others had. */
static void note_stage(const struct moving *m, struct refill *refill, uint32_t stage, bool fetched)
{
    const struct cluster_stage *s = &m->load->stages[stage];
    struct control_held held[PLAN_MAX_BLOCKS], kept;
    struct control_message said = {.kind = CONTROL_LOADED, .epoch = 1};
    uint32_t first = 1, last = 0;
    bool sends = false, was = had(m->r, s->node, &first, &last, &sends);
    for (uint32_t b = s->first_block; b <= s->last_block && said.u.loaded.held_count < PLAN_MAX_BLOCKS; b++)
        if ((was && b >= first && b <= last) || (fetched && cluster_page_source(m->r->cluster, b, s->node) < CLUSTER_NODES_MAX))
            held[said.u.loaded.held_count++] =
                (struct control_held){b, b, m->count, (uint32_t *)m->load->pages, (uint64_t *)m->load->hashes};
    kept = (struct control_held){last + 1, last + 1, m->count, (uint32_t *)m->load->pages, (uint64_t *)m->load->hashes};
    uint64_t row = (uint64_t)model_info(m->r->model)->width * 4; /* at most */
    said.u.loaded.held = held;
    said.u.loaded.kept = &kept;
    said.u.loaded.kept_count = was && sends && m->count * row * KV_PAGE_TOKENS <= m->load->keep_bytes;
    refill_note(refill, s->node, &said);
}

static struct refill_rates rates_of(const struct moving *m)
{
    const struct runner *r = m->r;
    const struct plan_problem *p = r->problem;
    struct refill_rates rates = {0};
    double chunk = p->workload.chunk;
    for (uint32_t s = 0; s < m->load->stage_count; s++) {
        int device = r->plan.stage[s].device;
        rates.block_seconds[s] = cost_block_prefill(p, device, (int)m->load->stages[s].first_block, chunk, 0) / chunk;
        if (s + 1 < m->load->stage_count)
            rates.row_seconds[s] = cost_transfer(p, device, r->plan.stage[s + 1].device, chunk) / chunk;
    }
    return rates;
}

/* Seconds for a page of all blocks that come from elsewhere; 0 when none do. */
static double fetch_seconds(const struct moving *m)
{
    const struct plan_model *model = &m->r->problem->model;
    double slowest = 0;
    for (uint32_t s = 0; s < m->load->stage_count; s++) {
        const struct cluster_stage *stage = &m->load->stages[s];
        uint32_t first = 1, last = 0;
        bool sends, was = had(m->r, stage->node, &first, &last, &sends);
        double seconds = 0, rate, rtt;
        for (uint32_t b = stage->first_block; b <= stage->last_block; b++) {
            uint32_t from = cluster_page_source(m->r->cluster, b, stage->node);
            if ((was && b >= first && b <= last) || from == CLUSTER_NODES_MAX)
                continue;
            bool known = cluster_link_between(m->r->cluster, from, stage->node, &rate, &rtt, NULL) && rate > 0;
            seconds += known ? model->block[b].kv_bytes * KV_PAGE_TOKENS / rate : 1e-9;
        }
        slowest = seconds > slowest ? seconds : slowest;
    }
    return slowest;
}

static bool forecast(const struct moving *m, bool fetched, double *filled, double *computed)
{
    struct refill *refill = NULL;
    struct refill_rates rates = rates_of(m);
    if (refill_create(model_info(m->r->model)->blocks, m->r->kv_pages, &refill, NULL))
        return false;
    for (uint32_t s = 0; s < m->load->stage_count; s++)
        note_stage(m, refill, s, fetched);
    refill_stages(refill, 1, m->load->stage_count, m->load->stages);
    *filled = *computed = 0;
    for (uint32_t i = 0; i < m->load->stage_count; i++)
        if (!(rates.block_seconds[i] > 0) || !isfinite(rates.block_seconds[i]) || !isfinite(rates.row_seconds[i]))
            *filled = *computed = -1; /* nothing was measured */
    if (!*filled)
        refill_seconds(refill, &rates, KV_PAGE_TOKENS, m->load->pages, m->load->hashes, m->count, filled, computed);
    refill_destroy(refill);
    return *computed >= 0;
}

void refill_decide(const struct runner *r, struct cluster_load *load, uint32_t running, struct refill_forecast *out)
{
    struct moving m = {r, load, running};
    double with = -1, page = fetch_seconds(&m), idle;
    *out = (struct refill_forecast){-1, -1, -1};
    if (!forecast(&m, false, &out->filled, &out->computed))
        return;
    if (page > 0 && forecast(&m, true, &with, &idle))
        out->fetched = with + running * page;
    if (page > 0 && running && out->fetched >= out->filled) {
        load->page_count = 0;
        return;
    }
    uint32_t more = load->page_count - running;
    if (page > 0 && more * page > IDLE_SECONDS)
        load->page_count = running + (uint32_t)(IDLE_SECONDS / page);
}

const char *refill_forecast_choice(const struct refill_forecast *f)
{
    if (!(f->filled > 0))
        return "";
    if (f->fetched >= 0 && f->fetched < f->filled)
        return "fetching";
    return f->filled < f->computed ? "re-sending" : "computing again";
}

void refill_forecast_text(const struct refill_forecast *f, char *text, size_t size)
{
    const char *choice = refill_forecast_choice(f);
    char fetched[48] = "";
    text[0] = 0;
    if (!*choice)
        return;
    if (f->fetched >= 0)
        snprintf(fetched, sizeof fetched, "fetching %.3f s, ", f->fetched);
    snprintf(text, size, "; %s was chosen (predicted: %sre-sending %.3f s, computing again %.3f s)", choice, fetched,
             f->filled, f->computed);
}
