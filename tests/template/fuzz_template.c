/* libFuzzer: the input is a template, then optionally a line "---" and a JSON object of variables. */
#include <string.h>

#include "base/memory.h"
#include "engine/template/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char chat[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"},"
        " {\"role\": \"user\", \"content\": \"\\u00e9 <b>\\n\"},"
        " {\"role\": \"assistant\", \"content\": null, \"tool_calls\":"
        " [{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, true, null]}}}]},"
        " {\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"t\"}]}],"
        " \"tools\": [{\"type\": \"function\","
        " \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}],"
        " \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_generation_prompt\": true}";
    static const struct tm now = {.tm_year = 126, .tm_mday = 15, .tm_wday = 4, .tm_yday = 14};
    const struct template_options options = {
        .now = &now, .memory_bytes = 4 << 20, .output_bytes = 1 << 20, .steps = 50000};
    const uint8_t *cut = size ? memmem(data, size, "\n---\n", 5) : NULL;
    size_t n = cut ? (size_t)(cut - data) : size;
    json_t *variables = cut ? json_loadb((const char *)cut + 5, size - n - 5, 0, NULL) : NULL;
    if (!variables)
        variables = json_loadb(chat, sizeof chat - 1, 0, NULL);
    struct template *t = NULL;
    char *text = NULL;
    struct error e = {0};
    if (template_parse((const char *)data, n, &t, &e) == 0)
        template_render(t, variables, &options, &text, NULL, &e);
    mem_free(text);
    template_free(t);
    json_decref(variables);
    return 0;
}
