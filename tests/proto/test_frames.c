/* Data frames: what goes in comes out; what is damaged is refused in one line; nothing grows beyond its bound. */
#include "tests/check.h"

#include "proto/frame.h"
#include "proto/wire.h"
#include "tests/proto/mutate.h"
#include "tests/proto/samples.h"

struct encoded {
    struct buffer header, raw;
    float activations[48];
    struct frame_part parts[3];
    size_t count;
};

static bool encode_sample_work(struct encoded *e)
{
    struct frame_work w;
    struct frame_span spans[3];
    struct frame_page_copy copies[1];
    struct frame_trace trace[1];
    uint32_t release[2];
    struct error err = {0};
    memset(e, 0, sizeof *e);
    sample_work(&w, spans, copies, trace, release);
    for (int i = 0; i < 48; i++)
        e->activations[i] = (float)i;
    if (frame_encode_work(&w, &e->header, &e->raw, &err)) {
        CHECK_FAIL("%s", err.text);
        return false;
    }
    e->parts[0] = (struct frame_part){e->header.data, e->header.size};
    e->parts[1] = (struct frame_part){e->raw.data, e->raw.size};
    e->parts[2] = (struct frame_part){e->activations, sizeof e->activations};
    e->count = 3;
    return true;
}

static bool encode_sample_result(struct encoded *e)
{
    struct frame_result r;
    struct frame_span_result spans[2];
    struct frame_chosen top[2];
    struct frame_trace trace[2];
    static const float floats[6] = {1, 2, 3, 4, 5, 6};
    struct error err = {0};
    memset(e, 0, sizeof *e);
    sample_result(&r, spans, top, trace, floats);
    if (frame_encode_result(&r, &e->header, &e->raw, &err)) {
        CHECK_FAIL("%s", err.text);
        return false;
    }
    e->parts[0] = (struct frame_part){e->header.data, e->header.size};
    e->parts[1] = (struct frame_part){e->raw.data, e->raw.size};
    e->count = 2;
    return true;
}

static void encoded_free(struct encoded *e)
{
    buffer_free(&e->header);
    buffer_free(&e->raw);
}

static void work_survives_the_wire(void)
{
    struct encoded e;
    struct data_frame f;
    struct error err = {0};
    REQUIRE(encode_sample_work(&e));
    CHECK_INT(frame_decode_data(e.parts, e.count, &f, &err), 0);
    REQUIRE(!err.code);
    CHECK_INT(f.kind, DATA_WORK);
    CHECK_INT(f.epoch, 4);
    const struct frame_work *w = &f.work;
    CHECK(w->epoch == 4 && w->microbatch == UINT64_C(1) << 35);
    CHECK_INT(w->span_count, 3);
    CHECK_INT(w->tokens, 6);
    CHECK_INT(w->token_bytes, 32);
    CHECK_INT(w->activation_bytes, 192);
    CHECK_INT(w->width, 8);
    CHECK(w->codec == CODEC_F32 && w->want_trace);
    CHECK(w->release_count == 2 && w->release[0] == 11 && w->release[1] == 12);
    CHECK(w->copy_count == 1 && w->copies[0].from == 1 && w->copies[0].to == 2 && w->copies[0].count == 31);
    CHECK(w->trace_count == 1 && w->trace[0].received_us == 10 && w->trace[0].sent_us == UINT64_C(1) << 40);
    const struct frame_span *s = w->spans;
    CHECK(s[0].sequence == 3 && s[0].first == 0 && s[0].count == 4 && s[0].known == 0 && s[0].want == 1);
    CHECK(s[0].hash == 0x1122334455667788u && s[0].page_count == 2 && s[0].pages[1] == 8 && s[0].next_token == -1);
    REQUIRE(s[0].sampling);
    const struct frame_sampling *a = s[0].sampling;
    CHECK(a->temperature == 0.8f && a->top_p == 0.95f && a->min_p == 0.05f && a->repeat_penalty == 1.1f);
    CHECK(a->presence_penalty == 0.25f && a->frequency_penalty == -0.5f && a->top_k == 40 && a->repeat_last == 64);
    CHECK(a->prompt_tokens == 4 && a->top_logprobs == 3 && a->seed == UINT64_C(0xfedcba9876543210));
    CHECK(a->bias_count == 2 && a->bias[1].token == 6 && a->bias[1].bias == -100.0f);
    CHECK(!s[1].sampling && s[1].page_offset == 1 && s[1].pages[0] == 65535 && s[1].next_token == 77);
    CHECK(s[1].known == 40 && s[2].known == 0 && s[2].first == 2);
    for (int i = 0; i < 4; i++)
        CHECK_INT(s[0].tokens[i], sample_tokens[i]);
    CHECK_INT(s[1].tokens[0], sample_tokens[4]);
    for (int i = 0; i < 3; i++)
        CHECK_INT(s[2].tokens[i], sample_tokens[5 + i]);
    frame_free(&f);
    encoded_free(&e);
}

