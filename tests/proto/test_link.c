/* Links with real sockets on loopback: who gets in, who does not, and that nobody is disturbed by those who do not. */
#include "tests/check.h"

#include <fcntl.h>
#include <zmq.h>

#include "base/clock.h"
#include "tests/proto/link_nodes.h"
#include "tests/proto/tap.h"

static void messages_carry_the_key_of_their_sender(void)
{
    struct node a, b;
    struct link *server, *client;
    REQUIRE(pair_open(&a, &b, PLANE_DATA, &server, &client));
    static uint32_t big[2 << 20];
    for (size_t i = 0; i < sizeof big / sizeof *big; i++)
        big[i] = (uint32_t)(i * 2654435761u);
    struct frame_part parts[4] = {{"head", 4}, {big, sizeof big}, {"", 0}, {"abc", 3}};
    CHECK_INT(link_send(client, NULL, parts, 4, NULL), 0);
    struct link_message m;
    REQUIRE(receive(server, client, 5000, &m));
    CHECK_TEXT(m.from.public_key, public_of(&b));
    REQUIRE(m.part_count == 4);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(m.parts[i].size, parts[i].size);
        CHECK(!memcmp(m.parts[i].data, parts[i].data, parts[i].size));
        CHECK_INT((uintptr_t)m.parts[i].data % 16, 0);
    }
    CHECK_INT(say(server, &m.from, "back"), 0);
    link_message_free(&m);
    REQUIRE(receive(client, server, 5000, &m));
    CHECK(says(&m, "back"));
    CHECK_TEXT(m.from.public_key, public_of(&a));
    link_message_free(&m);
    CHECK_INT(link_state(client, NULL, 0), LINK_UP);
    CHECK_INT(hub_refused(a.hub), 0);
    pair_close(&a, &b, server, client);
}

/* stderr into a file for the duration, to count what was logged. */
static int saved_stderr;
static char log_path[] = "/tmp/brigade-link-XXXXXX";

static void log_begin(void)
{
    int fd = mkstemp(log_path);
    saved_stderr = dup(2);
    dup2(fd, 2);
    close(fd);
}

static int log_end(const char *needle)
{
    static char text[65536];
    fflush(stderr);
    dup2(saved_stderr, 2);
    close(saved_stderr);
    int fd = open(log_path, O_RDONLY), count = 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    close(fd);
    unlink(log_path);
    memcpy(log_path + strlen(log_path) - 6, "XXXXXX", 6);
    for (const char *at = text; (at = strstr(at, needle)); at++)
        count++;
    return count;
}

static void a_strange_key_is_refused_and_may_come_back(void)
{
    struct node a, friend_, stranger;
    REQUIRE(node_open(&a) && node_open(&friend_) && node_open(&stranger));
    struct link *server = serve(&a, PLANE_CONTROL);
    REQUIRE(server);
    allow(&a, PLANE_CONTROL, &friend_);
    struct link *good = dial(&friend_, PLANE_CONTROL, link_port(server), public_of(&a));
    REQUIRE(good);
    REQUIRE(wait_state(good, NULL, LINK_UP, 3000));
    log_begin();
    struct link *bad = dial(&stranger, PLANE_CONTROL, link_port(server), public_of(&a));
    REQUIRE(bad);
    CHECK_INT(say(bad, NULL, "let me in"), 0);
    REQUIRE(wait_state(bad, NULL, LINK_REFUSED, 3000));
    char text[256];
    link_state(bad, text, sizeof text);
    CHECK(strstr(text, "does not allow this node's key"));
    struct link_message m;
    CHECK(!receive(server, bad, 700, &m)); /* the stranger tries again meanwhile */
    CHECK(hub_refused(a.hub) >= 2);
    CHECK_INT(say(good, NULL, "still here"), 0); /* the friend never notices */
    REQUIRE(receive(server, good, 2000, &m));
    CHECK(says(&m, "still here"));
    link_message_free(&m);
    CHECK_INT(log_end("is not allowed here"), 1); /* once, however often it knocks */
    const char *both[2] = {public_of(&friend_), public_of(&stranger)};
    CHECK_INT(hub_allow(a.hub, PLANE_CONTROL, both, 2, NULL), 0);
    REQUIRE(wait_state(bad, NULL, LINK_UP, 5000));
    CHECK_INT(say(bad, NULL, "thanks"), 0);
    REQUIRE(receive(server, bad, 2000, &m));
    CHECK(says(&m, "thanks"));
    CHECK_TEXT(m.from.public_key, public_of(&stranger));
    link_message_free(&m);
    /* And out again: what it says is no longer heard, what we say no longer leaves. */
    struct link_peer to = m.from;
    allow(&a, PLANE_CONTROL, &friend_);
    CHECK_INT(say(bad, NULL, "hello?"), 0);
    CHECK(!receive(server, bad, 300, &m));
    CHECK_INT(say(server, &to, "psst"), ERR_LOST);
    CHECK_INT(say(good, NULL, "me"), 0);
    REQUIRE(receive(server, good, 2000, &m));
    CHECK(says(&m, "me"));
    link_message_free(&m);
    link_close(bad, 0);
    link_close(good, 0);
    link_close(server, 0);
    node_close(&a);
    node_close(&friend_);
    node_close(&stranger);
}

