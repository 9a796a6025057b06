/* Example messages for the tests of the coders: every field set, so that a forgotten one is noticed. */
#ifndef BRIGADE_TESTS_PROTO_SAMPLES_H
#define BRIGADE_TESTS_PROTO_SAMPLES_H

#include <stdio.h>
#include <string.h>

#include "proto/activation.h"
#include "proto/frame.h"

#define SAMPLE_KEY_A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define SAMPLE_KEY_B "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

static const int32_t sample_tokens[] = {1, 15043, 3186, 11, 902, 7, -1, 2047};
static const uint32_t sample_pages[] = {7, 8, 65535, 0};
static const struct frame_bias sample_bias[] = {{5, 1.5f}, {6, -100.0f}};
static const struct frame_sampling sample_sampling = {
    .temperature = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.1f, .presence_penalty = 0.25f,
    .frequency_penalty = -0.5f, .top_k = 40, .repeat_last = 64, .prompt_tokens = 4, .top_logprobs = 3,
    .seed = UINT64_C(0xfedcba9876543210), .bias_count = 2, .bias = sample_bias,
};

/* Three spans: a prefill, a decode, a replay with known 0; activations of 8 values in f32. */
static inline void sample_work(struct frame_work *w, struct frame_span spans[3], struct frame_page_copy copies[1],
                               struct frame_trace trace[1], uint32_t release[2])
{
    spans[0] = (struct frame_span){.sequence = 3, .first = 0, .count = 4, .known = 0, .page_offset = 0,
                                   .page_count = 2, .pages = sample_pages, .hash = 0x1122334455667788u, .want = 1,
                                   .next_token = -1, .sampling = &sample_sampling, .tokens = sample_tokens};
    spans[1] = (struct frame_span){.sequence = 9, .first = 40, .count = 1, .known = 40, .page_offset = 1,
                                   .page_count = 1, .pages = sample_pages + 2, .hash = 5, .want = 3, .next_token = 77,
                                   .tokens = sample_tokens + 4};
    spans[2] = (struct frame_span){.sequence = 4, .first = 2, .count = 1, .known = 0, .hash = 6, .want = 0,
                                   .next_token = -1, .tokens = sample_tokens + 5};
    copies[0] = (struct frame_page_copy){1, 2, 31};
    trace[0] = (struct frame_trace){0, 10, 20, 30, UINT64_C(1) << 40};
    release[0] = 11;
    release[1] = 12;
    *w = (struct frame_work){.epoch = 4, .microbatch = UINT64_C(1) << 35, .span_count = 3, .release_count = 2,
                             .copy_count = 1, .trace_count = 1, .spans = spans, .release = release, .copies = copies,
                             .trace = trace, .want_trace = true, .codec = CODEC_F32, .width = 8,
                             .activation_bytes = 6 * 8 * 4};
}

static inline void sample_result(struct frame_result *r, struct frame_span_result spans[2], struct frame_chosen top[2],
                                 struct frame_trace trace[2], const float floats[6])
{
    top[0] = (struct frame_chosen){8, -0.5f};
    top[1] = (struct frame_chosen){9, -1.5f};
    spans[0] = (struct frame_span_result){.sequence = 3, .position = 4, .want = 1, .chosen = {8, -0.5f},
                                          .top_count = 2, .top = top};
    spans[1] = (struct frame_span_result){.sequence = 9, .position = 41, .want = 2, .float_count = 6,
                                          .floats = floats};
    trace[0] = (struct frame_trace){0, 1, 2, 3, 4};
    trace[1] = (struct frame_trace){1, 5, 6, 7, 8};
    *r = (struct frame_result){.epoch = 2, .microbatch = 17, .span_count = 2, .trace_count = 2, .spans = spans,
                               .trace = trace, .stage = 2};
}

