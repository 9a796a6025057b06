/* Bytes to control messages: every text bounded and printable, every number within what it can mean. Pure. */
#include "proto/frame.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "proto/control_held.h"
#include "proto/keys.h"

#define TEXT(out, in, what, err) wire_text((out), sizeof(out), (in), (what), (err))

/* A public key, or nothing where that is allowed. */
static int decode_key(char out[static FRAME_KEY_TEXT], const char *text, bool optional, const char *what,
                      struct error *err)
{
    if ((!text || !*text) && optional) {
        out[0] = 0;
        return 0;
    }
    if (!key_text_valid(text))
        return error_set(err, ERR_FORMAT, "%s is no public key (Z85, 40 characters)", what);
    memcpy(out, text, FRAME_KEY_TEXT);
    return 0;
}

static int decode_neighbour(const char *name, const char *endpoint, const char *key, struct control_neighbour *out,
                            struct error *err)
{
    int rc;
    if ((rc = TEXT(out->name, name, "neighbour's name", err)) ||
        (rc = TEXT(out->endpoint, endpoint, "neighbour's endpoint", err)) ||
        (rc = decode_key(out->public_key, key, false, "neighbour's key", err)))
        return rc;
    return *out->endpoint ? 0 : error_set(err, ERR_FORMAT, "neighbour %s has no endpoint", out->name);
}

static bool amount_valid(double x)
{
    return isfinite(x) && x >= 0;
}

static int decode_welcome(const Brigade__Welcome *b, struct control_message *m, struct error *err)
{
    int rc;
    if ((rc = TEXT(m->u.welcome.name, b->name, "welcome: name", err)) ||
        (rc = TEXT(m->u.welcome.program_version, b->program_version, "welcome: program version", err)) ||
        (rc = TEXT(m->u.welcome.isa, b->isa, "welcome: ISA", err)) ||
        (rc = TEXT(m->u.welcome.cpu, b->cpu, "welcome: CPU", err)))
        return rc;
    if (b->data_port > 65535 || b->weights_port > 65535)
        return error_set(err, ERR_FORMAT, "welcome: data port %u, weights port %u", b->data_port, b->weights_port);
    m->u.welcome.cores = b->cores;
    m->u.welcome.threads = b->threads;
    m->u.welcome.memory_bytes = b->memory_bytes;
    m->u.welcome.data_port = b->data_port;
    m->u.welcome.weights_port = b->weights_port;
    m->u.welcome.kernels_version = b->kernels_version;
    m->u.welcome.epoch = b->epoch;
    m->u.welcome.machine = b->machine;
    m->u.welcome.claimed = b->claimed;
    if (!b->loaded)
        return 0;
    struct control_loaded_stage *s = &m->u.welcome.loaded;
    if ((rc = TEXT(s->model, b->loaded->model, "welcome: model", err)))
        return rc;
    if (b->loaded->first_block > b->loaded->last_block)
        return error_set(err, ERR_FORMAT, "welcome: blocks %u to %u", b->loaded->first_block, b->loaded->last_block);
    m->u.welcome.has_loaded = true;
    s->fingerprint = b->loaded->fingerprint;
    s->first_block = b->loaded->first_block;
    s->last_block = b->loaded->last_block;
    s->kv_type = b->loaded->kv_type;
    s->kv_pages = b->loaded->kv_pages;
    s->memory_bytes = b->loaded->memory_bytes;
    return 0;
}

