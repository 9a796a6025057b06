/* The hub: ZeroMQ context, the sets of allowed keys, and the hub thread, which answers ZeroMQ's question "may this
 * key connect?" (ZAP, ZeroMQ RFC 27) and reads the socket monitors. Owns no link. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <zmq.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/slice.h"
#include "proto/hub.h"

#define ZAP_PARTS 7
#define ZAP_TEXT 256
#define WATCHES_MAX 1024

const char *const hub_plane_names[PLANE_COUNT] = {"control", "data", "join", "weights", "self"};

bool hub_knows(struct hub *hub, enum link_plane plane, const char *public_key)
{
    bool known = plane == PLANE_JOIN && atomic_load(&hub->guests);
    pthread_mutex_lock(&hub->lock);
    for (size_t i = 0; i < hub->allowed[plane].count && !known; i++)
        known = !strcmp(hub->allowed[plane].keys[i], public_key);
    pthread_mutex_unlock(&hub->lock);
    return known;
}

int hub_allow(struct hub *hub, enum link_plane plane, const char *const *public_keys, size_t count, struct error *err)
{
    if ((unsigned)plane >= PLANE_COUNT)
        return error_set(err, ERR_INTERNAL, "plane %d is not known", (int)plane);
    for (size_t i = 0; i < count; i++)
        if (!key_text_valid(public_keys[i]))
            return error_set(err, ERR_FORMAT, "entry %zu of the allowed keys is no public key (Z85, 40 characters)", i);
    char(*keys)[KEY_TEXT] = mem_zalloc(count, sizeof *keys);
    if (!keys)
        return error_set(err, ERR_NOMEM, "no memory for %zu allowed keys", count);
    for (size_t i = 0; i < count; i++)
        memcpy(keys[i], public_keys[i], KEY_TEXT);
    pthread_mutex_lock(&hub->lock);
    char(*old)[KEY_TEXT] = hub->allowed[plane].keys;
    hub->allowed[plane].keys = keys;
    hub->allowed[plane].count = count;
    pthread_mutex_unlock(&hub->lock);
    mem_free(old);
    return 0;
}

void hub_admit_guests(struct hub *hub)
{
    atomic_store(&hub->guests, true);
}

uint64_t hub_refused(const struct hub *hub)
{
    return atomic_load(&((struct hub *)hub)->refused);
}

/* Whether `who` is logged for the first time; *last when the list is full with it. */
static bool note(struct hub *hub, const char *who, bool *last)
{
    bool fresh = true;
    pthread_mutex_lock(&hub->lock);
    for (size_t i = 0; i < hub->noted_count && fresh; i++)
        fresh = strncmp(hub->noted[i], who, sizeof hub->noted[i] - 1) != 0;
    if (fresh && hub->noted_count == HUB_NOTED_MAX)
        fresh = false;
    if (fresh) {
        snprintf(hub->noted[hub->noted_count++], sizeof hub->noted[0], "%.63s", who);
        *last = hub->noted_count == HUB_NOTED_MAX;
    }
    pthread_mutex_unlock(&hub->lock);
    return fresh;
}

void hub_refuse(struct hub *hub, const char *who, const char *format, ...)
{
    char line[512];
    bool last = false;
    atomic_fetch_add(&hub->refused, 1);
    if (!note(hub, who, &last))
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log_warn("refused %s", line);
    if (last)
        log_warn("refused %d different peers; from now on refusals are counted, no longer logged", HUB_NOTED_MAX);
}

void hub_notice(struct hub *hub, const char *who, const char *what)
{
    char key[sizeof hub->noted[0]];
    bool last = false;
    snprintf(key, sizeof key, "notice %.50s", who); /* must not silence a refusal of the same address */
    if (note(hub, key, &last))
        log_info("%s %s", who, what);
}

