/* Prompts in the log, for those who asked for it with --log-prompts; else no text of anybody's is ever logged. */
#ifndef BRIGADE_COORDINATOR_API_PROMPT_LOG_H
#define BRIGADE_COORDINATOR_API_PROMPT_LOG_H

#include <stdint.h>

#include "engine/text/tokenizer.h"

/* One line: the request's number and its prompt as the model sees it, quoted, cut after some hundred bytes. Any thread.
 */
void prompt_log(const struct tokenizer *t, uint64_t request, const int32_t *ids, size_t count);

#endif
