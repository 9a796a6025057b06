/* Control messages: every kind, every field, there and back; damage is refused; texts cannot reach a terminal raw. */
#include "tests/check.h"

#include "base/memory.h"
#include "proto/frame.h"
#include "tests/proto/mutate.h"
#include "tests/proto/samples.h"

static void every_kind_survives_the_wire(void)
{
    for (int kind = 0; kind < CONTROL_KINDS; kind++) {
        struct control_message m = sample_control((enum control_kind)kind), got;
        struct buffer b = {0};
        struct error err = {0};
        CHECK_INT(control_encode(&m, &b, &err), 0);
        if (control_decode(b.data, b.size, &got, &err)) {
            CHECK_FAIL("%s: %s", control_kind_name((enum control_kind)kind), err.text);
            buffer_free(&b);
            continue;
        }
        CHECK_INT(got.kind, kind);
        CHECK(got.epoch == m.epoch && got.request == m.request);
        /* Arrays by content, then the whole union byte for byte (both sides started from zeroes). */
        if (kind == CONTROL_PROFILE) {
            CHECK_INT(got.u.profile.cell_count, 2);
            CHECK(!memcmp(got.u.profile.cells, m.u.profile.cells, 2 * sizeof *m.u.profile.cells));
        } else if (kind == CONTROL_ALLOW) {
            CHECK_INT(got.u.allow.count, 2);
            CHECK(!memcmp(got.u.allow.keys, m.u.allow.keys, 2 * sizeof *m.u.allow.keys));
        } else if (kind == CONTROL_LOADED) {
            const struct control_held *held = got.u.loaded.held, *kept = got.u.loaded.kept;
            CHECK(got.u.loaded.held_count == 2 && got.u.loaded.kept_count == 1);
            CHECK(got.u.loaded.total_bytes == m.u.loaded.total_bytes);
            CHECK(got.u.loaded.fetched_bytes == m.u.loaded.fetched_bytes);
            CHECK(held[0].first_block == 1 && held[0].last_block == 3 && held[0].page_count == 2);
            CHECK(held[0].pages[1] == 0 && held[0].hashes[0] == UINT64_C(0x8877665544332211) && !held[1].page_count);
            CHECK(kept[0].first_block == 5 && kept[0].pages[2] == 65535 && kept[0].hashes[1] == 1);
        } else if (kind == CONTROL_LOAD) {
            const struct control_held *fetch = got.u.load.fetch;
            CHECK(got.u.load.fetch_count == 2 && fetch[0].last_block == 3 && fetch[0].pages[0] == 4 && fetch[0].hashes[1] == 1);
            CHECK(!memcmp(got.u.load.fetch_from, m.u.load.fetch_from, 2 * sizeof *m.u.load.fetch_from));
            struct control_message same = got; /* but for the lists' places */
            same.u.load.fetch = m.u.load.fetch;
            same.u.load.fetch_from = m.u.load.fetch_from;
            CHECK(!memcmp(&same.u, &m.u, sizeof m.u));
        } else {
            CHECK(!memcmp(&got.u, &m.u, sizeof m.u));
        }
        struct buffer again = {0};
        CHECK_INT(control_encode(&got, &again, &err), 0);
        CHECK(again.size == b.size && !memcmp(again.data, b.data, b.size));
        control_free(&got);
        buffer_free(&b);
        buffer_free(&again);
    }
}

static int encode_decode(const struct control_message *m, struct error *err)
{
    struct buffer b = {0};
    struct control_message got;
    int rc = control_encode(m, &b, err);
    if (!rc && !(rc = control_decode(b.data, b.size, &got, err)))
        control_free(&got);
    buffer_free(&b);
    return rc;
}

static void senseless_messages_are_refused(void)
{
    struct error err = {0};
    struct control_message m = sample_control(CONTROL_LOAD);
    m.u.load.first_block = 5;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_LOAD);
    m.u.load.stages = 300;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_LOAD);
    m.u.load.has_next = false;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_LOAD);
    m.u.load.codec = CODEC_NONE;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_LOAD);
    m.u.load.previous_key[3] = '~';
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_LOAD);
    m.u.load.previous_key[0] = 0; /* nobody feeds: the worker may have an opinion, the wire has none */
    CHECK_INT(encode_decode(&m, &err), 0);
    m = sample_control(CONTROL_LOAD);
    struct control_neighbour nobody[2] = {m.u.load.fetch_from[0]};
    m.u.load.fetch_from = nobody; /* the second one has no endpoint */
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_PROFILE);
    m.u.profile.head_seconds = INFINITY;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_LINK_MEASURED);
    m.u.link_measured.rtt_seconds = -1;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_PROBE_LINK);
    m.u.probe_link.peer.endpoint[0] = 0;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_FAILURE);
    m.u.failure.code = 0;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_WELCOME);
    m.u.welcome.data_port = 70000;
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    m = sample_control(CONTROL_WELCOME);
    strcpy(m.u.welcome.name, "\x1b[2Jpwned");
    CHECK_INT(encode_decode(&m, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "control character"));
}

