/* Means of what stages measured, and the arithmetic of a round. Owns its arrays; pure; one owner thread. */
#include "coordinator/core/schedule_pace.h"

#include "base/memory.h"

#define WEIGHT 0.25  /* of a new measurement in a mean */
#define SETTLED 3    /* measurements before one is believed; the least of them counts, for the first ones are cold */
#define SPIKE 1.5    /* a measurement counts for at most so many times the mean: what else the machine does comes in spikes; */
#define HOP_SPIKE 1.1 /* one of hops for less: it has all waking up in it, and does not come where stages are never idle */
#define CLEARLY 0.93 /* another number of micro-batches must make a round so much shorter */
#define LEAST_RIDER 0.25   /* a riding prompt token costs at least so much of one computed in a large chunk */
#define FEWEST_UNKNOWN 16u /* riding tokens while nothing is known */
#define FEWEST_CHUNK 32u
#define LEAST_SHARE 0.05  /* of a prompt token, with each micro-batch: a prompt always gets on */
#define LONGEST_CHUNK 1.0 /* seconds */
#define IDLE_US 100       /* a stage that reads the next frame sooner had it waiting; */
#define IDLE_SHARE 8      /* and within such a part of what it computes: a busy machine does not wake it at once */
#define STALE 1000u       /* micro-batches of a stage: what was measured before them may have changed */

struct mean {
    double seconds;
    uint32_t count;
    uint64_t at; /* micro-batches the stage had computed when it was last measured */
};

struct stage_pace {
    struct mean *decode;   /* [decodes + 1] */
    struct mean rider;     /* a token beside decoding sequences */
    struct mean chunk;     /* a token of micro-batches without any */
    uint64_t idle_from_us; /* done with the last one, by its own clock */
    uint64_t batches;
};

struct pace {
    uint32_t stages, decodes;
    struct stage_pace rows[FRAME_STAGES_MAX];
    struct mean *means; /* of all stages */
    struct mean hops;   /* of a round outside of all stages */
};

int pace_create(uint32_t stages, uint32_t decodes, struct pace **out, struct error *err)
{
    struct pace *p = mem_zalloc(1, sizeof *p);
    if (!p || !(p->means = mem_zalloc(FRAME_STAGES_MAX * ((size_t)decodes + 1), sizeof *p->means))) {
        pace_destroy(p);
        return error_set(err, ERR_NOMEM, "out of memory for the measured times of %u stages", stages);
    }
    p->decodes = decodes;
    pace_forget(p, stages);
    *out = p;
    return 0;
}

void pace_destroy(struct pace *p)
{
    if (p)
        mem_free(p->means);
    mem_free(p);
}

void pace_forget(struct pace *p, uint32_t stages)
{
    p->stages = stages < FRAME_STAGES_MAX ? stages : FRAME_STAGES_MAX;
    p->hops = (struct mean){0};
    for (uint32_t s = 0; s < FRAME_STAGES_MAX; s++) {
        p->rows[s] = (struct stage_pace){.decode = p->means + s * ((size_t)p->decodes + 1)};
        for (uint32_t d = 0; d <= p->decodes; d++)
            p->rows[s].decode[d] = (struct mean){0};
    }
}

/* ---- Learning ---------------------------------------------------------------------------------------------------- */

static bool settled(const struct mean *m)
{
    return m->count >= SETTLED;
}

static void add(struct mean *m, double seconds, double spike)
{
    double most = spike * m->seconds;
    if (!m->count || (m->count < SETTLED && seconds < m->seconds))
        m->seconds = seconds;
    else if (m->count >= SETTLED)
        m->seconds += WEIGHT * ((seconds < most ? seconds : most) - m->seconds);
    m->count += m->count < SETTLED;
}

static bool stale(const struct stage_pace *row, const struct mean *m)
{
    return row->batches > m->at + STALE;
}

static void add_decode(struct stage_pace *row, uint32_t decodes, double seconds)
{
    struct mean *m = &row->decode[decodes];
    if (stale(row, m))
        m->count = 0;
    m->at = row->batches;
    add(m, seconds, SPIKE);
}

static void learn_stage(struct pace *p, uint32_t stage, const struct pace_batch *batch, double seconds)
{
    struct stage_pace *row = &p->rows[stage];
    row->batches++;
    if (batch->decodes > p->decodes)
        return;
    if (!batch->prompt_tokens) {
        add_decode(row, batch->decodes, seconds);
    } else if (batch->decodes) {
        double bare = pace_decode_seconds(p, stage, batch->decodes), each = (seconds - bare) / batch->prompt_tokens,
               least = LEAST_RIDER * (row->chunk.count ? row->chunk.seconds : bare / p->decodes);
        if (bare > 0)
            add(&row->rider, each > least ? each : least, SPIKE); /* a mean of nothing would not grow any more */
    } else if (batch->prompt_tokens >= FEWEST_CHUNK) { /* small ones are mostly the reading of weights */
        add(&row->chunk, seconds / batch->prompt_tokens, SPIKE);
    }
}

