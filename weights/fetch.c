/* Which chunk is asked of whom next. Owns its lists; pure; one owner thread. */
#include "weights/fetch.h"

#include <string.h>

#include "base/memory.h"

enum state { UNWANTED, NEEDED, ASKED, HERE };

struct source {
    bool used, whole, banned;
    uint8_t *bits;            /* NULL: nothing (unless whole) */
    size_t bytes;
    uint32_t open, damaged;
    int64_t heard_ms;         /* or first asked, when nothing was open */
    int64_t rest_until_ms;    /* not asked before */
    uint32_t asked[FETCH_WINDOW];
};

struct fetch {
    uint32_t chunks, left;
    uint8_t *state;
    uint8_t (*missing)[FETCH_SOURCES_MAX / 8]; /* of each chunk: sources that said they lack it */
    uint32_t *order, ordered, cursor; /* the needed, in order; nothing before the cursor is NEEDED */
    struct source source[FETCH_SOURCES_MAX];
};

int fetch_create(uint32_t chunks, struct fetch **out, struct error *err)
{
    struct fetch *f = mem_zalloc(1, sizeof *f);
    if (f) {
        f->chunks = chunks;
        f->state = mem_zalloc(chunks, 1);
        f->missing = mem_zalloc(chunks, sizeof *f->missing);
        f->order = mem_zalloc(chunks, sizeof *f->order);
    }
    if (!f || !f->state || !f->missing || !f->order) {
        fetch_destroy(f);
        return error_set(err, ERR_NOMEM, "no memory to fetch %u chunks", chunks);
    }
    *out = f;
    return 0;
}

void fetch_destroy(struct fetch *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < FETCH_SOURCES_MAX; i++)
        mem_free(f->source[i].bits);
    mem_free(f->state);
    mem_free(f->missing);
    mem_free(f->order);
    mem_free(f);
}

void fetch_need(struct fetch *f, uint32_t chunk)
{
    if (chunk >= f->chunks || f->state[chunk] != UNWANTED)
        return;
    f->state[chunk] = NEEDED;
    f->order[f->ordered++] = chunk; /* each at most once, so there is room */
    f->left++;
}

static bool valid(const struct fetch *f, int source)
{
    return source >= 0 && source < (int)FETCH_SOURCES_MAX && f->source[source].used;
}

/* Takes a chunk off its source's list; false when it was not on it. */
static bool close_question(struct source *s, uint32_t chunk)
{
    for (uint32_t i = 0; i < s->open; i++)
        if (s->asked[i] == chunk) {
            s->asked[i] = s->asked[--s->open];
            return true;
        }
    return false;
}

static void need_again(struct fetch *f, uint32_t chunk)
{
    if (f->state[chunk] != ASKED)
        return;
    f->state[chunk] = NEEDED;
    f->cursor = 0; /* it stands somewhere before; looking is cheap beside a transfer */
}

static void drop_questions(struct fetch *f, struct source *s)
{
    for (uint32_t i = 0; i < s->open; i++)
        need_again(f, s->asked[i]);
    s->open = 0;
}

void fetch_here(struct fetch *f, uint32_t chunk)
{
    if (chunk >= f->chunks || f->state[chunk] == HERE)
        return;
    f->left -= f->state[chunk] != UNWANTED;
    f->state[chunk] = HERE;
    for (uint32_t i = 0; i < FETCH_SOURCES_MAX; i++)
        close_question(&f->source[i], chunk);
}

bool fetch_is_here(const struct fetch *f, uint32_t chunk)
{
    return chunk < f->chunks && f->state[chunk] == HERE;
}

uint32_t fetch_left(const struct fetch *f)
{
    return f->left;
}

int fetch_source(struct fetch *f)
{
    for (uint32_t i = 0; i < FETCH_SOURCES_MAX; i++)
        if (!f->source[i].used) {
            f->source[i] = (struct source){.used = true};
            return (int)i;
        }
    return -1;
}

int fetch_source_has(struct fetch *f, int source, bool whole, const uint8_t *bits, size_t bytes)
{
    if (!valid(f, source))
        return 0;
    struct source *s = &f->source[source];
    uint8_t *copy = bytes ? mem_alloc(bytes) : NULL;
    if (bytes && !copy)
        return ERR_NOMEM;
    if (bytes)
        memcpy(copy, bits, bytes);
    mem_free(s->bits);
    s->bits = copy;
    s->bytes = bytes;
    s->whole = whole;
    for (uint32_t c = 0; c < f->chunks; c++) /* what it lacked it may have by now */
        f->missing[c][source / 8] &= (uint8_t)~(1u << (source % 8));
    return 0;
}

