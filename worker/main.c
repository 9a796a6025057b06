/* brigade-worker: the daemon on each board. Reads its options, opens its sockets, says it is ready, and runs three
 * threads until a signal asks it to stop. */
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/machine.h"
#include "base/notify.h"
#include "base/sensors.h"
#include "base/units.h"
#include "engine/kernels/ops.h"
#include "proto/discovery.h"
#include "worker/join.h"
#include "worker/left.h"
#include "worker/slices.h"
#include "worker/worker.h"

#define PROGRAM_BYTES (UINT64_C(64) << 20) /* code, threads, sockets: beside any stage */

static volatile int stop_signals;
static struct waker *signal_waker;

static void on_signal(int number)
{
    int saved = errno;
    if (++stop_signals > 1)
        _exit(128 + number); /* asked twice: at once */
    waker_ring(signal_waker); /* a write(2) */
    errno = saved;
}

static void catch_signals(struct waker *waker)
{
    struct sigaction stop = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
    signal_waker = waker;
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a file over the limit is an error that is told, not a death */
}

/* ---- What is done instead of serving ----------------------------------------------------------------------------- */

static int chore_keygen(const struct worker_options *o, struct error *err)
{
    struct node_key *key = NULL;
    int rc = access(o->key_path, F_OK) ? key_generate(&key, err) : key_load(o->key_path, &key, err);
    if (!rc && access(o->key_path, F_OK))
        rc = key_save(key, o->key_path, err);
    if (!rc)
        printf("%s\n", key_public_text(key));
    key_free(key);
    return rc;
}

/* A limit of exactly this leaves, less the margin and the program itself, what admit_memory wants to admit. */
static int chore_memory_limit(const struct worker_options *o, struct error *err)
{
    uint64_t available = machine_memory_available(), margin = machine_memory_margin(), cap = o->memory_bytes;
    uint64_t want = cap ? cap + margin + PROGRAM_BYTES : available;
    if (!available && !cap)
        return error_set(err, ERR_MEMORY, "this system does not tell how much memory is free; give --memory");
    printf("%llu\n", (unsigned long long)(available && available < want ? available : want));
    return 0;
}

/* ---- Serving ----------------------------------------------------------------------------------------------------- */

/* What a stage may take: the least of the cap asked for and what is free less a margin. */
static int admit_memory(struct worker *w, struct error *err)
{
    uint64_t available = machine_memory_available(), margin = machine_memory_margin(), cap = w->options->memory_bytes;
    uint64_t can = available > margin ? available - margin : 0;
    char a[UNITS_TEXT], m[UNITS_TEXT], k[UNITS_TEXT], r[UNITS_TEXT];
    units_bytes_text(available, a);
    units_bytes_text(margin, m);
    units_bytes_text(cap, k);
    if (!available && !cap)
        return error_set(err, ERR_MEMORY, "this system does not tell how much memory is free; give --memory");
    w->admitted_bytes = !available ? cap : cap && cap < can ? cap : can;
    units_bytes_text(w->admitted_bytes, r);
    if (!w->admitted_bytes)
        return error_set(err, ERR_MEMORY, "no memory to admit: %s available, less than the margin of %s that must stay",
                         a, m);
    log_info("memory: %s available - %s margin%s%s -> %s admitted", a, m, cap ? ", at most " : "", cap ? k : "", r);
    if (cap && available && cap > can)
        log_warn("--memory asks for %s, but only %s can be had", k, r);
    return 0;
}

static int open_sockets(struct worker *w, struct error *err)
{
    char endpoint[300];
    const char *allowed[WORKER_ALLOW_MAX];
    int rc;
    for (uint32_t i = 0; i < w->options->allow_count; i++)
        allowed[i] = w->options->allow[i];
    if ((rc = hub_create(w->key, &w->hub, err)) ||
        (rc = hub_allow(w->hub, PLANE_CONTROL, allowed, w->options->allow_count, err)) ||
        (rc = link_listen(w->hub, PLANE_CONTROL, w->options->listen, &w->control, err)) ||
        (rc = worker_data_endpoint(w->options, link_port(w->control), endpoint, sizeof endpoint, err)))
        return rc;
    if ((rc = link_listen(w->hub, PLANE_DATA, endpoint, &w->data, err))) {
        error_prefix(err, "data plane (see --data-port)");
        return rc;
    }
    if ((rc = hub_allow(w->hub, PLANE_WEIGHTS, allowed, w->options->allow_count, err)) ||
        (rc = worker_weights_endpoint(w->options, link_port(w->data), endpoint, sizeof endpoint, err)))
        return rc;
    if ((rc = link_listen(w->hub, PLANE_WEIGHTS, endpoint, &w->weights, err)))
        error_prefix(err, "weights plane (see --weights-port)");
    return rc;
}

