/* Frames: the one place that describes what travels between nodes. Plain structs on this side, bytes on the other;
 * nothing of protobuf or ZeroMQ shows. Decoders check every field against the bounds below before anyone sees it;
 * a bad frame is one line, never a crash. See brigade.proto for the meaning of fields and docs/protocol.md.
 *
 * Ownership: a decoded frame owns one allocation (frame_free_*); its pointers go into it, or into the raw parts the
 * caller keeps alive (tokens, payload). Pure functions; any thread. */
#ifndef BRIGADE_PROTO_FRAME_H
#define BRIGADE_PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

#ifndef PROTOCOL_VERSION_BEHIND
#define PROTOCOL_VERSION_BEHIND 0u /* tests build a worker of the version before */
#endif
#define PROTOCOL_VERSION (3u - PROTOCOL_VERSION_BEHIND)

/* Bounds: over one of them a frame is refused (ERR_BOUND). */
#define FRAME_SPANS_MAX 256u
#define FRAME_TOKENS_MAX 16384u           /* of one micro-batch */
#define FRAME_KNOWN_MAX (1u << 20)        /* token ids listed by one frame */
#define FRAME_PAGES_MAX 65536u            /* page ids listed by one frame */
#define FRAME_WIDTH_MAX 65536u
#define FRAME_RELEASE_MAX 4096u
#define FRAME_COPIES_MAX 4096u
#define FRAME_STAGES_MAX 256u
#define FRAME_HELD_MAX 1024u              /* runs of blocks that a stage says it holds pages of */
#define FRAME_HELD_PAGES_MAX (1u << 18)   /* and all their pages */
#define FRAME_BIAS_MAX 300u
#define FRAME_TOP_MAX 20u
#define FRAME_HEADER_BYTES_MAX (4u << 20)
#define FRAME_PAYLOAD_BYTES_MAX (1u << 28)
#define FRAME_HOLD_US_MAX 20000u          /* that an echo may be held */
#define FRAME_TEXT_MAX 512u               /* names, endpoints, messages */
#define FRAME_CELLS_MAX 4096u
#define FRAME_KEYS_MAX 1024u
#define FRAME_KEY_TEXT 41u                /* Z85 of a public key, terminated */

enum frame_codec { CODEC_NONE, CODEC_F32, CODEC_F16, CODEC_BF16, CODEC_Q8, CODEC_COUNT };

struct frame_bias {
    int32_t token;
    float bias;
};

struct frame_sampling {
    float temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    uint32_t top_k, repeat_last, prompt_tokens, top_logprobs;
    uint64_t seed;
    uint32_t bias_count;
    const struct frame_bias *bias;
};

struct frame_span {
    uint32_t sequence, first, count, known;
    uint32_t page_offset, page_count;
    const uint32_t *pages;
    uint64_t hash;
    uint32_t want;             /* 0 nothing, 1 token, 2 logits, 3 scores */
    int32_t next_token;
    const struct frame_sampling *sampling; /* NULL: unchanged */
    const int32_t *tokens;     /* first+count-known ids, inside the frame's token part */
};

struct frame_page_copy {
    uint32_t from, to, count;
};

/* A stage's part of a micro-batch that fills gaps (brigade.proto). */
struct frame_share {
    uint32_t first_block, end_block;
    bool kept, send;
};

struct frame_trace {
    uint32_t stage;
    uint64_t received_us, started_us, finished_us, sent_us;
};

struct frame_work {
    uint64_t epoch, microbatch;
    uint32_t span_count, release_count, copy_count, trace_count, share_count;
    struct frame_span *spans;
    uint32_t *release;
    struct frame_page_copy *copies;
    struct frame_trace *trace;
    struct frame_share *shares; /* one a stage; share_count 0: all compute all */
    bool want_trace;
    bool filled;               /* no gaps are filled from now on: stages may give up what they promised to keep */
    enum frame_codec codec;
    uint32_t width;            /* values a token; 0 while there are no activations */
    uint32_t tokens;           /* Σ count: rows of the activations */
    size_t token_bytes, activation_bytes; /* of the raw parts */
};

struct frame_chosen {
    int32_t token;
    float logprob;
};

struct frame_span_result {
    uint32_t sequence, position, want;
    struct frame_chosen chosen;
    uint32_t top_count;
    struct frame_chosen *top;
    uint32_t float_count;
    const float *floats;       /* inside the raw part; 4-byte aligned */
};