static int decode_profile(const Brigade__Profile *b, struct control_message *m, struct error *err)
{
    const double amounts[] = {b->read_bytes_per_s, b->int8_macs_per_s, b->overhead_seconds, b->head_seconds,
                              b->embedding_seconds};
    for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++)
        if (!amount_valid(amounts[i]))
            return error_set(err, ERR_FORMAT, "profile: a measure is negative or no number");
    if (b->n_cells > FRAME_CELLS_MAX)
        return error_set(err, ERR_BOUND, "profile: %zu cells; the limit is %u", b->n_cells, FRAME_CELLS_MAX);
    for (size_t i = 0; i < b->n_cells; i++)
        if (!amount_valid(b->cells[i]->seconds))
            return error_set(err, ERR_FORMAT, "profile: cell %zu is negative or no number", i);
    struct control_cell *cells = mem_zalloc(b->n_cells, sizeof *cells);
    if (!cells)
        return error_set(err, ERR_NOMEM, "profile: no memory for %zu cells", b->n_cells);
    for (size_t i = 0; i < b->n_cells; i++) {
        const Brigade__ProbeCell *c = b->cells[i];
        cells[i] = (struct control_cell){c->kind, c->sequences, c->tokens, c->past, c->seconds};
    }
    m->u.profile.read_bytes_per_s = b->read_bytes_per_s;
    m->u.profile.int8_macs_per_s = b->int8_macs_per_s;
    m->u.profile.overhead_seconds = b->overhead_seconds;
    m->u.profile.head_seconds = b->head_seconds;
    m->u.profile.embedding_seconds = b->embedding_seconds;
    m->u.profile.cached = b->cached;
    m->u.profile.cell_count = (uint32_t)b->n_cells;
    m->u.profile.cells = cells;
    return 0;
}

static int decode_allow(const Brigade__Allow *b, struct control_message *m, struct error *err)
{
    if (b->n_public_keys > FRAME_KEYS_MAX)
        return error_set(err, ERR_BOUND, "allow: %zu keys; the limit is %u", b->n_public_keys, FRAME_KEYS_MAX);
    for (size_t i = 0; i < b->n_public_keys; i++)
        if (!key_text_valid(b->public_keys[i]))
            return error_set(err, ERR_FORMAT, "allow: entry %zu is no public key (Z85, 40 characters)", i);
    char(*keys)[FRAME_KEY_TEXT] = mem_zalloc(b->n_public_keys, sizeof *keys);
    if (!keys)
        return error_set(err, ERR_NOMEM, "allow: no memory for %zu keys", b->n_public_keys);
    for (size_t i = 0; i < b->n_public_keys; i++)
        memcpy(keys[i], b->public_keys[i], FRAME_KEY_TEXT);
    m->u.allow.count = (uint32_t)b->n_public_keys;
    m->u.allow.keys = keys;
    return 0;
}

/* What to fetch, and from whom. */
static int decode_fetch(const Brigade__Load *b, struct control_message *m, struct error *err)
{
    if (b->n_fetch != b->n_fetch_from)
        return error_set(err, ERR_FORMAT, "load: %zu lists of pages to fetch from %zu nodes", b->n_fetch,
                         b->n_fetch_from);
    int rc = held_decode(b->fetch, b->n_fetch, &m->u.load.fetch, err);
    if (rc || !b->n_fetch)
        return rc;
    if (!(m->u.load.fetch_from = mem_zalloc(b->n_fetch, sizeof *m->u.load.fetch_from)))
        return error_set(err, ERR_NOMEM, "load: no memory for %zu nodes", b->n_fetch);
    for (size_t i = 0; i < b->n_fetch; i++) {
        const Brigade__Neighbour *n = b->fetch_from[i];
        if ((rc = decode_neighbour(n->name, n->endpoint, n->public_key, &m->u.load.fetch_from[i], err)))
            return error_prefix(err, "load: who has pages");
    }
    m->u.load.fetch_count = (uint32_t)b->n_fetch;
    return 0;
}

