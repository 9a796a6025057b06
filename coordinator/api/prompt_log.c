/* A prompt's line. Owns nothing. */
#include "coordinator/api/prompt_log.h"

#include "base/log.h"
#include "coordinator/api/json_text.h"

#define PROMPT_TOKENS 150 /* a line of the log holds no more */

void prompt_log(const struct tokenizer *t, uint64_t request, const int32_t *ids, size_t count)
{
    struct buffer text = {0}, quoted = {0};
    size_t shown = count < PROMPT_TOKENS ? count : PROMPT_TOKENS;
    if (!tokenizer_decode(t, ids, shown, DETOKENIZER_START, &text, NULL))
        json_put_text(&quoted, text.data ? text.data : "", text.size);
    if (quoted.size)
        log_warn("request %llu asks: %s%s", (unsigned long long)request, quoted.data, shown < count ? " ..." : "");
    buffer_free(&text);
    buffer_free(&quoted);
}
