/* JSON written straight into a buffer, for what is written once a token. Pure; one thread a buffer. Errors stick to the
 * buffer. */
#ifndef BRIGADE_COORDINATOR_API_JSON_TEXT_H
#define BRIGADE_COORDINATOR_API_JSON_TEXT_H

#include "base/buffer.h"

/* A quoted string; bytes that are not UTF-8 become U+FFFD. */
void json_put_text(struct buffer *b, const char *text, size_t bytes);
/* A log-probability: a finite number, -9999 for what cannot be. */
void json_put_logprob(struct buffer *b, float value);

#endif