static int decode_load(const Brigade__Load *b, struct control_message *m, struct error *err)
{
    int rc;
    if ((rc = TEXT(m->u.load.model, b->model, "load: model", err)) ||
        (rc = decode_key(m->u.load.previous_key, b->previous_key, true, "load: previous stage's key", err)) ||
        (rc = decode_key(m->u.load.coordinator_key, b->coordinator_key, true, "load: coordinator's key", err)))
        return rc;
    if (b->stages > FRAME_STAGES_MAX || b->stage >= b->stages || b->first_block > b->last_block)
        return error_set(err, ERR_FORMAT, "load: stage %u of %u, blocks %u to %u", b->stage, b->stages, b->first_block,
                         b->last_block);
    if (b->codec < CODEC_F32 || b->codec >= CODEC_COUNT)
        return error_set(err, ERR_FORMAT, "load: activation codec %u is not known", b->codec);
    if (!b->next != (b->stage + 1 == b->stages))
        return error_set(err, ERR_FORMAT, "load: stage %u of %u %s a next stage", b->stage, b->stages,
                         b->next ? "cannot have" : "needs");
    if (b->next) {
        if ((rc = decode_neighbour(b->next->name, b->next->endpoint, b->next->public_key, &m->u.load.next, err)))
            return error_prefix(err, "load");
        m->u.load.has_next = true;
    }
    m->u.load.fingerprint = b->fingerprint;
    m->u.load.stage = b->stage;
    m->u.load.stages = b->stages;
    m->u.load.first_block = b->first_block;
    m->u.load.last_block = b->last_block;
    m->u.load.kv_type = b->kv_type;
    m->u.load.kv_pages = b->kv_pages;
    m->u.load.max_tokens = b->max_tokens;
    m->u.load.max_context = b->max_context;
    m->u.load.max_sequences = b->max_sequences;
    m->u.load.codec = b->codec;
    m->u.load.inexact = b->inexact;
    m->u.load.keep_bytes = b->keep_bytes;
    m->u.load.leave = b->leave;
    return decode_fetch(b, m, err);
}

static void decode_heartbeat_reply(const Brigade__HeartbeatReply *b, struct control_message *m)
{
    m->u.heartbeat_reply.sequence = b->sequence;
    m->u.heartbeat_reply.sent_us = b->sent_us;
    m->u.heartbeat_reply.busy_us = b->busy_us;
    m->u.heartbeat_reply.microbatches = b->microbatches;
    m->u.heartbeat_reply.tokens = b->tokens;
    m->u.heartbeat_reply.bytes_in = b->bytes_in;
    m->u.heartbeat_reply.bytes_out = b->bytes_out;
    m->u.heartbeat_reply.weights_in = b->weights_in;
    m->u.heartbeat_reply.weights_out = b->weights_out;
    m->u.heartbeat_reply.resident_bytes = b->resident_bytes;
    m->u.heartbeat_reply.temperature_millic = b->temperature_millic;
    m->u.heartbeat_reply.state = b->state;
    m->u.heartbeat_reply.refused = b->refused;
    m->u.heartbeat_reply.busy_for_us = b->busy_for_us;
    m->u.heartbeat_reply.slow = b->slow;
    m->u.heartbeat_reply.energy_measured = b->energy_measured;
    m->u.heartbeat_reply.energy_uj = b->energy_uj;
    m->u.heartbeat_reply.power_mw = b->power_mw;
    m->u.heartbeat_reply.decode_ns = b->decode_ns;
    m->u.heartbeat_reply.expected_ns = b->expected_ns;
    wire_prose(m->u.heartbeat_reply.energy_source, sizeof m->u.heartbeat_reply.energy_source, b->energy_source);
}

static int decode_report(const Brigade__Report *b, struct control_message *m, struct error *err)
{
    struct control_report *r = &m->u.report;
    int rc;
    if ((rc = TEXT(r->zone, b->zone, "report: zone", err)) || (rc = TEXT(r->governor, b->governor, "report: governor", err)) ||
        (rc = TEXT(r->interface, b->interface, "report: interface", err)))
        return rc;
    if (b->padding.len > FRAME_PADDING_MAX)
        return error_set(err, ERR_BOUND, "report: %zu bytes of padding; the limit is %u", b->padding.len, FRAME_PADDING_MAX);
    wire_prose(r->energy_source, sizeof r->energy_source, b->energy_source);
    r->clock_us = b->clock_us;
    r->memory_total = b->memory_total;
    r->memory_available = b->memory_available;
    r->memory_margin = b->memory_margin;
    r->memory_cap = b->memory_cap;
    r->memory_admitted = b->memory_admitted;
    r->temperature_millic = b->temperature_millic;
    r->limit_millic = b->limit_millic;
    r->throttled_known = b->throttled_known;
    r->throttled = b->throttled;
    r->throttle_count_known = b->throttle_count_known;
    r->throttle_count = b->throttle_count;
    r->frequency_mhz = b->frequency_mhz;
    r->frequency_max_mhz = b->frequency_max_mhz;
    r->mtu = b->mtu;
    r->speed_mbit = b->speed_mbit;
    r->wireless = b->wireless;
    r->half_duplex = b->half_duplex;
    r->power_save = b->power_save;
    r->key_mode = b->key_mode;
    r->energy_measured = b->energy_measured;
    r->padding_bytes = (uint32_t)b->padding.len;
    return 0;
}

