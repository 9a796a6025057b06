/* libFuzzer: the decoders of what comes over control sockets: control messages, and of boards that nobody knows yet the
 * messages of joining; and the token that a person pastes. */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "proto/join.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void expect_told(const struct error *err)
{
    if (err->code >= 0 || !*err->text)
        abort();
}

static void fuzz_join(const uint8_t *bytes, size_t size)
{
    struct join_message m, twin;
    struct error err = {0};
    if (join_decode(bytes, size, &m, &err)) {
        expect_told(&err);
        return;
    }
    struct buffer again = {0};
    if (join_encode(&m, &again, &err) || join_decode(again.data, again.size, &twin, &err) || twin.kind != m.kind ||
        twin.code != m.code || strcmp(twin.name, m.name) || strcmp(twin.endpoint, m.endpoint) || strcmp(twin.text, m.text))
        abort(); /* what was accepted can be said again, and means the same */
    buffer_free(&again);
}

static void fuzz_token(const uint8_t *bytes, size_t size)
{
    char text[512];
    struct join_token *token = NULL;
    struct error err = {0};
    if (size >= sizeof text)
        return;
    memcpy(text, bytes, size);
    text[size] = 0;
    if (join_token_read(text, &token, &err))
        expect_told(&err);
    join_token_free(token);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct control_message m;
    struct error err = {0};
    fuzz_join(bytes, size);
    fuzz_token(bytes, size);
    if (!control_decode(bytes, size, &m, &err)) {
        struct buffer again = {0};
        if (control_encode(&m, &again, &err))
            abort(); /* what was accepted can be said again */
        buffer_free(&again);
        control_free(&m);
    } else {
        expect_told(&err);
    }
    return 0;
}
