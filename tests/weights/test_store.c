/* The cache folder: sparse files, bits, damage, turns, limits, and the k-th failure. */
#include "tests/weights/place.h"

#include <signal.h>
#include <sys/resource.h>

static uint32_t fill(struct crate *h, const struct place *p, uint32_t first, uint32_t end)
{
    uint32_t written = 0;
    for (uint32_t i = first; i < end; i++) {
        size_t size;
        const char *bytes = place_chunk(p, i, &size);
        written += crate_write(h, i, bytes, size, NULL) == 0;
    }
    return written;
}

static void what_is_written_opens_as_the_model(void)
{
    struct place p;
    struct store *s = NULL;
    struct crate *h = NULL;
    struct error err = {0};
    place_open(&p, 64);
    REQUIRE(!store_open(p.folder, 0, &s, &err));
    REQUIRE(!store_crate(s, p.list, &h, &err));
    uint32_t header = manifest_header_chunks(p.list), chunks = manifest_chunks(p.list);
    struct model *m = NULL;
    CHECK(model_open(crate_path(h), &m, &err)); /* nothing but holes */
    CHECK_INT(fill(h, &p, 0, header), header);
    REQUIRE(!model_open(crate_path(h), &m, &err)); /* the header alone is a model with weights of zero */
    CHECK_INT(model_info(m)->fingerprint, model_info(p.model)->fingerprint);
    const struct gguf_tensor *t = gguf_tensor_at(model_gguf(m), 0), *whole = gguf_tensor_at(model_gguf(p.model), 0);
    CHECK_INT(*(const int *)t->data, 0);
    CHECK_INT(fill(h, &p, header, chunks), chunks - header);
    CHECK(!memcmp(t->data, whole->data, (size_t)whole->bytes)); /* what is written shows in a map that was there before */
    for (uint32_t i = 0; i < chunks; i++) {
        size_t size;
        const char *bytes = place_chunk(&p, i, &size);
        CHECK(crate_has(h, i) && crate_check(h, i));
        CHECK(!memcmp(crate_bytes(h, i), bytes, size));
    }
    CHECK(!crate_has(h, chunks) && !crate_check(h, chunks) && !crate_bytes(h, chunks));
    model_close(m);
    crate_sync(h);
    crate_close(h);
    store_close(s);
    place_close(&p);
}

static void damage_is_found_and_bits_survive(void)
{
    struct place p;
    struct store *s = NULL;
    struct crate *h = NULL;
    struct manifest *found = NULL;
    struct error err = {0};
    place_open(&p, 64);
    REQUIRE(!store_open(p.folder, 0, &s, &err) && !store_crate(s, p.list, &h, &err));
    size_t size;
    const char *bytes = place_chunk(&p, 1, &size);
    CHECK_INT(crate_write(h, 0, bytes, size, &err), ERR_FORMAT); /* not chunk 0's bytes */
    CHECK(!crate_has(h, 0));
    CHECK_INT(fill(h, &p, 0, 4), 4);
    char path[400];
    snprintf(path, sizeof path, "%s", crate_path(h));
    crate_close(h);
    CHECK_INT(store_find(s, 1, NULL, &found), ERR_NOTFOUND);
    uint8_t other[MANIFEST_HASH_BYTES] = {1};
    CHECK_INT(store_find(s, manifest_fingerprint(p.list), other, &found), ERR_NOTFOUND);
    REQUIRE(!store_find(s, manifest_fingerprint(p.list), manifest_hash(p.list), &found));
    REQUIRE(!store_crate(s, found, &h, &err));
    for (uint32_t i = 0; i < 6; i++)
        CHECK(crate_has(h, i) == (i < 4));
    int fd = open(path, O_RDWR);
    struct manifest_chunk c = manifest_chunk_at(p.list, 2);
    REQUIRE(fd >= 0 && pwrite(fd, "\x55\xaa", 2, (off_t)c.offset) == 2);
    CHECK(crate_check(h, 1) && !crate_check(h, 2) && crate_check(h, 3));
    CHECK(!crate_has(h, 2) && !crate_bytes(h, 2)); /* neither used nor passed on */
    CHECK(!crate_check(h, 2));
    crate_close(h);
    REQUIRE(!store_crate(s, found, &h, &err));
    CHECK(!crate_has(h, 2) && crate_has(h, 3));
    /* Cut short by somebody: an error, not a crash; and made whole again on the next opening. */
    REQUIRE(!ftruncate(fd, 100));
    CHECK(!crate_check(h, 3));
    crate_close(h);
    REQUIRE(!store_crate(s, found, &h, &err));
    CHECK(!crate_has(h, 0));
    close(fd);
    /* A state that is no state counts as none. */
    crate_close(h);
    snprintf(strrchr(path, '.'), 8, ".state");
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fputs("brigade state 1\nxxxx", f) >= 0 && !fclose(f));
    REQUIRE(!store_crate(s, found, &h, &err));
    CHECK(!crate_has(h, 1));
    crate_close(h);
    manifest_free(found);
    store_close(s);
    place_close(&p);
}

#define LIMIT (8u << 20)