static void texts_are_bounded(void)
{
    /* A hello whose program version is longer than its place. */
    unsigned char bytes[300] = {8, PROTOCOL_VERSION, 0x52, 0xc8, 1, 0x0a, 0xc5, 1};
    memset(bytes + 8, 'a', 197);
    struct control_message m;
    struct error err = {0};
    CHECK_INT(control_decode(bytes, 205, &m, &err), ERR_BOUND);
    /* Text for people is cut instead, and its line breaks are gone. */
    struct control_message f = sample_control(CONTROL_FAILURE);
    strcpy(f.u.failure.text, "one\ntwo\x1b[0m");
    struct buffer b = {0};
    CHECK_INT(control_encode(&f, &b, &err), 0);
    CHECK_INT(control_decode(b.data, b.size, &m, &err), 0);
    CHECK_TEXT(m.u.failure.text, "one two [0m");
    buffer_free(&b);
}

static void another_version_is_named(void)
{
    struct control_message m = sample_control(CONTROL_HELLO), got;
    struct buffer b = {0};
    struct error err = {0};
    CHECK_INT(control_encode(&m, &b, &err), 0);
    REQUIRE(b.data[0] == 8 && b.data[1] == PROTOCOL_VERSION);
    b.data[1] = 1;
    CHECK_INT(control_decode(b.data, b.size, &got, &err), ERR_VERSION);
    CHECK(strstr(err.text, "version 1") && strstr(err.text, "version 3"));
    buffer_free(&b);
}

static void damaged_messages_are_refused(void)
{
    for (int kind = 0; kind < CONTROL_KINDS; kind++) {
        struct control_message m = sample_control((enum control_kind)kind);
        struct buffer b = {0};
        struct error err = {0};
        unsigned refused = 0;
        CHECK_INT(control_encode(&m, &b, &err), 0);
        for (unsigned i = 0; i < 250; i++) {
            size_t size;
            unsigned char *bytes = mutate(b.data, b.size, i * 131 + (unsigned)kind, &size);
            struct control_message got;
            if (control_decode(bytes, size, &got, &err)) {
                refused++;
                CHECK(err.code < 0 && *err.text && !strchr(err.text, '\n'));
            } else {
                CHECK((unsigned)got.kind < CONTROL_KINDS);
                control_free(&got);
            }
            free(bytes);
        }
        CHECK(refused > 50);
        buffer_free(&b);
    }
    struct control_message got;
    struct error err = {0};
    CHECK_INT(control_decode("", 0, &got, &err), ERR_FORMAT);
    CHECK_INT(control_decode("\x08\x03", 2, &got, &err), ERR_FORMAT);
}

static void lists_are_bounded(void)
{
    static char keys[FRAME_KEYS_MAX + 1][FRAME_KEY_TEXT];
    for (size_t i = 0; i <= FRAME_KEYS_MAX; i++)
        strcpy(keys[i], SAMPLE_KEY_A);
    struct control_message m = {.kind = CONTROL_ALLOW};
    struct error err = {0};
    m.u.allow.keys = keys;
    m.u.allow.count = FRAME_KEYS_MAX;
    CHECK_INT(encode_decode(&m, &err), 0);
    m.u.allow.count = FRAME_KEYS_MAX + 1;
    CHECK_INT(encode_decode(&m, &err), ERR_BOUND);
    static struct control_held many[FRAME_HELD_MAX + 1];
    m = (struct control_message){.kind = CONTROL_LOADED};
    m.u.loaded.kept = many;
    m.u.loaded.kept_count = FRAME_HELD_MAX;
    CHECK_INT(encode_decode(&m, &err), 0);
    m.u.loaded.kept_count = FRAME_HELD_MAX + 1;
    CHECK_INT(encode_decode(&m, &err), ERR_BOUND);
    m.u.loaded.kept_count = 1;
    many[0].page_count = FRAME_HELD_PAGES_MAX;
    many[0].pages = mem_zalloc(FRAME_HELD_PAGES_MAX, sizeof *many[0].pages);
    many[0].hashes = mem_zalloc(FRAME_HELD_PAGES_MAX, sizeof *many[0].hashes);
    REQUIRE(many[0].pages && many[0].hashes);
    for (uint32_t i = 0; i < FRAME_HELD_PAGES_MAX; i++)
        many[0].pages[i] = FRAME_PAGES_MAX; /* as long as numbers of pages become */
    CHECK_INT(encode_decode(&m, &err), 0);
    many[0].page_count++;
    CHECK_INT(encode_decode(&m, &err), ERR_BOUND);
    mem_free(many[0].pages);
    mem_free(many[0].hashes);
    struct buffer b = {0}, h = {0};
    while (b.size < (1 << 21) - 2)
        buffer_append(&b, "\x0a\x00", 2); /* a million empty keys */
    buffer_append(&h, "\x08\x03\x82\x01", 4);
    for (uint64_t v = b.size; v; v >>= 7)
        buffer_putc(&h, (char)(v > 127 ? v | 128 : v));
    buffer_append(&h, b.data, b.size);
    struct control_message got;
    CHECK_INT(control_decode(h.data, h.size, &got, &err), ERR_BOUND);
    buffer_free(&b);
    buffer_free(&h);
}

static const struct check_test tests[] = {
    {"every kind survives the wire", every_kind_survives_the_wire},
    {"senseless messages are refused", senseless_messages_are_refused},
    {"texts are bounded", texts_are_bounded},
    {"another version is named", another_version_is_named},
    {"damaged messages are refused", damaged_messages_are_refused},
    {"lists are bounded", lists_are_bounded},
};

CHECK_MAIN(tests)
