/* What the parts of a hop cost on this machine, measured one by one. */
#ifndef BRIGADE_COORDINATOR_CLI_HOP_H
#define BRIGADE_COORDINATOR_CLI_HOP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hop_parts {
    size_t bytes;        /* activations of one token in f32 */
    double serialise_us; /* frame and activations put together and taken apart */
    double encrypt_us;   /* as CURVE does: XSalsa20 and Poly1305 with a shared key */
    double decrypt_us;
    double wake_us; /* from an event to a thread that slept for idle_us */
    double idle_us;
};

#define HOP_WAKES 3 /* sleepers woken by a hop: ZeroMQ's thread that sends, the one that receives, the receiver */

/* Takes about 20·idle_us, which is bounded. *out untouched on failure. Starts a thread and ends it. */
int hop_measure(uint32_t width, double idle_us, struct hop_parts *out, struct error *err);

#endif