static uint64_t disk_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static void the_longest_unused_goes_first(void)
{
    struct place p[3];
    struct store *s = NULL;
    struct crate *h[3] = {NULL};
    struct error err = {0};
    char path[3][400];
    for (int i = 0; i < 3; i++)
        place_open(&p[i], 64 + 32 * (uint32_t)i);
    REQUIRE(!store_open(p[0].folder, LIMIT, &s, &err));
    for (int i = 0; i < 3; i++) {
        REQUIRE(!store_crate(s, p[i].list, &h[i], &err));
        fill(h[i], &p[i], 0, manifest_chunks(p[i].list));
        snprintf(path[i], sizeof path[i], "%s", crate_path(h[i]));
        char state[400];
        snprintf(state, sizeof state, "%.*s.state", (int)strlen(path[i]) - 5, path[i]);
        struct timespec times[2] = {{100 + i, 0}, {100 + i, 0}};
        REQUIRE(!utimensat(AT_FDCWD, state, times, 0));
    }
    uint64_t all = disk_bytes(path[0]) + disk_bytes(path[1]) + disk_bytes(path[2]);
    REQUIRE(all < LIMIT);
    CHECK(!store_make_room(s, h[2], NULL, (LIMIT) - all, &err));
    CHECK(!access(path[0], F_OK) && !access(path[1], F_OK)); /* there was room */
    crate_close(h[1]);
    h[1] = NULL;
    CHECK(!store_make_room(s, h[2], NULL, (LIMIT) - all + 1, &err));
    CHECK(!access(path[0], F_OK)); /* the oldest is open: it stays */
    CHECK(access(path[1], F_OK));
    /* Then what nobody asked for of this one, but never its header nor what is wanted. */
    uint32_t chunks = manifest_chunks(p[2].list), header = manifest_header_chunks(p[2].list), last = chunks - 1;
    uint8_t *wanted = calloc(1, chunks);
    REQUIRE(wanted);
    wanted[last] = 1;
    crate_close(h[0]);
    h[0] = NULL;
    CHECK_INT(store_make_room(s, h[2], wanted, LIMIT, &err), ERR_IO); /* not even then */
    CHECK(strstr(err.text, "--cache-limit") != NULL);
    CHECK(access(path[0], F_OK));
    CHECK(crate_check(h[2], 0) && crate_check(h[2], last));
    CHECK(!crate_has(h[2], header));
    free(wanted);
    crate_close(h[2]);
    store_close(s);
    for (int i = 0; i < 3; i++)
        place_close(&p[i]);
}

static void a_disk_that_takes_no_more_is_told(void)
{
    struct place p;
    struct store *s = NULL;
    struct crate *h = NULL;
    struct error err = {0};
    struct rlimit before, small;
    place_open(&p, 64);
    REQUIRE(!store_open(p.folder, 0, &s, &err) && !store_crate(s, p.list, &h, &err));
    REQUIRE(!getrlimit(RLIMIT_FSIZE, &before));
    signal(SIGXFSZ, SIG_IGN);
    small = before;
    small.rlim_cur = 4096;
    REQUIRE(!setrlimit(RLIMIT_FSIZE, &small));
    uint32_t last = manifest_chunks(p.list) - 1;
    size_t size;
    const char *bytes = place_chunk(&p, last, &size);
    int rc = crate_write(h, last, bytes, size, &err);
    REQUIRE(!setrlimit(RLIMIT_FSIZE, &before));
    CHECK_INT(rc, ERR_IO);
    CHECK(strstr(err.text, "free some") != NULL);
    CHECK(!crate_has(h, last));
    crate_close(h);
    store_close(s);
    REQUIRE(!store_open("/proc/no/such", 0, &s, &err));
    CHECK_INT(store_crate(s, p.list, &h, &err), ERR_IO);
    CHECK(strstr(err.text, "/proc/no") != NULL);
    store_close(s);
    place_close(&p);
}

static void failing_allocations_are_told(void)
{
    struct place p;
    place_open(&p, 64);
    int failed = 0;
    for (long k = 1; k < 60; k++) {
        struct store *s = NULL;
        struct crate *h = NULL;
        struct error err = {0};
        struct manifest *found = NULL;
        mem_fail_at(k);
        int rc = store_open(p.folder, 0, &s, &err);
        if (!rc)
            rc = store_crate(s, p.list, &h, &err);
        if (!rc && store_find(s, manifest_fingerprint(p.list), NULL, &found))
            rc = error_set(&err, ERR_NOMEM, "not found");
        if (!rc)
            rc = store_make_room(s, h, NULL, 1, &err);
        mem_fail_at(0);
        if (rc && (rc != ERR_NOMEM || !*err.text) && !strstr(err.text, "Cannot allocate memory"))
            CHECK_FAIL("allocation %ld: %d %s", k, rc, err.text);
        failed += rc != 0;
        manifest_free(found);
        crate_close(h);
        store_close(s);
        if (!rc)
            break;
    }
    CHECK(failed >= 8);
    place_close(&p);
}

static const struct check_test tests[] = {
    {"what is written opens as the model", what_is_written_opens_as_the_model},
    {"damage is found and bits survive", damage_is_found_and_bits_survive},
    {"the longest unused goes first", the_longest_unused_goes_first},
    {"a disk that takes no more is told", a_disk_that_takes_no_more_is_told},
    {"failing allocations are told", failing_allocations_are_told},
};

CHECK_MAIN(tests)
