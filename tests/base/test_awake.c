/* A file stands for the kernel's: who works has it open with a latency of 0 in it, who rested for a second does not. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/awake.h"
#include "tests/check.h"

#define SECOND INT64_C(1000000)

/* How many of this process's files are the one at path. */
static int open_files(const char *path)
{
    int count = 0;
    for (int i = 0; i < 64; i++) {
        char name[64], real[512];
        snprintf(name, sizeof name, "/proc/self/fd/%d", i);
        ssize_t n = readlink(name, real, sizeof real - 1);
        if (n > 0) {
            real[n] = 0;
            count += !strcmp(real, path);
        }
    }
    return count;
}

static void awake_while_there_is_work(void)
{
    char path[] = "/tmp/brigade-awake-XXXXXX", bytes[8] = "before";
    struct awake a = {0};
    int made = mkstemp(path);
    REQUIRE(made >= 0 && write(made, bytes, 4) == 4);
    close(made);
    REQUIRE(!awake_begin(&a, path, NULL));
    CHECK_INT(open_files(path), 0);
    awake_work(&a, 10 * SECOND);
    awake_work(&a, 10 * SECOND + 100);
    CHECK_INT(open_files(path), 1);
    int reads = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_INT(read(reads, bytes, sizeof bytes), 4);
    CHECK(!memcmp(bytes, "\0\0\0\0", 4));
    close(reads);
    awake_look(&a, 11 * SECOND);
    CHECK_INT(open_files(path), 1);
    awake_look(&a, 11 * SECOND + 200);
    CHECK_INT(open_files(path), 0);
    awake_work(&a, 20 * SECOND);
    CHECK_INT(open_files(path), 1);
    awake_end(&a);
    CHECK_INT(open_files(path), 0);
    unlink(path);
}

static void nobody_asked_or_nobody_may(void)
{
    struct awake a = {0};
    struct error e = {0};
    awake_work(&a, SECOND);
    awake_look(&a, 5 * SECOND);
    awake_end(&a);
    CHECK_INT(awake_begin(&a, "/nowhere/latency", &e), ERR_IO);
    CHECK(strstr(e.text, "/nowhere/latency") && strstr(e.text, "--awake"));
    awake_work(&a, SECOND); /* and nothing is open */
    CHECK(!a.open);
}

static const struct check_test tests[] = {
    {"awake while there is work", awake_while_there_is_work},
    {"nobody asked, or nobody may", nobody_asked_or_nobody_may},
};

CHECK_MAIN(tests)