static void results_survive_the_wire(void)
{
    struct encoded e;
    struct data_frame f;
    struct error err = {0};
    REQUIRE(encode_sample_result(&e));
    CHECK_INT(frame_decode_data(e.parts, e.count, &f, &err), 0);
    REQUIRE(!err.code);
    CHECK_INT(f.kind, DATA_RESULT);
    const struct frame_result *r = &f.result;
    CHECK(r->epoch == 2 && r->microbatch == 17 && r->stage == 2 && r->error_code == 0);
    REQUIRE(r->span_count == 2 && r->trace_count == 2);
    CHECK(r->trace[1].stage == 1 && r->trace[1].finished_us == 7);
    CHECK(r->spans[0].sequence == 3 && r->spans[0].position == 4 && r->spans[0].want == 1);
    CHECK(r->spans[0].chosen.token == 8 && r->spans[0].chosen.logprob == -0.5f);
    CHECK(r->spans[0].top_count == 2 && r->spans[0].top[1].token == 9 && !r->spans[0].floats);
    CHECK(r->spans[1].float_count == 6 && r->spans[1].floats[5] == 6.0f);
    frame_free(&f);
    encoded_free(&e);

    struct frame_result bad = {.epoch = 1, .microbatch = 3, .error_code = ERR_MEMORY, .stage = 2,
                               .error_text = "no\nroom"};
    struct buffer header = {0}, floats = {0};
    CHECK_INT(frame_encode_result(&bad, &header, &floats, &err), 0);
    struct frame_part part = {header.data, header.size};
    CHECK_INT(frame_decode_data(&part, 1, &f, &err), 0);
    CHECK_INT(f.result.error_code, ERR_MEMORY);
    CHECK_TEXT(f.result.error_text, "no room"); /* one line, whatever was sent */
    frame_free(&f);
    buffer_free(&header);
    buffer_free(&floats);
}

static void small_frames_survive_the_wire(void)
{
    struct buffer h = {0};
    struct data_frame f;
    struct error err = {0};
    CHECK_INT(frame_encode_attach(7, 2, &h, &err), 0);
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), 0);
    CHECK(f.kind == DATA_ATTACH && f.epoch == 7 && f.role == 2);
    frame_free(&f);
    buffer_clear(&h);
    CHECK_INT(frame_encode_attached(8, 5, &h, &err), 0);
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), 0);
    CHECK(f.kind == DATA_ATTACHED && f.epoch == 8 && f.stage == 5);
    frame_free(&f);
    buffer_clear(&h);
    uint32_t payload[4] = {1, 2, 3, 4};
    CHECK_INT(frame_encode_echo(99, sizeof payload, true, false, FRAME_HOLD_US_MAX, &h, &err), 0);
    struct frame_part parts[2] = {{h.data, h.size}, {payload, sizeof payload}};
    CHECK_INT(frame_decode_data(parts, 2, &f, &err), 0);
    CHECK(f.kind == DATA_ECHO && f.echo_id == 99 && f.echo_bytes == 16 && f.echo_empty && f.echo_hold_us == FRAME_HOLD_US_MAX);
    frame_free(&f);
    CHECK_INT(frame_decode_data(parts, 1, &f, &err), ERR_FORMAT);
    buffer_clear(&h);
    CHECK_INT(frame_encode_echo(99, 0, false, true, FRAME_HOLD_US_MAX + 9, &h, &err), 0);
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), 0);
    CHECK(f.kind == DATA_ECHOED && f.echo_hold_us == FRAME_HOLD_US_MAX + 9); /* as late as it was */
    frame_free(&f);
    buffer_clear(&h);
    CHECK_INT(frame_encode_echo(99, 0, false, false, FRAME_HOLD_US_MAX + 1, &h, &err), 0);
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), ERR_BOUND);
    buffer_free(&h);
}

