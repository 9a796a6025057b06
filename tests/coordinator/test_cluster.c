/* Whole clusters in simulated time: the pure step against pretended workers on a network that loses, delays, repeats
 * and reorders, with workers that die, freeze, refuse or speak another version. Every seed replays exactly. */
#include "tests/coordinator/pretended_cluster.h"

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void quiet_clusters_get_ready(void)
{
    for (uint64_t seed = 1; seed <= (uint64_t)check_thin(2000) && !check_failures; seed++) {
        begin(seed, 1 + (uint32_t)(seed % NODES), CLUSTER_SERVE);
        w.repeating = seed % 3 ? 0 : 200;
        w.slow = seed % 2 ? 0 : 100;
        create(NULL, 0);
        run_until(60000000);
        CHECK(w.reached && !w.failed);
        CHECK_INT(w.loads, w.stage_count);
        for (uint32_t s = 0; s < w.stage_count; s++)
            CHECK_INT(cluster_node_at(w.c, w.stages[s].node)->state, NODE_READY);
        CHECK_INT(cluster_epoch(w.c), w.welcome_epoch + 1);
        double rate, rtt;
        bool measured = false;
        for (uint32_t i = 1; i < w.nodes; i++)
            CHECK(cluster_link_between(w.c, i, 0, &rate, &rtt, &measured) && measured);
        finish();
    }
}

/* Something goes wrong somewhere: it ends soon, ready or with a line that names the node and the reason. */
static void troubled_clusters_end_with_a_line(void)
{
    int reached = 0, failed[DOWN_SAYS_NO + 1] = {0};
    for (uint64_t seed = 1; seed <= (uint64_t)check_thin(6000) && !check_failures; seed++) {
        begin(seed * 7919, 1 + (uint32_t)(seed % NODES), CLUSTER_SERVE);
        uint32_t victim = below(w.nodes);
        int fate = 1 + (int)below(DOWN_SAYS_NO);
        w.fate[victim] = fate;
        w.repeating = below(2) ? 100 : 0;
        w.slow = below(2) ? 100 : 0;
        put((struct item){.kind = ITEM_STRIKE, .node = victim}, 1 + below(6000000));
        create(NULL, 0);
        run_until(60000000);
        CHECK(w.reached || w.failed);
        reached += w.reached;
        failed[fate] += w.failed;
        bool needed = !w.reached || cluster_node_at(w.c, victim)->has_stage;
        if (fate <= DOWN_FREEZES && needed) {
            CHECK(w.failed);
            bool known = cluster_node_at(w.c, victim)->welcomed;
            CHECK_INT(w.error.code, known ? ERR_LOST : ERR_TIMEOUT);
            CHECK(!known || strstr(w.error.text, "was lost"));
            /* Seen within the limit and one interval of the last good word; and the time we were stopped ourselves. */
            if (w.failed && w.struck[victim] > 1 && known)
                CHECK(w.failed_at - w.struck[victim] < 1000000 + 2 * 200000 + 600000 + w.jumped);
        }
        if (w.failed) {
            CHECK(strstr(w.error.text, w.names[victim]));
            CHECK(!strchr(w.error.text, '\n'));
        }
        if (fate == DOWN_SAYS_NO && w.failed)
            CHECK(strstr(w.error.text, "it does not fit"));
        if (fate == DOWN_OTHER_VERSION && w.failed)
            CHECK(strstr(w.error.text, "version 9"));
        if (fate == DOWN_REFUSES)
            CHECK(w.failed && w.error.code == ERR_AUTH);
        if (fate == DOWN_UNREACHABLE)
            CHECK(w.failed && w.failed_at < 4000000 + 400000 + w.jumped);
        finish();
    }
    CHECK(reached > check_thin(100));
    for (int f = 1; f <= DOWN_SAYS_NO; f++)
        CHECK(failed[f] > check_thin(100));
}

/* Words get lost, which TCP forbids; still no seed hangs, and none fails without a line. */
static void lossy_networks_never_hang(void)
{
    int reached = 0, failed = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)check_thin(2000) && !check_failures; seed++) {
        begin(seed * 104729, 1 + (uint32_t)(seed % NODES), CLUSTER_SERVE);
        w.lossy = 1 + (int)below(150);
        w.repeating = 50;
        create(NULL, 0);
        run_until(300000000);
        CHECK(w.reached || w.failed);
        CHECK(!w.failed || strstr(w.error.text, "worker \"node-"));
        reached += w.reached;
        failed += w.failed;
        finish();
    }
    CHECK(reached > check_thin(50) && failed > check_thin(50));
}

static void looking_claims_nothing(void)
{
    for (uint64_t seed = 1; seed <= (uint64_t)check_thin(500) && !check_failures; seed++) {
        begin(seed * 31, 1 + (uint32_t)(seed % NODES), CLUSTER_LOOK);
        uint32_t victim = below(w.nodes);
        w.fate[victim] = (int)below(DOWN_SAYS_NO + 1);
        put((struct item){.kind = ITEM_STRIKE, .node = victim}, 1 + below(2000000));
        create(NULL, 0);
        run_until(12000000);
        CHECK(w.reached && !w.failed); /* what is wrong with a node is for the reader to see */
        CHECK(w.reached_at < 5000000 + w.jumped);
        CHECK_INT(w.loads + w.allows, 0);
        if (w.fate[victim] == DOWN_UNREACHABLE) {
            CHECK_INT(cluster_node_at(w.c, victim)->state, NODE_LOST);
            CHECK(*cluster_node_at(w.c, victim)->detail);
        }
        finish();
    }
}