void fetch_source_lost(struct fetch *f, int source)
{
    if (!valid(f, source))
        return;
    drop_questions(f, &f->source[source]);
    mem_free(f->source[source].bits);
    f->source[source] = (struct source){0};
    for (uint32_t c = 0; c < f->chunks; c++)
        f->missing[c][source / 8] &= (uint8_t)~(1u << (source % 8));
}

static bool has(const struct fetch *f, uint32_t source, uint32_t chunk)
{
    const struct source *s = &f->source[source];
    if (!s->used || s->banned || f->missing[chunk][source / 8] >> (source % 8) & 1)
        return false;
    return s->whole || (chunk / 8 < s->bytes && (s->bits[chunk / 8] >> (chunk % 8) & 1));
}

/* Of those that have it and have room, the one with the fewest open questions. */
static int choose(const struct fetch *f, uint32_t chunk, int64_t now_ms)
{
    int best = -1;
    for (uint32_t i = 0; i < FETCH_SOURCES_MAX; i++) {
        const struct source *s = &f->source[i];
        if (has(f, i, chunk) && s->open < FETCH_WINDOW && now_ms >= s->rest_until_ms &&
            (best < 0 || s->open < f->source[best].open))
            best = (int)i;
    }
    return best;
}

static bool any_room(const struct fetch *f, int64_t now_ms)
{
    for (uint32_t i = 0; i < FETCH_SOURCES_MAX; i++) {
        const struct source *s = &f->source[i];
        if (s->used && !s->banned && s->open < FETCH_WINDOW && now_ms >= s->rest_until_ms)
            return true;
    }
    return false;
}

bool fetch_next(struct fetch *f, int64_t now_ms, int *source, uint32_t *chunk)
{
    if (!f->left || !any_room(f, now_ms))
        return false;
    while (f->cursor < f->ordered && f->state[f->order[f->cursor]] != NEEDED)
        f->cursor++;
    for (uint32_t i = f->cursor; i < f->ordered; i++) {
        uint32_t c = f->order[i];
        int who = f->state[c] == NEEDED ? choose(f, c, now_ms) : -1;
        if (who < 0)
            continue;
        struct source *s = &f->source[who];
        if (!s->open)
            s->heard_ms = now_ms; /* its silence is counted from the first question */
        s->asked[s->open++] = c;
        f->state[c] = ASKED;
        *source = who;
        *chunk = c;
        return true;
    }
    return false;
}

void fetch_unsent(struct fetch *f, int source, uint32_t chunk, int64_t now_ms)
{
    if (!valid(f, source) || !close_question(&f->source[source], chunk))
        return;
    need_again(f, chunk);
    f->source[source].rest_until_ms = now_ms + 1;
}

bool fetch_answered(struct fetch *f, int source, uint32_t chunk, enum fetch_answer answer, int64_t now_ms)
{
    if (!valid(f, source) || chunk >= f->chunks)
        return false;
    struct source *s = &f->source[source];
    bool asked = close_question(s, chunk);
    s->heard_ms = now_ms;
    if (answer == FETCH_GOOD) {
        fetch_here(f, chunk);
        return false;
    }
    if (!asked)
        return false;
    need_again(f, chunk);
    if (answer == FETCH_MISSING) {
        f->missing[chunk][source / 8] |= (uint8_t)(1u << (source % 8));
        return false;
    }
    if (++s->damaged < FETCH_DAMAGED_MAX)
        return false;
    s->banned = true;
    drop_questions(f, s);
    return true;
}

void fetch_tick(struct fetch *f, int64_t now_ms)
{
    for (uint32_t i = 0; i < FETCH_SOURCES_MAX; i++) {
        struct source *s = &f->source[i];
        if (!s->used || !s->open || now_ms - s->heard_ms < FETCH_SILENCE_MS)
            continue;
        drop_questions(f, s);
        s->rest_until_ms = now_ms + FETCH_SILENCE_MS; /* others first, then once more */
    }
}

bool fetch_hopeful(const struct fetch *f)
{
    for (uint32_t i = 0; i < f->ordered; i++) {
        uint32_t c = f->order[i];
        if (f->state[c] == ASKED)
            return true;
        for (uint32_t s = 0; f->state[c] == NEEDED && s < FETCH_SOURCES_MAX; s++)
            if (has(f, s, c))
                return true;
    }
    return !f->left;
}