/* One ZAP request: version, request id, domain (our plane), address, identity, mechanism, the key's 32 bytes. */
static void answer_zap(struct hub *hub, void *zap)
{
    char text[ZAP_PARTS][ZAP_TEXT];
    size_t size[ZAP_PARTS] = {0}, parts = 0;
    int more = 1;
    while (more) {
        char spare[ZAP_TEXT];
        size_t more_size = sizeof more;
        int n = zmq_recv(zap, parts < ZAP_PARTS ? text[parts] : spare, ZAP_TEXT - 1, 0);
        if (n < 0 || zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &more_size))
            return;
        if (parts < ZAP_PARTS) {
            size[parts] = n < ZAP_TEXT ? (size_t)n : ZAP_TEXT - 1;
            text[parts][size[parts]] = 0;
        }
        parts++;
    }
    char key[KEY_TEXT] = "";
    enum link_plane plane = PLANE_COUNT;
    if (parts == ZAP_PARTS && !strcmp(text[0], "1.0") && !strcmp(text[5], "CURVE") && size[6] == 32 &&
        zmq_z85_encode(key, (const uint8_t *)text[6], 32))
        for (int p = 0; p < PLANE_COUNT; p++)
            if (!strcmp(text[2], hub_plane_names[p]))
                plane = (enum link_plane)p;
    bool allowed = plane != PLANE_COUNT && hub_knows(hub, plane, key);
    if (!allowed && plane != PLANE_COUNT)
        hub_refuse(hub, key, "a %s connection from %s: its public key %s is not allowed here%s", hub_plane_names[plane],
                   text[3], key,
                   plane == PLANE_CONTROL ? " (--allow names the coordinators)" : " (it is no neighbour in the plan)");
    else if (!allowed)
        hub_refuse(hub, parts > 3 ? text[3] : "?", "a connection with a malformed authentication request");
    const char *id = parts > 1 ? text[1] : "";
    zmq_send(zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap, id, parts > 1 ? size[1] : 0, ZMQ_SNDMORE);
    zmq_send(zap, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(zap, "", 0, ZMQ_SNDMORE);
    zmq_send(zap, key, allowed ? KEY_TEXT - 1 : 0, ZMQ_SNDMORE); /* becomes User-Id of the peer's messages */
    zmq_send(zap, "", 0, 0);
}

/* Under lock: attaches to new sockets' monitors, forgets closed ones. */
static void tend_watches(struct hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    for (struct watch **at = &hub->watches; *at;) {
        struct watch *w = *at;
        if (!w->attached) {
            int zero = 0;
            w->monitor = zmq_socket(hub->context, ZMQ_PAIR);
            if (!w->monitor || zmq_setsockopt(w->monitor, ZMQ_LINGER, &zero, sizeof zero) ||
                zmq_connect(w->monitor, w->monitor_name))
                w->attach_error = errno;
            w->attached = true;
            pthread_cond_broadcast(&hub->attached);
        }
        if (w->closed) {
            *at = w->next;
            hub->watch_count--;
            if (w->monitor)
                zmq_close(w->monitor);
            mem_free(w);
        } else {
            at = &w->next;
        }
    }
    pthread_mutex_unlock(&hub->lock);
}

static void hub_loop(struct hub *hub, void *zap)
{
    static const size_t fixed = 2;
    zmq_pollitem_t *items = NULL;
    struct watch **watched = NULL;
    size_t room = 0;
    for (;;) {
        tend_watches(hub);
        /* Only this thread removes watches, so the list stays walkable; owners add at its head under the lock. */
        pthread_mutex_lock(&hub->lock);
        size_t count = hub->watch_count;
        if (count + fixed > room) {
            size_t want = (count + fixed) * 2;
            zmq_pollitem_t *more_items = mem_resize(items, want, sizeof *items);
            items = more_items ? more_items : items;
            struct watch **more_watched = more_items ? mem_resize(watched, want, sizeof *watched) : NULL;
            watched = more_watched ? more_watched : watched;
            room = more_watched ? want : room;
        }
        size_t n = 0;
        for (struct watch *w = hub->watches; w && n + fixed < room; w = w->next)
            if (w->attached && w->monitor) {
                watched[n] = w;
                items[fixed + n++] = (zmq_pollitem_t){.socket = w->monitor, .events = ZMQ_POLLIN};
            }
        pthread_mutex_unlock(&hub->lock);
        zmq_pollitem_t least[2], *set = room ? items : least;
        set[0] = (zmq_pollitem_t){.socket = zap, .events = ZMQ_POLLIN};
        set[1] = (zmq_pollitem_t){.fd = waker_fd(hub->waker), .events = ZMQ_POLLIN};
        if (zmq_poll(set, (int)(fixed + n), -1) < 0) {
            if (errno == EINTR)
                continue;
            break; /* ETERM: the hub is being destroyed */
        }
        if (set[0].revents)
            answer_zap(hub, zap);
        if (set[1].revents)
            waker_clear(hub->waker);
        for (size_t i = 0; i < n; i++)
            if (set[fixed + i].revents)
                watch_read_events(watched[i]);
    }
    mem_free(items);
    mem_free(watched);
}

struct start {
    struct hub *hub;
    void *zap;
};

static void *hub_thread(void *context)
{
    struct start *start = context;
    struct hub *hub = start->hub;
    void *zap = start->zap;
    mem_free(start);
    hub_loop(hub, zap);
    zmq_close(zap);
    pthread_mutex_lock(&hub->lock);
    while (hub->watches) {
        struct watch *w = hub->watches;
        hub->watches = w->next;
        if (w->monitor)
            zmq_close(w->monitor);
        mem_free(w);
    }
    pthread_mutex_unlock(&hub->lock);
    return NULL;
}

