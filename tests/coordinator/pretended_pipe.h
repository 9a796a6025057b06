/* A pipe for tests of the scheduler, that keeps every stage's rules, and requests that know the tokens they must get: a
 * token is a function of those before it. One test program at a time; its state is the program's. */
#ifndef BRIGADE_TESTS_COORDINATOR_PRETENDED_PIPE_H
#define BRIGADE_TESTS_COORDINATOR_PRETENDED_PIPE_H

#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "coordinator/core/schedule.h"
#include "engine/model/stage.h"

enum { VOCABULARY = 1000, PAGE = 8, CONTEXT = 96, LIVES = 64, FLIGHT_MAX = 8, SPANS = 32, PAGES_MAX = 256 };

static uint64_t seed;

static inline uint32_t below(uint32_t n)
{
    return (uint32_t)(hash_mix64(++seed) % n);
}

/* ---- The pretended pipe ------------------------------------------------------------------------------------------ */

struct life { /* a sequence as a stage knows it */
    uint32_t sequence, length, page_count;
    int32_t tokens[CONTEXT];
    uint32_t pages[CONTEXT / PAGE];
    uint64_t hash;
    bool sampled;
};

struct flight {
    uint64_t id;
    uint32_t span_count;
    struct frame_span_result spans[SPANS];
    float floats[SPANS][CONTEXT];
};

struct pipe {
    struct life lives[LIVES];
    struct flight flights[FLIGHT_MAX];
    uint32_t under_way;
    uint32_t pages, computed;
    uint64_t holds[PAGES_MAX][PAGE]; /* running token hash after each position that a page stands for */
    uint32_t filled[PAGES_MAX];
};

static inline struct life *find_life(struct pipe *p, uint32_t sequence)
{
    for (int i = 0; i < LIVES; i++)
        if (p->lives[i].sequence == sequence)
            return &p->lives[i];
    return NULL;
}

/* What the "model" says after these tokens; 0 never comes, so a stray zero shows. */
static inline int32_t next_token(const int32_t *tokens, uint32_t n)
{
    return 1 + (int32_t)(hash_tokens(HASH_TOKENS_START, tokens, n) % (VOCABULARY - 1));
}

static inline float score(const int32_t *tokens, uint32_t n, int32_t next)
{
    return (float)(hash_token(hash_tokens(HASH_TOKENS_START, tokens, n), next) % 1000);
}

/* A stage's view of a micro-batch: every rule that sequence.h states, checked. */
static inline void pipe_take(struct pipe *p, const struct frame_work *w, uint32_t max_tokens)
{
    struct flight *f = &p->flights[p->under_way];
    uint32_t tokens = 0, listed = 0;
    REQUIRE(p->under_way < FLIGHT_MAX && w->span_count <= SPANS && w->span_count);
    for (uint32_t i = 0; i < w->release_count; i++) {
        struct life *l = find_life(p, w->release[i]);
        CHECK(l);
        if (l)
            *l = (struct life){0};
    }
    *f = (struct flight){.id = w->microbatch, .span_count = 0};
    for (uint32_t i = 0; i < w->span_count; i++) {
        const struct frame_span *s = &w->spans[i];
        struct life *l = find_life(p, s->sequence);
        if (!l) {
            CHECK_INT(s->known, 0);
            l = find_life(p, 0);
            REQUIRE(l);
            *l = (struct life){.sequence = s->sequence};
        }
        for (uint32_t k = 0; k < i; k++)
            CHECK(w->spans[k].sequence != s->sequence);
        CHECK(s->known == l->length && s->known <= s->first);
        REQUIRE(s->count && s->first + s->count <= CONTEXT);
        for (uint32_t k = 0; k < s->page_count; k++) {
            REQUIRE(s->page_offset + k < CONTEXT / PAGE);
            REQUIRE(s->pages[k] < p->pages);
            l->pages[s->page_offset + k] = s->pages[k];
        }
        if (s->page_count)
            l->page_count = s->page_offset + s->page_count;
        CHECK(l->page_count * PAGE >= s->first + s->count);
        l->length = s->first + s->count;
        memcpy(l->tokens + s->known, s->tokens, (l->length - s->known) * sizeof *s->tokens);
        l->hash = HASH_TOKENS_START;
        for (uint32_t k = 0; k < l->length; k++) { /* what it builds on is there; what it computes is written */
            uint32_t page = l->pages[k / PAGE], slot = k % PAGE;
            l->hash = hash_token(l->hash, l->tokens[k]);
            if (k < s->first) {
                CHECK(p->filled[page] > slot && p->holds[page][slot] == l->hash);
            } else {
                p->holds[page][slot] = l->hash;
                p->filled[page] = slot + 1;
            }
        }
        CHECK(l->hash == s->hash);
        l->sampled |= s->sampling != NULL;
        CHECK(l->sampled);
        const int32_t *own = s->tokens + (s->first - s->known);
        tokens += s->count;
        listed += l->length - s->known;
        if (s->want == WANT_NOTHING)
            continue;
        struct frame_span_result *r = &f->spans[f->span_count];
        *r = (struct frame_span_result){.sequence = s->sequence, .position = l->length, .want = s->want};
        if (s->want == WANT_TOKEN)
            r->chosen = (struct frame_chosen){next_token(l->tokens, l->length), -0.5f};
        if (s->want == WANT_SCORES) {
            r->float_count = s->count;
            for (uint32_t k = 0; k < s->count; k++)
                f->floats[f->span_count][k] =
                    score(l->tokens, s->first + k + 1, k + 1 < s->count ? own[k + 1] : s->next_token);
        }
        if (s->want == WANT_LOGITS) {
            r->float_count = 1;
            f->floats[f->span_count][0] = (float)(l->hash % 4096);
        }
        r->floats = f->floats[f->span_count];
        f->span_count++;
    }
    CHECK_INT(w->tokens, tokens);
    CHECK_INT(w->token_bytes, listed * 4);
    CHECK(tokens <= max_tokens);
    p->computed += tokens;
    for (int a = 0; a < LIVES; a++) { /* nobody wrote into another's pages */
        uint64_t hash = HASH_TOKENS_START;
        for (uint32_t k = 0; p->lives[a].sequence && k < p->lives[a].length; k++) {
            uint32_t page = p->lives[a].pages[k / PAGE], slot = k % PAGE;
            hash = hash_token(hash, p->lives[a].tokens[k]);
            CHECK(p->filled[page] > slot && p->holds[page][slot] == hash);
        }
    }
    p->under_way++;
}

