/* Answering those who ask for chunks: from a whole model file or from what the store holds of one. Reads only; the owner
 * sends. One owner thread a seed. */
#ifndef BRIGADE_WEIGHTS_SERVE_H
#define BRIGADE_WEIGHTS_SERVE_H

#include "proto/weights_frame.h"
#include "weights/store.h"

/* Something to serve from: exactly one of whole and crate. Its parts are borrowed. */
struct seed {
    const struct gguf *whole;
    const struct manifest *layout; /* of whole; with hashes once they are known */
    const struct crate *crate;
};

/* The answer to an Ask or a Want about the seed's model: fills *reply (nothing to free; its pointers are the seed's).
 * A chunk of a file that was cut short is missing. */
void seed_answer(const struct seed *seed, const struct weights_frame *question, struct weights_frame *reply);
/* The same when there is no seed for that model. */
void seed_lacking(const struct weights_frame *question, struct weights_frame *reply);

#endif
