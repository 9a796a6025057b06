/* cluster.yaml: what is read, and the exact words of every complaint. */
#include "tests/check.h"

#include "coordinator/core/config.h"

#define KEY_A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define KEY_B "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define HEAD "version: 1\ncoordinator: {key: coordinator.key}\nnodes:\n"
#define NODE_A "  - {name: a, endpoint: \"tcp://10.0.0.1:7700\", public_key: \"" KEY_A "\"}\n"
#define NODE_B "  - {name: b, endpoint: \"tcp://10.0.0.2:7700\", public_key: \"" KEY_B "\"}\n"

static void everything_is_read(void)
{
    static const char text[] =
        HEAD NODE_A "  - {name: b, endpoint: \"tcp://10.0.0.2:7700\", public_key: \"" KEY_B "\", memory: 6G}\n"
                    "links:\n  - {from: a, to: b, bandwidth: 900Mbit, rtt: 0.4ms}\n"
                    "kv: {type: q8, tokens: 16384}\nactivations: bf16\ndeterministic: false\n"
                    "heartbeat: {interval: 100ms, lost: 500ms}\n"
                    "recovery: {enabled: false, rejoin: 5s, keep: 8M}\n"
                    "rebalance: {enabled: false, hold: 2s, apart: 5m, judge: 3s}\n";
    struct config *c;
    struct error e = {0};
    if (config_read_text("/etc/brigade/cluster.yaml", text, sizeof text - 1, &c, &e)) {
        CHECK_FAIL("%s", e.text);
        return;
    }
    CHECK_TEXT(c->key_path, "/etc/brigade/coordinator.key");
    CHECK_INT(c->node_count, 2);
    CHECK_TEXT(c->nodes[1].name, "b");
    CHECK_TEXT(c->nodes[1].endpoint, "tcp://10.0.0.2:7700");
    CHECK_TEXT(c->nodes[1].public_key, KEY_B);
    CHECK_INT(c->nodes[0].memory_bytes, 0);
    CHECK_INT(c->nodes[1].memory_bytes, INT64_C(6) << 30);
    CHECK_INT(c->link_count, 1);
    CHECK_INT(c->links[0].to, 1);
    CHECK_NEAR(c->links[0].bytes_per_s, 112.5e6, 1);
    CHECK_NEAR(c->links[0].rtt_seconds, 0.4e-3, 1e-9);
    CHECK_INT(c->kv_type, KV_Q8);
    CHECK(c->kv_type_given);
    CHECK_INT(c->kv_tokens, 16384);
    CHECK_INT(c->codec, CODEC_BF16);
    CHECK(!c->rebalance);
    CHECK_INT(c->rebalance_hold_us, 2000000);
    CHECK_INT(c->rebalance_apart_us, 300000000);
    CHECK_INT(c->rebalance_judge_us, 3000000);
    CHECK(!c->deterministic);
    CHECK_INT(c->heartbeat_us, 100000);
    CHECK(!c->recover);
    CHECK_INT(c->rejoin_us, 5000000);
    CHECK_INT(c->keep_bytes, 0); /* nothing recovers */
    CHECK_INT(c->lost_us, 500000);
    config_free(c);
}

static void little_is_enough(void)
{
    static const char text[] = HEAD NODE_A;
    struct config *c;
    struct error e = {0};
    if (config_read_text("cluster.yaml", text, sizeof text - 1, &c, &e)) {
        CHECK_FAIL("%s", e.text);
        return;
    }
    CHECK_TEXT(c->key_path, "coordinator.key");
    CHECK_INT(c->kv_type, KV_F16);
    CHECK_INT(c->kv_tokens, 0);
    CHECK_INT(c->codec, CODEC_NONE);
    CHECK(c->deterministic);
    CHECK_INT(c->lost_us, CONFIG_LOST_US);
    config_free(c);
}

