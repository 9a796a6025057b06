/* The list of chunks: what it covers, what it proves, and what it refuses of others. */
#include "tests/weights/place.h"

#include "base/hash.h"
#include "tests/proto/mutate.h"

static void every_byte_of_a_tensor_is_in_one_chunk(void)
{
    struct place p;
    place_open(&p, 512); /* the feed-forward's matrices are longer than a chunk */
    uint32_t chunks = manifest_chunks(p.list), longest = 0;
    unsigned char *covered = calloc(1, p.size);
    REQUIRE(covered);
    for (uint32_t i = 0; i < chunks; i++) {
        struct manifest_chunk c = manifest_chunk_at(p.list, i);
        REQUIRE(c.bytes && c.bytes <= MANIFEST_CHUNK_BYTES && c.offset + c.bytes <= p.size);
        longest = c.bytes > longest ? c.bytes : longest;
        for (uint32_t k = 0; k < c.bytes; k++)
            covered[c.offset + k]++;
        CHECK(manifest_proves(p.list, i, (char *)p.bytes + c.offset, c.bytes));
    }
    CHECK_INT(longest, MANIFEST_CHUNK_BYTES);
    uint64_t header = p.size, sum = 0;
    const struct gguf *g = model_gguf(p.model);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint32_t first, count;
        REQUIRE(!manifest_find(p.list, t->offset, t->bytes, &first, &count));
        CHECK_INT(count, (t->bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES);
        CHECK_INT(manifest_chunk_at(p.list, first).offset, t->offset);
        CHECK_INT(manifest_find(p.list, t->offset, t->bytes - 1, &first, &count), ERR_NOTFOUND);
        CHECK_INT(manifest_find(p.list, t->offset + 1, t->bytes, &first, &count), ERR_NOTFOUND);
        for (uint64_t k = 0; k < t->bytes; k++)
            sum += covered[t->offset + k] != 1;
        header = t->offset < header ? t->offset : header;
    }
    for (uint64_t k = 0; k < header; k++)
        sum += covered[k] != 1;
    CHECK_INT(sum, 0);
    CHECK_INT(manifest_header_chunks(p.list), (header + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES);
    free(covered);
    place_close(&p);
}

static void a_changed_bit_is_seen(void)
{
    struct place p;
    place_open(&p, 64);
    for (uint32_t i = 0; i < manifest_chunks(p.list); i++) {
        size_t size;
        const char *at = place_chunk(&p, i, &size);
        char *copy = malloc(size);
        REQUIRE(copy);
        memcpy(copy, at, size);
        copy[hash_mix64(i) % size] ^= (char)(1 << i % 8);
        CHECK(!manifest_proves(p.list, i, copy, size));
        CHECK(!manifest_proves(p.list, i, at, size - 1));
        CHECK(!manifest_proves(p.list, (i + 1) % manifest_chunks(p.list), at, size) || manifest_chunks(p.list) == 1);
        free(copy);
    }
    CHECK(!manifest_proves(p.list, manifest_chunks(p.list), "", 0));
    struct manifest *layout = NULL;
    REQUIRE(!manifest_layout(model_gguf(p.model), 1, &layout, NULL));
    CHECK(!manifest_hash(layout));
    CHECK_INT(manifest_chunks(layout), manifest_chunks(p.list));
    size_t size;
    const char *at = place_chunk(&p, 0, &size);
    CHECK(!manifest_proves(layout, 0, at, size)); /* it has no hashes, so it proves nothing */
    manifest_free(layout);
    place_close(&p);
}

static void lists_of_others_are_checked(void)
{
    struct place p;
    struct error err;
    place_open(&p, 64);
    size_t size, n;
    const void *bytes = manifest_bytes(p.list, &size);
    struct manifest *same = NULL;
    REQUIRE(!manifest_decode(bytes, size, &same, NULL));
    CHECK(!memcmp(manifest_hash(same), manifest_hash(p.list), MANIFEST_HASH_BYTES));
    CHECK_INT(manifest_fingerprint(same), model_info(p.model)->fingerprint);
    manifest_free(same);
    unsigned refused = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        unsigned char *bad = mutate(bytes, size, seed, &n);
        struct manifest *m = NULL;
        err = (struct error){0};
        int rc = manifest_decode(bad, n, &m, &err);
        if (rc) {
            refused++;
            CHECK(*err.text && err.code == rc && !m);
        } else { /* whatever was accepted is safe to walk, and is another list unless nothing changed */
            uint64_t end = 0;
            for (uint32_t i = 0; i < manifest_chunks(m); i++) {
                struct manifest_chunk c = manifest_chunk_at(m, i);
                if (c.offset < end || !c.bytes || c.offset + c.bytes > manifest_file_bytes(m))
                    CHECK_FAIL("seed %llu: chunk %u lies badly", (unsigned long long)seed, i);
                end = c.offset + c.bytes;
            }
            CHECK(n == size);
            if (memcmp(bad, bytes, size))
                CHECK(memcmp(manifest_hash(m), manifest_hash(p.list), MANIFEST_HASH_BYTES));
            manifest_free(m);
        }
        free(bad);
    }
    CHECK(refused > 5000);
    CHECK_INT(manifest_decode("", 0, &same, &err), ERR_FORMAT);
    place_close(&p);
}

