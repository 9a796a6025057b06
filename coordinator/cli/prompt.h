/* A prompt's tokens: plain text as it is, or a conversation through the model's chat template. One thread. */
#ifndef BRIGADE_COORDINATOR_CLI_PROMPT_H
#define BRIGADE_COORDINATOR_CLI_PROMPT_H

#include "base/error.h"
#include "engine/text/tokenizer.h"

/* Appends the tokens of `text`; with chat, of a user message (after a system message, if any) as the template renders
 * it, the template's special tokens parsed. A model without a template gets the contents joined by blank lines. */
int prompt_encode(const struct tokenizer *t, const char *text, size_t bytes, bool chat, const char *system_text,
                  struct token_list *out, struct error *err);

#endif
