/* The weights plane's frames: there and back, over every bound, and damaged in every way. Answers of a seed. */
#include "tests/weights/place.h"

#include "tests/proto/mutate.h"
#include "weights/serve.h"

#define KEY "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

static int round_trip(const struct weights_frame *f, struct weights_frame *out, struct error *err)
{
    struct buffer header = {0};
    int rc = weights_frame_encode(f, &header, err);
    struct frame_part parts[2] = {{header.data, header.size}, {f->raw, f->raw_bytes}};
    if (!rc)
        rc = weights_frame_decode(parts, f->raw_bytes ? 2 : 1, out, err);
    buffer_free(&header);
    return rc;
}

enum { SAMPLES = 10 };

static struct weights_frame sample(int i)
{
    static struct weights_peer peers[2] = {{"tcp://10.0.0.1:7702", KEY}, {"tcp://10.0.0.2:7702", KEY}};
    static const uint8_t bits[5] = {1, 2, 3, 4, 255};
    static const char raw[] = "weights";
    struct weights_frame all[] = {
        {.kind = WEIGHTS_OFFER, .fingerprint = 7, .model = "m.gguf", .peers = peers, .peer_count = 2},
        {.kind = WEIGHTS_ASK, .fingerprint = UINT64_MAX, .manifest = true},
        {.kind = WEIGHTS_HAVE, .fingerprint = 1, .has_hash = true, .manifest_hash = {9, 8, 7}, .chunks = bits, .chunk_bytes = 5},
        {.kind = WEIGHTS_HAVE, .fingerprint = 1, .soon = true, .whole = true, .trouble = "no\x01t here"},
        {.kind = WEIGHTS_WANT, .fingerprint = 3, .index = WEIGHTS_CHUNKS_MAX - 1},
        {.kind = WEIGHTS_PIECE, .fingerprint = 3, .index = 5, .raw = raw, .raw_bytes = sizeof raw},
        {.kind = WEIGHTS_PIECE, .fingerprint = 3, .manifest = true, .missing = true},
        {.kind = WEIGHTS_PAGE_WANT, .fingerprint = 3, .epoch = 6, .block = 2, .page = 9, .hash = UINT64_MAX, .kv_type = 1},
        {.kind = WEIGHTS_PAGE, .epoch = 6, .block = 2, .page = 9, .hash = 12, .raw = raw, .raw_bytes = sizeof raw},
        {.kind = WEIGHTS_PAGE, .epoch = 6, .block = 2, .page = 9, .hash = 12, .missing = true, .soon = true},
    };
    return all[i % SAMPLES];
}

static void frames_come_back(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        struct weights_frame f = sample(i), g = {0};
        struct error err = {0};
        if (round_trip(&f, &g, &err)) {
            CHECK_FAIL("sample %d: %s", i, err.text);
            continue;
        }
        CHECK(g.kind == f.kind && g.fingerprint == f.fingerprint && g.index == f.index && g.manifest == f.manifest);
        CHECK(g.whole == f.whole && g.soon == f.soon && g.missing == f.missing && g.has_hash == f.has_hash);
        CHECK(g.epoch == f.epoch && g.block == f.block && g.page == f.page && g.hash == f.hash && g.kv_type == f.kv_type);
        CHECK(!memcmp(g.manifest_hash, f.manifest_hash, sizeof g.manifest_hash));
        CHECK(g.peer_count == f.peer_count && g.chunk_bytes == f.chunk_bytes && g.raw_bytes == f.raw_bytes);
        CHECK_TEXT(g.model, f.model);
        if (f.peer_count)
            CHECK(!strcmp(g.peers[1].endpoint, f.peers[1].endpoint) && !strcmp(g.peers[1].public_key, KEY));
        if (f.chunk_bytes)
            CHECK(!memcmp(g.chunks, f.chunks, f.chunk_bytes));
        weights_frame_free(&g);
    }
}

