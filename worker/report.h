/* What only the board itself can know, for `brigade doctor`. */
#ifndef BRIGADE_WORKER_REPORT_H
#define BRIGADE_WORKER_REPORT_H

#include "worker/worker.h"

/* Reads the board's sensors, memory and the interface on the way to `address` (of who asks; may be empty). Some
 * milliseconds of small files; control thread. */
void worker_report(const struct worker *w, const char *address, struct control_report *out);

#endif
