/* libFuzzer: what peers say on the weights plane, and lists of chunks. The first byte chooses. */
#include <stdlib.h>

#include "proto/weights_frame.h"
#include "weights/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void one_frame(const uint8_t *bytes, size_t size)
{
    struct frame_part parts[2] = {{bytes, size}, {"raw", 3}};
    for (size_t count = 1; count <= 2; count++) {
        struct weights_frame f;
        struct error err = {0};
        if (!weights_frame_decode(parts, count, &f, &err)) {
            struct buffer again = {0};
            if (weights_frame_encode(&f, &again, &err))
                abort(); /* what was accepted can be said again */
            buffer_free(&again);
            weights_frame_free(&f);
        } else if (err.code >= 0 || !*err.text) {
            abort();
        }
    }
}

static void one_list(const uint8_t *bytes, size_t size)
{
    struct manifest *m = NULL;
    struct error err = {0};
    if (manifest_decode(bytes, size, &m, &err)) {
        if (err.code >= 0 || !*err.text)
            abort();
        return;
    }
    uint64_t end = 0;
    for (uint32_t i = 0; i < manifest_chunks(m); i++) {
        struct manifest_chunk c = manifest_chunk_at(m, i);
        end = i == manifest_header_chunks(m) ? 0 : end; /* headers first, then tensors: both rising */
        if (c.offset < end || !c.bytes || c.offset + c.bytes > manifest_file_bytes(m))
            abort();
        end = c.offset + c.bytes;
    }
    manifest_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (!size)
        return 0;
    if (*bytes & 1)
        one_frame(bytes + 1, size - 1);
    else
        one_list(bytes + 1, size - 1);
    return 0;
}
