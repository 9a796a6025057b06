/* Control messages: names, ownership, encoding. Decoding stands in control_decode.c. Pure functions; any thread. */
#include "proto/frame.h"

#include "base/memory.h"
#include "brigade.pb-c.h"
#include "proto/control_held.h"

static const char *const kind_names[CONTROL_KINDS] = {
    "hello",  "welcome", "probe",  "profile",   "probe link",      "link measured", "allow", "load", "progress",
    "loaded", "unload",  "drain",  "heartbeat", "heartbeat reply", "failure",       "done",
    "examine", "report",
};

const char *control_kind_name(enum control_kind kind)
{
    return (unsigned)kind < CONTROL_KINDS ? kind_names[kind] : "unknown";
}

void control_free(struct control_message *m)
{
    if (m->kind == CONTROL_PROFILE) {
        mem_free(m->u.profile.cells);
        m->u.profile.cells = NULL;
        m->u.profile.cell_count = 0;
    } else if (m->kind == CONTROL_ALLOW) {
        mem_free(m->u.allow.keys);
        m->u.allow.keys = NULL;
        m->u.allow.count = 0;
    } else if (m->kind == CONTROL_LOADED) {
        mem_free(m->u.loaded.held);
        mem_free(m->u.loaded.kept);
        m->u.loaded.held = m->u.loaded.kept = NULL;
        m->u.loaded.held_count = m->u.loaded.kept_count = 0;
    } else if (m->kind == CONTROL_LOAD) {
        mem_free(m->u.load.fetch);
        mem_free(m->u.load.fetch_from);
        m->u.load.fetch = NULL;
        m->u.load.fetch_from = NULL;
        m->u.load.fetch_count = 0;
    }
}

/* The bodies that hold nothing but scalars and texts; protobuf-c only reads the texts. One slot of each: a message
 * has one body. */
union bodies {
    Brigade__Hello hello;
    Brigade__Welcome welcome;
    Brigade__Probe probe;
    Brigade__Profile profile;
    Brigade__ProbeLink probe_link;
    Brigade__LinkMeasured link_measured;
    Brigade__Allow allow;
    Brigade__Load load;
    Brigade__Progress progress;
    Brigade__Loaded loaded;
    Brigade__Unload unload;
    Brigade__Drain drain;
    Brigade__Heartbeat heartbeat;
    Brigade__HeartbeatReply heartbeat_reply;
    Brigade__Failure failure;
    Brigade__Done done;
    Brigade__Examine examine;
    Brigade__Report report;
};

static void encode_welcome(const struct control_message *m, Brigade__Welcome *b, Brigade__LoadedStage *loaded)
{
    brigade__welcome__init(b);
    b->name = (char *)m->u.welcome.name;
    b->program_version = (char *)m->u.welcome.program_version;
    b->isa = (char *)m->u.welcome.isa;
    b->cpu = (char *)m->u.welcome.cpu;
    b->cores = m->u.welcome.cores;
    b->threads = m->u.welcome.threads;
    b->memory_bytes = m->u.welcome.memory_bytes;
    b->data_port = m->u.welcome.data_port;
    b->weights_port = m->u.welcome.weights_port;
    b->kernels_version = m->u.welcome.kernels_version;
    b->epoch = m->u.welcome.epoch;
    b->machine = m->u.welcome.machine;
    b->claimed = m->u.welcome.claimed;
    if (!m->u.welcome.has_loaded)
        return;
    const struct control_loaded_stage *s = &m->u.welcome.loaded;
    brigade__loaded_stage__init(loaded);
    loaded->model = (char *)s->model;
    loaded->fingerprint = s->fingerprint;
    loaded->first_block = s->first_block;
    loaded->last_block = s->last_block;
    loaded->kv_type = s->kv_type;
    loaded->kv_pages = s->kv_pages;
    loaded->memory_bytes = s->memory_bytes;
    b->loaded = loaded;
}