static int stop_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)context;
    return 1;
}

static void lists_are_kept_beside_the_file(void)
{
    struct place p;
    struct manifest *m = NULL;
    struct error err = {0};
    int asked = 0;
    char kept[128];
    place_open(&p, 64);
    uint64_t fingerprint = model_info(p.model)->fingerprint;
    snprintf(kept, sizeof kept, "%s.hashes", p.path);
    CHECK_INT(manifest_recall(model_gguf(p.model), fingerprint, stop_at_once, &asked, &m, &err), ERR_CANCELLED);
    CHECK_INT(asked, 1);
    CHECK(access(kept, F_OK));
    REQUIRE(!manifest_recall(model_gguf(p.model), fingerprint, NULL, NULL, &m, &err));
    manifest_free(m);
    CHECK(!access(kept, F_OK));
    REQUIRE(!manifest_recall(model_gguf(p.model), fingerprint, stop_at_once, &asked, &m, &err)); /* nothing is hashed */
    CHECK_INT(asked, 1);
    CHECK(!memcmp(manifest_hash(m), manifest_hash(p.list), MANIFEST_HASH_BYTES));
    manifest_free(m);
    /* Damaged, it is made anew; so it is after the file changed. */
    int fd = open(kept, O_RDWR);
    REQUIRE(fd >= 0 && pwrite(fd, "?", 1, 300) == 1);
    close(fd);
    CHECK_INT(manifest_recall(model_gguf(p.model), fingerprint, stop_at_once, &asked, &m, &err), ERR_CANCELLED);
    REQUIRE(!manifest_recall(model_gguf(p.model), fingerprint, NULL, NULL, &m, &err));
    manifest_free(m);
    struct timespec times[2] = {{1, 0}, {1, 0}};
    REQUIRE(!utimensat(AT_FDCWD, p.path, times, 0));
    CHECK_INT(manifest_recall(model_gguf(p.model), fingerprint, stop_at_once, &asked, &m, &err), ERR_CANCELLED);
    place_close(&p);
}

static void failing_allocations_are_told(void)
{
    struct place p;
    place_open(&p, 64);
    size_t size;
    const void *bytes = manifest_bytes(p.list, &size);
    int failed = 0;
    for (long k = 1; k < 40; k++) {
        struct manifest *m = NULL;
        struct error err = {0};
        mem_fail_at(k);
        int rc = manifest_make(model_gguf(p.model), 1, NULL, NULL, &m, &err);
        if (!rc) {
            manifest_free(m);
            m = NULL;
            rc = manifest_decode(bytes, size, &m, &err);
        }
        mem_fail_at(0);
        CHECK(!rc || (rc == ERR_NOMEM && *err.text));
        failed += rc != 0;
        if (!rc) {
            manifest_free(m);
            break;
        }
    }
    CHECK(failed >= 5);
    place_close(&p);
}

static const struct check_test tests[] = {
    {"every byte of a tensor is in one chunk", every_byte_of_a_tensor_is_in_one_chunk},
    {"a changed bit is seen", a_changed_bit_is_seen},
    {"lists of others are checked", lists_of_others_are_checked},
    {"lists are kept beside the file", lists_are_kept_beside_the_file},
    {"failing allocations are told", failing_allocations_are_told},
};

CHECK_MAIN(tests)