static void encoders_keep_to_the_bounds(void)
{
    struct frame_work w;
    struct frame_span spans[3];
    struct frame_page_copy copies[1];
    struct frame_trace trace[1];
    uint32_t release[2];
    struct buffer header = {0}, tokens = {0};
    struct error err = {0};
#define REFUSED(code, change)                                                                                         \
    do {                                                                                                              \
        sample_work(&w, spans, copies, trace, release);                                                               \
        change;                                                                                                       \
        CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), (code));                                             \
        CHECK(header.size == 0 && tokens.size == 0);                                                                  \
    } while (0)
    REFUSED(ERR_BOUND, w.span_count = FRAME_SPANS_MAX + 1);
    REFUSED(ERR_BOUND, w.release_count = FRAME_RELEASE_MAX + 1);
    REFUSED(ERR_BOUND, w.copy_count = FRAME_COPIES_MAX + 1);
    REFUSED(ERR_BOUND, w.trace_count = FRAME_STAGES_MAX + 1);
    REFUSED(ERR_FORMAT, spans[0].count = 0);
    REFUSED(ERR_FORMAT, spans[1].known = 41);
    REFUSED(ERR_BOUND, (spans[1].first = UINT32_MAX, spans[1].known = UINT32_MAX));
    REFUSED(ERR_BOUND, spans[0].count = FRAME_TOKENS_MAX + 1);
    REFUSED(ERR_BOUND, spans[0].page_count = FRAME_PAGES_MAX + 1);
    REFUSED(ERR_BOUND, spans[0].page_offset = UINT32_MAX);
    REFUSED(ERR_FORMAT, spans[0].want = 4);
    REFUSED(ERR_FORMAT, spans[2].sequence = 3);
    REFUSED(ERR_FORMAT, w.codec = CODEC_COUNT);
    REFUSED(ERR_FORMAT, w.width = FRAME_WIDTH_MAX + 1);
    REFUSED(ERR_FORMAT, w.codec = CODEC_NONE);
    REFUSED(ERR_INTERNAL, w.activation_bytes--);
#undef REFUSED
    struct frame_sampling s = sample_sampling;
    sample_work(&w, spans, copies, trace, release);
    spans[0].sampling = &s;
    s.top_p = (float)NAN;
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), ERR_FORMAT);
    s = sample_sampling;
    s.bias_count = FRAME_BIAS_MAX + 1;
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), ERR_BOUND);
    buffer_free(&header);
    buffer_free(&tokens);
}

static void raw_parts_must_fit_the_header(void)
{
    struct encoded e;
    struct data_frame f;
    struct error err = {0};
    REQUIRE(encode_sample_work(&e));
    e.parts[1].size -= 4;
    CHECK_INT(frame_decode_data(e.parts, 3, &f, &err), ERR_FORMAT);
    e.parts[1].size += 4;
    e.parts[2].size += 4;
    CHECK_INT(frame_decode_data(e.parts, 3, &f, &err), ERR_FORMAT);
    e.parts[2].size -= 4;
    CHECK_INT(frame_decode_data(e.parts, 2, &f, &err), ERR_FORMAT);
    CHECK_INT(frame_decode_data(e.parts, 0, &f, &err), ERR_FORMAT);
    const void *aligned = e.parts[1].data;
    char shifted[40];
    e.parts[1].data = shifted + (4 - (uintptr_t)shifted % 4) % 4 + 1;
    memset(shifted, 0, sizeof shifted);
    CHECK_INT(frame_decode_data(e.parts, 3, &f, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "aligned"));
    e.parts[1].data = aligned;
    struct frame_part four[4] = {e.parts[0], e.parts[1], e.parts[2], e.parts[2]};
    CHECK_INT(frame_decode_data(four, 4, &f, &err), ERR_FORMAT);
    encoded_free(&e);
}

/* A micro-batch that only fills gaps: a share for each stage, and nothing is wanted of it. */
static void shares_survive_the_wire(void)
{
    struct frame_share shares[3] = {{0, 0, false, false}, {5, 5, true, true}, {5, 8, false, false}};
    struct frame_span span = {.sequence = 3, .count = 4, .pages = sample_pages, .page_count = 1, .hash = 4,
                              .next_token = -1, .tokens = sample_tokens};
    struct frame_work w = {.epoch = 4, .microbatch = 5, .span_count = 1, .spans = &span, .shares = shares,
                           .share_count = 3, .filled = true};
    struct buffer header = {0}, tokens = {0};
    struct data_frame f;
    struct error err = {0};
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), 0);
    struct frame_part parts[2] = {{header.data, header.size}, {tokens.data, tokens.size}};
    REQUIRE(!frame_decode_data(parts, 2, &f, &err));
    CHECK(f.work.share_count == 3 && f.work.filled);
    for (int i = 0; i < 3; i++)
        CHECK(f.work.shares[i].first_block == shares[i].first_block && f.work.shares[i].end_block == shares[i].end_block &&
              f.work.shares[i].kept == shares[i].kept && f.work.shares[i].send == shares[i].send);
    frame_free(&f);
    span.want = 1;
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), ERR_FORMAT);
    span.want = 0;
    shares[1].send = false;
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), ERR_FORMAT);
    shares[1] = (struct frame_share){6, 5, true, true};
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), ERR_FORMAT);
    w.share_count = FRAME_STAGES_MAX + 1;
    CHECK_INT(frame_encode_work(&w, &header, &tokens, &err), ERR_BOUND);
    buffer_free(&header);
    buffer_free(&tokens);
}