static void encode_neighbour(const struct control_neighbour *n, Brigade__Neighbour *b)
{
    brigade__neighbour__init(b);
    b->name = (char *)n->name;
    b->endpoint = (char *)n->endpoint;
    b->public_key = (char *)n->public_key;
}

static int encode_fetch(struct wire_arena *a, const struct control_message *m, Brigade__Load *b, struct error *err)
{
    uint32_t count = m->u.load.fetch_count;
    int rc = held_encode(a, m->u.load.fetch, count, &b->fetch, err);
    if (rc)
        return rc;
    b->n_fetch = b->n_fetch_from = count;
    b->fetch_from = wire_arena_take(a, count, sizeof *b->fetch_from);
    Brigade__Neighbour *from = wire_arena_take(a, count, sizeof *from);
    if (!b->fetch_from || !from)
        return error_set(err, ERR_NOMEM, "load: no memory to encode it");
    for (uint32_t i = 0; i < count; i++)
        encode_neighbour(&m->u.load.fetch_from[i], b->fetch_from[i] = &from[i]);
    return 0;
}

static int encode_load(struct wire_arena *a, const struct control_message *m, Brigade__Load *b, Brigade__Neighbour *next,
                       struct error *err)
{
    brigade__load__init(b);
    b->model = (char *)m->u.load.model;
    b->fingerprint = m->u.load.fingerprint;
    b->stage = m->u.load.stage;
    b->stages = m->u.load.stages;
    b->first_block = m->u.load.first_block;
    b->last_block = m->u.load.last_block;
    b->kv_type = m->u.load.kv_type;
    b->kv_pages = m->u.load.kv_pages;
    b->max_tokens = m->u.load.max_tokens;
    b->max_context = m->u.load.max_context;
    b->max_sequences = m->u.load.max_sequences;
    b->previous_key = (char *)m->u.load.previous_key;
    b->coordinator_key = (char *)m->u.load.coordinator_key;
    b->codec = m->u.load.codec;
    b->inexact = m->u.load.inexact;
    b->keep_bytes = m->u.load.keep_bytes;
    b->leave = m->u.load.leave;
    if (m->u.load.has_next)
        encode_neighbour(&m->u.load.next, b->next = next);
    return m->u.load.fetch_count ? encode_fetch(a, m, b, err) : 0;
}

static int encode_profile(struct wire_arena *a, const struct control_message *m, Brigade__Profile *b,
                          struct error *err)
{
    size_t count = m->u.profile.cell_count;
    if (count > FRAME_CELLS_MAX)
        return error_set(err, ERR_BOUND, "profile: %zu cells; the limit is %u", count, FRAME_CELLS_MAX);
    brigade__profile__init(b);
    b->read_bytes_per_s = m->u.profile.read_bytes_per_s;
    b->int8_macs_per_s = m->u.profile.int8_macs_per_s;
    b->overhead_seconds = m->u.profile.overhead_seconds;
    b->head_seconds = m->u.profile.head_seconds;
    b->embedding_seconds = m->u.profile.embedding_seconds;
    b->cached = m->u.profile.cached;
    b->n_cells = count;
    b->cells = wire_arena_take(a, count, sizeof *b->cells);
    Brigade__ProbeCell *cells = wire_arena_take(a, count, sizeof *cells);
    if (!b->cells || !cells)
        return error_set(err, ERR_NOMEM, "profile: no memory to encode it");
    for (size_t i = 0; i < count; i++) {
        const struct control_cell *c = &m->u.profile.cells[i];
        b->cells[i] = &cells[i];
        brigade__probe_cell__init(&cells[i]);
        cells[i].kind = c->kind;
        cells[i].sequences = c->sequences;
        cells[i].tokens = c->tokens;
        cells[i].past = c->past;
        cells[i].seconds = c->seconds;
    }
    return 0;
}