static void planes_are_separate(void)
{
    struct node a, b;
    REQUIRE(node_open(&a) && node_open(&b));
    struct link *control = serve(&a, PLANE_CONTROL), *data = serve(&a, PLANE_DATA);
    REQUIRE(control && data);
    allow(&a, PLANE_DATA, &b);
    struct link *to_data = dial(&b, PLANE_DATA, link_port(data), public_of(&a));
    struct link *to_control = dial(&b, PLANE_CONTROL, link_port(control), public_of(&a));
    REQUIRE(to_data && to_control);
    CHECK(wait_state(to_data, to_control, LINK_UP, 3000));
    CHECK(wait_state(to_control, to_data, LINK_REFUSED, 3000));
    link_close(to_control, 0);
    link_close(to_data, 0);
    link_close(control, 0);
    link_close(data, 0);
    node_close(&a);
    node_close(&b);
}

static void a_server_must_prove_its_key(void)
{
    struct node a, b, other;
    REQUIRE(node_open(&a) && node_open(&b) && node_open(&other));
    struct link *server = serve(&a, PLANE_CONTROL);
    REQUIRE(server);
    allow(&a, PLANE_CONTROL, &b);
    struct link *client = dial(&b, PLANE_CONTROL, link_port(server), public_of(&other));
    REQUIRE(client);
    CHECK_INT(say(client, NULL, "secret for other"), 0);
    CHECK(wait_state(client, NULL, LINK_REFUSED, 3000));
    struct link_message m;
    CHECK(!receive(server, client, 300, &m));
    CHECK(hub_refused(a.hub) >= 1);
    char text[256];
    link_state(client, text, sizeof text);
    CHECK(strstr(text, "key"));
    struct link *none = NULL;
    struct error err = {0};
    CHECK_INT(link_connect(b.hub, PLANE_CONTROL, "tcp://127.0.0.1:1", "short", &none, &err), ERR_AUTH);
    CHECK_INT(link_connect(b.hub, PLANE_CONTROL, "127.0.0.1:1", public_of(&a), &none, &err), ERR_USAGE);
    CHECK_INT(link_connect(b.hub, PLANE_CONTROL, "tcp://127.0.0.1", public_of(&a), &none, &err), ERR_USAGE);
    CHECK_INT(link_listen(b.hub, PLANE_CONTROL, "ipc:///tmp/x", &none, &err), ERR_USAGE);
    pair_close(&a, &b, server, client);
    node_close(&other);
}

