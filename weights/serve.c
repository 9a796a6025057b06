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

/* The bytes of a whole file: a tensor's, or the header's, which lies before the first of them. */
static const void *whole_bytes(const struct gguf *g, struct manifest_chunk c)
{
    struct stat st;
    if (!gguf_tensor_count(g) || stat(gguf_path(g), &st) || (uint64_t)st.st_size != gguf_file_bytes(g))
        return NULL;
    const struct gguf_tensor *t = gguf_tensor_at(g, 0);
    return (const char *)t->data - t->offset + c.offset;
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
        struct manifest_chunk c = manifest_chunk_at(m, (uint32_t)question->index);
        reply->raw = seed->crate ? crate_bytes(seed->crate, (uint32_t)question->index) : whole_bytes(seed->whole, c);
        reply->raw_bytes = reply->raw ? c.bytes : 0;
    }
    reply->missing = !reply->raw;
}
