/* The weights plane's frames to bytes and back. Pure; any thread. */
#include "proto/weights_frame.h"

#include <string.h>

#include "base/memory.h"
#include "proto/keys.h"
#include "proto/wire.h"
#include "weights.pb-c.h"

static int encode_peers(struct wire_arena *a, const struct weights_frame *f, Brigade__WeightsOffer *b, struct error *err)
{
    if (f->peer_count > WEIGHTS_PEERS_MAX)
        return error_set(err, ERR_BOUND, "offer of weights: %u peers; the limit is %u", f->peer_count,
                         WEIGHTS_PEERS_MAX);
    b->peers = wire_arena_take(a, f->peer_count, sizeof *b->peers);
    Brigade__WeightsPeer *peers = wire_arena_take(a, f->peer_count, sizeof *peers);
    if (!b->peers || !peers)
        return error_set(err, ERR_NOMEM, "offer of weights: no memory to encode it");
    b->n_peers = f->peer_count;
    for (uint32_t i = 0; i < f->peer_count; i++) {
        brigade__weights_peer__init(&peers[i]);
        peers[i].endpoint = f->peers[i].endpoint;
        peers[i].public_key = f->peers[i].public_key;
        b->peers[i] = &peers[i];
    }
    return 0;
}

int weights_frame_encode(const struct weights_frame *f, struct buffer *header, struct error *err)
{
    Brigade__WeightsOffer offer = BRIGADE__WEIGHTS_OFFER__INIT;
    Brigade__WeightsAsk ask = BRIGADE__WEIGHTS_ASK__INIT;
    Brigade__WeightsHave have = BRIGADE__WEIGHTS_HAVE__INIT;
    Brigade__WeightsWant want = BRIGADE__WEIGHTS_WANT__INIT;
    Brigade__WeightsPiece piece = BRIGADE__WEIGHTS_PIECE__INIT;
    Brigade__PageWant page_want = BRIGADE__PAGE_WANT__INIT;
    Brigade__Page page = BRIGADE__PAGE__INIT;
    Brigade__WeightsHeader h = BRIGADE__WEIGHTS_HEADER__INIT;
    struct wire_arena a;
    int rc = 0;
    wire_arena_start(&a);
    h.version = PROTOCOL_VERSION;
    switch (f->kind) {
    case WEIGHTS_OFFER:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_OFFER;
        h.offer = &offer;
        offer.model = (char *)f->model;
        offer.fingerprint = f->fingerprint;
        rc = encode_peers(&a, f, &offer, err);
        break;
    case WEIGHTS_ASK:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_ASK;
        h.ask = &ask;
        ask.fingerprint = f->fingerprint;
        ask.manifest = f->manifest;
        break;
    case WEIGHTS_HAVE:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_HAVE;
        h.have = &have;
        have.fingerprint = f->fingerprint;
        have.whole = f->whole;
        have.soon = f->soon;
        have.trouble = (char *)f->trouble;
        if (f->has_hash)
            have.manifest_hash = (ProtobufCBinaryData){WEIGHTS_HASH_BYTES, (uint8_t *)f->manifest_hash};
        if (f->chunk_bytes)
            have.chunks = (ProtobufCBinaryData){f->chunk_bytes, (uint8_t *)f->chunks};
        break;
    case WEIGHTS_WANT:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_WANT;
        h.want = &want;
        want.fingerprint = f->fingerprint;
        want.index = f->index;
        want.manifest = f->manifest;
        break;
    case WEIGHTS_PIECE:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_PIECE;
        h.piece = &piece;
        piece.fingerprint = f->fingerprint;
        piece.index = f->index;
        piece.manifest = f->manifest;
        piece.missing = f->missing;
        piece.bytes = f->raw_bytes;
        break;
    case WEIGHTS_PAGE_WANT:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_PAGE_WANT;
        h.page_want = &page_want;
        page_want.fingerprint = f->fingerprint;
        page_want.epoch = f->epoch;
        page_want.block = f->block;
        page_want.page = f->page;
        page_want.hash = f->hash;
        page_want.kv_type = f->kv_type;
        break;
    case WEIGHTS_PAGE:
        h.body_case = BRIGADE__WEIGHTS_HEADER__BODY_PAGE;
        h.page = &page;
        page.epoch = f->epoch;
        page.block = f->block;
        page.page = f->page;
        page.hash = f->hash;
        page.missing = f->missing;
        page.soon = f->soon;
        page.bytes = f->raw_bytes;
        break;
    }
    if (!rc)
        rc = wire_pack(&h.base, header, "weights", err);
    wire_arena_end(&a);
    return rc;
}