static void plain_clients_are_refused(void)
{
    struct node a, b;
    struct link *server, *good;
    REQUIRE(pair_open(&a, &b, PLANE_CONTROL, &server, &good) && wait_state(good, NULL, LINK_UP, 3000));
    log_begin();
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", link_port(server));
    void *context = zmq_ctx_new();
    int zero = 0, plain_server = 0;
    struct link_message m;
    /* Without encryption and with a mere password; again and again, for either side may be the first to hang up. */
    for (int i = 0; i < 50 && hub_refused(a.hub) < 2; i++) {
        void *plain = zmq_socket(context, ZMQ_DEALER);
        zmq_setsockopt(plain, ZMQ_LINGER, &zero, sizeof zero);
        if (i % 2) {
            zmq_setsockopt(plain, ZMQ_PLAIN_SERVER, &plain_server, sizeof plain_server);
            zmq_setsockopt(plain, ZMQ_PLAIN_USERNAME, "admin", 5);
            zmq_setsockopt(plain, ZMQ_PLAIN_PASSWORD, "admin", 5);
        }
        CHECK_INT(zmq_connect(plain, endpoint), 0);
        zmq_send(plain, "plain", 5, 0);
        CHECK(!receive(server, good, 100, &m));
        zmq_close(plain);
    }
    int web = tap_connect(link_port(server)), noise = tap_connect(link_port(server));
    int mute = tap_connect(link_port(server));
    CHECK(send(web, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL) == 27);
    unsigned char bytes[4096];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 97 >> 3);
    CHECK(send(noise, bytes, sizeof bytes, MSG_NOSIGNAL) > 0);
    /* A proper greeting that offers CURVE, then a frame that claims 200 MB before any key was shown. */
    int greedy = tap_connect(link_port(server));
    unsigned char greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E'};
    CHECK(send(greedy, greeting, 64, MSG_NOSIGNAL) == 64);
    static const unsigned char claim[] = {6, 0, 0, 0, 0, 0x0b, 0xeb, 0xc2, 0};
    CHECK(send(greedy, claim, sizeof claim, MSG_NOSIGNAL) == sizeof claim);
    CHECK(!receive(server, good, 500, &m));
    CHECK(hub_refused(a.hub) >= 2);
    CHECK_INT(say(good, NULL, "fine"), 0);
    REQUIRE(receive(server, good, 2000, &m));
    CHECK(says(&m, "fine"));
    link_message_free(&m);
    /* One line an address, and one more if it was gone before we asked whose it was. */
    int lines = log_end("refused a connection");
    CHECK_INT(lines < 1 ? 0 : lines > 2 ? lines : 1, 1);
    close(web);
    close(noise);
    close(mute);
    close(greedy);
    zmq_ctx_term(context);
    pair_close(&a, &b, server, good);
}

static void a_link_survives_its_peer(void)
{
    struct node a, b;
    REQUIRE(node_open(&a) && node_open(&b));
    struct link *server = serve(&a, PLANE_CONTROL);
    REQUIRE(server);
    int port = link_port(server);
    char endpoint[64], text[256];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", port);
    allow(&a, PLANE_CONTROL, &b);
    struct link *client = dial(&b, PLANE_CONTROL, port, public_of(&a));
    REQUIRE(client && wait_state(client, NULL, LINK_UP, 3000));
    CHECK_INT(link_connections(client), 1);
    link_explain(endpoint, 500, text, sizeof text);
    CHECK_TEXT(text, "");
    CHECK_INT(say(client, NULL, "one"), 0);
    struct link_message m;
    REQUIRE(receive(server, client, 2000, &m));
    struct link_peer to = m.from;
    link_message_free(&m);
    link_close(server, 0);
    REQUIRE(wait_state(client, NULL, LINK_DOWN, 3000));
    link_explain(endpoint, 500, text, sizeof text);
    CHECK_TEXT(text, "Connection refused");
    struct error err = {0};
    struct link *again = NULL;
    REQUIRE(!link_listen(a.hub, PLANE_CONTROL, endpoint, &again, &err));
    REQUIRE(wait_state(client, again, LINK_UP, 4000));
    CHECK_INT(link_connections(client), 2);
    CHECK_INT(say(client, NULL, "two"), 0);
    REQUIRE(receive(again, client, 2000, &m));
    CHECK(says(&m, "two"));
    link_message_free(&m);
    CHECK_INT(say(again, &to, "to the past"), ERR_LOST); /* the peer's old name is gone with its connection */
    struct link *taken = NULL;
    CHECK_INT(link_listen(b.hub, PLANE_CONTROL, endpoint, &taken, &err), ERR_IO);
    CHECK(strstr(err.text, "already in use"));
    link_close(client, 0);
    link_close(again, 0);
    node_close(&a);
    node_close(&b);
    link_explain("tcp://no-such-host.invalid:7700", 500, text, sizeof text);
    CHECK(strstr(text, "no-such-host.invalid"));
    link_explain("nonsense", 500, text, sizeof text);
    CHECK(strstr(text, "not an endpoint"));
}

