/* The coordinator's weights thread. Owns the links to the workers' weights planes and the list of hashes; the other
 * threads only append nodes, under the lock. */
#include "coordinator/core/offer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/units.h"
#include "weights/serve.h"

#define WAIT_MS 200

struct node {
    struct weights_peer peer;
    struct link *link;         /* the thread's */
    bool told;                 /* of all nodes, over the present connection */
    unsigned connection;       /* the one it was told over */
};

struct offer {
    struct hub *hub;
    const struct model *model;
    char name[FRAME_TEXT_MAX]; /* the file's, without folders */
    struct waker *waker;
    pthread_t thread;
    pthread_mutex_t lock;      /* added, gone, added_count, stop */
    struct weights_peer added[WEIGHTS_PEERS_MAX];
    bool gone[WEIGHTS_PEERS_MAX]; /* of added: revoked */
    uint32_t added_count;
    _Atomic bool stop;
    _Atomic uint64_t sent_bytes;
    /* The thread's own. */
    struct node node[WEIGHTS_PEERS_MAX];
    uint32_t node_count;
    struct manifest *layout, *list; /* list: with hashes, once somebody asked */
    struct error trouble;      /* why it cannot be sent */
};

/* Whether it is on its way. */
static bool answer(struct offer *o, struct node *n, const struct weights_frame *f)
{
    struct buffer header = {0};
    struct error err = {0};
    int rc = weights_frame_encode(f, &header, &err);
    if (!rc) {
        struct frame_part parts[2] = {{header.data, header.size}, {f->raw, f->raw_bytes}};
        rc = link_send(n->link, NULL, parts, f->raw_bytes ? 2 : 1, &err);
    }
    if (rc)
        log_debug("weights: %s", err.text);
    else
        atomic_fetch_add(&o->sent_bytes, f->raw_bytes);
    buffer_free(&header);
    return !rc;
}

static void say_offer(struct offer *o, struct node *n)
{
    struct weights_frame f = {.kind = WEIGHTS_OFFER, .fingerprint = model_info(o->model)->fingerprint};
    struct weights_peer *peers = mem_zalloc(o->node_count, sizeof *peers);
    for (uint32_t i = 0; peers && i < o->node_count; i++)
        if (&o->node[i] != n && o->node[i].link)
            peers[f.peer_count++] = o->node[i].peer;
    f.peers = peers;
    snprintf(f.model, sizeof f.model, "%s", o->name);
    n->told = answer(o, n, &f); /* else once more, the next time round */
    mem_free(peers);
}

static int keep_going(void *context, uint64_t done, uint64_t total)
{
    struct offer *o = context;
    (void)done;
    (void)total;
    return atomic_load(&o->stop);
}

static void make_list(struct offer *o)
{
    char text[UNITS_TEXT];
    int64_t start = clock_ms();
    if (manifest_recall(model_gguf(o->model), model_info(o->model)->fingerprint, keep_going, o, &o->list, &o->trouble))
        log_warn("the model's weights cannot be sent: %s", o->trouble.text);
    else
        log_info("%s: hashes of %s in %lld ms", o->name, units_bytes_text(manifest_file_bytes(o->list), text),
                 (long long)(clock_ms() - start));
}

static void take_question(struct offer *o, struct node *n, const struct weights_frame *f)
{
    struct weights_frame reply;
    seed_lacking(f, &reply);
    bool ours = f->fingerprint == model_info(o->model)->fingerprint;
    if (ours && f->manifest && !o->list && !o->trouble.code) {
        if (f->kind == WEIGHTS_ASK) {
            reply.soon = true; /* it takes as long as reading the file */
            answer(o, n, &reply);
        }
        make_list(o);
    }
    if (ours && (o->list || o->layout)) {
        struct seed seed = {.whole = model_gguf(o->model), .layout = o->list ? o->list : o->layout};
        seed_answer(&seed, f, &reply);
    }
    if (reply.kind == WEIGHTS_HAVE && !reply.has_hash)
        snprintf(reply.trouble, sizeof reply.trouble, "%.255s", o->trouble.text);
    answer(o, n, &reply);
}

static bool receive(struct offer *o, struct node *n)
{
    struct link_message in;
    struct weights_frame f;
    struct error err = {0};
    if (link_receive(n->link, &in, &err) <= 0)
        return false;
    if (weights_frame_decode(in.parts, in.part_count, &f, &err)) {
        log_debug("dropped a frame from %s: %s", in.from.public_key, err.text);
    } else {
        if (f.kind == WEIGHTS_ASK || f.kind == WEIGHTS_WANT)
            take_question(o, n, &f);
        weights_frame_free(&f);
    }
    link_message_free(&in);
    return true;
}