/* ---- Decoding ----------------------------------------------------------------------------------------------------- */

static int decode_offer(const Brigade__WeightsOffer *b, struct weights_frame *f, struct error *err)
{
    int rc = wire_text(f->model, sizeof f->model, b->model, "offer of weights: model", err);
    if (rc)
        return rc;
    if (!*f->model || strchr(f->model, '/') || *f->model == '.')
        return error_set(err, ERR_FORMAT, "offer of weights: \"%.100s\" is no file name", f->model);
    if (b->n_peers > WEIGHTS_PEERS_MAX)
        return error_set(err, ERR_BOUND, "offer of weights: %zu peers; the limit is %u", b->n_peers, WEIGHTS_PEERS_MAX);
    f->fingerprint = b->fingerprint;
    f->memory = f->peers = mem_zalloc(b->n_peers, sizeof *f->peers);
    if (!f->peers)
        return error_set(err, ERR_NOMEM, "offer of weights: out of memory");
    for (size_t i = 0; i < b->n_peers; i++) {
        struct weights_peer *p = &f->peers[i];
        if ((rc = wire_text(p->endpoint, sizeof p->endpoint, b->peers[i]->endpoint, "offer of weights: endpoint", err)))
            return rc;
        if (!*p->endpoint || !key_text_valid(b->peers[i]->public_key))
            return error_set(err, ERR_FORMAT, "offer of weights: peer %zu has no endpoint or no key", i);
        memcpy(p->public_key, b->peers[i]->public_key, FRAME_KEY_TEXT);
    }
    f->peer_count = (uint32_t)b->n_peers;
    return 0;
}

static int decode_have(const Brigade__WeightsHave *b, struct weights_frame *f, struct error *err)
{
    if (b->manifest_hash.len && b->manifest_hash.len != WEIGHTS_HASH_BYTES)
        return error_set(err, ERR_FORMAT, "weights: a hash of %zu bytes, not %u", b->manifest_hash.len,
                         WEIGHTS_HASH_BYTES);
    if (b->chunks.len > WEIGHTS_CHUNKS_MAX / 8)
        return error_set(err, ERR_BOUND, "weights: %zu bytes of chunks; the limit is %u", b->chunks.len,
                         WEIGHTS_CHUNKS_MAX / 8);
    f->fingerprint = b->fingerprint;
    f->whole = b->whole;
    f->soon = b->soon;
    f->has_hash = b->manifest_hash.len != 0;
    if (f->has_hash)
        memcpy(f->manifest_hash, b->manifest_hash.data, WEIGHTS_HASH_BYTES);
    wire_prose(f->trouble, sizeof f->trouble, b->trouble);
    if (!b->chunks.len)
        return 0;
    uint8_t *copy = mem_alloc(b->chunks.len);
    if (!copy)
        return error_set(err, ERR_NOMEM, "weights: out of memory");
    memcpy(copy, b->chunks.data, b->chunks.len);
    f->memory = copy;
    f->chunks = copy;
    f->chunk_bytes = b->chunks.len;
    return 0;
}

/* The raw part of a piece or page: exactly what was announced, or none where it is missing. */
static int decode_raw(uint64_t bytes, bool missing, const char *what, const struct frame_part *parts, size_t part_count,
                      struct weights_frame *f, struct error *err)
{
    size_t raw = part_count > 1 ? parts[1].size : 0;
    if (bytes != raw || (missing && raw) || (!missing && !raw))
        return error_set(err, ERR_FORMAT, "%s: it tells of %llu bytes and brings %zu", what, (unsigned long long)bytes,
                         raw);
    if (raw > WEIGHTS_PART_BYTES_MAX)
        return error_set(err, ERR_BOUND, "%s: %zu bytes; the limit is %u", what, raw, WEIGHTS_PART_BYTES_MAX);
    f->missing = missing;
    f->raw = raw ? parts[1].data : NULL;
    f->raw_bytes = raw;
    return 0;
}