static inline void pipe_answer(struct pipe *p, struct scheduler *s, int64_t now)
{
    struct flight f = p->flights[0];
    for (uint32_t i = 0; i < f.span_count; i++)
        f.spans[i].floats = f.floats[i];
    p->under_way--;
    memmove(&p->flights[0], &p->flights[1], p->under_way * sizeof *p->flights);
    struct frame_result r = {.microbatch = f.id, .spans = f.spans, .span_count = f.span_count};
    scheduler_result(s, &r, now);
    if (below(4) == 0)
        scheduler_result(s, &r, now); /* twice is harmless */
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

struct asked {
    uint64_t id;
    int32_t prompt[CONTEXT];
    uint32_t prompt_count, max_tokens, tokens, finishes;
    int32_t got[CONTEXT];
    bool scores, logits;
    enum finish_reason reason;
    uint64_t client;
    int32_t priority;
    int order; /* of finishing */
};

static int finished;

static inline void on_token(void *context, uint64_t id, const struct request_token *token)
{
    struct asked *a = context;
    CHECK_INT(id, a->id);
    CHECK_INT(token->index, a->tokens);
    CHECK(!a->finishes);
    if (a->tokens < CONTEXT)
        a->got[a->tokens++] = token->id;
}

static inline void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct asked *a = context;
    CHECK_INT(id, a->id);
    a->finishes++;
    a->reason = finish->reason;
    a->order = ++finished;
    CHECK_INT(finish->generated_tokens, a->tokens);
    if (finish->reason != FINISH_DONE && finish->reason != FINISH_LENGTH)
        return;
    if (a->scores) {
        CHECK_INT(finish->score_count, a->prompt_count - 1);
        for (uint32_t i = 0; i + 1 < a->prompt_count; i++)
            CHECK(finish->scores[i] == score(a->prompt, i + 1, a->prompt[i + 1]));
    }
    if (a->logits) {
        CHECK_INT(finish->logit_count, 1);
        CHECK(finish->logits[0] == (float)(hash_tokens(HASH_TOKENS_START, a->prompt, a->prompt_count) % 4096));
    }
}

static inline void check_tokens(const struct asked *a)
{
    int32_t tokens[2 * CONTEXT];
    memcpy(tokens, a->prompt, a->prompt_count * sizeof *tokens);
    for (uint32_t i = 0; i < a->tokens; i++) {
        tokens[a->prompt_count + i] = next_token(tokens, a->prompt_count + i);
        CHECK_INT(a->got[i], tokens[a->prompt_count + i]);
    }
    if (a->reason == FINISH_LENGTH) {
        uint32_t room = CONTEXT - a->prompt_count;
        CHECK_INT(a->tokens, a->max_tokens < room ? a->max_tokens : room);
    }
}

static inline struct request *make(struct asked *a, uint64_t id, int64_t now)
{
    struct request *r = NULL;
    struct error e = {0};
    a->id = id;
    struct request_options o = {.prompt = a->prompt,
                                .prompt_count = a->prompt_count,
                                .max_tokens = a->max_tokens,
                                .scores = a->scores,
                                .logits = a->logits,
                                .client = a->client,
                                .priority = a->priority,
                                .on_token = on_token,
                                .on_finish = on_finish,
                                .context = a};
    sampling_default(&o.sampling);
    for (uint32_t i = 0; i < id % 3; i++)
        o.sampling.bias[o.sampling.bias_count++] = (struct sampling_bias){(int32_t)i, 1};
    if (request_create(&o, id, NULL, VOCABULARY, CONTEXT, now, &r, &e))
        CHECK_FAIL("%s", e.text);
    return r;
}

#endif