/* New nodes get a link, revoked ones lose theirs, and everybody hears of it. */
static void take_nodes(struct offer *o)
{
    bool gone[WEIGHTS_PEERS_MAX], fewer = false;
    pthread_mutex_lock(&o->lock);
    uint32_t count = o->added_count, before = o->node_count;
    for (uint32_t i = before; i < count; i++)
        o->node[i] = (struct node){.peer = o->added[i]};
    o->node_count = count;
    memcpy(gone, o->gone, sizeof gone);
    pthread_mutex_unlock(&o->lock);
    for (uint32_t i = 0; i < before; i++)
        if (gone[i] && o->node[i].link) {
            link_close(o->node[i].link, 0);
            o->node[i].link = NULL;
            fewer = true;
        }
    for (uint32_t i = before; i < count; i++) {
        struct error err = {0};
        if (!gone[i] && link_connect(o->hub, PLANE_WEIGHTS, o->node[i].peer.endpoint, o->node[i].peer.public_key, &o->node[i].link, &err))
            log_warn("weights: %s", err.text);
    }
    for (uint32_t i = 0; i < count && (fewer || before != count); i++)
        o->node[i].told = false;
}

static void *offer_thread(void *context)
{
    struct offer *o = context;
    struct link *links[WEIGHTS_PEERS_MAX];
    bool ready[WEIGHTS_PEERS_MAX];
    while (!atomic_load(&o->stop)) {
        size_t count = 0;
        take_nodes(o);
        for (uint32_t i = 0; i < o->node_count; i++) {
            struct node *n = &o->node[i];
            if (!n->link)
                continue;
            links[count++] = n->link;
            if (link_state(n->link, NULL, 0) != LINK_UP)
                continue;
            unsigned connection = link_connections(n->link);
            if (!n->told || connection != n->connection)
                say_offer(o, n);
            n->connection = connection;
        }
        if (link_wait(links, count, o->waker, WAIT_MS, ready) < 0)
            break;
        for (uint32_t i = 0; i < o->node_count; i++)
            for (int k = 0; k < 16 && o->node[i].link && receive(o, &o->node[i]); k++)
                ;
    }
    for (uint32_t i = 0; i < o->node_count; i++)
        link_close(o->node[i].link, 0);
    return NULL;
}

int offer_start(struct hub *hub, const struct model *model, struct offer **out, struct error *err)
{
    struct offer *o = mem_zalloc(1, sizeof *o);
    if (!o)
        return error_set(err, ERR_NOMEM, "no memory to offer the model's weights");
    const char *path = gguf_path(model_gguf(model)), *slash = strrchr(path, '/');
    o->hub = hub;
    o->model = model;
    snprintf(o->name, sizeof o->name, "%s", slash ? slash + 1 : path);
    if (manifest_layout(model_gguf(model), model_info(model)->fingerprint, &o->layout, &o->trouble))
        log_debug("%s", o->trouble.text); /* told to whoever asks */
    pthread_mutex_init(&o->lock, NULL);
    int rc = waker_create(&o->waker, err);
    if (!rc && (rc = pthread_create(&o->thread, NULL, offer_thread, o)))
        rc = error_set(err, ERR_NOMEM, "cannot start the weights thread: %s", strerror(rc));
    if (rc) {
        waker_destroy(o->waker);
        manifest_free(o->layout);
        mem_free(o);
        return rc;
    }
    *out = o;
    return 0;
}

void offer_stop(struct offer *o)
{
    char text[UNITS_TEXT];
    if (!o)
        return;
    atomic_store(&o->stop, true);
    waker_ring(o->waker);
    pthread_join(o->thread, NULL);
    if (offer_sent_bytes(o))
        log_info("sent %s of weights (%llu bytes)", units_bytes_text(offer_sent_bytes(o), text),
                 (unsigned long long)offer_sent_bytes(o));
    manifest_free(o->layout);
    manifest_free(o->list);
    waker_destroy(o->waker);
    pthread_mutex_destroy(&o->lock);
    mem_free(o);
}

void offer_forget(struct offer *o, const char *public_key)
{
    pthread_mutex_lock(&o->lock);
    for (uint32_t i = 0; i < o->added_count; i++)
        if (!strcmp(o->added[i].public_key, public_key))
            o->gone[i] = true;
    pthread_mutex_unlock(&o->lock);
    waker_ring(o->waker);
}

int offer_node(struct offer *o, const char *endpoint, const char *public_key, struct error *err)
{
    int rc = 0;
    pthread_mutex_lock(&o->lock);
    uint32_t i = 0;
    while (i < o->added_count && (strcmp(o->added[i].public_key, public_key) || strcmp(o->added[i].endpoint, endpoint)))
        i++;
    bool fresh = i == o->added_count;
    if (fresh && i == WEIGHTS_PEERS_MAX) {
        rc = error_set(err, ERR_BOUND, "weights are offered to %u nodes at most", WEIGHTS_PEERS_MAX);
    } else if (fresh) {
        snprintf(o->added[i].endpoint, sizeof o->added[i].endpoint, "%s", endpoint);
        snprintf(o->added[i].public_key, sizeof o->added[i].public_key, "%s", public_key);
        o->added_count++;
    }
    pthread_mutex_unlock(&o->lock);
    if (!rc && fresh)
        waker_ring(o->waker);
    return rc;
}

uint64_t offer_sent_bytes(const struct offer *o)
{
    return atomic_load(&o->sent_bytes);
}
