/* libFuzzer: the control message decoder. */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct control_message m;
    struct error err = {0};
    if (!control_decode(bytes, size, &m, &err)) {
        struct buffer again = {0};
        if (control_encode(&m, &again, &err))
            abort(); /* what was accepted can be said again */
        buffer_free(&again);
        control_free(&m);
    } else if (err.code >= 0 || !*err.text) {
        abort();
    }
    return 0;
}
