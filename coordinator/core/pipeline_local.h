/* Stages in this process, one after the other, on a compute thread of their own, so that whoever streams text and
 * listens to Ctrl-C stays awake. */
#ifndef BRIGADE_COORDINATOR_CORE_PIPELINE_LOCAL_H
#define BRIGADE_COORDINATOR_CORE_PIPELINE_LOCAL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/pipeline.h"
#include "engine/model/stage.h"
#include "proto/link.h"

struct pipeline_local_options {
    const struct model *model;    /* borrowed */
    uint32_t stage_count;         /* at least 1 */
    const uint32_t *last_block;   /* [stage_count] rising, the last one the model's last */
    enum kv_type kv;
    uint32_t kv_pages, max_tokens, max_context, max_sequences;
    int threads;                  /* 0: all cores */
    bool inexact;                 /* OpenBLAS may serve float prefill */
    bool measure;                 /* fill in local_profile */
    struct waker *waker;          /* rung when a result is there; borrowed */
    const volatile sig_atomic_t *interrupt; /* stops loading; may be NULL */
    void (*on_progress)(void *context, const char *what, uint64_t done, uint64_t total); /* during create; NULL is fine */
    void *context;
};

/* Loads the stages (on the compute thread; waits for it) after checking that they fit into this machine's memory:
 * ERR_MEMORY shows the arithmetic. */
int pipeline_local_create(const struct pipeline_local_options *o, struct pipeline **out, struct error *err);

int pipeline_local_threads(const struct pipeline *p);
/* Bytes of a stage as loaded. */
void pipeline_local_memory(const struct pipeline *p, uint32_t stage, struct stage_memory *out);
/* What was measured, shaped as a worker's Profile; NULL without `measure`. Lives as long as the pipe. */
const struct control_message *pipeline_local_profile(const struct pipeline *p);
/* Bytes that could be admitted for stages before they were loaded. */
uint64_t pipeline_local_admissible(const struct pipeline *p);

#endif
