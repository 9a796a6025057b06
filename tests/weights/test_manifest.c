/* The list of chunks: what it covers, what it proves, and what it refuses of others. */
#include "tests/weights/place.h"

#include "base/hash.h"
#include "tests/engine/gguf_builder.h"
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
        struct gguf_tensor shorter = *t, later = *t, elsewhere = *t;
        REQUIRE(!manifest_find(p.list, t, &first, &count));
        CHECK_INT(count, (t->bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES);
        CHECK_INT(manifest_chunk_at(p.list, first).offset, t->offset);
        shorter.bytes--;
        later.offset++;
        elsewhere.file = 1;
        CHECK_INT(manifest_find(p.list, &shorter, &first, &count), ERR_NOTFOUND);
        CHECK_INT(manifest_find(p.list, &later, &first, &count), ERR_NOTFOUND);
        CHECK_INT(manifest_find(p.list, &elsewhere, &first, &count), ERR_NOTFOUND);
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

/* A list with any bytes changed is refused, or is another one that is safe to walk. */
static void check_others(const void *bytes, size_t size, const struct manifest *list)
{
    unsigned refused = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        size_t n;
        unsigned char *bad = mutate(bytes, size, seed, &n);
        struct manifest *m = NULL;
        struct error err = {0};
        int rc = manifest_decode(bad, n, &m, &err);
        if (rc) {
            refused++;
            CHECK(*err.text && err.code == rc && !m);
        } else {
            uint64_t end = 0;
            for (uint32_t i = 0; i < manifest_chunks(m); i++) {
                struct manifest_chunk c = manifest_chunk_at(m, i);
                end = i == manifest_header_chunks(m) ? 0 : end; /* headers first, then tensors: both rising */
                if (c.offset < end || !c.bytes || c.offset + c.bytes > manifest_file_bytes(m))
                    CHECK_FAIL("seed %llu: chunk %u lies badly", (unsigned long long)seed, i);
                end = c.offset + c.bytes;
            }
            CHECK(n == size);
            if (memcmp(bad, bytes, size))
                CHECK(memcmp(manifest_hash(m), manifest_hash(list), MANIFEST_HASH_BYTES));
            manifest_free(m);
        }
        free(bad);
    }
    CHECK(refused > 5000);
}

static void lists_of_others_are_checked(void)
{
    struct place p;
    struct error err;
    place_open(&p, 64);
    size_t size;
    const void *bytes = manifest_bytes(p.list, &size);
    struct manifest *same = NULL;
    REQUIRE(!manifest_decode(bytes, size, &same, NULL));
    CHECK(!memcmp(manifest_hash(same), manifest_hash(p.list), MANIFEST_HASH_BYTES));
    CHECK_INT(manifest_fingerprint(same), model_info(p.model)->fingerprint);
    manifest_free(same);
    check_others(bytes, size, p.list);
    CHECK_INT(manifest_decode("", 0, &same, &err), ERR_FORMAT);
    place_close(&p);
}

/* Three files, two tensors in each (one larger than a chunk), as a set; its members' paths. */
static void write_set(const struct place *p, char path[3][128])
{
    static char bytes[MANIFEST_CHUNK_BYTES + 700];
    for (size_t k = 0; k < sizeof bytes; k++)
        bytes[k] = (char)hash_mix64(k);
    for (unsigned i = 0; i < 3; i++) {
        struct gguf_builder b = {0};
        uint16_t no = (uint16_t)i, of = 3;
        char name[2][16];
        gguf_build_scalar(&b, "split.no", GGUF_U16, &no);
        gguf_build_scalar(&b, "split.count", GGUF_U16, &of);
        for (int k = 0; k < 2; k++) {
            uint64_t size = k ? sizeof bytes : 100 + i;
            snprintf(name[k], sizeof name[k], "t%u.%d", i, k);
            gguf_build_tensor(&b, name[k], TYPE_I8, 1, &size, bytes + (k ? 0 : i));
        }
        snprintf(path[i], 128, "%s/set-%05u-of-00003.gguf", p->folder, i + 1);
        gguf_build_write(&b, path[i]);
    }
}

