/* What a person asks of the worker: flags, and worker.yaml for the same things. Flags win. Immutable after reading. */
#ifndef BRIGADE_WORKER_OPTIONS_H
#define BRIGADE_WORKER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/keys.h"

#define WORKER_ALLOW_MAX 64
#define WORKER_MODELS_MAX 16

/* What is done instead of serving. */
enum worker_chore { WORKER_CHORE_NONE, WORKER_CHORE_KEYGEN, WORKER_CHORE_MEMORY_LIMIT };

struct worker_options {
    char listen[256];
    char name[128];
    char *key_path, *cache_path;          /* cache NULL: none */
    char *models[WORKER_MODELS_MAX];      /* folders, searched in order */
    uint32_t model_count;
    char allow[WORKER_ALLOW_MAX][KEY_TEXT];
    uint32_t allow_count;
    uint64_t cache_bytes;                 /* most that received weights may take on disk; 0: what the disk has */
    uint64_t memory_bytes;                /* cap on what a stage may take; 0: none */
    int threads;                          /* 0: auto */
    enum worker_chore chore;
    char *join;                           /* a token, in locked memory; NULL: none */
    char *config_path;                    /* NULL: none */
    int announce;                         /* to the local network; -1 while nobody said, then 1 */
    int awake;                            /* idle cores do not sleep while there is work; -1 while nobody said, then 0 */
    bool join_only;                       /* join, then end */
    double throttle;                      /* for testing: how many times as long micro-batches take; 0: not said */
    int weights_port;                     /* as data_port; -1: the data plane's neighbour */
    int data_port;                        /* 0: any free one, -1: the listening port's neighbour */
};

enum worker_options_outcome { WORKER_RUN, WORKER_EXIT_OK, WORKER_EXIT_USAGE, WORKER_EXIT_ERROR };

/* Reads argv and the file that --config names; a token is wiped from argv. Other than WORKER_RUN: help or version were
 * printed, or err says what is wrong. worker_options_free in any case. */
enum worker_options_outcome worker_options_read(int argc, char **argv, struct worker_options *out, struct error *err);
/* worker.yaml alone, into options that have not been set by flags. Paths are relative to the file. */
int worker_options_file(const char *path, struct worker_options *o, struct error *err);
/* Adds a coordinator's public key, unless it is there. */
int worker_options_allow(struct worker_options *o, const char *key, struct error *err);
void worker_options_free(struct worker_options *o);
/* "tcp://0.0.0.0:7700" and a port → the data plane's endpoint; ERR_USAGE when listen is none. */
int worker_data_endpoint(const struct worker_options *o, int control_port, char *out, unsigned size, struct error *err);
/* The same for the weights plane, from the data plane's port. */
int worker_weights_endpoint(const struct worker_options *o, int data_port, char *out, unsigned size, struct error *err);

#endif