static void another_version_is_named(void)
{
    struct encoded e;
    struct data_frame f;
    struct error err = {0};
    REQUIRE(encode_sample_work(&e));
    REQUIRE(e.header.data[0] == 8 && e.header.data[1] == PROTOCOL_VERSION); /* field 1, varint */
    e.header.data[1] = 9;
    CHECK_INT(frame_decode_data(e.parts, 3, &f, &err), ERR_VERSION);
    CHECK(strstr(err.text, "version 9") && strstr(err.text, "version 3"));
    /* Even when nothing else of the frame makes sense to us. */
    static const unsigned char later[] = {8, 4, 0x52, 2, 0xff, 0xff};
    CHECK_INT(frame_decode_data(&(struct frame_part){later, sizeof later}, 1, &f, &err), ERR_VERSION);
    CHECK(strstr(err.text, "version 4"));
    encoded_free(&e);
}

/* Every mutation of the header either still decodes within the bounds or is refused with a line. */
static void mutate_and_decode(const struct encoded *e, unsigned cases)
{
    unsigned refused = 0;
    for (unsigned i = 0; i < cases; i++) {
        struct data_frame f;
        struct error err = {0};
        struct frame_part parts[3] = {e->parts[0], e->parts[1], e->parts[2]};
        size_t which = i % 4 == 3 ? 1 + i / 4 % (e->count - 1) : 0, size;
        unsigned char *bytes = mutate(e->parts[which].data, e->parts[which].size, i * 77 + e->count, &size);
        parts[which] = (struct frame_part){bytes, size};
        if (frame_decode_data(parts, e->count, &f, &err)) {
            refused++;
            CHECK(err.code < 0 && *err.text && !strchr(err.text, '\n'));
        } else {
            CHECK(f.work.span_count <= FRAME_SPANS_MAX && f.result.span_count <= FRAME_SPANS_MAX);
            for (uint32_t s = 0; s < f.work.span_count; s++) /* what it points at can be read */
                for (uint32_t k = 0; k < f.work.spans[s].first - f.work.spans[s].known + f.work.spans[s].count; k++)
                    check_skipped += f.work.spans[s].tokens[k] == INT32_MIN;
            frame_free(&f);
        }
        free(bytes);
    }
    CHECK(refused > cases / 3); /* else the mutations do nothing */
    check_skipped = 0;
}

static void damaged_work_is_refused(void)
{
    struct encoded e;
    REQUIRE(encode_sample_work(&e));
    mutate_and_decode(&e, 2000);
    encoded_free(&e);
}

static void damaged_results_are_refused(void)
{
    struct encoded e;
    REQUIRE(encode_sample_result(&e));
    mutate_and_decode(&e, 2000);
    encoded_free(&e);
}

static void put_varint(struct buffer *b, uint64_t v)
{
    for (; v > 127; v >>= 7)
        buffer_putc(b, (char)(v | 128));
    buffer_putc(b, (char)v);
}

/* A header of 4 MiB whose two-byte fields would each become a large structure. */
static void bombs_stay_within_the_budget(void)
{
    struct { unsigned field; const char *what; } lists[] = {{1, "spans"}, {3, "copies"}, {8, "traces"}};
    for (size_t k = 0; k < 3; k++) {
        struct buffer work = {0}, h = {0};
        while (work.size < FRAME_HEADER_BYTES_MAX - 64) {
            buffer_putc(&work, (char)(lists[k].field << 3 | 2));
            buffer_putc(&work, 0);
        }
        buffer_append(&h, "\x08\x03\x52", 3); /* version 3, body work */
        put_varint(&h, work.size);
        buffer_append(&h, work.data, work.size);
        struct data_frame f;
        struct error err = {0};
        CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), ERR_BOUND);
        buffer_free(&work);
        buffer_free(&h);
    }
    /* A packed list of four million releases, and one whose length claims more than there is. */
    struct buffer packed = {0}, work = {0}, h = {0};
    while (packed.size < FRAME_HEADER_BYTES_MAX - 64)
        buffer_putc(&packed, 1);
    buffer_putc(&work, 2 << 3 | 2);
    put_varint(&work, packed.size);
    buffer_append(&work, packed.data, packed.size);
    buffer_append(&h, "\x08\x03\x52", 3);
    put_varint(&h, work.size);
    buffer_append(&h, work.data, work.size);
    struct data_frame f;
    struct error err = {0};
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), ERR_BOUND);
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size - 1}, 1, &f, &err), ERR_FORMAT);
    buffer_clear(&h);
    for (size_t i = 0; i < FRAME_HEADER_BYTES_MAX + 1; i++)
        buffer_putc(&h, 8);
    CHECK_INT(frame_decode_data(&(struct frame_part){h.data, h.size}, 1, &f, &err), ERR_BOUND);
    buffer_free(&packed);
    buffer_free(&work);
    buffer_free(&h);
}

