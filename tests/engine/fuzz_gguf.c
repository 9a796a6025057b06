/* libFuzzer target for the GGUF reader: any bytes either open and can be walked whole, or give one line of error. */
#include <stdlib.h>
#include <string.h>

#include "tests/engine/gguf_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g = NULL;
    struct error err = {0};
    void *copy = malloc(size ? size : 1); /* aligned, and of the exact size so that one byte too far is seen */
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    int rc = gguf_open_memory(copy, size, "fuzz.gguf", &g, &err);
    if (rc == 0) {
        volatile uint32_t sum = gguf_walk(g);
        (void)sum;
    } else if (rc != err.code || !*err.text || strchr(err.text, '\n') || g) {
        abort();
    }
    gguf_close(g);
    free(copy);
    return 0;
}