int hub_create(const struct node_key *key, struct hub **out, struct error *err)
{
    int zero = 0, rc = ERR_NOMEM;
    sigset_t all, before;
    void *zap = NULL;
    if (!zmq_has("curve"))
        return error_set(err, ERR_UNSUPPORTED, "this libzmq was built without CURVE; install the distribution's "
                                               "libzmq5");
    struct hub *hub = mem_zalloc(1, sizeof *hub);
    struct start *start = mem_zalloc(1, sizeof *start);
    if (!hub || !start) {
        rc = error_set(err, ERR_NOMEM, "no memory for the sockets' hub");
        goto fail;
    }
    hub->key = key;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->attached, NULL);
    if ((rc = waker_create(&hub->waker, err)))
        goto fail;
    /* Two I/O threads, one a plane: heartbeats do not wait while a large activation is being encrypted. The first socket
     * starts them; they take short turns, so that bytes do not wait for a compute thread on the same core. */
    slice_short(true);
    if (!(hub->context = zmq_ctx_new()) || zmq_ctx_set(hub->context, ZMQ_IO_THREADS, HUB_IO_THREADS) ||
        !(zap = zmq_socket(hub->context, ZMQ_REP)) || zmq_setsockopt(zap, ZMQ_LINGER, &zero, sizeof zero) ||
        zmq_bind(zap, "inproc://zeromq.zap.01")) {
        rc = error_set(err, ERR_IO, "ZeroMQ does not start: %s", zmq_strerror(errno));
        goto fail;
    }
    *start = (struct start){hub, zap};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    rc = pthread_create(&hub->thread, NULL, hub_thread, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    slice_short(false);
    if (rc) {
        rc = error_set(err, ERR_NOMEM, "cannot start the authentication thread: %s", strerror(rc));
        goto fail;
    }
    *out = hub;
    return 0;
fail:
    slice_short(false);
    mem_free(start);
    if (zap)
        zmq_close(zap);
    if (hub && hub->context)
        zmq_ctx_term(hub->context);
    if (hub)
        waker_destroy(hub->waker);
    mem_free(hub);
    return rc;
}

void hub_destroy(struct hub *hub)
{
    if (!hub)
        return;
    zmq_ctx_shutdown(hub->context);
    pthread_join(hub->thread, NULL);
    if (atomic_load(&hub->links)) { /* ZeroMQ would wait for them for ever */
        log_error("%d links are still open at the end; their memory is left behind", atomic_load(&hub->links));
        return;
    }
    while (zmq_ctx_term(hub->context) && errno == EINTR)
        ;
    waker_destroy(hub->waker);
    for (int p = 0; p < PLANE_COUNT; p++)
        mem_free(hub->allowed[p].keys);
    pthread_mutex_destroy(&hub->lock);
    pthread_cond_destroy(&hub->attached);
    mem_free(hub);
}

int watch_open(struct hub *hub, void *socket, const char *where, bool listening, struct watch **out,
               struct error *err)
{
    static _Atomic unsigned serial;
    struct watch *w = mem_zalloc(1, sizeof *w);
    if (!w)
        return error_set(err, ERR_NOMEM, "%s: no memory for a socket", where);
    w->hub = hub;
    w->listening = listening;
    snprintf(w->where, sizeof w->where, "%s", where);
    snprintf(w->monitor_name, sizeof w->monitor_name, "inproc://watch-%u", atomic_fetch_add(&serial, 1));
    int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                 ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                 ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    if (zmq_socket_monitor(socket, w->monitor_name, events)) {
        int rc = error_set(err, ERR_IO, "%s: cannot watch the socket: %s", where, zmq_strerror(errno));
        mem_free(w);
        return rc;
    }
    pthread_mutex_lock(&hub->lock);
    if (hub->watch_count >= WATCHES_MAX) {
        pthread_mutex_unlock(&hub->lock);
        mem_free(w);
        return error_set(err, ERR_BOUND, "%s: more than %d sockets", where, WATCHES_MAX);
    }
    w->next = hub->watches;
    hub->watches = w;
    hub->watch_count++;
    waker_ring(hub->waker);
    while (!w->attached)
        pthread_cond_wait(&hub->attached, &hub->lock);
    int failed = w->attach_error;
    pthread_mutex_unlock(&hub->lock);
    if (failed) {
        watch_close(w, socket);
        return error_set(err, ERR_IO, "%s: cannot watch the socket: %s", where, zmq_strerror(failed));
    }
    *out = w;
    return 0;
}

void watch_close(struct watch *w, void *socket)
{
    struct hub *hub = w->hub;
    zmq_socket_monitor(socket, NULL, 0);
    pthread_mutex_lock(&hub->lock);
    w->closed = true; /* the hub thread frees it */
    pthread_mutex_unlock(&hub->lock);
    waker_ring(hub->waker);
}
