/* The parts of a hop, each timed alone: what a frame costs to make, to encrypt, to decrypt, and a sleeping thread to
 * wake. Owns its buffers and one thread, which ends before the call returns. */
#include "coordinator/cli/hop.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <sodium.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "proto/activation.h"

enum { ROUNDS = 33, WAKES = 15, IDLE_MAX_US = 30000 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_size);
    return values[count / 2];
}

static double us_since(int64_t start_ns)
{
    return (double)(clock_ns() - start_ns) * 1e-3;
}

/* As a stage does: its frame and activations written, and read at the other end. */
static int time_serialising(uint32_t width, float *values, uint8_t *bytes, double *us, struct error *err)
{
    int32_t token = 1;
    struct frame_span span = {.sequence = 1, .count = 1, .next_token = -1, .tokens = &token};
    struct frame_work work = {.span_count = 1, .spans = &span};
    struct buffer header = {0}, tokens = {0};
    double times[ROUNDS];
    int rc = 0;
    for (int i = 0; i < ROUNDS && !rc; i++) {
        struct data_frame frame;
        int64_t start = clock_ns();
        buffer_clear(&header);
        buffer_clear(&tokens);
        activation_encode(CODEC_F32, values, 1, width, bytes);
        if (!(rc = frame_encode_work(&work, &header, &tokens, err))) {
            struct frame_part parts[2] = {{header.data, header.size}, {tokens.data, tokens.size}};
            if (!(rc = frame_decode_data(parts, 2, &frame, err)))
                frame_free(&frame);
        }
        times[i] = us_since(start);
    }
    buffer_free(&header);
    buffer_free(&tokens);
    if (!rc)
        *us = median(times, ROUNDS);
    return rc;
}

static int time_sealing(const uint8_t *bytes, size_t size, uint8_t *sealed, uint8_t *opened, struct hop_parts *out,
                        struct error *err)
{
    uint8_t key[crypto_box_BEFORENMBYTES], nonce[crypto_box_NONCEBYTES] = {0};
    double seal[ROUNDS], open[ROUNDS];
    if (sodium_init() < 0)
        return error_set(err, ERR_INTERNAL, "libsodium does not start");
    randombytes_buf(key, sizeof key);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t start = clock_ns();
        nonce[0] = (uint8_t)i;
        int failed = crypto_box_easy_afternm(sealed, bytes, size, nonce, key);
        seal[i] = us_since(start);
        start = clock_ns();
        failed = failed || crypto_box_open_easy_afternm(opened, sealed, size + crypto_box_MACBYTES, nonce, key);
        open[i] = us_since(start);
        if (failed)
            return error_set(err, ERR_INTERNAL, "libsodium does not open what it sealed");
    }
    out->encrypt_us = median(seal, ROUNDS);
    out->decrypt_us = median(open, ROUNDS);
    return 0;
}

struct sleeper {
    int fd;
    _Atomic int64_t rung_ns, woken_ns; /* rung: 0 once answered */
    _Atomic bool stop;
};

static void *sleep_and_answer(void *context)
{
    struct sleeper *s = context;
    while (!atomic_load(&s->stop)) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        uint64_t count;
        if (poll(&p, 1, 1000) == 1 && read(s->fd, &count, sizeof count) == sizeof count) {
            atomic_store(&s->woken_ns, clock_ns());
            atomic_store(&s->rung_ns, 0);
        }
    }
    return NULL;
}

/* The ringing thread works up to the moment of the ring, as a stage does. */
static void work_us(double us)
{
    for (int64_t end = clock_ns() + (int64_t)(us * 1e3); clock_ns() < end;)
        ;
}

static int time_waking(double idle_us, double *us, struct error *err)
{
    struct sleeper s = {.fd = eventfd(0, EFD_CLOEXEC)};
    pthread_t thread;
    double times[WAKES];
    if (s.fd < 0 || pthread_create(&thread, NULL, sleep_and_answer, &s)) {
        if (s.fd >= 0)
            close(s.fd);
        return error_set(err, ERR_IO, "cannot start a thread to measure how fast it wakes");
    }
    const uint64_t one = 1;
    int rc = 0;
    for (int i = 0; i < WAKES && !rc; i++) {
        work_us(idle_us);
        int64_t start = clock_ns();
        atomic_store(&s.rung_ns, start);
        if (write(s.fd, &one, sizeof one) != sizeof one)
            rc = error_set(err, ERR_IO, "cannot ring a thread");
        while (!rc && atomic_load(&s.rung_ns))
            clock_sleep_ns(50000);
        times[i] = (double)(atomic_load(&s.woken_ns) - start) * 1e-3;
    }
    atomic_store(&s.stop, true);
    ssize_t rung = write(s.fd, &one, sizeof one); /* if it fails, the sleeper's second passes */
    (void)rung;
    pthread_join(thread, NULL);
    close(s.fd);
    if (!rc)
        *us = median(times, WAKES);
    return rc;
}

int hop_measure(uint32_t width, double idle_us, struct hop_parts *out, struct error *err)
{
    struct hop_parts parts = {.bytes = (size_t)width * sizeof(float)};
    parts.idle_us = idle_us < 1 ? 1 : idle_us > IDLE_MAX_US ? IDLE_MAX_US : idle_us;
    float *values = mem_zalloc(width, sizeof *values);
    uint8_t *bytes = mem_alloc(parts.bytes), *opened = mem_alloc(parts.bytes);
    uint8_t *sealed = mem_alloc(parts.bytes + crypto_box_MACBYTES);
    int rc = values && bytes && opened && sealed ? 0 : error_set(err, ERR_NOMEM, "no memory for a token's activations");
    if (!rc)
        rc = time_serialising(width, values, bytes, &parts.serialise_us, err);
    if (!rc)
        rc = time_sealing(bytes, parts.bytes, sealed, opened, &parts, err);
    if (!rc)
        rc = time_waking(parts.idle_us, &parts.wake_us, err);
    mem_free(values);
    mem_free(bytes);
    mem_free(opened);
    mem_free(sealed);
    if (!rc)
        *out = parts;
    return rc;
}