static int decode_body(const Brigade__Control *c, struct control_message *m, struct error *err)
{
    int rc;
    switch (c->body_case) {
    case BRIGADE__CONTROL__BODY_HELLO:
        m->kind = CONTROL_HELLO;
        m->u.hello.claim = c->hello->claim;
        m->u.hello.take_over = c->hello->take_over;
        return TEXT(m->u.hello.program_version, c->hello->program_version, "hello: program version", err);
    case BRIGADE__CONTROL__BODY_WELCOME:
        m->kind = CONTROL_WELCOME;
        return decode_welcome(c->welcome, m, err);
    case BRIGADE__CONTROL__BODY_PROBE:
        m->kind = CONTROL_PROBE;
        m->u.probe.fingerprint = c->probe->fingerprint;
        m->u.probe.kv_type = c->probe->kv_type;
        m->u.probe.context = c->probe->context;
        m->u.probe.chunk = c->probe->chunk;
        return TEXT(m->u.probe.model, c->probe->model, "probe: model", err);
    case BRIGADE__CONTROL__BODY_PROFILE:
        m->kind = CONTROL_PROFILE;
        return decode_profile(c->profile, m, err);
    case BRIGADE__CONTROL__BODY_PROBE_LINK:
        m->kind = CONTROL_PROBE_LINK;
        m->u.probe_link.bytes = c->probe_link->bytes;
        m->u.probe_link.rounds = c->probe_link->rounds;
        m->u.probe_link.token_bytes = c->probe_link->token_bytes;
        m->u.probe_link.pause_us = c->probe_link->pause_us < FRAME_HOLD_US_MAX ? c->probe_link->pause_us : FRAME_HOLD_US_MAX;
        if (m->u.probe_link.token_bytes > FRAME_PAYLOAD_BYTES_MAX)
            m->u.probe_link.bytes = m->u.probe_link.token_bytes; /* refused in the same words */
        if (m->u.probe_link.bytes > FRAME_PAYLOAD_BYTES_MAX)
            return error_set(err, ERR_BOUND, "probe link: %llu bytes; the limit is %u",
                             (unsigned long long)m->u.probe_link.bytes, FRAME_PAYLOAD_BYTES_MAX);
        return decode_neighbour(c->probe_link->peer, c->probe_link->endpoint, c->probe_link->public_key,
                                &m->u.probe_link.peer, err);
    case BRIGADE__CONTROL__BODY_LINK_MEASURED:
        m->kind = CONTROL_LINK_MEASURED;
        m->u.link_measured.rtt_seconds = c->link_measured->rtt_seconds;
        m->u.link_measured.bytes_per_s = c->link_measured->bytes_per_s;
        m->u.link_measured.back_bytes_per_s = c->link_measured->back_bytes_per_s;
        if (!amount_valid(m->u.link_measured.rtt_seconds) || !amount_valid(m->u.link_measured.bytes_per_s) ||
            !amount_valid(m->u.link_measured.back_bytes_per_s))
            return error_set(err, ERR_FORMAT, "link measured: a measure is negative or no number");
        return TEXT(m->u.link_measured.peer, c->link_measured->peer, "link measured: peer", err);
    case BRIGADE__CONTROL__BODY_ALLOW:
        m->kind = CONTROL_ALLOW;
        return decode_allow(c->allow, m, err);
    case BRIGADE__CONTROL__BODY_LOAD:
        m->kind = CONTROL_LOAD;
        if ((rc = decode_load(c->load, m, err)))
            control_free(m);
        return rc;
    case BRIGADE__CONTROL__BODY_PROGRESS:
        m->kind = CONTROL_PROGRESS;
        m->u.progress.done = c->progress->done;
        m->u.progress.total = c->progress->total;
        return TEXT(m->u.progress.what, c->progress->what, "progress: what", err);
    case BRIGADE__CONTROL__BODY_LOADED:
        m->kind = CONTROL_LOADED;
        m->u.loaded.weights_bytes = c->loaded->weights_bytes;
        m->u.loaded.embedding_bytes = c->loaded->embedding_bytes;
        m->u.loaded.head_bytes = c->loaded->head_bytes;
        m->u.loaded.kv_bytes = c->loaded->kv_bytes;
        m->u.loaded.buffers_bytes = c->loaded->buffers_bytes;
        m->u.loaded.total_bytes = c->loaded->total_bytes;
        m->u.loaded.read_bytes = c->loaded->read_bytes;
        m->u.loaded.fetched_bytes = c->loaded->fetched_bytes;
        m->u.loaded.held_count = (uint32_t)c->loaded->n_held;
        m->u.loaded.kept_count = (uint32_t)c->loaded->n_kept;
        if ((rc = held_decode(c->loaded->held, c->loaded->n_held, &m->u.loaded.held, err)) ||
            (rc = held_decode(c->loaded->kept, c->loaded->n_kept, &m->u.loaded.kept, err)))
            control_free(m);
        return rc;
    case BRIGADE__CONTROL__BODY_UNLOAD:
        m->kind = CONTROL_UNLOAD;
        m->u.unload.leave = c->unload->leave;
        return 0;
    case BRIGADE__CONTROL__BODY_DRAIN:
        m->kind = CONTROL_DRAIN;
        return 0;
    case BRIGADE__CONTROL__BODY_HEARTBEAT:
        m->kind = CONTROL_HEARTBEAT;
        m->u.heartbeat.sequence = c->heartbeat->sequence;
        m->u.heartbeat.sent_us = c->heartbeat->sent_us;
        m->u.heartbeat.slow = c->heartbeat->slow;
        m->u.heartbeat.decode_ns = c->heartbeat->decode_ns;
        m->u.heartbeat.expected_ns = c->heartbeat->expected_ns;
        return 0;
    case BRIGADE__CONTROL__BODY_HEARTBEAT_REPLY:
        m->kind = CONTROL_HEARTBEAT_REPLY;
        decode_heartbeat_reply(c->heartbeat_reply, m);
        return 0;
    case BRIGADE__CONTROL__BODY_FAILURE:
        m->kind = CONTROL_FAILURE;
        m->u.failure.code = c->failure->code;
        wire_prose(m->u.failure.text, sizeof m->u.failure.text, c->failure->text);
        rc = c->failure->code;
        return rc < 0 ? 0 : error_set(err, ERR_FORMAT, "failure: code %d is no error", rc);
    case BRIGADE__CONTROL__BODY_DONE:
        m->kind = CONTROL_DONE;
        return 0;
    case BRIGADE__CONTROL__BODY_EXAMINE:
        m->kind = CONTROL_EXAMINE;
        m->u.examine.padding_bytes = c->examine->padding_bytes;
        if (m->u.examine.padding_bytes > FRAME_PADDING_MAX)
            return error_set(err, ERR_BOUND, "examine: %u bytes of padding; the limit is %u", m->u.examine.padding_bytes,
                             FRAME_PADDING_MAX);
        return TEXT(m->u.examine.address, c->examine->address, "examine: address", err);
    case BRIGADE__CONTROL__BODY_REPORT:
        m->kind = CONTROL_REPORT;
        return decode_report(c->report, m, err);
    default:
        return error_set(err, ERR_FORMAT, "control message: it has no body this version knows");
    }
}

int control_decode(const void *bytes, size_t size, struct control_message *out, struct error *err)
{
    struct wire_arena a;
    wire_arena_start(&a);
    struct control_message m = {0};
    ProtobufCMessage *unpacked = NULL;
    int rc = wire_unpack(&a, &brigade__control__descriptor, bytes, size, "control message", &unpacked, err);
    if (!rc) {
        const Brigade__Control *c = (const Brigade__Control *)unpacked;
        m.epoch = c->epoch;
        m.request = c->request;
        rc = decode_body(c, &m, err);
    }
    wire_arena_end(&a);
    if (!rc)
        *out = m;
    return rc;
}