void pace_learn(struct pace *p, const struct pace_batch *batch, const struct frame_trace *trace, uint32_t count)
{
    double inside = 0;
    bool waited = false;
    if (count != p->stages)
        return;
    for (uint32_t i = 0; i < count; i++)
        if (trace[i].stage != i || trace[i].finished_us < trace[i].started_us ||
            trace[i].started_us < trace[i].received_us)
            return;
    for (uint32_t i = 0; i < count; i++) {
        learn_stage(p, i, batch, (double)(trace[i].finished_us - trace[i].started_us) * 1e-6);
        inside += (double)(trace[i].finished_us - trace[i].received_us) * 1e-6;
        /* Frames that wait for a busy stage are read late: their round says nothing of hops. */
        waited |= trace[i].received_us <
                  p->rows[i].idle_from_us + IDLE_US + (trace[i].finished_us - trace[i].started_us) / IDLE_SHARE;
        p->rows[i].idle_from_us = trace[i].sent_us > trace[i].finished_us ? trace[i].sent_us : trace[i].finished_us;
    }
    if (!waited && batch->round_seconds > inside)
        add(&p->hops, batch->round_seconds - inside, HOP_SPIKE);
}

/* ---- What is known ----------------------------------------------------------------------------------------------- */

/* The next settled number of sequences from `from` on, up or down; 0: none. */
static uint32_t find_settled(const struct pace *p, const struct mean *known, uint32_t from, bool up)
{
    for (uint32_t d = from; d && d <= p->decodes; d = up ? d + 1 : d - 1)
        if (settled(&known[d]))
            return d;
    return 0;
}

static double between(const struct mean *known, uint32_t a, uint32_t b, uint32_t decodes)
{
    return known[a].seconds +
           (known[b].seconds - known[a].seconds) * ((double)decodes - (double)a) / ((double)b - (double)a);
}

double pace_decode_seconds(const struct pace *p, uint32_t stage, uint32_t decodes)
{
    const struct mean *known = p->rows[stage].decode;
    decodes = decodes < p->decodes ? decodes : p->decodes;
    uint32_t below = find_settled(p, known, decodes, false), above = find_settled(p, known, decodes, true);
    if (below && above)
        return below == above ? known[below].seconds : between(known, below, above, decodes);
    uint32_t nearest = below ? below : above;
    if (!nearest)
        return 0;
    /* Beyond them on the line through the next two; with one alone as if half of its time were the sequences' and half
     * the weights'. Neither free nor worse than the sequences' share. */
    uint32_t second = below ? find_settled(p, known, below - 1, false) : find_settled(p, known, above + 1, true);
    double share = known[nearest].seconds * (double)decodes / (double)nearest,
           seconds = second ? between(known, nearest, second, decodes) : (known[nearest].seconds + share) / 2,
           least = share < known[nearest].seconds ? share : known[nearest].seconds,
           most = share > known[nearest].seconds ? share : known[nearest].seconds;
    return seconds < least ? least : seconds > most ? most : seconds;
}

double pace_prompt_seconds(const struct pace *p, uint32_t stage)
{
    const struct stage_pace *row = &p->rows[stage];
    double least = row->chunk.count ? LEAST_RIDER * row->chunk.seconds : 0;
    if (settled(&row->rider))
        return row->rider.seconds > least ? row->rider.seconds : least;
    return row->chunk.count ? row->chunk.seconds : 0;
}

/* ---- What follows ------------------------------------------------------------------------------------------------ */

static bool fresh(const struct stage_pace *row, uint32_t decodes)
{
    return settled(&row->decode[decodes]) && !stale(row, &row->decode[decodes]);
}

/* The same, and as little as it may be where nothing was measured of late: more sequences at least what fewer take, and
 * fewer at least their share. What looks better only for this is tried, and then known. 0: unknown. */
static double hoped_seconds(const struct pace *p, uint32_t stage, uint32_t decodes)
{
    const struct stage_pace *row = &p->rows[stage];
    double least = 0;
    if (decodes <= p->decodes && fresh(row, decodes))
        return row->decode[decodes].seconds;
    for (uint32_t d = 1; d <= p->decodes; d++) {
        double bound = row->decode[d].seconds * (d < decodes ? 1 : (double)decodes / (double)d);
        if (fresh(row, d) && bound > least)
            least = bound;
    }
    return least;
}

