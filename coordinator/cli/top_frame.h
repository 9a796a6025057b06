/* One frame of `brigade top` as lines of text, from what a server's /status (or a look at the cluster) says now and
 * said before. Pure; one thread. */
#ifndef BRIGADE_COORDINATOR_CLI_TOP_FRAME_H
#define BRIGADE_COORDINATOR_CLI_TOP_FRAME_H

#include <jansson.h>

#include "base/buffer.h"

/* The first byte of a line may say how it is drawn. */
#define TOP_TITLE '\1'
#define TOP_HEADING '\2'
#define TOP_ALARM '\3'

/* Appends lines of at most `columns` characters, each ended by '\n'. `before` may be NULL; `seconds` lie between the
 * two. `source` says where it comes from. */
void top_frame(const json_t *now, const json_t *before, double seconds, const char *source, int columns,
               struct buffer *out);

#endif