struct frame_result {
    uint64_t epoch, microbatch;
    uint32_t span_count, trace_count;
    struct frame_span_result *spans;
    struct frame_trace *trace;
    size_t float_bytes;
    int error_code;            /* 0, or why the micro-batch failed */
    uint32_t stage;            /* that failed */
    const char *error_text;
};

enum data_kind { DATA_WORK, DATA_RESULT, DATA_ATTACH, DATA_ATTACHED, DATA_ECHO, DATA_ECHOED };

/* A decoded data frame: exactly one of the bodies, by kind. */
struct data_frame {
    enum data_kind kind;
    uint64_t epoch, microbatch;
    struct frame_work work;
    struct frame_result result;
    uint32_t role;             /* attach: 1 feeds this stage, 2 receives results */
    uint32_t stage;            /* attached */
    uint64_t echo_id, echo_bytes;
    bool echo_empty;           /* the reply shall carry no payload */
    uint32_t echo_hold_us;     /* and come after so long, at most FRAME_HOLD_US_MAX; in a reply: it was held for so long */
    void *memory;              /* private */
};

/* Encoders append the header part to `header`; the caller sends the raw parts (tokens then activations; floats)
 * itself, with exactly the byte counts stated. For encode_work, spans' tokens are gathered into `tokens`. */
int frame_encode_work(const struct frame_work *w, struct buffer *header, struct buffer *tokens, struct error *err);
int frame_encode_result(const struct frame_result *r, struct buffer *header, struct buffer *floats, struct error *err);
int frame_encode_attach(uint64_t epoch, uint32_t role, struct buffer *header, struct error *err);
int frame_encode_attached(uint64_t epoch, uint32_t stage, struct buffer *header, struct error *err);
int frame_encode_echo(uint64_t id, uint64_t bytes, bool empty_reply, bool reply, uint32_t hold_us, struct buffer *header,
                      struct error *err);

/* A part of a message, as links carry it. Borrowed bytes. */
struct frame_part {
    const void *data;
    size_t size;
};

/* parts[0] is the header, the rest raw. Checks bounds, the byte counts against the parts' sizes, alignment, and the
 * version first: ERR_VERSION names both. On success *out is the caller's: frame_free. Raw parts stay the caller's
 * and must outlive it. */
int frame_decode_data(const struct frame_part *parts, size_t part_count, struct data_frame *out, struct error *err);
void frame_free(struct data_frame *f);

/* ---- control ----------------------------------------------------------------------------------------------------- */

enum control_kind {
    CONTROL_HELLO, CONTROL_WELCOME, CONTROL_PROBE, CONTROL_PROFILE, CONTROL_PROBE_LINK, CONTROL_LINK_MEASURED,
    CONTROL_ALLOW, CONTROL_LOAD, CONTROL_PROGRESS, CONTROL_LOADED, CONTROL_UNLOAD, CONTROL_DRAIN,
    CONTROL_HEARTBEAT, CONTROL_HEARTBEAT_REPLY, CONTROL_FAILURE, CONTROL_DONE,
    CONTROL_EXAMINE, CONTROL_REPORT,
    CONTROL_KINDS
};

struct control_loaded_stage {
    char model[FRAME_TEXT_MAX];
    uint64_t fingerprint;
    uint32_t first_block, last_block, kv_type, kv_pages;
    uint64_t memory_bytes;
};

struct control_neighbour {
    char name[128], endpoint[256], public_key[FRAME_KEY_TEXT];
};

/* Whole KV pages of blocks first to last, and the running token hash after each. */
struct control_held {
    uint32_t first_block, last_block, page_count;
    uint32_t *pages;
    uint64_t *hashes;
};

#define FRAME_KIND_HEAD UINT32_MAX /* a cell's kind: final norm, head and sampler */

struct control_cell {
    uint32_t kind, sequences, tokens, past;
    double seconds;
};

#define FRAME_PADDING_MAX (256u << 10)

