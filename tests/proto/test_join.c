/* Tokens survive the way through a terminal or are refused, proofs hold for one board and one nonce, and join messages
 * come back as they were or not at all. */
#include "base/memory.h"
#include "base/net.h"
#include "proto/join.h"
#include "tests/check.h"

static struct node_key *coordinator, *node, *other;

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void a_token_comes_back(void)
{
    struct join_token *made = NULL, *read = NULL;
    struct error err = {0};
    const char *hosts[] = {"10.0.0.1", "fd00::7", "laptop.local"};
    for (size_t i = 0; i < 3; i++) {
        REQUIRE(!join_token_create(key_public_text(coordinator), hosts[i], 7799, INT64_C(1900000000), &made, &err));
        char *pasted = mem_printf("%s \r\n", join_token_text(made));
        CHECK_INT(join_token_read(pasted, &read, &err), 0);
        CHECK_TEXT(join_token_key(read), key_public_text(coordinator));
        CHECK_TEXT(join_token_host(read), hosts[i]);
        CHECK_TEXT(join_token_endpoint(read), i == 1 ? "tcp://[fd00::7]:7799"
                                              : i    ? "tcp://laptop.local:7799"
                                                     : "tcp://10.0.0.1:7799");
        CHECK_INT(join_token_expires_s(read), INT64_C(1900000000));
        mem_free(pasted);
        join_token_free(made);
        join_token_free(read);
    }
    char longest[JOIN_HOST_TEXT], too_long[JOIN_HOST_TEXT + 1];
    memset(longest, 'h', sizeof longest);
    longest[sizeof longest - 1] = 0;
    memset(too_long, 'h', sizeof too_long);
    too_long[sizeof too_long - 1] = 0;
    REQUIRE(!join_token_create(key_public_text(coordinator), longest, 1, 0, &made, &err));
    CHECK_INT(join_token_read(join_token_text(made), &read, &err), 0);
    CHECK_TEXT(join_token_host(read), longest);
    join_token_free(read);
    join_token_free(made);
    CHECK_INT(join_token_create(key_public_text(coordinator), too_long, 1, 0, &made, &err), ERR_FORMAT);
    CHECK_INT(join_token_create(key_public_text(coordinator), "", 1, 0, &made, &err), ERR_FORMAT);
    CHECK_INT(join_token_create(key_public_text(coordinator), "h", 0, 0, &made, &err), ERR_FORMAT);
    CHECK_INT(join_token_create("short", "h", 1, 0, &made, &err), ERR_FORMAT);
}

/* Every character changed to another one, every length: refused, and with a line. */
static void a_torn_token_is_refused(void)
{
    struct join_token *made = NULL, *read = NULL;
    struct error err = {0};
    REQUIRE(!join_token_create(key_public_text(coordinator), "10.0.0.1", 7799, 1, &made, &err));
    char *text = mem_strdup(join_token_text(made));
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        char was = text[i];
        for (size_t k = 0; k < 64; k += 7) {
            text[i] = alphabet[k];
            if (text[i] == was)
                continue;
            err = (struct error){0};
            int rc = join_token_read(text, &read, &err);
            CHECK(rc == ERR_FORMAT && *err.text);
        }
        text[i] = was;
        char *cut = mem_strndup(text, i);
        CHECK_INT(join_token_read(cut, &read, &err), ERR_FORMAT);
        mem_free(cut);
    }
    CHECK_INT(join_token_read("", &read, &err), ERR_FORMAT);
    CHECK_INT(join_token_read("tcp://10.0.0.1:7799", &read, &err), ERR_FORMAT);
    CHECK(strstr(err.text, "brigade invite") != NULL);
    char *longer = mem_zalloc(1, 5000);
    memset(longer, 'A', 4999);
    memcpy(longer, text, 9);
    CHECK_INT(join_token_read(longer, &read, &err), ERR_FORMAT);
    mem_free(longer);
    mem_free(text);
    join_token_free(made);
}

static void a_proof_is_for_one_board_and_one_nonce(void)
{
    struct join_token *token = NULL, *twin = NULL;
    struct error err = {0};
    uint8_t nonce[JOIN_NONCE_BYTES] = {1}, later[JOIN_NONCE_BYTES] = {2}, mac[JOIN_MAC_BYTES];
    REQUIRE(!join_token_create(key_public_text(coordinator), "h", 1, 0, &token, &err));
    REQUIRE(!join_token_create(key_public_text(coordinator), "h", 1, 0, &twin, &err));
    const char *me = key_public_text(node);
    join_prove(token, me, nonce, mac);
    CHECK(join_proof_holds(token, me, nonce, mac));
    CHECK(!join_proof_holds(token, me, later, mac));
    CHECK(!join_proof_holds(token, key_public_text(other), nonce, mac));
    CHECK(!join_proof_holds(twin, me, nonce, mac)); /* another secret */
    for (size_t i = 0; i < sizeof mac; i++) {
        mac[i] ^= 1;
        CHECK(!join_proof_holds(token, me, nonce, mac));
        mac[i] ^= 1;
    }
    char a[JOIN_FINGERPRINT_TEXT], b[JOIN_FINGERPRINT_TEXT];
    join_fingerprint(me, a);
    join_fingerprint(key_public_text(other), b);
    CHECK_INT(strlen(a), 19);
    CHECK(strcmp(a, b) != 0);
    join_token_free(token);
    join_token_free(twin);
}