static void a_plan_that_fails_is_told(void)
{
    begin(3, 3, CLUSTER_SERVE);
    w.want_plan_failure = true;
    create(NULL, 0);
    run_until(60000000);
    CHECK(w.failed && !w.reached);
    CHECK_INT(w.error.code, ERR_INFEASIBLE);
    CHECK_TEXT(w.error.text, "the model needs 9 GiB and 8 GiB fit");
    CHECK_INT(w.loads, 0);
    finish();
}

static void planning_loads_nothing_and_known_links_are_not_measured(void)
{
    struct cluster_link_options links[] = {{0, 1, 5e7, 2e-3}};
    double rate = 0, rtt = 0;
    bool measured = true;
    begin(4, 3, CLUSTER_PLAN);
    create(links, 1);
    run_until(60000000);
    CHECK(w.reached && !w.failed);
    CHECK_INT(w.loads, 0);
    CHECK(cluster_link_between(w.c, 1, 0, &rate, &rtt, &measured) && !measured);
    CHECK_NEAR(rate, 5e7, 1);
    CHECK(cluster_link_between(w.c, 2, 0, &rate, &rtt, &measured) && measured);
    CHECK_NEAR(rate, 4e7, 1); /* each direction has its own */
    CHECK(cluster_link_between(w.c, 0, 2, &rate, &rtt, &measured));
    CHECK_NEAR(rate, 1e8, 1);
    finish();
}

/* Containers of one board have addresses of their own, and old workers do not say where they run. */
static void workers_of_one_machine_are_measured_in_turn(void)
{
    int at_once[NODES + 1] = {0};
    for (uint64_t seed = 1; seed <= (uint64_t)check_thin(500) && !check_failures; seed++) {
        begin(seed * 977, 2 + (uint32_t)(seed % (NODES - 1)), CLUSTER_PLAN);
        for (uint32_t i = 0; i < w.nodes; i++) {
            w.address[i] = 1 + (below(3) ? i : below(w.nodes));
            w.machine[i] = below(3) * 0x1234567890abcdefu;
        }
        w.repeating = seed % 3 ? 0 : 200;
        create(NULL, 0);
        run_until(60000000);
        CHECK(w.reached && !w.failed);
        for (uint32_t i = 0; i < w.nodes; i++)
            for (uint32_t k = 0; k < w.nodes; k++)
                CHECK_INT(cluster_node_host(w.c, i) == cluster_node_host(w.c, k), w.together[i][k]);
        at_once[w.measuring_most]++;
        finish();
    }
    CHECK(at_once[1] > check_thin(50) && at_once[2] > check_thin(50) && at_once[3] > check_thin(10)); /* others not */
}

static void losses_are_described(void)
{
    begin(11, 2, CLUSTER_SERVE);
    create(NULL, 0);
    run_until(20000000);
    REQUIRE(w.reached);
    uint32_t node = w.stages[0].node;
    w.fate[node] = DOWN_DIES;
    strike(node);
    run_until(40000000);
    char want[200];
    snprintf(
        want, sizeof want,
        "worker \"%s\" was lost (its connection closed) while it ran blocks %u-%u; check its power, network and log, "
        "then start again",
        w.names[node], w.stages[0].first_block, w.stages[0].last_block);
    CHECK_TEXT(w.error.text, want);
    finish();

    begin(12, 1, CLUSTER_SERVE);
    create(NULL, 0);
    run_until(20000000);
    REQUIRE(w.reached);
    w.fate[0] = DOWN_FREEZES;
    strike(0);
    run_until(40000000);
    CHECK(strstr(w.error.text, "worker \"node-0\" was lost (no heartbeat for 1.") ||
          strstr(w.error.text, "(no heartbeat for 4."));
    finish();

    begin(13, 2, CLUSTER_SERVE);
    w.fate[0] = w.fate[1] = DOWN_UNREACHABLE;
    create(NULL, 0);
    run_until(20000000);
    CHECK_TEXT(w.error.text,
               "worker \"node-0\" at tcp://10.0.0.1:6000 cannot be reached within 4.0 s; is brigade-worker "
               "running there? (1 more did not answer either)");
    finish();

    begin(14, 2, CLUSTER_SERVE);
    create(NULL, 0);
    run_until(20000000);
    REQUIRE(w.reached);
    step((struct cluster_event){.kind = CLUSTER_STALLED, .stalled_us = 120000000});
    CHECK(w.failed && strstr(w.error.text, "has not finished its micro-batch for 120 s"));
    finish();
}

static void a_revoked_node_is_let_in_by_nobody(void)
{
    begin(13, 4, CLUSTER_SERVE);
    create(NULL, 0);
    run_until(20000000);
    REQUIRE(w.reached);
    uint32_t node = w.stages[0].node;
    w.revoked = w.keys[node];
    step((struct cluster_event){.kind = CLUSTER_REVOKED, .node = node, .text = "revoked"});
    CHECK_INT(w.told, 3);
    CHECK_INT(cluster_node_at(w.c, node)->state, NODE_LOST);
    CHECK(w.failed && strstr(w.error.text, "revoked"));
    finish();
}

static const struct check_test tests[] = {
    {"quiet clusters get ready", quiet_clusters_get_ready},
    {"troubled clusters end with a line", troubled_clusters_end_with_a_line},
    {"lossy networks never hang", lossy_networks_never_hang},
    {"looking claims nothing", looking_claims_nothing},
    {"a plan that fails is told", a_plan_that_fails_is_told},
    {"planning loads nothing and known links are not measured",
     planning_loads_nothing_and_known_links_are_not_measured},
    {"workers of one machine are measured in turn", workers_of_one_machine_are_measured_in_turn},
    {"losses are described", losses_are_described},
    {"a revoked node is let in by nobody", a_revoked_node_is_let_in_by_nobody},
};

int main(int argc, char **argv)
{
    int code = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    mem_free(w.queue);
    return code;
}
