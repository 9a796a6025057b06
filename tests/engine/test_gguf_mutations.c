/* The GGUF reader against files that are cut, flipped, lengthened and filled with hostile numbers: each either opens
 * and can be walked whole, or gives one clear line. Meant to run under sanitizers too. With --corpus DIR it writes
 * the unbroken files as a start for the fuzzer instead. */
#include "tests/check.h"

#include "base/hash.h"
#include "base/memory.h"
#include "tests/engine/gguf_builder.h"
#include "tests/engine/gguf_walk.h"

static unsigned char *sample;
static size_t sample_size, directory_size;
static long cases, opened, refused;

static void make_sample(void)
{
    struct gguf_builder b = {0};
    if (sample)
        return;
    gguf_build_sample(&b);
    directory_size = 24 + b.keys.size + b.tensors.size;
    sample = gguf_build_finish(&b, &sample_size);
}

/* Opens size bytes in a block of exactly that size. Returns whether they opened. */
static int attempt(const unsigned char *bytes, size_t size)
{
    struct gguf *untouched = (struct gguf *)&cases, *g = untouched;
    struct error err = {0};
    void *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, bytes, size);
    int rc = gguf_open_memory(copy, size, "mutated.gguf", &g, &err);
    cases++;
    if (rc == 0) {
        volatile uint32_t sum = gguf_walk(g);
        (void)sum;
        gguf_close(g);
        opened++;
    } else {
        refused++;
        CHECK_INT(rc, err.code);
        CHECK(rc == ERR_FORMAT || rc == ERR_UNSUPPORTED);
        CHECK(!strncmp(err.text, "mutated.gguf: ", 14) && strlen(err.text) > 30);
        CHECK(!strchr(err.text, '\n'));
        CHECK(g == untouched);
    }
    free(copy);
    return rc == 0;
}

static void the_sample_itself_opens(void)
{
    make_sample();
    CHECK(attempt(sample, sample_size));
}

static void every_truncation_is_refused(void)
{
    make_sample();
    for (size_t size = 0; size < sample_size; size++)
        if (attempt(sample, size))
            CHECK_FAIL("opened when cut to %zu of %zu bytes", size, sample_size);
}

static void every_flipped_bit_is_safe(void)
{
    make_sample();
    for (size_t at = 0; at < directory_size; at++)
        for (int bit = 0; bit < 8; bit++) {
            sample[at] ^= (unsigned char)(1 << bit);
            attempt(sample, sample_size);
            sample[at] ^= (unsigned char)(1 << bit);
        }
    CHECK(attempt(sample, sample_size));
}

static void more_bytes_are_safe(void)
{
    make_sample();
    unsigned char *longer = malloc(sample_size + 512);
    REQUIRE(longer);
    memcpy(longer, sample, sample_size);
    memset(longer + sample_size, 0xff, 512);
    for (size_t more = 1; more <= 512; more *= 2)
        CHECK(attempt(longer, sample_size + more));      /* bytes behind the last tensor harm nobody */
    for (size_t at = 0; at <= directory_size; at += 3) { /* bytes put in between shift all that follows */
        memcpy(longer, sample, at);
        memset(longer + at, (int)at, 8);
        memcpy(longer + at + 8, sample + at, sample_size - at);
        attempt(longer, sample_size + 8);
    }
    free(longer);
}

static void hostile_numbers_are_safe(void)
{
    make_sample();
    const uint64_t hostile[] = {
        0,
        1,
        4,
        9,
        0x7f,
        0xff,
        0xffff,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        UINT64_C(1) << 32,
        UINT64_C(1) << 61,
        (UINT64_C(1) << 61) + 1,
        UINT64_C(1) << 62,
        INT64_MAX,
        (uint64_t)INT64_MAX + 1,
        UINT64_MAX - 7,
        UINT64_MAX - 31,
        UINT64_MAX,
        sample_size,
        sample_size + 1,
        sample_size - directory_size,
        directory_size,
    };
    for (size_t at = 4; at + 8 <= directory_size; at++)
        for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
            for (size_t n = 4; n <= 8; n += 4) {
                unsigned char kept[8];
                memcpy(kept, sample + at, 8);
                memcpy(sample + at, &hostile[i], n);
                attempt(sample, sample_size);
                memcpy(sample + at, kept, 8);
            }
}

static void random_damage_is_safe(void)
{
    make_sample();
    unsigned char *damaged = malloc(sample_size);
    REQUIRE(damaged);
    for (uint64_t seed = 0; seed < 20000; seed++) {
        uint64_t state = hash_mix64(seed) | 1;
        memcpy(damaged, sample, sample_size);
        for (unsigned n = 1 + (unsigned)(seed % 6); n; n--) {
            state = hash_mix64(state);
            size_t at = state % (seed % 2 ? directory_size : 64), run = state >> 32 & 7;
            for (size_t i = at; i <= at + run && i < sample_size; i++)
                damaged[i] = (unsigned char)(state >> (i - at) * 8);
        }
        attempt(damaged, seed % 3 ? sample_size : state >> 16 & 1 ? sample_size : state % sample_size);
    }
    free(damaged);
    printf("    %ld cases so far: %ld opened and walked, %ld refused\n", cases, opened, refused);
    CHECK(cases > 20000 && opened > 100 && refused > 10000);
}

static const struct check_test tests[] = {
    {"the sample itself opens", the_sample_itself_opens},
    {"every truncation is refused", every_truncation_is_refused},
    {"every flipped bit is safe", every_flipped_bit_is_safe},
    {"more bytes are safe", more_bytes_are_safe},
    {"hostile numbers are safe", hostile_numbers_are_safe},
    {"random damage is safe", random_damage_is_safe},
};

static int write_corpus(const char *folder)
{
    struct gguf_builder b = {0};
    char path[4096];
    gguf_build_sample(&b);
    snprintf(path, sizeof path, "%s/sample.gguf", folder);
    gguf_build_write(&b, path);
    b.version = 2;
    b.alignment = 64;
    gguf_build_text(&b, "general.architecture", "x");
    gguf_build_tensor(&b, "a", TYPE_F32, 1, (uint64_t[]){1}, NULL);
    snprintf(path, sizeof path, "%s/small.gguf", folder);
    gguf_build_write(&b, path);
    snprintf(path, sizeof path, "%s/empty.gguf", folder);
    gguf_build_write(&b, path);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--corpus"))
        return write_corpus(argv[2]);
    int rc = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    mem_free(sample);
    return rc;
}
