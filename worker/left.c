/* Sets of pages under a lock: more than one while loads are stopped on their way. */
#include "worker/left.h"

#include <pthread.h>

#include "base/memory.h"
#include "engine/kernels/ops.h"

/* What left at once. */
struct set {
    struct set *older;
    uint64_t fingerprint, bytes;
    struct left_pages *pages;
    struct leaving *kv;
};

struct left {
    pthread_mutex_t lock;
    uint64_t epoch;
    struct set *newest;
};

int left_create(struct left **out, struct error *err)
{
    struct left *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NOMEM, "no memory to keep pages that leave");
    pthread_mutex_init(&l->lock, NULL);
    *out = l;
    return 0;
}

/* Under the lock. */
static void give_up(struct left *l)
{
    for (struct set *s = l->newest, *older; s; s = older) {
        older = s->older;
        left_pages_destroy(s->pages);
        leaving_destroy(s->kv);
        mem_free(s);
    }
    l->newest = NULL;
}

void left_destroy(struct left *l)
{
    if (!l)
        return;
    give_up(l);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

void left_turn(struct left *l, uint64_t epoch, bool wanted)
{
    pthread_mutex_lock(&l->lock);
    l->epoch = epoch;
    if (!wanted)
        give_up(l);
    pthread_mutex_unlock(&l->lock);
}

void left_add(struct left *l, uint64_t fingerprint, struct left_pages *pages, struct leaving *kv)
{
    struct set *s = mem_zalloc(1, sizeof *s);
    if (!s) { /* then others compute it */
        left_pages_destroy(pages);
        leaving_destroy(kv);
        return;
    }
    *s = (struct set){NULL, fingerprint, leaving_bytes(kv), pages, kv};
    pthread_mutex_lock(&l->lock);
    s->older = l->newest;
    l->newest = s;
    pthread_mutex_unlock(&l->lock);
}

uint64_t left_bytes(struct left *l)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&l->lock);
    for (const struct set *s = l->newest; s; s = s->older)
        sum += s->bytes;
    pthread_mutex_unlock(&l->lock);
    return sum;
}

void left_forget(struct left *l)
{
    pthread_mutex_lock(&l->lock);
    give_up(l);
    pthread_mutex_unlock(&l->lock);
}

/* Under the lock. */
static bool find(const struct set *s, const struct weights_frame *want, struct weights_frame *reply, struct buffer *raw)
{
    size_t bytes;
    const uint64_t *hashes = left_pages_find(s->pages, want->block, want->page, want->hash);
    const void *page = hashes ? leaving_page(s->kv, want->block, want->page, &bytes) : NULL;
    if (!page || s->fingerprint != want->fingerprint || leaving_type(s->kv) != want->kv_type ||
        bytes > WEIGHTS_PART_BYTES_MAX - KV_PAGE_TOKENS * sizeof *hashes)
        return false;
    buffer_append(raw, hashes, KV_PAGE_TOKENS * sizeof *hashes);
    buffer_append(raw, page, bytes);
    reply->raw = raw->data;
    reply->raw_bytes = raw->size;
    return !raw->failed;
}

void left_answer(struct left *l, const struct weights_frame *want, struct weights_frame *reply, struct buffer *raw)
{
    bool found = false;
    *reply = (struct weights_frame){.kind = WEIGHTS_PAGE, .epoch = want->epoch, .block = want->block, .page = want->page,
                                    .hash = want->hash};
    pthread_mutex_lock(&l->lock);
    for (const struct set *s = l->newest; s && !found && l->epoch == want->epoch; s = s->older)
        found = find(s, want, reply, raw);
    reply->missing = !found;
    reply->soon = l->epoch < want->epoch;
    pthread_mutex_unlock(&l->lock);
    if (!found)
        reply->raw_bytes = 0;
}