static int decode_body(const Brigade__WeightsHeader *h, const struct frame_part *parts, size_t part_count,
                       struct weights_frame *f, struct error *err)
{
    bool piece = h->body_case == BRIGADE__WEIGHTS_HEADER__BODY_PIECE || h->body_case == BRIGADE__WEIGHTS_HEADER__BODY_PAGE;
    if (!piece && part_count != 1)
        return error_set(err, ERR_FORMAT, "weights: %zu parts where one belongs", part_count);
    switch (h->body_case) {
    case BRIGADE__WEIGHTS_HEADER__BODY_OFFER:
        f->kind = WEIGHTS_OFFER;
        return decode_offer(h->offer, f, err);
    case BRIGADE__WEIGHTS_HEADER__BODY_ASK:
        f->kind = WEIGHTS_ASK;
        f->fingerprint = h->ask->fingerprint;
        f->manifest = h->ask->manifest;
        return 0;
    case BRIGADE__WEIGHTS_HEADER__BODY_HAVE:
        f->kind = WEIGHTS_HAVE;
        return decode_have(h->have, f, err);
    case BRIGADE__WEIGHTS_HEADER__BODY_WANT:
        f->kind = WEIGHTS_WANT;
        f->fingerprint = h->want->fingerprint;
        f->index = h->want->index;
        f->manifest = h->want->manifest;
        return f->index < WEIGHTS_CHUNKS_MAX ? 0 : error_set(err, ERR_BOUND, "weights: chunk %llu; the limit is %u",
                                                             (unsigned long long)f->index, WEIGHTS_CHUNKS_MAX);
    case BRIGADE__WEIGHTS_HEADER__BODY_PIECE:
        f->kind = WEIGHTS_PIECE;
        f->fingerprint = h->piece->fingerprint;
        f->index = h->piece->index;
        f->manifest = h->piece->manifest;
        return decode_raw(h->piece->bytes, h->piece->missing, "piece of weights", parts, part_count, f, err);
    case BRIGADE__WEIGHTS_HEADER__BODY_PAGE_WANT:
        f->kind = WEIGHTS_PAGE_WANT;
        f->fingerprint = h->page_want->fingerprint;
        f->epoch = h->page_want->epoch;
        f->block = h->page_want->block;
        f->page = h->page_want->page;
        f->hash = h->page_want->hash;
        f->kv_type = h->page_want->kv_type;
        return 0;
    case BRIGADE__WEIGHTS_HEADER__BODY_PAGE:
        f->kind = WEIGHTS_PAGE;
        f->epoch = h->page->epoch;
        f->block = h->page->block;
        f->page = h->page->page;
        f->hash = h->page->hash;
        f->soon = h->page->soon;
        return decode_raw(h->page->bytes, h->page->missing, "KV page", parts, part_count, f, err);
    default:
        return error_set(err, ERR_FORMAT, "weights: it has no body this version knows");
    }
}

int weights_frame_decode(const struct frame_part *parts, size_t part_count, struct weights_frame *out,
                         struct error *err)
{
    struct wire_arena a;
    struct weights_frame f = {0};
    ProtobufCMessage *unpacked = NULL;
    if (!part_count || part_count > 2)
        return error_set(err, ERR_FORMAT, "weights: %zu parts; one or two belong", part_count);
    wire_arena_start(&a);
    int rc = wire_unpack(&a, &brigade__weights_header__descriptor, parts[0].data, parts[0].size, "weights", &unpacked,
                         err);
    if (!rc)
        rc = decode_body((const Brigade__WeightsHeader *)unpacked, parts, part_count, &f, err);
    wire_arena_end(&a);
    if (rc)
        weights_frame_free(&f);
    else
        *out = f;
    return rc;
}

void weights_frame_free(struct weights_frame *f)
{
    mem_free(f->memory);
    f->memory = NULL;
    f->peers = NULL;
    f->peer_count = 0;
    f->chunks = NULL;
    f->chunk_bytes = 0;
}
