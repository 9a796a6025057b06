/* Between a micro-batch and the rows that are kept: its rows lie one after the other in the order of its spans. The thread
 * that owns the stage. */
#ifndef BRIGADE_EXECUTION_BATCH_ROWS_H
#define BRIGADE_EXECUTION_BATCH_ROWS_H

#include "engine/model/sequence.h"
#include "engine/model/stage.h"
#include "execution/kept_rows.h"

/* Keeps the rows that went over a boundary. The spans were applied to the table. k may be NULL: nothing is kept. */
void batch_rows_keep(struct kept_rows *k, const struct sequence_table *t, const struct batch_span *spans,
                     uint32_t span_count, uint32_t boundary, const void *rows);
/* The rows of spans of whole pages, as they once went over a boundary; ERR_ORDER when they are not all kept. k may be
 * NULL. */
int batch_rows_gather(const struct kept_rows *k, const struct sequence_table *t, const struct batch_span *spans,
                      uint32_t span_count, uint32_t boundary, void *rows, struct error *err);

#endif