bool pace_knows(const struct pace *p, uint32_t decodes)
{
    for (uint32_t s = 0; s < p->stages; s++)
        if (decodes > p->decodes || !fresh(&p->rows[s], decodes))
            return false;
    return true;
}

typedef double seconds_of(const struct pace *p, uint32_t stage, uint32_t decodes);

/* Seconds of a round of `decoding` sequences in `groups` micro-batches; 0: unknown. */
static double round_seconds(const struct pace *p, uint32_t decoding, uint32_t groups, seconds_of *decode)
{
    uint32_t small = decoding / groups, larger = decoding % groups;
    double through = p->hops.seconds, slowest = 0;
    for (uint32_t s = 0; s < p->stages; s++) {
        double large = decode(p, s, small + (larger > 0)),
               all = larger * large + (groups - larger) * (small ? decode(p, s, small) : 0);
        if (large <= 0)
            return 0;
        through += large;
        slowest = all > slowest ? all : slowest;
    }
    return through > slowest ? through : slowest;
}

uint32_t pace_groups(const struct pace *p, uint32_t decoding, uint32_t now, uint32_t most)
{
    uint32_t best = now < most ? now : most;
    double shortest = decoding >= best ? round_seconds(p, decoding, best, hoped_seconds) * CLEARLY : 0;
    if (shortest <= 0)
        return best;
    for (uint32_t groups = most < decoding ? most : decoding; groups; groups--) {
        double seconds = round_seconds(p, decoding, groups, hoped_seconds);
        if (seconds > 0 && seconds < shortest) {
            shortest = seconds;
            best = groups;
        }
    }
    return best;
}

/* Seconds of a prompt token on all stages; 0: some are unknown. */
static double prompt_through(const struct pace *p)
{
    double through = 0;
    for (uint32_t s = 0; s < p->stages; s++) {
        double each = pace_prompt_seconds(p, s);
        if (each <= 0)
            return 0;
        through += each;
    }
    return through;
}

double pace_riders(const struct pace *p, const struct pace_load *load, uint32_t most)
{
    double bare = round_seconds(p, load->decodes * load->groups, load->groups, pace_decode_seconds), through = prompt_through(p);
    if (bare <= 0 || through <= 0)
        return most < FEWEST_UNKNOWN ? most : FEWEST_UNKNOWN;
    double tokens = (load->stretch - 1) * bare / through; /* each micro-batch on its way through all stages */
    for (uint32_t s = 0; s < p->stages; s++) {            /* and each stage, computing all micro-batches */
        double room = load->stretch * bare / load->groups - pace_decode_seconds(p, s, load->decodes);
        if (room / pace_prompt_seconds(p, s) < tokens)
            tokens = room / pace_prompt_seconds(p, s);
    }
    return tokens < LEAST_SHARE ? LEAST_SHARE : tokens < most ? tokens : most;
}

uint32_t pace_filler(const struct pace *p, const struct pace_load *load, uint32_t fillers, uint32_t most)
{
    double bare = round_seconds(p, load->decodes * load->groups, load->groups, pace_decode_seconds), through = prompt_through(p),
           riders = pace_riders(p, load, most), whole = load->stretch * bare, path = whole - p->hops.seconds,
           tokens = most;
    if (bare <= 0 || through <= 0)
        return 0;
    for (uint32_t s = 0; s < p->stages; s++) {
        double each = pace_prompt_seconds(p, s), alone = pace_decode_seconds(p, s, 1), /* it reads the weights, too */
            others = load->groups * (pace_decode_seconds(p, s, load->decodes) + riders * each),
               room = (whole - others) / fillers - alone;
        tokens = room / each < tokens ? room / each : tokens;
        path -= alone;
    }
    tokens = path / through < tokens ? path / through : tokens; /* it goes round as often as the others */
    return tokens > 0 ? (uint32_t)tokens : 0;
}

uint32_t pace_chunk_tokens(const struct pace *p, uint32_t most)
{
    double tokens = most;
    for (uint32_t s = 0; s < p->stages; s++) {
        double each = p->rows[s].chunk.seconds;
        if (each > 0 && LONGEST_CHUNK / each < tokens)
            tokens = LONGEST_CHUNK / each;
    }
    if (tokens < FEWEST_CHUNK)
        return most < FEWEST_CHUNK ? most : FEWEST_CHUNK;
    return (uint32_t)tokens;
}
