/* Answering those who ask for chunks. Pure but for the mapped bytes it points at. */
#include "weights/serve.h"

#include <string.h>
#include <sys/stat.h>

void seed_lacking(const struct weights_frame *question, struct weights_frame *reply)
{
    bool want = question->kind == WEIGHTS_WANT;
    *reply = (struct weights_frame){.kind = want ? WEIGHTS_PIECE : WEIGHTS_HAVE,
                                    .fingerprint = question->fingerprint,
                                    .index = question->index,
                                    .manifest = want && question->manifest,
                                    .missing = want};
}

/* A chunk's bytes in the file itself, unless somebody cut that short. */
static const void *whole_bytes(const struct gguf *g, const struct manifest *m, uint32_t chunk)
{
    struct stat st;
    uint64_t bytes;
    for (int f = 0; f < gguf_file_count(g); f++) {
        gguf_file_map(g, f, &bytes);
        if (stat(gguf_file_path(g, f), &st) || (uint64_t)st.st_size != bytes)
            return NULL;
    }
    return manifest_chunk_in(m, g, chunk);
}

void seed_answer(const struct seed *seed, const struct weights_frame *question, struct weights_frame *reply)
{
    const struct manifest *m = seed->crate ? crate_manifest(seed->crate) : seed->layout;
    seed_lacking(question, reply);
    if (question->kind == WEIGHTS_ASK) {
        reply->whole = seed->crate == NULL;
        if (seed->crate)
            reply->chunks = crate_bits(seed->crate, &reply->chunk_bytes);
        reply->has_hash = manifest_hash(m) != NULL;
        if (reply->has_hash)
            memcpy(reply->manifest_hash, manifest_hash(m), WEIGHTS_HASH_BYTES);
        return;
    }
    if (question->manifest) {
        if (manifest_hash(m))
            reply->raw = manifest_bytes(m, &reply->raw_bytes);
    } else if (question->index < manifest_chunks(m)) {
        uint32_t chunk = (uint32_t)question->index;
        reply->raw = seed->crate ? crate_bytes(seed->crate, chunk) : whole_bytes(seed->whole, m, chunk);
        reply->raw_bytes = reply->raw ? manifest_chunk_at(m, chunk).bytes : 0;
    }
    reply->missing = !reply->raw;
}