/* One message of a kind with every field set; arrays point to static storage (do not control_free). */
static inline struct control_message sample_control(enum control_kind kind)
{
    static struct control_cell cells[2] = {{0, 1, 1, 64, 0.00125}, {1, 4, 128, 512, 0.5}};
    static char keys[2][FRAME_KEY_TEXT] = {SAMPLE_KEY_A, SAMPLE_KEY_B};
    static uint32_t pages[3] = {4, 0, 65535};
    static uint64_t hashes[3] = {UINT64_C(0x8877665544332211), 1, 0};
    static struct control_held held[2] = {{1, 3, 2, pages, hashes}, {4, 4, 0, pages, hashes}},
                               kept[1] = {{5, 5, 3, pages, hashes}};
    static struct control_neighbour from[2] = {{"attic", "tcp://10.0.0.3:7702", SAMPLE_KEY_A},
                                               {"garage", "tcp://10.0.0.4:7702", SAMPLE_KEY_B}};
    struct control_message m = {.kind = kind, .epoch = 9, .request = UINT64_C(1) << 33};
    switch (kind) {
    case CONTROL_HELLO:
        strcpy(m.u.hello.program_version, "0.1.0");
        m.u.hello.claim = m.u.hello.take_over = true;
        break;
    case CONTROL_WELCOME:
        strcpy(m.u.welcome.name, "pi-kitchen");
        strcpy(m.u.welcome.program_version, "0.1.0");
        strcpy(m.u.welcome.isa, "dotprod");
        strcpy(m.u.welcome.cpu, "Cortex-A76");
        m.u.welcome.cores = 4;
        m.u.welcome.threads = 3;
        m.u.welcome.data_port = 7701;
        m.u.welcome.kernels_version = 12;
        m.u.welcome.memory_bytes = UINT64_C(6) << 30;
        m.u.welcome.epoch = 8;
        m.u.welcome.machine = 0x9988776655443322u;
        m.u.welcome.has_loaded = m.u.welcome.claimed = true;
        m.u.welcome.loaded = (struct control_loaded_stage){"a.gguf", 0x8877665544332211u, 1, 7, 1, 64, 1 << 20};
        break;
    case CONTROL_PROBE:
        strcpy(m.u.probe.model, "stories.gguf");
        m.u.probe.fingerprint = 77;
        m.u.probe.kv_type = 1;
        m.u.probe.context = 2048;
        m.u.probe.chunk = 128;
        break;
    case CONTROL_PROFILE:
        m.u.profile.read_bytes_per_s = 9.5e9;
        m.u.profile.int8_macs_per_s = 1e11;
        m.u.profile.overhead_seconds = 1e-4;
        m.u.profile.head_seconds = 2e-3;
        m.u.profile.embedding_seconds = 1e-6;
        m.u.profile.cached = true;
        m.u.profile.cell_count = 2;
        m.u.profile.cells = cells;
        break;
    case CONTROL_PROBE_LINK:
        strcpy(m.u.probe_link.peer.name, "orin");
        strcpy(m.u.probe_link.peer.endpoint, "tcp://10.0.0.2:7701");
        strcpy(m.u.probe_link.peer.public_key, SAMPLE_KEY_A);
        m.u.probe_link.bytes = 1 << 20;
        m.u.probe_link.rounds = 11;
        m.u.probe_link.pause_us = 1500;
        m.u.probe_link.token_bytes = 4096;
        break;
    case CONTROL_LINK_MEASURED:
        strcpy(m.u.link_measured.peer, "orin");
        m.u.link_measured.rtt_seconds = 3e-4;
        m.u.link_measured.bytes_per_s = 1.17e8;
        m.u.link_measured.back_bytes_per_s = 0.9e8;
        break;
    case CONTROL_ALLOW:
        m.u.allow.count = 2;
        m.u.allow.keys = keys;
        break;
    case CONTROL_LOAD:
        strcpy(m.u.load.model, "stories.gguf");
        m.u.load.fingerprint = 78;
        m.u.load.stage = 1;
        m.u.load.stages = 3;
        m.u.load.first_block = 2;
        m.u.load.last_block = 4;
        m.u.load.kv_type = 1;
        m.u.load.kv_pages = 512;
        m.u.load.max_tokens = 256;
        m.u.load.max_context = 4096;
        m.u.load.max_sequences = 8;
        m.u.load.codec = CODEC_BF16;
        m.u.load.keep_bytes = UINT64_C(5) << 32;
        m.u.load.has_next = m.u.load.inexact = true;
        strcpy(m.u.load.next.name, "orin");
        strcpy(m.u.load.next.endpoint, "tcp://10.0.0.2:7701");
        strcpy(m.u.load.next.public_key, SAMPLE_KEY_B);
        strcpy(m.u.load.previous_key, SAMPLE_KEY_A);
        strcpy(m.u.load.coordinator_key, SAMPLE_KEY_B);
        m.u.load.leave = true;
        m.u.load.fetch_count = 2;
        m.u.load.fetch = held;
        m.u.load.fetch_from = from;
        break;
    case CONTROL_PROGRESS:
        strcpy(m.u.progress.what, "loading");
        m.u.progress.done = 3;
        m.u.progress.total = UINT64_C(1) << 36;
        break;
    case CONTROL_LOADED:
        m.u.loaded.weights_bytes = 1;
        m.u.loaded.embedding_bytes = 2;
        m.u.loaded.head_bytes = 3;
        m.u.loaded.kv_bytes = 4;
        m.u.loaded.buffers_bytes = 5;
        m.u.loaded.total_bytes = UINT64_C(15) << 32;
        m.u.loaded.held_count = 2;
        m.u.loaded.kept_count = 1;
        m.u.loaded.held = held;
        m.u.loaded.kept = kept;
        m.u.loaded.fetched_bytes = UINT64_C(3) << 33;
        break;
    case CONTROL_UNLOAD:
        m.u.unload.leave = true;
        break;
    case CONTROL_HEARTBEAT:
        m.u.heartbeat.sequence = 5;
        m.u.heartbeat.sent_us = 123456789;
        m.u.heartbeat.slow = true;
        m.u.heartbeat.decode_ns = 4200000;
        m.u.heartbeat.expected_ns = 4100000;
        break;
    case CONTROL_HEARTBEAT_REPLY:
        m.u.heartbeat_reply.sequence = 5;
        m.u.heartbeat_reply.sent_us = 6;
        m.u.heartbeat_reply.busy_us = 7;
        m.u.heartbeat_reply.microbatches = 8;
        m.u.heartbeat_reply.tokens = 9;
        m.u.heartbeat_reply.bytes_in = 10;
        m.u.heartbeat_reply.bytes_out = 11;
        m.u.heartbeat_reply.resident_bytes = 12;
        m.u.heartbeat_reply.decode_ns = 4200000;
        m.u.heartbeat_reply.expected_ns = 4100000;
        m.u.heartbeat_reply.temperature_millic = -5000;
        m.u.heartbeat_reply.state = 2;
        m.u.heartbeat_reply.refused = 14;
        m.u.heartbeat_reply.busy_for_us = 15;
        m.u.heartbeat_reply.slow = true;
        m.u.heartbeat_reply.energy_measured = true;
        m.u.heartbeat_reply.energy_uj = UINT64_C(1) << 40;
        m.u.heartbeat_reply.power_mw = 6543;
        strcpy(m.u.heartbeat_reply.energy_source, "INA3221 VDD_IN");
        break;
    case CONTROL_EXAMINE:
        strcpy(m.u.examine.address, "10.0.0.1");
        m.u.examine.padding_bytes = 65536;
        break;
    case CONTROL_REPORT:
        m.u.report = (struct control_report){.clock_us = INT64_C(1900000000000000), .memory_total = 5, .memory_available = 4,
                                             .memory_margin = 1, .memory_cap = 3, .memory_admitted = 2,
                                             .temperature_millic = 61000, .limit_millic = 95000, .throttled_known = true,
                                             .throttle_count_known = true, .wireless = true, .half_duplex = true,
                                             .energy_measured = true, .throttled = 0x50005, .frequency_mhz = 1500,
                                             .frequency_max_mhz = 2400, .mtu = 1500, .speed_mbit = 72, .key_mode = 0600,
                                             .throttle_count = 17, .power_save = -1, .padding_bytes = 300};
        strcpy(m.u.report.zone, "cpu-thermal");
        strcpy(m.u.report.governor, "ondemand");
        strcpy(m.u.report.interface, "wlan0");
        strcpy(m.u.report.energy_source, "ina226");
        break;
    case CONTROL_FAILURE:
        m.u.failure.code = ERR_MEMORY;
        strcpy(m.u.failure.text, "weights 3 GiB + KV 1 GiB > 2 GiB");
        break;
    default:
        break;
    }
    return m;
}

#endif
