/* Prompts for run; conversations go through core/chat_prompt. One thread. */
#include "coordinator/cli/prompt.h"

#include "base/log.h"
#include "coordinator/core/chat_prompt.h"

int prompt_encode(const struct tokenizer *t, const char *text, size_t bytes, bool chat, const char *system_text,
                  struct token_list *out, struct error *err)
{
    if (!chat)
        return tokenizer_encode(t, text, bytes, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, out, err);
    struct chat_prompt *prompt = NULL;
    int rc = chat_prompt_open(t, &prompt, err);
    if (rc)
        return rc;
    if (chat_prompt_is_plain(prompt))
        log_warn("the model has no chat template; messages are joined by blank lines");
    json_t *messages = system_text ? json_pack("[{s:s, s:s}, {s:s, s:s%}]", "role", "system", "content", system_text, "role",
                                               "user", "content", text, bytes)
                                   : json_pack("[{s:s, s:s%}]", "role", "user", "content", text, bytes);
    rc = messages ? chat_prompt_encode(prompt, messages, NULL, out, err)
                  : error_set(err, ERR_FORMAT, "the prompt is not valid UTF-8");
    json_decref(messages);
    chat_prompt_close(prompt);
    return rc;
}
