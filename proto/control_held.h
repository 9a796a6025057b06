/* Private to proto/: lists of pages in Load and Loaded. Pure functions; any thread. */
#ifndef BRIGADE_PROTO_CONTROL_HELD_H
#define BRIGADE_PROTO_CONTROL_HELD_H

#include "brigade.pb-c.h"
#include "proto/frame.h"
#include "proto/wire.h"

int held_encode(struct wire_arena *a, const struct control_held *list, uint32_t count, Brigade__HeldPages ***out,
                struct error *err);
/* *out is one allocation, the caller's; NULL for an empty list. */
int held_decode(Brigade__HeldPages *const *list, size_t count, struct control_held **out, struct error *err);

#endif
