/* Who computes: admission by pages, and who makes room when they run short. Pure; the scheduler's owner thread. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/schedule_state.h"

/* ---- Pages ------------------------------------------------------------------------------------------------------- */

static uint32_t pages_of(const struct scheduler *s, uint64_t positions)
{
    return (uint32_t)((positions + s->o.page_tokens - 1) / s->o.page_tokens);
}

/* Positions of the longest this request can become. */
static uint64_t longest(const struct scheduler *s, const struct request *r)
{
    uint64_t most = (uint64_t)request_prompt_count(r) + request_asked(r)->max_tokens;
    return most < s->o.max_context ? most : s->o.max_context;
}

/* Reserved and not yet taken. */
static uint32_t owed(const struct running *run)
{
    return run->reserved > run->page_count ? run->reserved - run->page_count : 0;
}

/* Pages that nobody was promised. */
static uint32_t pages_spare(const struct scheduler *s)
{
    uint32_t available = prefix_available(s->pages);
    return available > s->promised ? available - s->promised : 0;
}

int running_take_page(struct scheduler *s, struct running *run, struct error *err)
{
    if (run->page_count == run->page_limit || (!owed(run) && !pages_spare(s)) ||
        prefix_take(s->pages, &run->pages[run->page_count]))
        return error_set(err, ERR_INTERNAL, "sequence %u has %u pages and may not take another", run->sequence,
                         run->page_count);
    s->promised -= owed(run) > 0;
    run->page_count++;
    return 0;
}

bool running_has_room(const struct scheduler *s, const struct running *run)
{
    return run->page_count * s->o.page_tokens > run->submitted || owed(run);
}

/* ---- Making room ------------------------------------------------------------------------------------------------- */

void scheduler_preempt(struct scheduler *s, uint32_t index)
{
    uint64_t rank = s->running[index].rank;
    s->queue[s->queued++] = (struct waiting){.request = running_remove(s, index), .rank = rank};
}

void scheduler_make_room(struct scheduler *s)
{
    for (uint32_t i = 0; i < s->running_count; i++) {
        if (!running_decodes(&s->running[i]) || running_has_room(s, &s->running[i]))
            continue;
        while (!pages_spare(s) && s->running_count > i + 1) {
            scheduler_preempt(s, s->running_count - 1);
            s->preempted++;
        }
        if (pages_spare(s))
            running_take_page(s, &s->running[i], NULL); /* cannot fail: a decoding sequence is below its limit */
    }
}

/* ---- Beginning on kept pages ------------------------------------------------------------------------------------- */

/* From the first page with gaps on its pages are this sequence's alone, until it has filled them. */
static uint32_t claim_gaps(struct scheduler *s, struct running *run)
{
    uint32_t first = 0;
    while (first < run->page_count && !run->gaps[first])
        first++;
    for (uint32_t i = run->page_count; i-- > first;)
        prefix_unkeep(s->pages, run->pages[i]);
    run->gap_pages = first < run->page_count ? run->page_count : 0;
    return first;
}

/* At least one position is left to compute. Asked for scores, it computes everything. begins: pages with gaps, which are
 * filled first, will do as well. */
static void start_on_prefix(struct scheduler *s, struct running *run, bool begins)
{
    uint32_t count, most, whole;
    const int32_t *tokens = request_tokens(run->request, &count);
    if (request_asked(run->request)->scores)
        return;
    most = (count - 1) / s->o.page_tokens;
    most = most < run->page_limit ? most : run->page_limit;
    if (begins && s->share_sets && !run->gaps)
        run->gaps = mem_zalloc(most, sizeof *run->gaps); /* without memory for them it computes more */
    s->promised -= owed(run);
    for (uint32_t i = run->page_count; i-- > 0;)
        prefix_drop(s->pages, run->pages[i]);
    whole = run->page_count = prefix_share(s->pages, tokens, most, run->pages, run->gaps);
    if (run->gaps)
        whole = claim_gaps(s, run);
    s->promised += owed(run);
    run->submitted = run->computed = whole * s->o.page_tokens;
    run->hash = hash_tokens(HASH_TOKENS_START, tokens, run->submitted);
}

/* Whether a sequence before it is computing pages that this one could start on: then it waits for them. */
static bool awaits_prefix(const struct scheduler *s, uint32_t index)
{
    const struct running *run = &s->running[index];
    uint32_t count;
    const int32_t *tokens = request_tokens(run->request, &count);
    for (uint32_t i = 0; i < index && !request_asked(run->request)->scores; i++) {
        const struct running *other = &s->running[i];
        uint32_t limit = request_prompt_count(other->request), same = 0, unused;
        const int32_t *theirs = request_tokens(other->request, &unused);
        limit = limit < count - 1 ? limit : count - 1;
        while (same < limit && tokens[same] == theirs[same])
            same++;
        same -= same % s->o.page_tokens;
        if (same > run->submitted && other->computed < same)
            return true;
    }
    return false;
}

