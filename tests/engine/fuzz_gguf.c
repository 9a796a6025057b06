/* libFuzzer target for the GGUF reader: any bytes either open and can be walked whole, or give one line of error.
 * An input that starts with 'M' is no file but a list of edits (u16 offset, u8 length, 8 bytes) to a valid file, so
 * that the fuzzer gets deep without a corpus. */
#include <stdlib.h>
#include <string.h>

#include "tests/engine/gguf_builder.h"
#include "tests/engine/gguf_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void attempt(const void *bytes, size_t size)
{
    struct gguf *g = NULL;
    struct error err = {0};
    int rc = gguf_open_memory(bytes, size, "fuzz.gguf", &g, &err);
    if (rc == 0) {
        volatile uint32_t sum = gguf_walk(g);
        (void)sum;
    } else if (rc != err.code || !*err.text || strchr(err.text, '\n') || g) {
        abort();
    }
    gguf_close(g);
}

static void edit(unsigned char *bytes, size_t size, const uint8_t *edits, size_t n)
{
    for (; n >= 11; edits += 11, n -= 11) {
        size_t at = edits[0] | (size_t)edits[1] << 8, length = edits[2] % 8 + 1;
        if (at + length <= size)
            memcpy(bytes + at, edits + 3, length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char *sample;
    static size_t sample_size;
    bool edits = size && *data == 'M';
    if (!sample) {
        struct gguf_builder b = {0};
        gguf_build_sample(&b);
        sample = gguf_build_finish(&b, &sample_size);
    }
    /* A copy of the exact size: aligned, and one byte too far is seen. */
    size_t n = edits ? sample_size : size;
    unsigned char *copy = malloc(n ? n : 1);
    if (!copy)
        return 0;
    if (n)
        memcpy(copy, edits ? sample : data, n);
    if (edits)
        edit(copy, n, data + 1, size - 1);
    attempt(copy, n);
    free(copy);
    return 0;
}