static void an_arena_has_a_budget(void)
{
    struct wire_arena a;
    wire_arena_start(&a);
    CHECK(wire_arena_take(&a, 1, WIRE_BUDGET / 2) != NULL);
    CHECK(wire_arena_take(&a, 0, 8) != NULL);
    CHECK(wire_arena_take(&a, 1, WIRE_BUDGET / 2 + 1) == NULL);
    CHECK_INT(a.failed, ERR_BOUND);
    CHECK(wire_arena_take(&a, SIZE_MAX / 2, 4) == NULL);
    wire_arena_end(&a);
}

/* The largest frame that the bounds allow: it must pass, quickly enough to be no weapon. */
static void the_largest_frame_passes(void)
{
    static struct frame_span spans[FRAME_SPANS_MAX];
    static struct frame_bias bias[FRAME_BIAS_MAX];
    static uint32_t pages[FRAME_PAGES_MAX / FRAME_SPANS_MAX], release[FRAME_RELEASE_MAX];
    static struct frame_page_copy copies[FRAME_COPIES_MAX];
    static struct frame_trace trace[FRAME_STAGES_MAX];
    static int32_t tokens[FRAME_KNOWN_MAX / FRAME_SPANS_MAX];
    for (uint32_t i = 0; i < FRAME_BIAS_MAX; i++)
        bias[i] = (struct frame_bias){INT32_MIN, -1.0f};
    for (uint32_t i = 0; i < sizeof pages / sizeof *pages; i++)
        pages[i] = UINT32_MAX;
    struct frame_sampling s = sample_sampling;
    s.bias = bias;
    s.bias_count = FRAME_BIAS_MAX;
    for (uint32_t i = 0; i < FRAME_SPANS_MAX; i++)
        spans[i] = (struct frame_span){.sequence = i, .first = 4096 - 64, .count = 64, .page_count = 256,
                                       .pages = pages, .sampling = &s, .tokens = tokens, .next_token = -1};
    struct frame_work w = {.span_count = FRAME_SPANS_MAX, .release_count = FRAME_RELEASE_MAX,
                           .copy_count = FRAME_COPIES_MAX, .trace_count = FRAME_STAGES_MAX, .spans = spans,
                           .release = release, .copies = copies, .trace = trace};
    struct buffer header = {0}, raw = {0};
    struct error err = {0};
    CHECK_INT(frame_encode_work(&w, &header, &raw, &err), 0);
    struct frame_part parts[2] = {{header.data, header.size}, {raw.data, raw.size}};
    struct data_frame f;
    CHECK_INT(frame_decode_data(parts, 2, &f, &err), 0);
    REQUIRE(!err.code);
    CHECK_INT(f.work.tokens, FRAME_TOKENS_MAX);
    CHECK_INT(f.work.token_bytes, FRAME_KNOWN_MAX * 4);
    frame_free(&f);
    buffer_free(&header);
    buffer_free(&raw);
}

static const struct check_test tests[] = {
    {"work survives the wire", work_survives_the_wire},
    {"results survive the wire", results_survive_the_wire},
    {"small frames survive the wire", small_frames_survive_the_wire},
    {"encoders keep to the bounds", encoders_keep_to_the_bounds},
    {"raw parts must fit the header", raw_parts_must_fit_the_header},
    {"shares survive the wire", shares_survive_the_wire},
    {"another version is named", another_version_is_named},
    {"damaged work is refused", damaged_work_is_refused},
    {"damaged results are refused", damaged_results_are_refused},
    {"bombs stay within the budget", bombs_stay_within_the_budget},
    {"an arena has a budget", an_arena_has_a_budget},
    {"the largest frame passes", the_largest_frame_passes},
};

CHECK_MAIN(tests)
