/* Frames of `brigade top` at every width: no line is longer than the screen, no cell is cut, columns give way whole. */
#include "tests/check.h"

#include <jansson.h>

#include "coordinator/cli/output.h"
#include "coordinator/cli/top_frame.h"

static const char server_status[] =
    "{\"status\":\"ready\",\"version\":\"0.1.0\",\"model\":\"m.gguf\",\"uptime_seconds\":3700,\"pages\":100,"
    "\"pages_used\":40,\"running\":3,\"queued\":12,\"requests_done\":1204,\"requests_failed\":2,\"microbatches\":2,"
    "\"microbatches_max\":4,\"energy\":{\"machines_measured\":0,\"machines\":2,\"source\":\"no power sensor\"},"
    "\"plan\":{\"predicted\":{\"tokens_per_s\":31.5},\"stages\":["
    "{\"device\":\"kitchen\",\"first_block\":0,\"last_block\":11,\"memory_bytes\":1234567890,\"decode_ms\":12.5},"
    "{\"device\":\"a-name-of-twenty-chs\",\"first_block\":12,\"last_block\":125,\"memory_bytes\":99999999,\"decode_ms\":1}]},"
    "\"stages\":[{\"busy_seconds\":1,\"tokens\":10,\"decode_ms\":13},{\"busy_seconds\":2,\"tokens\":10,\"decode_ms\":1.5}],"
    "\"nodes\":["
    "{\"name\":\"kitchen\",\"state\":\"ready\",\"stage\":0,\"busy_seconds\":5,\"resident_bytes\":1288490189,"
    "\"memory_bytes\":8589934592,\"temperature\":61.5,\"watts\":7.25,\"rtt_ms\":0.31,\"bytes_in\":1000000,"
    "\"bytes_out\":2000000},"
    "{\"name\":\"sixteen-chars-ok\",\"state\":\"lost\",\"detail\":\"no word for 3 s\",\"busy_seconds\":5,"
    "\"resident_bytes\":0,\"memory_bytes\":0,\"rtt_ms\":0}],"
    "\"links\":[{\"from\":\"kitchen\",\"to\":\"sixteen-chars-ok\",\"bytes_per_s\":117000000,\"rtt_ms\":0.3,\"measured\":true},"
    "{\"from\":\"kitchen\",\"to\":\"attic\",\"bytes_per_s\":11700000,\"rtt_ms\":0.4,\"measured\":false}]}";

/* Everything that a frame of enough width has; what of it is missing below `from` columns has given way. */
static const struct { const char *text; int from; } pieces[] = {
    {"stage", 80}, {"device", 80}, {"a-name-of-twenty-chs", 80}, {"12-125", 80}, {"tokens/s", 80}, {"kitchen", 80},
    {"holds", 80}, {"stage 0", 80}, {"busy", 80}, {"lost", 80}, {"sixteen-chars-ok: no word for 3 s", 80},
    {"62 °C", 100}, {"1.2 GiB of 8.0 GiB", 80}, {"7.2 W", 100}, {"0.31 ms", 120}, {"in a second", 160},
    {"out a second", 160}, {"936 Mb/s", 80}, {"cluster.yaml", 80}, {"predicted", 120}, {"31.5", 80},
    {"micro-batches 2 of 4", 80}, {"1204 done, 2 failed", 80}, {"energy    not measured (no power sensor)", 80},
};

static size_t characters(const char *text, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80 && (unsigned char)text[i] >= ' ';
    return n;
}

static void frame(int columns, struct buffer *out)
{
    json_error_t why;
    json_t *now = json_loads(server_status, 0, &why);
    if (!now)
        CHECK_FAIL("%s at %d", why.text, why.column);
    top_frame(now, now, 1, "http://127.0.0.1:8080", columns, out);
    json_decref(now);
}

static void no_width_cuts_a_cell(void)
{
    for (int columns = 60; columns <= 200; columns++) {
        struct buffer out = {0};
        frame(columns, &out);
        for (const char *line = out.data, *end; line && (end = strchr(line, '\n')); line = end + 1)
            if (characters(line, (size_t)(end - line)) > (size_t)columns)
                CHECK_FAIL("%d columns: %.*s", columns, (int)(end - line), line);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
            if (columns >= pieces[i].from && !strstr(out.data, pieces[i].text))
                CHECK_FAIL("%d columns: no \"%s\" in\n%s", columns, pieces[i].text, out.data);
        buffer_free(&out);
    }
}

/* What is left out is a heading and all below it: every line of the table of nodes has the heading's columns. */
static void columns_give_way_whole(void)
{
    struct table *t = table_create(3);
    static const char *const cells[] = {"name", "10 of 20", "last", "a", "1 of 2", "77", "bbbb", "30 of 40", "8"};
    struct buffer out = {0};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        table_cell(t, "%s", cells[i]);
    table_column(t, 1, 10, 1);
    table_column(t, 2, 0, 2);
    table_write(t, 22, &out);
    CHECK_TEXT(out.data, "name    10 of 20  last\na         1 of 2    77\nbbbb    30 of 40     8\n");
    buffer_clear(&out);
    table_write(t, 21, &out);
    CHECK_TEXT(out.data, "name  last\na       77\nbbbb     8\n");
    buffer_clear(&out);
    table_write(t, 9, &out);
    CHECK_TEXT(out.data, "name\na\nbbbb\n");
    buffer_clear(&out);
    table_write(t, 3, &out); /* what never gives way stays */
    CHECK_TEXT(out.data, "name\na\nbbbb\n");
    buffer_free(&out);
    table_destroy(t);
}

static const struct check_test tests[] = {
    {"no width cuts a cell", no_width_cuts_a_cell},
    {"columns give way whole", columns_give_way_whole},
};

CHECK_MAIN(tests)