static int stop_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)context;
    return 1;
}

/* A split set is listed as one: chunks of a copy in which its files lie behind each other open as the set. */
static void split_sets_are_listed_as_one(void)
{
    struct place p;
    struct gguf *g = NULL, *joined = NULL;
    struct manifest *m = NULL, *same = NULL, *again = NULL;
    struct error err = {0};
    char path[3][128], one[128];
    uint32_t files, first, count;
    size_t size;
    place_open(&p, 64);
    write_set(&p, path);
    REQUIRE(!gguf_open(path[1], &g, &err));
    REQUIRE(!manifest_make(g, 7, NULL, NULL, &m, &err));
    const void *bytes = manifest_bytes(m, &size);
    REQUIRE(!manifest_decode(bytes, size, &same, &err));
    const struct gguf_part *part = manifest_parts(same, &files);
    REQUIRE(files == 3);
    CHECK_INT(manifest_header_chunks(same), 3); /* short ones */
    CHECK_INT(manifest_chunks(same), 3 + 3 * 3);
    CHECK(manifest_same_layout(m, same) && !manifest_same_layout(m, p.list));
    snprintf(one, sizeof one, "%s/joined", p.folder);
    int fd = open(one, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0 && !ftruncate(fd, (off_t)manifest_file_bytes(same)));
    for (uint32_t i = 0; i < manifest_chunks(same); i++) {
        struct manifest_chunk c = manifest_chunk_at(same, i);
        const void *at = manifest_chunk_in(same, g, i);
        REQUIRE(at && manifest_proves(same, i, at, c.bytes));
        CHECK(!manifest_chunk_in(same, model_gguf(p.model), i)); /* of other files */
        REQUIRE(pwrite(fd, at, c.bytes, (off_t)c.offset) == (ssize_t)c.bytes);
    }
    close(fd);
    REQUIRE(!gguf_open_joined(one, part, files, &joined, &err));
    CHECK_INT(gguf_tensor_count(joined), 6);
    for (size_t i = 0; i < 6; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i), *u = gguf_tensor_find(joined, t->name);
        REQUIRE(u && u->bytes == t->bytes && !memcmp(u->data, t->data, t->bytes));
        REQUIRE(!manifest_find(same, u, &first, &count));
        CHECK_INT(count, (t->bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES);
        CHECK_INT(manifest_chunk_at(same, first).offset, part[u->file].offset + u->offset);
    }
    gguf_close(joined);
    check_others(bytes, size, m);
    /* One file fewer is not the set; one that was cut is told. */
    CHECK_INT(gguf_open_joined(one, part, 2, &joined, &err), ERR_FORMAT);
    CHECK_INT(gguf_open_joined(one, part, 1, &joined, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "file 1 of a split set of 1 but says it is 1 of 3"));
    REQUIRE(!truncate(one, (off_t)manifest_file_bytes(same) - 1));
    CHECK_INT(gguf_open_joined(one, part, 3, &joined, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "was cut short"));
    manifest_free(m);
    /* Kept beside the first file, whichever was named; anew when any of them changed. */
    int asked = 0;
    REQUIRE(!manifest_recall(g, 7, NULL, NULL, &again, &err));
    CHECK(!memcmp(manifest_hash(again), manifest_hash(same), MANIFEST_HASH_BYTES));
    manifest_free(again);
    snprintf(one, sizeof one, "%.100s.hashes", path[0]);
    CHECK(!access(one, F_OK));
    REQUIRE(!manifest_recall(g, 7, stop_at_once, &asked, &again, &err));
    manifest_free(again);
    struct timespec times[2] = {{1, 0}, {1, 0}};
    REQUIRE(!utimensat(AT_FDCWD, path[2], times, 0));
    CHECK_INT(manifest_recall(g, 7, stop_at_once, &asked, &again, &err), ERR_CANCELLED);
    manifest_free(same);
    gguf_close(g);
    place_close(&p);
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
    {"split sets are listed as one", split_sets_are_listed_as_one},
    {"lists are kept beside the file", lists_are_kept_beside_the_file},
    {"failing allocations are told", failing_allocations_are_told},
};

CHECK_MAIN(tests)
