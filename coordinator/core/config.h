/* cluster.yaml: which nodes there are, how to reach and trust them, what is known of their links, and the few settings
 * that are the cluster's own. Read once, strictly: every complaint names the file, the line and the key.
 *
 *     version: 1
 *     coordinator: {key: coordinator.key}     # secret key file, relative to this file
 *     nodes: [{name: pi, endpoint: tcp://192.168.1.21:7700, public_key: "Z85 of 40 characters", memory: 6G}]
 *     links: [{from: pi, to: orin, bandwidth: 900Mbit, rtt: 0.4ms}]   # optional: measured when absent
 *     kv: {type: f16, tokens: 16384}
 *     activations: auto                       # f32 | f16 | bf16 | q8 | auto
 *     deterministic: true
 *     heartbeat: {interval: 200ms, lost: 800ms}
 *     recovery: {enabled: true, rejoin: 30s, keep: 64M} # after a loss: go on with the others; wait so long for one that is
 *                                             # needed; a stage keeps so much of what it sent on, to send it again
 *     rebalance: {enabled: true, hold: 30s, apart: 5m, judge: 30s}  # blocks move by themselves: a gain that lasts, how
 *                                             # far apart two moves are, how long after it a move is judged
 *
 * Immutable after config_read; any thread. */
#ifndef BRIGADE_COORDINATOR_CORE_CONFIG_H
#define BRIGADE_COORDINATOR_CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/kernels/ops.h"
#include "proto/frame.h"
#include "proto/keys.h"

#define CONFIG_NODES_MAX 256
#define CONFIG_LINKS_MAX 65536
#define CONFIG_HEARTBEAT_US 200000
#define CONFIG_LOST_US 800000 /* and the interval before: within a second */
#define CONFIG_REJOIN_US 30000000
#define CONFIG_KEEP_BYTES (UINT64_C(64) << 20)
#define CONFIG_REBALANCE_HOLD_US 30000000
#define CONFIG_REBALANCE_APART_US 300000000
#define CONFIG_REBALANCE_JUDGE_US 30000000

struct config_node {
    char name[128], endpoint[256], public_key[KEY_TEXT];
    uint64_t memory_bytes;      /* the cap of the file; 0: none */
};

struct config_link {            /* both directions, unless the other one is listed too */
    uint32_t from, to;          /* indices into nodes */
    double bytes_per_s, rtt_seconds;
};

struct config {
    char *path;                 /* as given */
    char *key_path;             /* of the coordinator's secret key, resolved */
    uint32_t node_count, link_count;
    struct config_node *nodes;  /* a new cluster has none yet */
    struct config_link *links;
    bool kv_type_given;
    enum kv_type kv_type;       /* f16 unless given */
    uint32_t kv_tokens;         /* 0: not given */
    enum frame_codec codec;     /* CODEC_NONE: not said, exact, or auto */
    bool codec_auto;            /* the plan chooses for each link */
    bool deterministic;         /* true unless the file says false */
    int64_t heartbeat_us, lost_us;
    bool recover;               /* true unless the file says false */
    int64_t rejoin_us;
    uint64_t keep_bytes;        /* of rows kept on a stage; 0 where recovery is off */
    bool rebalance;             /* true unless the file says false */
    int64_t rebalance_hold_us, rebalance_apart_us, rebalance_judge_us;
};

/* *out is the caller's: config_free. ERR_FORMAT, ERR_BOUND, ERR_IO, ERR_NOTFOUND, ERR_NOMEM. The key file itself is not
 * touched. */
int config_read(const char *path, struct config **out, struct error *err);
/* The same from text; `path` serves messages and the key's folder. */
int config_read_text(const char *path, const char *text, size_t bytes, struct config **out, struct error *err);
void config_free(struct config *c); /* NULL is fine */

#endif
