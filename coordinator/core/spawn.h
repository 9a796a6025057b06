/* Worker processes of our own on loopback, each with a fresh key, for `--stages K`: the same path as a real cluster.
 *
 * They live in a private temporary folder (keys, caches; mode 0700) and die with us: they are stopped and the folder is
 * removed by spawn_stop, and the kernel kills them should this process die without it. Call from one thread, which must
 * outlive them (the kernel's signal follows the thread that started them). */
#ifndef BRIGADE_COORDINATOR_CORE_SPAWN_H
#define BRIGADE_COORDINATOR_CORE_SPAWN_H

#include <signal.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/keys.h"

struct spawn;

struct spawn_options {
    uint32_t count;
    const char *worker_path;       /* NULL: beside this program, in the build tree, in PATH */
    const char *model_path;        /* its folder becomes each worker's model folder */
    const char *coordinator_key;   /* public: whom they obey */
    int threads;                   /* of each; 0: a fair share of the cores */
    const volatile sig_atomic_t *interrupt; /* may be NULL */
};

struct spawn_worker {
    char name[32], endpoint[256], public_key[KEY_TEXT];
    int pid;
};

/* Starts them and waits until all are ready. On failure everything is gone again. */
int spawn_start(const struct spawn_options *o, struct spawn **out, struct error *err);
const struct spawn_worker *spawn_workers(const struct spawn *s, uint32_t *count);
/* When a worker process has ended by itself: a line that says which, and how; else 0. Told once each; *index, if not
 * NULL: which one. */
int spawn_check(struct spawn *s, uint32_t *index, struct error *err);
void spawn_stop(struct spawn *s); /* NULL is fine */

#endif