bool scheduler_begin(struct scheduler *s, uint32_t index)
{
    if (awaits_prefix(s, index))
        return false;
    if (!s->running[index].gap_pages)
        start_on_prefix(s, &s->running[index], true); /* again: more may have been computed since it was admitted */
    return true;
}

/* ---- Admission --------------------------------------------------------------------------------------------------- */

static uint32_t client_load(const struct scheduler *s, uint64_t client)
{
    uint32_t load = 0;
    for (uint32_t i = 0; i < s->running_count; i++)
        load += request_asked(s->running[i].request)->client == client;
    return load;
}

/* Of the highest priority: the first that had to make room, else the earliest of the client with the fewest running. */
static uint32_t next_in_queue(const struct scheduler *s)
{
    uint32_t best = 0, best_load = UINT32_MAX;
    int32_t best_priority = INT32_MIN;
    uint64_t best_rank = UINT64_MAX;
    for (uint32_t i = 0; i < s->queued; i++) {
        const struct request_options *asked = request_asked(s->queue[i].request);
        uint64_t rank = s->queue[i].rank ? s->queue[i].rank : UINT64_MAX;
        if (asked->priority < best_priority || (asked->priority == best_priority && rank > best_rank))
            continue;
        bool better = asked->priority > best_priority || rank < best_rank;
        if (!better && !best_load)
            continue;
        uint32_t load = s->queue[i].rank ? 0 : client_load(s, asked->client);
        if (better || load < best_load) {
            best = i;
            best_load = load;
            best_priority = asked->priority;
            best_rank = rank;
        }
    }
    return best;
}

/* Pages kept free beside those of a new sequence: one for each that may yet grow, so that it need not make room for
 * them at once. */
static uint32_t headroom(const struct scheduler *s)
{
    uint32_t growing = 0;
    for (uint32_t i = 0; i < s->running_count; i++)
        growing +=
            s->running[i].page_limit > s->running[i].reserved && s->running[i].page_limit > s->running[i].page_count;
    return growing;
}

static bool fits(const struct scheduler *s, const struct running *run)
{
    return s->running_count < s->o.sequences &&
           prefix_available(s->pages) >= (uint64_t)s->promised + owed(run) + headroom(s);
}

/* Its place among those that run. */
static void insert_running(struct scheduler *s, const struct running *run)
{
    int32_t priority = request_asked(run->request)->priority;
    uint32_t at = s->running_count++;
    for (; at; at--) {
        const struct running *before = &s->running[at - 1];
        int32_t theirs = request_asked(before->request)->priority;
        if (theirs > priority || (theirs == priority && before->rank < run->rank))
            break;
        s->running[at] = s->running[at - 1];
    }
    s->running[at] = *run;
}

/* The last of those that run gives way to a request of higher priority. */
static bool last_gives_way(struct scheduler *s, const struct request *to)
{
    if (!s->running_count ||
        request_asked(s->running[s->running_count - 1].request)->priority >= request_asked(to)->priority)
        return false;
    scheduler_preempt(s, s->running_count - 1);
    s->preempted++;
    return true;
}

int scheduler_admit(struct scheduler *s, struct error *err)
{
    while (s->queued) {
        uint32_t index = next_in_queue(s), known;
        struct request *request = s->queue[index].request;
        request_tokens(request, &known);
        uint64_t most = longest(s, request), first = known < most ? known + UINT64_C(1) : most;
        struct running run = {.request = request,
                              .rank = s->queue[index].rank,
                              .hash = HASH_TOKENS_START,
                              .page_limit = pages_of(s, most),
                              .reserved = pages_of(s, first)};
        while (s->running_count == s->o.sequences && last_gives_way(s, request))
            ;
        if (s->running_count == s->o.sequences)
            return 0;
        if (!(run.pages = mem_resize(NULL, run.page_limit, sizeof *run.pages)))
            return error_set(err, ERR_NOMEM, "out of memory for a page table of %u entries", run.page_limit);
        s->promised += run.reserved;
        start_on_prefix(s, &run, false);
        s->promised -= owed(&run);
        bool fit = fits(s, &run);
        while (!fit && last_gives_way(s, request))
            fit = fits(s, &run);
        if (!fit) {
            for (uint32_t i = run.page_count; i-- > 0;)
                prefix_drop(s->pages, run.pages[i]);
            mem_free(run.pages);
            return 0; /* it waits, and nobody of its priority overtakes it: so it will come */
        }
        s->promised += owed(&run);
        run.sequence = s->next_sequence++;
        if (!run.rank)
            run.rank = s->next_rank++;
        s->queued--;
        memmove(&s->queue[index], &s->queue[index + 1], (s->queued - index) * sizeof *s->queue);
        insert_running(s, &run);
    }
    return 0;
}
