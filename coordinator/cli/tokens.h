/* What the commands about text share: reading prompts and files, opening the tokenizer of a model, printing ids. */
#ifndef BRIGADE_COORDINATOR_CLI_TOKENS_H
#define BRIGADE_COORDINATOR_CLI_TOKENS_H

#include <jansson.h>

#include "base/buffer.h"
#include "base/error.h"
#include "coordinator/cli/options.h"
#include "engine/text/tokenizer.h"

#define TOKENS_FILE_BYTES_MAX ((size_t)256 << 20)

/* The prompt of -p or -f ("-" is standard input), exactly one of which must be given: ERR_USAGE otherwise. */
int tokens_read_text(const char *text, const char *file, struct buffer *out, struct error *err);
/* Opens only the vocabulary of a model file. */
int tokens_open(const char *model, struct tokenizer **out, struct error *err);
/* A JSON array of ids; NULL when out of memory. */
json_t *tokens_json(const int32_t *ids, size_t count);
/* Copies an option list into ids, checking them against the vocabulary. *out: mem_free. */
int tokens_from_list(const struct option_list *list, size_t vocabulary, int32_t **out, struct error *err);

#endif