struct control_report {
    int64_t clock_us;
    uint64_t memory_total, memory_available, memory_margin, memory_cap, memory_admitted;
    int32_t temperature_millic, limit_millic;
    bool throttled_known, throttle_count_known, wireless, half_duplex, energy_measured;
    uint32_t throttled, frequency_mhz, frequency_max_mhz, mtu, speed_mbit, key_mode;
    uint64_t throttle_count;
    int32_t power_save;
    uint32_t padding_bytes; /* zeroes that travel along */
    char zone[32], governor[24], interface[16], energy_source[64];
};

/* One message. Strings are terminated and bounded; arrays (cells, keys, held pages) belong to the message: control_free. */
struct control_message {
    enum control_kind kind;
    uint64_t epoch, request;
    union {
        struct {
            char program_version[64];
            bool claim, take_over;
        } hello;
        struct {
            char name[128], program_version[64], isa[16], cpu[96];
            uint32_t cores, threads, data_port, weights_port, kernels_version;
            uint64_t memory_bytes, epoch, machine;
            bool has_loaded, claimed;
            struct control_loaded_stage loaded;
        } welcome;
        struct {
            char model[FRAME_TEXT_MAX];
            uint64_t fingerprint;
            uint32_t kv_type, context, chunk;
        } probe;
        struct {
            double read_bytes_per_s, int8_macs_per_s, overhead_seconds, head_seconds, embedding_seconds;
            bool cached;
            uint32_t cell_count;
            struct control_cell *cells;
        } profile;
        struct {
            struct control_neighbour peer;
            uint64_t bytes, token_bytes; /* of activations: a chunk's and one token's */
            uint32_t rounds, pause_us;   /* pause: as long as a stage waits for its turn; 0: what measuring thinks */
        } probe_link;
        struct {
            char peer[128];
            double rtt_seconds, bytes_per_s, back_bytes_per_s; /* back 0: as there */
        } link_measured;
        struct {
            uint32_t count;
            char (*keys)[FRAME_KEY_TEXT];
        } allow;
        struct {
            char model[FRAME_TEXT_MAX];
            uint64_t fingerprint;
            uint32_t stage, stages, first_block, last_block, kv_type, kv_pages;
            uint32_t max_tokens, max_context, max_sequences, codec;
            bool has_next, inexact;
            uint64_t keep_bytes;
            struct control_neighbour next;
            bool leave;                           /* others fetch the pages of blocks that leave this node */
            uint32_t fetch_count;
            struct control_held *fetch;           /* pages to fetch; one allocation */
            struct control_neighbour *fetch_from; /* each from whom: the weights plane of the node that had these blocks */
            char previous_key[FRAME_KEY_TEXT], coordinator_key[FRAME_KEY_TEXT];
        } load;
        struct {
            char what[64];
            uint64_t done, total;
        } progress;
        struct {
            uint64_t weights_bytes, embedding_bytes, head_bytes, kv_bytes, buffers_bytes, total_bytes, read_bytes;
            uint32_t held_count, kept_count;
            struct control_held *held, *kept; /* each one allocation */
            uint64_t fetched_bytes;
        } loaded;
        struct {
            bool leave;
        } unload;
        struct {
            uint64_t sequence, sent_us;
            bool slow;
            uint64_t decode_ns, expected_ns; /* of the receiver's stage: taken and expected; 0 unknown */
        } heartbeat;
        struct {
            uint64_t sequence, sent_us, busy_us, microbatches, tokens, bytes_in, bytes_out, resident_bytes;
            uint64_t weights_in, weights_out, busy_for_us;
            int32_t temperature_millic;
            uint32_t state, refused;
            bool energy_measured, slow;
            uint64_t energy_uj;
            uint32_t power_mw;
            char energy_source[64];
            uint64_t decode_ns, expected_ns; /* as the claimant last told */
        } heartbeat_reply;
        struct {
            int code;
            char text[FRAME_TEXT_MAX];
        } failure;
        struct {
            char address[72];
            uint32_t padding_bytes;
        } examine;
        struct control_report report;
    } u;
};

/* Memory for a list of held pages: `entries` of them, with room for `pages` pages in all, to which the first one points.
 * The caller's: mem_free. NULL when there is none. */
struct control_held *control_held_room(uint32_t entries, uint32_t pages);

int control_encode(const struct control_message *m, struct buffer *out, struct error *err);
int control_decode(const void *bytes, size_t size, struct control_message *out, struct error *err);
void control_free(struct control_message *m);
const char *control_kind_name(enum control_kind kind);

#endif
