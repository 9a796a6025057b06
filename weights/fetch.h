/* Which chunk is asked of whom next: a pure state machine over one model's chunks and the nodes that have some of them.
 *
 *     needed → asked (of one source) → here
 *         ↖ damaged, missing, or the source fell silent
 *
 * Every source has a window of open questions; whoever has room and the chunk is asked for the first needed one, so a
 * fast source is asked more often. A source that sends three damaged chunks is not asked again. It owns no socket,
 * clock or file. One owner thread. */
#ifndef BRIGADE_WEIGHTS_FETCH_H
#define BRIGADE_WEIGHTS_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define FETCH_SOURCES_MAX 64u
#define FETCH_WINDOW 4u              /* questions open at one source */
#define FETCH_SILENCE_MS 10000       /* no answer for so long: its questions go to others */
#define FETCH_DAMAGED_MAX 3u

struct fetch;

int fetch_create(uint32_t chunks, struct fetch **out, struct error *err);
void fetch_destroy(struct fetch *f); /* NULL is fine */

/* Appends a chunk to those needed, unless it is needed or here already. */
void fetch_need(struct fetch *f, uint32_t chunk);
/* The chunk is here, from wherever. */
void fetch_here(struct fetch *f, uint32_t chunk);
bool fetch_is_here(const struct fetch *f, uint32_t chunk);
uint32_t fetch_left(const struct fetch *f); /* needed and not here */

/* A source that nothing is known to be at; its number, or -1 when there are too many. */
int fetch_source(struct fetch *f);
/* What it has: all, or bits (one a chunk, copied; too few count as missing). ERR_NOMEM. */
int fetch_source_has(struct fetch *f, int source, bool whole, const uint8_t *bits, size_t bytes);
/* It is gone: what it was asked is needed again. */
void fetch_source_lost(struct fetch *f, int source);

/* The next question: true, and chunk and source are set and counted as asked. */
bool fetch_next(struct fetch *f, int64_t now_ms, int *source, uint32_t *chunk);
/* The question could not be sent: it counts as never asked; nothing more for that source until `now` has moved. */
void fetch_unsent(struct fetch *f, int source, uint32_t chunk, int64_t now_ms);

enum fetch_answer { FETCH_GOOD, FETCH_DAMAGED, FETCH_MISSING };
/* An answer; FETCH_GOOD when the chunk was written. Unasked ones are counted as here if good, else ignored. True when the
 * source has just been given up, for damage. */
bool fetch_answered(struct fetch *f, int source, uint32_t chunk, enum fetch_answer answer, int64_t now_ms);
/* Time has passed: silent sources' questions are needed again. */
void fetch_tick(struct fetch *f, int64_t now_ms);
/* Whether some needed chunk is asked for, or could be: false means that nobody known has what is left. */
bool fetch_hopeful(const struct fetch *f);

#endif
