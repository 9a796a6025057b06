/* The JSON of a chat or text completion, checked field by field: what is asked for is understood, known to be harmless,
 * or refused by name; never silently dropped. Pure; any thread. */
#ifndef BRIGADE_COORDINATOR_API_OPENAI_REQUEST_H
#define BRIGADE_COORDINATOR_API_OPENAI_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/api/api_error.h"
#include "coordinator/core/request.h"

#define API_CHOICES_MAX 128      /* of one request, over all its prompts */
#define API_DEPTH_MAX 64         /* of nested JSON */
#define API_MESSAGES_MAX 4096
#define API_DEFAULT_TEXT_TOKENS 16 /* max_tokens of a text completion, as OpenAI's */

struct api_request {
    bool chat;
    json_t *root;              /* owned; what follows points into it */
    json_t *messages;          /* chat: owned, normalised: {"role", "content" (a text), "name"} */
    const json_t *template_variables; /* chat_template_kwargs, or NULL */
    const json_t *prompt;      /* text: a string or an array of strings, of ids, or of arrays of ids */
    bool stream, include_usage, echo;
    bool logprobs;             /* report them; how many alternatives: asked.sampling.top_logprobs */
    bool chat_logprobs, top_logprobs_given, max_given, max_completion_given, stream_options_given; /* of the parser */
    uint32_t choices;          /* n: for each prompt */
    uint32_t best_of;          /* 0: not given */
    const char *stops[REQUEST_STOPS_MAX];
    struct request_options asked; /* sampling, max_tokens, stop; no prompt, no callbacks */
};

/* Parses a body: strict JSON, an object, no duplicate keys, bounded depth. */
int api_parse_json(const char *body, size_t bytes, json_t **out, struct api_error *e);

/* Fills r (api_request_free, also after a failure). */
int api_parse_request(bool chat, const char *body, size_t bytes, struct api_request *r, struct api_error *e);
void api_request_free(struct api_request *r);

/* openai_messages.c: the conversation with every content as one text and roles that templates know. *out is the
 * caller's. */
int api_parse_messages(const json_t *messages, json_t **out, struct api_error *e);

#endif