static void complaints_name_line_and_key(void)
{
    static const struct {
        const char *text, *complaint;
    } cases[] = {
        {HEAD NODE_A "memroy: 3\n",
         "c.yaml:5: unknown key \"memroy\"; known: version, coordinator, nodes, links, kv, activations, deterministic, "
         "heartbeat, recovery, rebalance"},
        {"version: 2\n", "c.yaml:1: version: 2 is too large; the most is 1"},
        {"version: 1\ncoordinator: {key: k, host: x}\n", "c.yaml:2: unknown key \"host\" in coordinator; known: key"},
        {"version: 1\ncoordinator: {key: k}\n", "c.yaml:1: \"nodes\" is missing"},
        {HEAD NODE_A "  - {name: a, endpoint: \"tcp://10.0.0.2:7700\", public_key: \"" KEY_B "\"}\n",
         "c.yaml:5: nodes[1].name: \"a\" is already the name of nodes[0]"},
        {HEAD NODE_A "  - {name: b, endpoint: \"tcp://10.0.0.1:7700\", public_key: \"" KEY_B "\"}\n",
         "c.yaml:5: nodes[1].endpoint: tcp://10.0.0.1:7700 is already the endpoint of \"a\""},
        {HEAD NODE_A "  - {name: b, endpoint: \"tcp://10.0.0.2:7700\", public_key: \"" KEY_A "\"}\n",
         "c.yaml:5: nodes[1].public_key: already the key of \"a\"; every node has its own"},
        {HEAD "  - {name: a, endpoint: \"tcp://h:1\", public_key: short}\n",
         "c.yaml:4: nodes[0].public_key: not a public key (40 characters of Z85; `brigade keygen` and the worker print "
         "theirs)"},
        {HEAD "  - {name: a, endpoint: \"udp://h:1\", public_key: \"" KEY_A "\"}\n",
         "c.yaml:4: nodes[0].endpoint: \"udp://h:1\" is not tcp://HOST:PORT"},
        {HEAD "  - {name: a, endpoint: \"tcp://h:70000\", public_key: \"" KEY_A "\"}\n",
         "c.yaml:4: nodes[0].endpoint: \"70000\" is not a port from 1 to 65535"},
        {HEAD "  - {name: a, endpoint: \"tcp://*:7700\", public_key: \"" KEY_A "\"}\n",
         "c.yaml:4: nodes[0].endpoint: \"tcp://*:7700\" names no host to connect to"},
        {HEAD "  - {name: a, endpoint: \"tcp://h:1\", public_key: \"" KEY_A "\", memory: lots}\n",
         "c.yaml:4: nodes[0].memory: \"lots\" is not a size such as 6G or 512M"},
        {HEAD "  - {name: a, endpoint: \"tcp://h:1\", public_key: \"" KEY_A "\", color: red}\n",
         "c.yaml:4: unknown key \"color\" in nodes[0]; known: name, endpoint, public_key, memory"},
        {HEAD NODE_A NODE_B "links: [{from: a, to: c, bandwidth: 1Gbit, rtt: 1ms}]\n",
         "c.yaml:6: links[0].to: no node has the name \"c\""},
        {HEAD NODE_A NODE_B "links: [{from: a, to: a, bandwidth: 1Gbit, rtt: 1ms}]\n",
         "c.yaml:6: links[0]: a link needs two different nodes"},
        {HEAD NODE_A NODE_B "links: [{from: a, to: b, bandwidth: fast, rtt: 1ms}]\n",
         "c.yaml:6: links[0].bandwidth: \"fast\" is not a rate such as 900Mbit or 117MB"},
        {HEAD NODE_A NODE_B "links: [{from: a, to: b, rtt: 1ms}]\n",
         "c.yaml:6: links[0]: a link needs both bandwidth and rtt (leave it out to measure it)"},
        {HEAD NODE_A NODE_B "links:\n- {from: a, to: b, bandwidth: 1Gbit, rtt: 1ms}\n"
                            "- {from: a, to: b, bandwidth: 1Gbit, rtt: 1ms}\n",
         "c.yaml:8: links[1]: the link from \"a\" to \"b\" is already links[0]"},
        {HEAD NODE_A "kv: {type: f8}\n", "c.yaml:5: kv.type: \"f8\" is not f16, q8 or f32"},
        {HEAD NODE_A "kv: {tokens: 3}\n", "c.yaml:5: kv.tokens: 3 is too small; the least is 32"},
        {HEAD NODE_A "activations: f64\n", "c.yaml:5: activations: \"f64\" is not f32, f16, bf16, q8 or auto"},
        {HEAD NODE_A "heartbeat: {interval: 1s, lost: 1s}\n",
         "c.yaml:5: heartbeat: lost must be at least twice the interval and at most 600s"},
        {HEAD NODE_A "recovery: {keep: much}\n", "c.yaml:5: recovery.keep: \"much\" is not a size such as 64M or 0"},
        {HEAD NODE_A "recovery: {rejoin: -1s}\n", "c.yaml:5: recovery.rejoin: \"-1s\" is not a time such as 30s"},
        {HEAD NODE_A "recovery: {rejoin: 2000000s}\n", "c.yaml:5: recovery: rejoin must be from 0s to 86400s"},
        {HEAD NODE_A "rebalance: {hold: 0.1s}\n",
         "c.yaml:5: rebalance: hold, apart and judge must be from 1s to 86400s"},
        {HEAD NODE_A "heartbeat: {interval: never}\n",
         "c.yaml:5: heartbeat.interval: \"never\" is not a time such as 200ms"},
        {HEAD NODE_A NODE_B "  - {name: here, endpoint: \"tcp://127.0.0.1:7700\", public_key: \"" KEY_A "\"}\n",
         "c.yaml:6: nodes[2].public_key: already the key of \"a\"; every node has its own"},
        {HEAD NODE_A "  - {name: here, endpoint: \"tcp://127.0.0.1:7700\", public_key: \"" KEY_B "\"}\n",
         "c.yaml:5: nodes[1].endpoint: tcp://127.0.0.1:7700 can be reached from this machine only, but \"a\" is on "
         "another: give the address that both can reach"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config *c = NULL;
        struct error e = {0};
        int rc = config_read_text("c.yaml", cases[i].text, strlen(cases[i].text), &c, &e);
        CHECK(rc < 0);
        CHECK(!c);
        CHECK_TEXT(e.text, cases[i].complaint);
        config_free(rc ? NULL : c);
    }
}

static void missing_files_are_named(void)
{
    struct config *c = NULL;
    struct error e = {0};
    CHECK_INT(config_read("/nonexistent/cluster.yaml", &c, &e), ERR_NOTFOUND);
    CHECK(strstr(e.text, "/nonexistent/cluster.yaml"));
}

static const struct check_test tests[] = {
    {"everything is read", everything_is_read},
    {"little is enough", little_is_enough},
    {"complaints name line and key", complaints_name_line_and_key},
    {"missing files are named", missing_files_are_named},
};

CHECK_MAIN(tests)
