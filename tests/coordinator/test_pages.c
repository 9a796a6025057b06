/* The page pool and the pages kept for prompts that begin alike. */
#include "tests/check.h"

#include "coordinator/core/pages.h"
#include "coordinator/core/prefix.h"

enum { PAGE = 8 };

static void pages_come_and_go(void)
{
    struct page_pool *p;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    REQUIRE(!pages_create(3, &p, NULL));
    CHECK_INT(pages_free(p), 3);
    CHECK(!pages_take(p, &a) && !pages_take(p, &b) && !pages_take(p, &c));
    CHECK(a != b && b != c && a != c && a < 3 && b < 3 && c < 3);
    CHECK_INT(pages_take(p, &d), ERR_BUSY);
    pages_share(p, b);
    CHECK_INT(pages_references(p, b), 2);
    CHECK(!pages_drop(p, b));
    CHECK_INT(pages_free(p), 0);
    CHECK(pages_drop(p, b));
    CHECK(!pages_drop(p, b)); /* not twice */
    CHECK_INT(pages_free(p), 1);
    CHECK(!pages_take(p, &d));
    CHECK_INT(d, b);
    CHECK_INT(pages_total(p), 3);
    pages_destroy(p);
}

static void prefixes_give_way_from_their_ends(void)
{
    struct prefix_cache *c = NULL;
    int32_t a[4 * PAGE], b[4 * PAGE];
    uint32_t pages[4], more[4], page;
    for (int i = 0; i < 4 * PAGE; i++) {
        a[i] = i;
        b[i] = i < PAGE ? i : 1000 + i;
    }
    REQUIRE(!prefix_create(6, PAGE, &c, NULL));
    for (int i = 0; i < 4; i++)
        REQUIRE(!prefix_take(c, &pages[i]));
    prefix_keep(c, pages, 3, a);
    CHECK_INT(prefix_available(c), 2);
    for (int i = 3; i >= 0; i--)
        prefix_drop(c, pages[i]);
    CHECK_INT(prefix_available(c), 6);
    CHECK_INT(prefix_idle(c), 4);
    CHECK_INT(prefix_share(c, a, 4, more, NULL), 4);
    CHECK(!memcmp(pages, more, sizeof pages));
    CHECK_INT(prefix_idle(c), 0);
    for (int i = 0; i < 4; i++)
        prefix_drop(c, more[i]);
    CHECK_INT(prefix_share(c, b, 4, more, NULL), 1); /* alike for one page only */
    prefix_drop(c, more[0]);
    CHECK_INT(prefix_share(c, a + 1, 3, more, NULL), 0);
    for (int i = 0; i < 3; i++) /* two free ones, then the end of the prefix */
        REQUIRE(!prefix_take(c, &page));
    CHECK_INT(page, pages[3]);
    CHECK_INT(prefix_share(c, a, 4, more, NULL), 3);
    CHECK_INT(prefix_take(c, &page), ERR_BUSY); /* what is in use stays */
    for (int i = 0; i < 3; i++)
        prefix_drop(c, more[i]);
    prefix_clear(c);
    CHECK_INT(prefix_idle(c), 0);
    CHECK_INT(prefix_available(c), 3);
    CHECK_INT(prefix_share(c, a, 4, more, NULL), 0);
    prefix_destroy(c);
}

static const struct check_test tests[] = {
    {"pages come and go", pages_come_and_go},
    {"prefixes give way from their ends", prefixes_give_way_from_their_ends},
};

CHECK_MAIN(tests)