static void say_ready(const struct worker *w)
{
    char memory[UNITS_TEXT], threads[16];
    const char *colon = strrchr(w->options->listen, ':');
    snprintf(threads, sizeof threads, "%d", w->options->threads);
    printf("ready: %s at %.*s:%d key %s isa %s cores %d threads %s memory %s\n", w->options->name,
           (int)(colon - w->options->listen), w->options->listen, link_port(w->control), key_public_text(w->key),
           kernels_isa(), w->cpu.cores, w->options->threads ? threads : "auto",
           units_bytes_text(w->admitted_bytes, memory));
    fflush(stdout);
    if (notify_send("READY=1\nSTATUS=waiting for a coordinator") < 0)
        log_warn("cannot tell the service manager that this worker is ready");
}

/* For `brigade nodes --discover`; a worker works as well without. */
static void announce(const struct worker *w, struct announcer **out)
{
    struct error err = {0};
    int rc = w->options->announce ? announcer_start(w->options->name, w->options->listen, link_port(w->control),
                                                    key_public_text(w->key), out, &err)
                                  : 0;
    if (rc && rc != ERR_UNSUPPORTED)
        log_warn("%s; 'brigade nodes --discover' will not find this worker", err.text);
}

/* Both threads, until the end. */
static int serve(struct worker *w, struct error *err)
{
    struct announcer *announcer = NULL;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the control thread's */
    int rc = pthread_create(&thread, NULL, compute_thread, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return error_set(err, ERR_NOMEM, "cannot start the compute thread: %s", strerror(rc));
    announce(w, &announcer);
    say_ready(w);
    rc = control_run(w, &stop_signals);
    announcer_stop(announcer);
    if (rc && !atomic_load(&w->vitals.finished)) {
        error_set(err, rc, "the control thread gave up: %s", error_name(rc));
        _exit(1); /* the compute thread cannot be stopped in good order */
    }
    pthread_join(thread, NULL);
    return rc ? error_set(err, rc, "the compute thread gave up; see the lines above") : 0;
}

static int run(struct worker *w, struct error *err)
{
    struct node_key *key = NULL;
    int rc;
    pthread_mutex_init(&w->vitals.lock, NULL);
    if (w->options->awake && (rc = awake_begin(&w->awake, AWAKE_PATH, err)))
        goto done;
    if ((rc = kernels_init(err)) || (rc = key_load(w->options->key_path, &key, err)))
        goto done;
    w->key = key;
    cpu_describe(&w->cpu);
    worker_slowdown_read(w);
    if ((rc = energy_start(sensors_root(), &w->energy, err)) || (rc = admit_memory(w, err)) ||
        (rc = mailbox_open(&w->jobs, err)) || (rc = mailbox_open(&w->replies, err)))
        goto done;
    catch_signals(w->replies.waker);
    if ((rc = open_sockets(w, err)) || (rc = left_create(&w->left, err)) ||
        (rc = slices_start(w, &w->slices, err)))
        goto done;
    rc = serve(w, err);
done:
    slices_stop(w->slices);
    left_destroy(w->left);
    link_close(w->weights, 0);
    link_close(w->data, 100);
    link_close(w->control, 200);
    hub_destroy(w->hub);
    energy_close(w->energy);
    awake_end(&w->awake);
    mailbox_close(&w->jobs);
    /* The replies' bell stays: a late signal may still ring it. */
    key_free(key);
    return rc;
}

static volatile sig_atomic_t join_stopped;

static void stop_joining(int number)
{
    (void)number;
    join_stopped = 1;
}

/* Before it serves: into the cluster, and remembered. */
static int join(struct worker_options *options, struct error *err)
{
    struct sigaction stop = {.sa_handler = stop_joining}, before = {.sa_handler = SIG_DFL};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    int rc = worker_join(options, &join_stopped, err);
    sigaction(SIGTERM, &before, NULL);
    sigaction(SIGINT, &before, NULL);
    sodium_free(options->join); /* wipes: it has served */
    options->join = NULL;
    return rc;
}

int main(int argc, char **argv)
{
    static struct worker w;
    struct worker_options options;
    struct error err = {0};
    log_set_default("brigade-worker", LOG_LEVEL_INFO);
    switch (worker_options_read(argc, argv, &options, &err)) {
    case WORKER_RUN:
        break;
    case WORKER_EXIT_OK:
        worker_options_free(&options);
        return 0;
    case WORKER_EXIT_USAGE:
        fprintf(stderr, "brigade-worker: %s\n", err.text);
        worker_options_free(&options);
        return 2;
    case WORKER_EXIT_ERROR:
        fprintf(stderr, "brigade-worker: %s\n", err.text);
        worker_options_free(&options);
        return 1;
    }
    w.options = &options;
    int rc = options.chore == WORKER_CHORE_KEYGEN         ? chore_keygen(&options, &err)
             : options.chore == WORKER_CHORE_MEMORY_LIMIT ? chore_memory_limit(&options, &err)
             : options.join                               ? join(&options, &err)
                                                          : 0;
    if (options.chore && !rc) {
        worker_options_free(&options);
        return 0;
    }
    if (!rc && !options.join_only)
        rc = run(&w, &err);
    if (rc)
        fprintf(stderr, "brigade-worker: %s\n", err.text);
    else if (!options.join_only)
        log_info("stopped");
    worker_options_free(&options);
    return rc ? 1 : 0;
}
