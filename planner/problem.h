/* What is to be planned: a model as blocks, devices, links, a workload and an objective.
 *
 * A problem comes from a what-if file (plan_problem_from_yaml) or is built by the coordinator from measured profiles
 * (plan_problem_new, then fill in). Everything is SI: bytes, seconds, bytes a second, FLOPs. Pure data: no sockets,
 * no clock; a problem that nobody changes may be read from any thread. */
#ifndef BRIGADE_PLANNER_PROBLEM_H
#define BRIGADE_PLANNER_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/yaml.h"

#define PLAN_MAX_DEVICES 64
#define PLAN_MAX_BLOCKS 512
#define PLAN_MAX_CONCURRENCY 4096
#define PLAN_MAX_CHUNKS 4096 /* prompt_tokens / chunk, rounded up */

enum plan_objective { PLAN_LATENCY, PLAN_THROUGHPUT, PLAN_TTFT };
#define PLAN_OBJECTIVES 3

/* "latency", "throughput", "ttft"; plan_objective_parse: ERR_USAGE with the three names for anything else. */
const char *plan_objective_name(enum plan_objective objective);
int plan_objective_parse(const char *name, enum plan_objective *out, struct error *e);

struct plan_block {
    double weight_bytes;    /* read from memory for each micro-batch */
    double resident_bytes;  /* held in memory; 0 means weight_bytes (experts are resident but not all read) */
    double flops_per_token;
    double attention_flops; /* for one token and one position of context */
    double kv_bytes;        /* for one position of one sequence */
    int measured_class;     /* row of a measured profile; blocks of one shape and type share it */
};

struct plan_model {
    double hidden;          /* values a token on the wire */
    double embedding_bytes; /* on the first stage */
    double head_weight_bytes, head_flops_per_token; /* on the last stage */
    int blocks;
    struct plan_block *block;
};

/* Measured times of one device for the model's own shapes; takes the place of read and compute. Tables are row-major
 * and linear between grid points, and beyond the last two; grids rise strictly. All seconds. */
struct plan_profile {
    int classes;                      /* of blocks */
    int batches, contexts;            /* decode grid */
    int chunks, pasts;                /* prefill grid */
    double *batch, *context;          /* [batches] sequences, [contexts] positions */
    double *chunk, *past;             /* [chunks] tokens, [pasts] positions */
    double *decode;                   /* [classes][batches][contexts] one block */
    double *prefill;                  /* [classes][chunks][pasts] one block */
    double *head;                     /* [batches] final norm, head and sampler */
    double embedding_per_token;
};

struct plan_device {
    char *name;
    double memory;      /* bytes that can be admitted */
    double buffers;     /* bytes of compute buffers, wherever it stands in the pipe */
    double read;        /* bytes/s; unused with a profile */
    double compute;     /* FLOP/s; unused with a profile */
    double overhead_s;  /* for each micro-batch or chunk of a stage */
    int host;           /* devices of one host (not 0) share its host_cores, each computing with `threads` of them, and
                           the bandwidth of its memory; the prediction counts it, the search does not. 0: alone */
    double host_cores, threads;
    double host_read;   /* bytes/s that all of them together can read; 0: unknown */
    struct plan_profile *profile; /* owned; NULL: the linear formulas */
};

/* One direction of one pair. */
struct plan_link {
    double bandwidth;   /* bytes/s */
    double rtt_s;
    double value_bytes; /* of an activation value on this link; 0: the workload's */
    const char *codec;  /* what such values are called, for people; borrowed; NULL: the workload's, exact */
};

struct plan_workload {
    int prompt_tokens, output_tokens;
    int concurrency; /* sequences at once */
    double context;  /* positions a decoding sequence looks back on */
    double kv_tokens; /* positions of cache admitted, over all sequences */
    int chunk;       /* tokens of a prefill chunk */
    double value_bytes;
};

struct plan_problem {
    struct plan_model model;
    int devices;
    struct plan_device *device;
    char *coordinator;      /* a device's name or one of its own */
    int coordinator_device; /* -1: it is not a device */
    struct plan_link *link; /* [devices + 1][devices + 1], [from][to]; the last row and column are the coordinator's */
    struct plan_workload workload;
    enum plan_objective objective;
    int pin_first;          /* the device that must hold block 0, or -1 */
    bool may_round;         /* links may be given codecs of fewer bytes (coordinator/core/codecs.h) */
};

/* An empty problem with its arrays: zeroed blocks, devices without names, links of no bandwidth, no pin, coordinator
 * -1 and unnamed, workload {512, 128, 1, 1024, 1024, 256, 4}. The caller fills it in (names with mem_strdup) and
 * frees it. NULL when out of memory or over the limits above. */
struct plan_problem *plan_problem_new(int blocks, int devices);
void plan_problem_free(struct plan_problem *p); /* NULL is allowed */

/* A profile with zeroed tables of these sizes; NULL when out of memory. Freed with its problem, or alone. */
struct plan_profile *plan_profile_new(int classes, int batches, int contexts, int chunks, int pasts);
void plan_profile_free(struct plan_profile *p);

/* A deep copy, for asking "what if". NULL when out of memory. */
struct plan_problem *plan_problem_copy(const struct plan_problem *p);

/* A copy with only these devices (distinct indices), in this order. A coordinator or pinned device that is left out
 * becomes a coordinator of its own name with its links, and no pin. NULL when out of memory. */
struct plan_problem *plan_problem_subset(const struct plan_problem *p, const int *devices, int count);

/* ERR_USAGE or ERR_BOUND with one line naming what is wrong: a number that is negative, missing or not finite, a name
 * missing or used twice, an index out of range, a grid that does not rise. plan_solve calls it. */
int plan_problem_check(const struct plan_problem *p, struct error *e);

/* Reads a what-if document. The caller frees *out with plan_problem_free. Omitted: numbers of a block other than
 * weight_bytes, head, embedding_bytes, overhead_us and buffers are 0; workload as in plan_problem_new, with context
 * prompt_tokens + output_tokens and kv_tokens context times concurrency; links.default when pairs name every link. */
int plan_problem_from_yaml(struct plan_problem **out, const struct yaml_doc *doc, struct error *e);

/* The index of a named device, or -1. */
int plan_problem_device(const struct plan_problem *p, const char *name);

/* The link between two devices; `devices` stands for the coordinator. NULL when both are the same machine. */
const struct plan_link *plan_problem_link(const struct plan_problem *p, int from, int to);

#endif
