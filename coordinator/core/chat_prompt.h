/* A conversation as the tokens a model was trained to see: its file's chat template, or a plain one. One thread. */
#ifndef BRIGADE_COORDINATOR_CORE_CHAT_PROMPT_H
#define BRIGADE_COORDINATOR_CORE_CHAT_PROMPT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"
#include "engine/text/tokenizer.h"

struct chat_prompt; /* a model's parsed template; immutable: any thread may render */

/* Parses the model's template. A model without one gets the plain form: contents joined by blank lines. */
int chat_prompt_open(const struct tokenizer *t, struct chat_prompt **out, struct error *err);
void chat_prompt_close(struct chat_prompt *p); /* NULL is fine */
bool chat_prompt_is_plain(const struct chat_prompt *p);

/* Appends the tokens of a conversation (a JSON array of {"role", "content"} objects, borrowed) ending where the
 * assistant speaks. `extra` (borrowed, may be NULL): more template variables. ERR_USAGE when the template refuses. */
int chat_prompt_encode(const struct chat_prompt *p, const json_t *messages, const json_t *extra, struct token_list *out,
                       struct error *err);

#endif
