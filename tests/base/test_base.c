/* The ground floor: texts, buffers, units, hashes. */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/check.h"

#include "base/buffer.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/notify.h"
#include "base/sample.h"
#include "base/units.h"

static void errors_hold_one_line(void)
{
    struct error e = {0};
    CHECK_INT(error_set(&e, ERR_IO, "model.gguf: cannot read (%d)", 5), ERR_IO);
    CHECK_TEXT(e.text, "model.gguf: cannot read (5)");
    CHECK_INT(error_prefix(&e, "worker %s", "a"), ERR_IO);
    CHECK_TEXT(e.text, "worker a: model.gguf: cannot read (5)");
    for (int code = ERR_INTERNAL; code <= 0; code++)
        CHECK(strcmp(error_name(code), "unknown error"));
    CHECK_TEXT(error_name(ERR_INTERNAL - 1), "unknown error");
    CHECK_TEXT(error_name(3), "unknown error");
    CHECK_INT(error_set(NULL, ERR_IO, "x"), ERR_IO);
}

static void buffers_grow_to_their_bound(void)
{
    struct buffer b = {.limit = 10};
    CHECK_INT(buffer_puts(&b, "12345"), 0);
    CHECK_INT(buffer_printf(&b, "%d", 67890), 0);
    CHECK_TEXT(b.data, "1234567890");
    CHECK_INT(buffer_putc(&b, 'x'), ERR_BOUND);
    CHECK_INT(b.size, 10);
    CHECK_INT(buffer_puts(&b, ""), ERR_BOUND);
    buffer_clear(&b);
    CHECK_INT(buffer_puts(&b, "again"), 0);
    char *text = buffer_steal(&b);
    CHECK_TEXT(text, "again");
    mem_free(text);
    text = buffer_steal(&b);
    CHECK_TEXT(text, "");
    mem_free(text);
}

static void units_are_strict(void)
{
    uint64_t bytes = 7;
    double value;
    int64_t number;
    CHECK_INT(units_parse_bytes("6G", &bytes), 0);
    CHECK_INT(bytes, INT64_C(6) << 30);
    CHECK_INT(units_parse_bytes("1.5MiB", &bytes), 0);
    CHECK_INT(bytes, 1536 << 10);
    static const char *const bad[] = {"", "G", "6 G", " 6G", "6X", "0x10", "nan", "inf", "-1G", "6G6"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bytes = 7;
        CHECK(units_parse_bytes(bad[i], &bytes) < 0);
        CHECK_INT(bytes, 7);
    }
    CHECK_INT(units_parse_rate("900Mbit", &value), 0);
    CHECK_NEAR(value, 112.5e6, 1);
    CHECK_INT(units_parse_rate("0", &value), ERR_BOUND);
    CHECK_INT(units_parse_seconds("0.4ms", &value), 0);
    CHECK_NEAR(value, 0.4e-3, 1e-12);
    CHECK_INT(units_parse_int("12", 0, 12, &number), 0);
    CHECK_INT(units_parse_int("13", 0, 12, &number), ERR_BOUND);
    CHECK_INT(units_parse_int("1e1", 0, 12, &number), ERR_FORMAT);
    char text[UNITS_TEXT];
    CHECK_TEXT(units_bytes_text(5798205850u, text), "5.4 GiB");
    CHECK_TEXT(units_bytes_text(17, text), "17 B");
}

static void hashes_match_known_vectors(void)
{
    CHECK_INT(hash_crc32(0, "123456789", 9), 0xCBF43926);
    CHECK_INT(hash_crc32(hash_crc32(0, "1234", 4), "56789", 5), 0xCBF43926);
    int32_t tokens[] = {1, 2, 3};
    uint64_t all = hash_tokens(HASH_TOKENS_START, tokens, 3);
    CHECK(all == hash_token(hash_tokens(HASH_TOKENS_START, tokens, 2), 3));
    CHECK(all != hash_tokens(HASH_TOKENS_START, (int32_t[]){2, 1, 3}, 3));
    /* SplitMix64 seeded with 0: its first output, from the authors' reference. */
    CHECK(hash_mix64(0) == UINT64_C(0xE220A8397B1DCDAF));
}

static void maps_are_aligned_and_zero(void)
{
    static const size_t sizes[] = {0, 1, 4097, (2 << 20) - 1, 2 << 20, (5 << 20) + 12345};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = mem_map(sizes[i]);
        REQUIRE(p);
        CHECK_INT((uintptr_t)p % (sizes[i] >= 2 << 20 ? 2 << 20 : 64), 0);
        for (size_t k = 0; k < sizes[i]; k += 1021)
            CHECK_INT(p[k], 0);
        memset(p, 1, sizes[i]);
        mem_unmap(p, sizes[i]);
    }
    CHECK(mem_resize(NULL, SIZE_MAX / 2, 4) == NULL);
}

static void the_service_manager_is_told(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char text[64] = "", pid[32];
    CHECK_INT(notify_send("READY=1"), 0); /* nobody asked */
    CHECK_INT(notify_watchdog_us(), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int length = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "brigade-test-notify-%d", (int)getpid()) + 1;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length);
    REQUIRE(fd >= 0 && !bind(fd, (const struct sockaddr *)&at, size));
    at.sun_path[0] = '@';
    setenv("NOTIFY_SOCKET", at.sun_path, 1);
    CHECK_INT(notify_send("READY=1\nSTATUS=x"), 1);
    CHECK_INT(recv(fd, text, sizeof text - 1, MSG_DONTWAIT), 16);
    CHECK_TEXT(text, "READY=1\nSTATUS=x");
    close(fd);
    CHECK_INT(notify_send("READY=1"), ERR_IO); /* nobody listens any more */
    setenv("NOTIFY_SOCKET", "relative", 1);
    CHECK_INT(notify_send("READY=1"), ERR_FORMAT);
    unsetenv("NOTIFY_SOCKET");
    setenv("WATCHDOG_USEC", "10000000", 1);
    CHECK_INT(notify_watchdog_us(), 10000000);
    snprintf(pid, sizeof pid, "%d", (int)getpid() + 1);
    setenv("WATCHDOG_PID", pid, 1);
    CHECK_INT(notify_watchdog_us(), 0); /* meant for another process */
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    CHECK_INT(notify_watchdog_us(), 10000000);
    setenv("WATCHDOG_USEC", "soon", 1);
    CHECK_INT(notify_watchdog_us(), 0);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static void usual_times_leave_out_the_longest(void)
{
    double one[] = {3}, two[] = {5, 1}, many[] = {2, 900, 1, 3, 2, 4, 2, 2};
    CHECK_NEAR(sample_usual(NULL, 0), 0, 0);
    CHECK_NEAR(sample_usual(one, 1), 3, 0);
    CHECK_NEAR(sample_usual(two, 2), 3, 0);
    CHECK_NEAR(sample_usual(many, 8), 12.0 / 6, 1e-12);
    CHECK_NEAR(many[7], 900, 0); /* sorted */
}

static const struct check_test tests[] = {
    {"errors hold one line", errors_hold_one_line},
    {"buffers grow to their bound", buffers_grow_to_their_bound},
    {"units are strict", units_are_strict},
    {"hashes match known vectors", hashes_match_known_vectors},
    {"maps are aligned and zero", maps_are_aligned_and_zero},
    {"usual times leave out the longest", usual_times_leave_out_the_longest},
    {"the service manager is told", the_service_manager_is_told},
};

CHECK_MAIN(tests)
