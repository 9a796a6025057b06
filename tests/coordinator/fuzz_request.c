/* libFuzzer: bodies of chat and text completions, and workload files by the way. A refusal is a 4xx with a message; what
 * is accepted keeps its bounds and makes a request that is refused, too, or good. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/api/json_text.h"
#include "coordinator/api/openai_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

/* What a client would read is JSON whatever the message quotes. */
static void check_error(const struct api_error *e)
{
    struct buffer b = {0};
    must(e->status >= 400 && e->status < 500 && *e->message);
    api_error_put(&b, e);
    json_t *root = json_loadb(b.data, b.size, 0, NULL);
    must(json_is_string(json_object_get(json_object_get(root, "error"), "message")));
    json_decref(root);
    buffer_free(&b);
}

static void check_request(const struct api_request *r)
{
    static const int32_t prompt[] = {1, 2, 3};
    struct request_options o = r->asked;
    struct request *made = NULL;
    struct error err = {0};
    must(r->choices >= 1 && r->choices <= API_CHOICES_MAX && o.stop_count <= REQUEST_STOPS_MAX);
    must(r->chat ? json_array_size(r->messages) > 0 : r->prompt != NULL);
    must(o.max_tokens || r->echo);
    o.prompt = prompt;
    o.prompt_count = 3;
    if (!request_create(&o, 1, NULL, 1000, 100, 0, &made, &err))
        request_destroy(made);
    else
        must(err.code < 0 && *err.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    for (int chat = 0; chat < 2; chat++) {
        struct api_request r;
        struct api_error e = {0};
        if (api_parse_request(chat, (const char *)bytes, size, &r, &e))
            check_error(&e);
        else
            check_request(&r);
        api_request_free(&r);
    }
    return 0;
}