static void messages_come_back(void)
{
    struct join_message m[5] = {
        {.kind = JOIN_ASK, .program_version = "0.1.0", .name = "pi", .endpoint = "tcp://10.0.0.2:7700"},
        {.kind = JOIN_CHALLENGE},
        {.kind = JOIN_PROOF},
        {.kind = JOIN_WAITING},
        {.kind = JOIN_ANSWER, .code = ERR_AUTH, .text = "no", .name = "pi"},
    };
    memset(m[1].nonce, 7, sizeof m[1].nonce);
    memset(m[2].mac, 9, sizeof m[2].mac);
    for (size_t i = 0; i < 5; i++) {
        struct buffer bytes = {0};
        struct join_message back;
        struct error err = {0};
        REQUIRE(!join_encode(&m[i], &bytes, &err));
        CHECK_INT(join_decode(bytes.data, bytes.size, &back, &err), 0);
        CHECK_INT(back.kind, m[i].kind);
        CHECK_INT(back.code, m[i].code);
        CHECK_TEXT(back.name, m[i].name);
        CHECK_TEXT(back.text, m[i].text);
        CHECK_TEXT(back.endpoint, m[i].endpoint);
        CHECK_TEXT(back.program_version, m[i].program_version);
        CHECK(!memcmp(back.nonce, m[i].nonce, sizeof back.nonce) && !memcmp(back.mac, m[i].mac, sizeof back.mac));
        /* Whatever bytes come, the answer is a message or a line. */
        for (size_t at = 0; at < bytes.size; at++)
            for (int bit = 0; bit < 8; bit++) {
                bytes.data[at] ^= (char)(1 << bit);
                err = (struct error){0};
                int rc = join_decode(bytes.data, bytes.size, &back, &err);
                CHECK(rc == 0 || (rc < 0 && *err.text));
                bytes.data[at] ^= (char)(1 << bit);
            }
        for (size_t n = 0; n < bytes.size; n++)
            CHECK(join_decode(bytes.data, n, &back, &err) <= 0);
        buffer_free(&bytes);
    }
    struct buffer bytes = {0};
    struct join_message back;
    struct error err = {0};
    struct join_message bell = {.kind = JOIN_ASK, .name = "p\ai"};
    REQUIRE(!join_encode(&bell, &bytes, &err));
    CHECK_INT(join_decode(bytes.data, bytes.size, &back, &err), ERR_FORMAT);
    buffer_free(&bytes);
}

static void endpoints_are_cut_and_joined(void)
{
    char host[64], port[8], whole[64], own[NET_ADDRESS_TEXT];
    CHECK(net_split_endpoint("tcp://10.0.0.1:7700", host, sizeof host, port) && !strcmp(host, "10.0.0.1") &&
          !strcmp(port, "7700"));
    CHECK(net_split_endpoint("tcp://[::1]:1", host, sizeof host, port) && !strcmp(host, "::1"));
    CHECK(net_join_endpoint(host, port, whole, sizeof whole));
    CHECK_TEXT(whole, "tcp://[::1]:1");
    CHECK(!net_split_endpoint("tcp://host", host, sizeof host, port));
    CHECK(!net_split_endpoint("tcp://:7", host, sizeof host, port));
    CHECK(!net_split_endpoint("udp://h:7", host, sizeof host, port));
    CHECK(!net_split_endpoint("", host, sizeof host, port));
    CHECK(!net_split_endpoint("tcp://much-too-long:7", host, 4, port));
    CHECK(net_is_wildcard("0.0.0.0") && net_is_wildcard("::") && !net_is_wildcard("10.0.0.1"));
    CHECK_INT(net_address_toward("127.0.0.1", own, NULL), 0);
    CHECK_TEXT(own, "127.0.0.1");
    CHECK(net_interface_of("127.0.0.1", host) && *host);
    CHECK(!net_interface_of("192.0.2.77", host));
}

static const struct check_test tests[] = {
    {"a token comes back", a_token_comes_back},
    {"a torn token is refused", a_torn_token_is_refused},
    {"a proof is for one board and one nonce", a_proof_is_for_one_board_and_one_nonce},
    {"messages come back", messages_come_back},
    {"endpoints are cut and joined", endpoints_are_cut_and_joined},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    if (key_generate(&coordinator, &err) || key_generate(&node, &err) || key_generate(&other, &err))
        return 1;
    int rc = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    key_free(coordinator);
    key_free(node);
    key_free(other);
    return rc;
}