static void bounds_are_kept(void)
{
    struct weights_frame g = {0};
    struct error err = {0};
    struct weights_peer bad_key = {"tcp://x:1", "short"}, many[WEIGHTS_PEERS_MAX + 1] = {{"", ""}};
    static uint8_t bits[WEIGHTS_CHUNKS_MAX / 8 + 1];
    struct weights_frame wrong[] = {
        {.kind = WEIGHTS_OFFER, .model = "a/b.gguf"},
        {.kind = WEIGHTS_OFFER, .model = ".hidden"},
        {.kind = WEIGHTS_OFFER, .model = ""},
        {.kind = WEIGHTS_OFFER, .model = "m\n"},
        {.kind = WEIGHTS_OFFER, .model = "m", .peers = &bad_key, .peer_count = 1},
        {.kind = WEIGHTS_OFFER, .model = "m", .peers = many, .peer_count = WEIGHTS_PEERS_MAX + 1},
        {.kind = WEIGHTS_HAVE, .chunks = bits, .chunk_bytes = sizeof bits},
        {.kind = WEIGHTS_WANT, .index = WEIGHTS_CHUNKS_MAX},
        {.kind = WEIGHTS_PIECE, .index = 1}, /* neither bytes nor missing */
        {.kind = WEIGHTS_PIECE, .missing = true, .raw = "x", .raw_bytes = 1},
        {.kind = WEIGHTS_PAGE, .page = 1},
        {.kind = WEIGHTS_PAGE, .missing = true, .raw = "x", .raw_bytes = 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err = (struct error){0};
        int rc = round_trip(&wrong[i], &g, &err);
        if (!rc || (rc != ERR_FORMAT && rc != ERR_BOUND) || !*err.text)
            CHECK_FAIL("wrong %zu: %d %s", i, rc, err.text);
    }
    CHECK_INT(weights_frame_decode(NULL, 0, &g, &err), ERR_FORMAT);
    struct weights_frame two = sample(1); /* no raw part belongs to it */
    struct buffer header = {0};
    CHECK(!weights_frame_encode(&two, &header, NULL));
    struct frame_part parts[3] = {{header.data, header.size}, {"x", 1}, {"y", 1}};
    CHECK_INT(weights_frame_decode(parts, 2, &g, &err), ERR_FORMAT);
    CHECK_INT(weights_frame_decode(parts, 3, &g, &err), ERR_FORMAT);
    buffer_free(&header);
}

static void damaged_frames_are_one_line(void)
{
    unsigned refused = 0;
    for (uint64_t seed = 0; seed < 70000; seed++) {
        struct weights_frame f = sample((int)(seed % SAMPLES)), g = {0};
        struct buffer header = {0};
        struct error err = {0};
        size_t size;
        CHECK(!weights_frame_encode(&f, &header, &err));
        unsigned char *bad = mutate(header.data, header.size, seed, &size);
        struct frame_part parts[2] = {{bad, size}, {f.raw, f.raw_bytes}};
        int rc = weights_frame_decode(parts, f.raw_bytes ? 2 : 1, &g, &err);
        if (rc) {
            refused++;
            CHECK(err.code == rc && *err.text);
        } else {
            struct weights_frame again = {0};
            if (round_trip(&g, &again, &err)) /* what was accepted can be said again */
                CHECK_FAIL("seed %llu: %s", (unsigned long long)seed, err.text);
            weights_frame_free(&again);
            weights_frame_free(&g);
        }
        free(bad);
        buffer_free(&header);
    }
    CHECK(refused > 10000);
}

static void failing_allocations_are_told(void)
{
    for (int i = 0; i < SAMPLES; i++)
        for (long k = 1; k < 6; k++) {
            struct weights_frame f = sample(i), g = {0};
            struct error err = {0};
            mem_fail_at(k);
            int rc = round_trip(&f, &g, &err);
            mem_fail_at(0);
            CHECK(!rc || rc == ERR_NOMEM);
            weights_frame_free(&g);
        }
}

static void a_seed_gives_what_it_has(void)
{
    struct place p;
    struct manifest *layout = NULL;
    struct store *s = NULL;
    struct crate *h = NULL;
    struct weights_frame reply;
    place_open(&p, 64);
    uint64_t fingerprint = model_info(p.model)->fingerprint;
    REQUIRE(!manifest_layout(model_gguf(p.model), fingerprint, &layout, NULL));
    struct seed bare = {.whole = model_gguf(p.model), .layout = layout}, whole = {.whole = model_gguf(p.model), .layout = p.list};
    struct weights_frame ask = {.kind = WEIGHTS_ASK, .fingerprint = fingerprint, .manifest = true};
    seed_answer(&bare, &ask, &reply);
    CHECK(reply.kind == WEIGHTS_HAVE && reply.whole && !reply.has_hash);
    seed_answer(&whole, &ask, &reply);
    CHECK(reply.whole && reply.has_hash && !memcmp(reply.manifest_hash, manifest_hash(p.list), WEIGHTS_HASH_BYTES));
    struct weights_frame want = {.kind = WEIGHTS_WANT, .fingerprint = fingerprint, .manifest = true};
    seed_answer(&bare, &want, &reply);
    CHECK(reply.missing && reply.manifest && !reply.raw);
    seed_answer(&whole, &want, &reply);
    CHECK(!reply.missing && reply.raw_bytes > 100);
    want.manifest = false;
    for (uint32_t i = 0; i < manifest_chunks(layout); i++) {
        want.index = i;
        seed_answer(&bare, &want, &reply); /* a file needs no hashes to give chunks */
        CHECK(reply.index == i && manifest_proves(p.list, i, reply.raw, reply.raw_bytes));
    }
    want.index = manifest_chunks(layout);
    seed_answer(&bare, &want, &reply);
    CHECK(reply.missing && !reply.raw);
    REQUIRE(!store_open(p.folder, 0, &s, NULL) && !store_crate(s, p.list, &h, NULL));
    size_t size;
    const char *bytes = place_chunk(&p, 2, &size);
    CHECK(!crate_write(h, 2, bytes, size, NULL));
    struct seed part = {.crate = h};
    seed_answer(&part, &ask, &reply);
    CHECK(!reply.whole && reply.has_hash && reply.chunk_bytes && reply.chunks[0] == 4);
    for (want.index = 0; want.index < 5; want.index++) {
        seed_answer(&part, &want, &reply);
        CHECK(reply.missing == (want.index != 2));
    }
    /* A file that was cut short since gives nothing, and does not end the program. */
    REQUIRE(!truncate(p.path, (off_t)p.size / 2));
    want.index = manifest_chunks(layout) - 1;
    seed_answer(&bare, &want, &reply);
    CHECK(reply.missing);
    seed_lacking(&want, &reply);
    CHECK(reply.kind == WEIGHTS_PIECE && reply.missing);
    seed_lacking(&ask, &reply);
    CHECK(reply.kind == WEIGHTS_HAVE && !reply.whole && !reply.chunk_bytes);
    crate_close(h);
    store_close(s);
    manifest_free(layout);
    place_close(&p);
}

static const struct check_test tests[] = {
    {"frames come back", frames_come_back},
    {"bounds are kept", bounds_are_kept},
    {"damaged frames are one line", damaged_frames_are_one_line},
    {"failing allocations are told", failing_allocations_are_told},
    {"a seed gives what it has", a_seed_gives_what_it_has},
};

CHECK_MAIN(tests)