static int encode_allow(struct wire_arena *a, const struct control_message *m, Brigade__Allow *b, struct error *err)
{
    if (m->u.allow.count > FRAME_KEYS_MAX)
        return error_set(err, ERR_BOUND, "allow: %u keys; the limit is %u", m->u.allow.count, FRAME_KEYS_MAX);
    brigade__allow__init(b);
    b->n_public_keys = m->u.allow.count;
    b->public_keys = wire_arena_take(a, m->u.allow.count, sizeof *b->public_keys);
    if (!b->public_keys)
        return error_set(err, ERR_NOMEM, "allow: no memory to encode it");
    for (uint32_t i = 0; i < m->u.allow.count; i++)
        b->public_keys[i] = m->u.allow.keys[i];
    return 0;
}

static void encode_heartbeat_reply(const struct control_message *m, Brigade__HeartbeatReply *b)
{
    brigade__heartbeat_reply__init(b);
    b->sequence = m->u.heartbeat_reply.sequence;
    b->sent_us = m->u.heartbeat_reply.sent_us;
    b->busy_us = m->u.heartbeat_reply.busy_us;
    b->microbatches = m->u.heartbeat_reply.microbatches;
    b->tokens = m->u.heartbeat_reply.tokens;
    b->bytes_in = m->u.heartbeat_reply.bytes_in;
    b->bytes_out = m->u.heartbeat_reply.bytes_out;
    b->weights_in = m->u.heartbeat_reply.weights_in;
    b->weights_out = m->u.heartbeat_reply.weights_out;
    b->resident_bytes = m->u.heartbeat_reply.resident_bytes;
    b->temperature_millic = m->u.heartbeat_reply.temperature_millic;
    b->state = m->u.heartbeat_reply.state;
    b->refused = m->u.heartbeat_reply.refused;
    b->busy_for_us = m->u.heartbeat_reply.busy_for_us;
    b->slow = m->u.heartbeat_reply.slow;
    b->energy_measured = m->u.heartbeat_reply.energy_measured;
    b->energy_uj = m->u.heartbeat_reply.energy_uj;
    b->power_mw = m->u.heartbeat_reply.power_mw;
    b->energy_source = (char *)m->u.heartbeat_reply.energy_source;
    b->decode_ns = m->u.heartbeat_reply.decode_ns;
    b->expected_ns = m->u.heartbeat_reply.expected_ns;
}

static int encode_report(struct wire_arena *a, const struct control_message *m, Brigade__Report *b, struct error *err)
{
    const struct control_report *r = &m->u.report;
    brigade__report__init(b);
    b->clock_us = r->clock_us;
    b->memory_total = r->memory_total;
    b->memory_available = r->memory_available;
    b->memory_margin = r->memory_margin;
    b->memory_cap = r->memory_cap;
    b->memory_admitted = r->memory_admitted;
    b->temperature_millic = r->temperature_millic;
    b->limit_millic = r->limit_millic;
    b->zone = (char *)r->zone;
    b->throttled_known = r->throttled_known;
    b->throttled = r->throttled;
    b->throttle_count_known = r->throttle_count_known;
    b->throttle_count = r->throttle_count;
    b->frequency_mhz = r->frequency_mhz;
    b->frequency_max_mhz = r->frequency_max_mhz;
    b->governor = (char *)r->governor;
    b->interface = (char *)r->interface;
    b->mtu = r->mtu;
    b->speed_mbit = r->speed_mbit;
    b->wireless = r->wireless;
    b->half_duplex = r->half_duplex;
    b->power_save = r->power_save;
    b->key_mode = r->key_mode;
    b->energy_measured = r->energy_measured;
    b->energy_source = (char *)r->energy_source;
    if (r->padding_bytes > FRAME_PADDING_MAX)
        return error_set(err, ERR_BOUND, "report: %u bytes of padding; the limit is %u", r->padding_bytes, FRAME_PADDING_MAX);
    b->padding.len = r->padding_bytes;
    b->padding.data = wire_arena_take(a, r->padding_bytes, 1);
    return b->padding.data ? 0 : error_set(err, ERR_NOMEM, "report: no memory to encode it");
}

