/* Writes seeds for the fuzzers: one file a message. Usage: make_corpus DATA_FOLDER CONTROL_FOLDER (both must exist). */
#include <stdio.h>

#include "tests/proto/samples.h"

static int put(const char *folder, const char *name, const struct buffer *b, const char *tail)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        return 1;
    fwrite(b->data, 1, b->size, f);
    fputs(tail, f);
    return fclose(f);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int rc = 0;
    for (int kind = 0; kind < CONTROL_KINDS; kind++) {
        struct control_message m = sample_control((enum control_kind)kind);
        struct buffer b = {0};
        rc |= control_encode(&m, &b, NULL) || put(argv[2], control_kind_name((enum control_kind)kind), &b, "");
        buffer_free(&b);
    }
    struct frame_work w;
    struct frame_span spans[3];
    struct frame_page_copy copies[1];
    struct frame_trace trace[2];
    uint32_t release[2];
    struct buffer header = {0}, raw = {0};
    sample_work(&w, spans, copies, trace, release);
    rc |= frame_encode_work(&w, &header, &raw, NULL) || put(argv[1], "work", &header, "\x08\x03");
    buffer_clear(&header);
    struct frame_result r;
    struct frame_span_result results[2];
    struct frame_chosen top[2];
    static const float floats[6] = {1, 2, 3, 4, 5, 6};
    sample_result(&r, results, top, trace, floats);
    rc |= frame_encode_result(&r, &header, &raw, NULL) || put(argv[1], "result", &header, "\x06\x01");
    buffer_clear(&header);
    rc |= frame_encode_attach(3, 1, &header, NULL) || put(argv[1], "attach", &header, "\x01\x04");
    buffer_clear(&header);
    rc |= frame_encode_echo(3, 32, true, false, 600, &header, NULL) || put(argv[1], "echo", &header, "\x08\x01");
    buffer_free(&header);
    buffer_free(&raw);
    return rc;
}
