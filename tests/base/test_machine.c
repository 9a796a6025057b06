/* What memory can be had, on recorded trees of /proc and control groups of both versions. */
#include <stdint.h>
#include <unistd.h>

#include "base/machine.h"
#include "tests/base/sensor_tree.h"
#include "tests/check.h"

#define KIB INT64_C(1024)
#define MIB (KIB * 1024)

static void expect(const char *tree, int64_t available, int64_t total)
{
    char root[64];
    struct machine_memory m;
    REQUIRE(!tree_open(tree, root));
    machine_memory_read(root, &m);
    if ((int64_t)m.available != available || (int64_t)m.total != total)
        CHECK_FAIL("%s: %lld of %lld bytes, not %lld of %lld", tree, (long long)m.available, (long long)m.total,
                   (long long)available, (long long)total);
    tree_close(root);
}

static void swap_is_no_memory(void)
{
    expect("zram", 3164204 * KIB, 8245692 * KIB);
}

static void groups_limit(void)
{
    expect("service", 4096 * MIB - (1536 - 1024) * MIB, 4096 * MIB); /* idle cached pages can be had again */
    expect("slice", 3072 * MIB - 1024 * MIB, 3072 * MIB);            /* the tightest above us counts */
    expect("legacy", 0, 512 * MIB);                                  /* never less than nothing */
}

static void containers_have_their_own(void)
{
    expect("container2", 2048 * MIB - (300 - 150) * MIB, 2048 * MIB);
    expect("container1", 1024 * MIB - (400 - 150) * MIB, 1024 * MIB);
}

static void nonsense_is_nothing(void)
{
    struct machine_memory m;
    expect("odd", 0, 2048000 * KIB); /* an old kernel does not tell what is available */
    machine_memory_read("/nowhere", &m);
    CHECK(!m.available && !m.total);
}

/* This very machine: whatever it is, something can be had, and never more than there is. */
static void here(void)
{
    CHECK(machine_memory_available() > 0);
    CHECK(machine_memory_available() <= machine_memory_total());
    CHECK(machine_memory_margin() < machine_memory_total());
}

static const struct check_test tests[] = {
    {"swap is no memory", swap_is_no_memory},
    {"groups limit", groups_limit},
    {"containers have their own", containers_have_their_own},
    {"nonsense is nothing", nonsense_is_nothing},
    {"here", here},
};

CHECK_MAIN(tests)