int control_encode(const struct control_message *m, struct buffer *out, struct error *err)
{
    static const Brigade__Control__BodyCase cases[CONTROL_KINDS] = {
        [CONTROL_HELLO] = BRIGADE__CONTROL__BODY_HELLO,
        [CONTROL_WELCOME] = BRIGADE__CONTROL__BODY_WELCOME,
        [CONTROL_PROBE] = BRIGADE__CONTROL__BODY_PROBE,
        [CONTROL_PROFILE] = BRIGADE__CONTROL__BODY_PROFILE,
        [CONTROL_PROBE_LINK] = BRIGADE__CONTROL__BODY_PROBE_LINK,
        [CONTROL_LINK_MEASURED] = BRIGADE__CONTROL__BODY_LINK_MEASURED,
        [CONTROL_ALLOW] = BRIGADE__CONTROL__BODY_ALLOW,
        [CONTROL_LOAD] = BRIGADE__CONTROL__BODY_LOAD,
        [CONTROL_PROGRESS] = BRIGADE__CONTROL__BODY_PROGRESS,
        [CONTROL_LOADED] = BRIGADE__CONTROL__BODY_LOADED,
        [CONTROL_UNLOAD] = BRIGADE__CONTROL__BODY_UNLOAD,
        [CONTROL_DRAIN] = BRIGADE__CONTROL__BODY_DRAIN,
        [CONTROL_HEARTBEAT] = BRIGADE__CONTROL__BODY_HEARTBEAT,
        [CONTROL_HEARTBEAT_REPLY] = BRIGADE__CONTROL__BODY_HEARTBEAT_REPLY,
        [CONTROL_FAILURE] = BRIGADE__CONTROL__BODY_FAILURE,
        [CONTROL_DONE] = BRIGADE__CONTROL__BODY_DONE,
        [CONTROL_EXAMINE] = BRIGADE__CONTROL__BODY_EXAMINE,
        [CONTROL_REPORT] = BRIGADE__CONTROL__BODY_REPORT,
    };
    if ((unsigned)m->kind >= CONTROL_KINDS)
        return error_set(err, ERR_INTERNAL, "control message of unknown kind %d", (int)m->kind);
    struct wire_arena a;
    wire_arena_start(&a);
    union bodies b;
    Brigade__LoadedStage loaded;
    Brigade__Neighbour neighbour;
    Brigade__Control c = BRIGADE__CONTROL__INIT;
    c.version = PROTOCOL_VERSION;
    c.epoch = m->epoch;
    c.request = m->request;
    c.body_case = cases[m->kind];
    c.hello = &b.hello; /* all bodies share this place */
    int rc = 0;
    switch (m->kind) {
    case CONTROL_HELLO:
        brigade__hello__init(&b.hello);
        b.hello.program_version = (char *)m->u.hello.program_version;
        b.hello.claim = m->u.hello.claim;
        b.hello.take_over = m->u.hello.take_over;
        break;
    case CONTROL_WELCOME:
        encode_welcome(m, &b.welcome, &loaded);
        break;
    case CONTROL_PROBE:
        brigade__probe__init(&b.probe);
        b.probe.model = (char *)m->u.probe.model;
        b.probe.fingerprint = m->u.probe.fingerprint;
        b.probe.kv_type = m->u.probe.kv_type;
        b.probe.context = m->u.probe.context;
        b.probe.chunk = m->u.probe.chunk;
        break;
    case CONTROL_PROFILE:
        rc = encode_profile(&a, m, &b.profile, err);
        break;
    case CONTROL_PROBE_LINK:
        brigade__probe_link__init(&b.probe_link);
        b.probe_link.peer = (char *)m->u.probe_link.peer.name;
        b.probe_link.endpoint = (char *)m->u.probe_link.peer.endpoint;
        b.probe_link.public_key = (char *)m->u.probe_link.peer.public_key;
        b.probe_link.bytes = m->u.probe_link.bytes;
        b.probe_link.rounds = m->u.probe_link.rounds;
        b.probe_link.pause_us = m->u.probe_link.pause_us;
        b.probe_link.token_bytes = m->u.probe_link.token_bytes;
        break;
    case CONTROL_LINK_MEASURED:
        brigade__link_measured__init(&b.link_measured);
        b.link_measured.peer = (char *)m->u.link_measured.peer;
        b.link_measured.rtt_seconds = m->u.link_measured.rtt_seconds;
        b.link_measured.bytes_per_s = m->u.link_measured.bytes_per_s;
        b.link_measured.back_bytes_per_s = m->u.link_measured.back_bytes_per_s;
        break;
    case CONTROL_ALLOW:
        rc = encode_allow(&a, m, &b.allow, err);
        break;
    case CONTROL_LOAD:
        rc = encode_load(&a, m, &b.load, &neighbour, err);
        break;
    case CONTROL_PROGRESS:
        brigade__progress__init(&b.progress);
        b.progress.what = (char *)m->u.progress.what;
        b.progress.done = m->u.progress.done;
        b.progress.total = m->u.progress.total;
        break;
    case CONTROL_LOADED:
        brigade__loaded__init(&b.loaded);
        b.loaded.weights_bytes = m->u.loaded.weights_bytes;
        b.loaded.embedding_bytes = m->u.loaded.embedding_bytes;
        b.loaded.head_bytes = m->u.loaded.head_bytes;
        b.loaded.kv_bytes = m->u.loaded.kv_bytes;
        b.loaded.buffers_bytes = m->u.loaded.buffers_bytes;
        b.loaded.total_bytes = m->u.loaded.total_bytes;
        b.loaded.read_bytes = m->u.loaded.read_bytes;
        b.loaded.fetched_bytes = m->u.loaded.fetched_bytes;
        b.loaded.n_held = m->u.loaded.held_count;
        b.loaded.n_kept = m->u.loaded.kept_count;
        rc = held_encode(&a, m->u.loaded.held, m->u.loaded.held_count, &b.loaded.held, err);
        if (!rc)
            rc = held_encode(&a, m->u.loaded.kept, m->u.loaded.kept_count, &b.loaded.kept, err);
        break;
    case CONTROL_UNLOAD:
        brigade__unload__init(&b.unload);
        b.unload.leave = m->u.unload.leave;
        break;
    case CONTROL_DRAIN:
        brigade__drain__init(&b.drain);
        break;
    case CONTROL_HEARTBEAT:
        brigade__heartbeat__init(&b.heartbeat);
        b.heartbeat.sequence = m->u.heartbeat.sequence;
        b.heartbeat.sent_us = m->u.heartbeat.sent_us;
        b.heartbeat.slow = m->u.heartbeat.slow;
        b.heartbeat.decode_ns = m->u.heartbeat.decode_ns;
        b.heartbeat.expected_ns = m->u.heartbeat.expected_ns;
        break;
    case CONTROL_HEARTBEAT_REPLY:
        encode_heartbeat_reply(m, &b.heartbeat_reply);
        break;
    case CONTROL_FAILURE:
        brigade__failure__init(&b.failure);
        b.failure.code = m->u.failure.code;
        b.failure.text = (char *)m->u.failure.text;
        b.failure.request = m->request;
        break;
    case CONTROL_DONE:
        brigade__done__init(&b.done);
        b.done.request = m->request;
        break;
    case CONTROL_EXAMINE:
        brigade__examine__init(&b.examine);
        b.examine.address = (char *)m->u.examine.address;
        b.examine.padding_bytes = m->u.examine.padding_bytes;
        break;
    case CONTROL_REPORT:
        rc = encode_report(&a, m, &b.report, err);
        break;
    case CONTROL_KINDS:
        break;
    }
    if (!rc)
        rc = wire_pack(&c.base, out, control_kind_name(m->kind), err);
    wire_arena_end(&a);
    return rc;
}
