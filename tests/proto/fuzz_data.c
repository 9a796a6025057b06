/* libFuzzer: the data frame decoder. The input is the header, then raw parts cut at lengths taken from its tail. */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Bytes that decide the cut: parts, and the size of the token part in words. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 2)
        return 0;
    size_t parts = 1 + bytes[size - 1] % 4, token_words = bytes[size - 2];
    size -= 2;
    uint32_t *raw = calloc(1, 8192);
    void *header = malloc(size ? size : 1);
    if (!raw || !header)
        abort();
    memcpy(header, bytes, size);
    struct frame_part part[4] = {{header, size}, {raw, token_words * 4}, {raw, 192}, {raw, 1}};
    struct data_frame f;
    struct error err = {0};
    if (!frame_decode_data(part, parts, &f, &err)) {
        volatile int64_t seen = 0;
        (void)seen;
        for (uint32_t s = 0; s < f.work.span_count; s++) {
            const struct frame_span *span = &f.work.spans[s];
            for (uint32_t k = 0; k < span->first - span->known + span->count; k++)
                seen += span->tokens[k];
            for (uint32_t k = 0; k < span->page_count; k++)
                seen += span->pages[k];
            for (uint32_t k = 0; span->sampling && k < span->sampling->bias_count; k++)
                seen += span->sampling->bias[k].token;
        }
        for (uint32_t s = 0; s < f.result.span_count; s++)
            for (uint32_t k = 0; k < f.result.spans[s].float_count; k++)
                seen += f.result.spans[s].floats[k] > 0;
        struct buffer again = {0}, rest = {0};
        if (f.kind == DATA_WORK && frame_encode_work(&f.work, &again, &rest, &err))
            abort(); /* what was accepted can be said again */
        if (f.kind == DATA_RESULT && frame_encode_result(&f.result, &again, &rest, &err))
            abort();
        buffer_free(&again);
        buffer_free(&rest);
        frame_free(&f);
    } else if (err.code >= 0 || !*err.text) {
        abort();
    }
    free(header);
    free(raw);
    return 0;
}