static void queues_are_bounded(void)
{
    struct node a, b;
    struct link *server, *client;
    REQUIRE(pair_open(&a, &b, PLANE_DATA, &server, &client) && wait_state(client, NULL, LINK_UP, 3000));
    static char block[1 << 20];
    struct frame_part part = {block, sizeof block};
    int sent = 0, rc = 0;
    for (int64_t end = clock_ms() + 3000; sent < 1000 && clock_ms() < end;) {
        rc = link_send(client, NULL, &part, 1, NULL);
        if (rc)
            break;
        sent++;
    }
    CHECK_INT(rc, ERR_BUSY); /* nobody reads: backpressure, not growth */
    CHECK(sent >= 64 && sent < 400);
    int got = 0;
    struct link_message m;
    while (receive(server, client, got < sent ? 5000 : 100, &m)) { /* patient: a slow machine may be decrypting */
        got++;
        link_message_free(&m);
    }
    CHECK_INT(got, sent); /* nothing was dropped */
    CHECK_INT(link_send(client, NULL, &part, 1, NULL), 0);
    pair_close(&a, &b, server, client);
}

/* An allowed peer that misbehaves at ZeroMQ's level: too many parts, too large a part, a borrowed name. */
static void rude_peers_do_no_harm(void)
{
    struct node a, b;
    REQUIRE(node_open(&a) && node_open(&b));
    struct link *server = serve(&a, PLANE_CONTROL);
    REQUIRE(server);
    allow(&a, PLANE_CONTROL, &b);
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", link_port(server));
    void *context = zmq_ctx_new(), *raw[2];
    int zero = 0;
    for (int i = 0; i < 2; i++) {
        raw[i] = zmq_socket(context, ZMQ_DEALER);
        zmq_setsockopt(raw[i], ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(raw[i], ZMQ_CURVE_SERVERKEY, public_of(&a), 41);
        zmq_setsockopt(raw[i], ZMQ_CURVE_SECRETKEY, key_secret_text(b.key), 41);
        zmq_setsockopt(raw[i], ZMQ_CURVE_PUBLICKEY, public_of(&b), 41);
        zmq_setsockopt(raw[i], ZMQ_ROUTING_ID, "same", 4);
        CHECK_INT(zmq_connect(raw[i], endpoint), 0);
        struct link_message m;
        if (i == 0) {
            zmq_send(raw[0], "first", 5, 0);
            REQUIRE(receive(server, NULL, 3000, &m));
            CHECK(says(&m, "first"));
            link_message_free(&m);
        }
    }
    for (int i = 0; i < 6; i++)
        zmq_send(raw[0], "part", 4, i < 5 ? ZMQ_SNDMORE : 0);
    zmq_send(raw[0], "after", 5, 0);
    struct link_message m;
    struct error err = {0};
    int rc = 0;
    bool ready;
    for (int64_t end = clock_ms() + 3000; rc == 0 && clock_ms() < end; link_wait(&server, 1, NULL, 50, &ready))
        rc = link_receive(server, &m, &err);
    CHECK_INT(rc, ERR_BOUND);
    REQUIRE(receive(server, NULL, 3000, &m));
    CHECK(says(&m, "after")); /* the next message starts clean; the namesake took nothing over */
    struct link_peer to = m.from;
    link_message_free(&m);
    CHECK_INT(say(server, &to, "you"), 0);
    char answer[8] = "";
    int wait_ms = 2000;
    zmq_setsockopt(raw[0], ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    CHECK_INT(zmq_recv(raw[0], answer, sizeof answer, 0), 3);
    static char large[5 << 20]; /* over the control plane's bound: the connection ends, the server does not */
    zmq_send(raw[0], large, sizeof large, 0);
    CHECK(!receive(server, NULL, 500, &m));
    struct link *good = dial(&b, PLANE_CONTROL, link_port(server), public_of(&a));
    REQUIRE(good);
    CHECK_INT(link_send(good, NULL, &(struct frame_part){large, sizeof large}, 1, &err), ERR_BOUND);
    CHECK_INT(say(good, NULL, "good"), 0);
    bool heard = false;
    while (!heard && receive(server, good, 3000, &m)) {
        heard = says(&m, "good");
        link_message_free(&m);
    }
    CHECK(heard);
    zmq_close(raw[0]);
    zmq_close(raw[1]);
    zmq_ctx_term(context);
    pair_close(&a, &b, server, good);
}

/* What an eavesdropper between two nodes sees holds none of what they say. */
static void the_wire_shows_nothing(void)
{
    static const char prompt[] = "Once upon a time there was a secret in the attic";
    float activations[256];
    for (int i = 0; i < 256; i++)
        activations[i] = 1.0f / (float)(i + 3);
    struct node a, b;
    struct tap tap;
    REQUIRE(node_open(&a) && node_open(&b));
    struct link *server = serve(&a, PLANE_DATA);
    REQUIRE(server && tap_start(&tap, link_port(server)));
    allow(&a, PLANE_DATA, &b);
    struct link *client = dial(&b, PLANE_DATA, tap.port, public_of(&a));
    REQUIRE(client);
    struct frame_part parts[2] = {{prompt, sizeof prompt}, {activations, sizeof activations}};
    struct link_message m;
    for (int i = 0; i < 20; i++) {
        CHECK_INT(link_send(client, NULL, parts, 2, NULL), 0);
        REQUIRE(receive(server, client, 5000, &m));
        CHECK(m.part_count == 2 && !memcmp(m.parts[0].data, prompt, sizeof prompt));
        CHECK_INT(link_send(server, &m.from, parts, 2, NULL), 0);
        link_message_free(&m);
        REQUIRE(receive(client, server, 5000, &m));
        CHECK(m.part_count == 2 && !memcmp(m.parts[1].data, activations, sizeof activations));
        link_message_free(&m);
    }
    for (int way = 0; way < 2; way++)
        CHECK(tap_size(&tap, way) > 20 * (sizeof prompt + sizeof activations));
    for (size_t at = 0; at + 8 <= sizeof prompt; at += 8)
        CHECK(!tap_saw(&tap, prompt + at, 8));
    for (int i = 0; i + 2 <= 256; i += 2)
        CHECK(!tap_saw(&tap, activations + i, 8));
    /* The same look at plain bytes does find them. */
    tap_record(&tap, 1, (const unsigned char *)activations, sizeof activations);
    tap_record(&tap, 0, (const unsigned char *)prompt, sizeof prompt);
    CHECK(tap_saw(&tap, prompt + 8, 8) && tap_saw(&tap, activations + 100, 8));
    link_close(client, 0);
    link_close(server, 0);
    tap_stop(&tap);
    node_close(&a);
    node_close(&b);
}

static const struct check_test tests[] = {
    {"messages carry the key of their sender", messages_carry_the_key_of_their_sender},
    {"a strange key is refused and may come back", a_strange_key_is_refused_and_may_come_back},
    {"planes are separate", planes_are_separate},
    {"a server must prove its key", a_server_must_prove_its_key},
    {"plain clients are refused", plain_clients_are_refused},
    {"a link survives its peer", a_link_survives_its_peer},
    {"queues are bounded", queues_are_bounded},
    {"rude peers do no harm", rude_peers_do_no_harm},
    {"the wire shows nothing", the_wire_shows_nothing},
};

CHECK_MAIN(tests)
