/* Invitations in simulated time, and cluster.yaml changed under a person's comments. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "coordinator/core/cluster_file.h"
#include "coordinator/core/invitation.h"
#include "tests/check.h"

#define SECOND INT64_C(1000000)

static struct node_key *keys[3];
static struct join_token *token;
static struct invitation invitation;
static struct join_message reply;
static uint8_t serial;

static bool say(int who, const struct join_message *m, int64_t now_us)
{
    uint8_t nonce[JOIN_NONCE_BYTES] = {++serial};
    return invitation_step(&invitation, key_public_text(keys[who]), m, now_us, nonce, &reply);
}

static void ask(int who, int64_t now_us)
{
    struct join_message m = {.kind = JOIN_ASK, .name = "pi", .endpoint = "tcp://10.0.0.2:7700"};
    CHECK(!say(who, &m, now_us));
}

/* A proof for the nonce of the last reply. */
static bool prove(int who, bool right, int64_t now_us)
{
    struct join_message m = {.kind = JOIN_PROOF};
    join_prove(token, key_public_text(keys[who]), reply.nonce, m.mac);
    m.mac[5] ^= !right;
    return say(who, &m, now_us);
}

static void begin(void)
{
    invitation_start(&invitation, token, 600 * SECOND);
}

static void a_board_comes_in_once(void)
{
    begin();
    ask(1, SECOND);
    CHECK_INT(reply.kind, JOIN_CHALLENGE);
    CHECK(prove(1, true, SECOND));
    CHECK_INT(reply.kind, JOIN_WAITING);
    CHECK_TEXT(invitation.guest.public_key, key_public_text(keys[1]));
    CHECK_TEXT(invitation.guest.ask.name, "pi");
    ask(2, 2 * SECOND); /* another one with the same token */
    CHECK_INT(reply.code, ERR_AUTH);
    CHECK(strstr(reply.text, "used") != NULL);
    ask(1, 2 * SECOND); /* impatient */
    CHECK_INT(reply.kind, JOIN_WAITING);
    invitation_decide(&invitation, 0, "pi", "", &reply);
    CHECK(reply.kind == JOIN_ANSWER && reply.code == 0 && !strcmp(reply.name, "pi"));
    ask(1, 3 * SECOND); /* the answer was lost */
    CHECK(reply.kind == JOIN_ANSWER && reply.code == 0);
    ask(2, 3 * SECOND);
    CHECK_INT(reply.code, ERR_AUTH);
}

static void expired_tokens_are_dead(void)
{
    begin();
    ask(1, 599 * SECOND);
    CHECK_INT(reply.kind, JOIN_CHALLENGE);
    CHECK(!invitation_over(&invitation, 599 * SECOND));
    CHECK(!prove(1, true, 600 * SECOND)); /* asked in time, proven too late */
    CHECK_INT(reply.code, ERR_TIMEOUT);
    ask(1, 601 * SECOND);
    CHECK_INT(reply.code, ERR_TIMEOUT);
    CHECK(invitation_over(&invitation, 600 * SECOND));
}

static void guesses_cost_time_and_then_the_token(void)
{
    int64_t now = SECOND;
    begin();
    for (int i = 1; i <= INVITATION_WRONG_MAX; i++) {
        ask(1, now);
        REQUIRE(reply.kind == JOIN_CHALLENGE);
        CHECK(!prove(1, false, now));
        CHECK_INT(reply.code, ERR_AUTH);
        ask(1, now + SECOND / 2);
        CHECK_INT(reply.code, i < INVITATION_WRONG_MAX ? ERR_BUSY : ERR_AUTH);
        now += 2 * SECOND;
    }
    CHECK(invitation_over(&invitation, now));
    ask(2, now); /* spoilt for the honest one too */
    CHECK_INT(reply.code, ERR_AUTH);
    CHECK(strstr(reply.text, "withdrawn") != NULL);
}

static void nonces_serve_once_and_for_one(void)
{
    begin();
    CHECK(!prove(1, true, SECOND)); /* nobody asked */
    CHECK_INT(reply.code, ERR_ORDER);
    ask(1, SECOND);
    struct join_message challenge = reply;
    ask(2, SECOND);
    reply = challenge;
    CHECK(!prove(2, true, SECOND)); /* with the nonce of board 1 */
    CHECK_INT(reply.code, ERR_AUTH);
    ask(1, 3 * SECOND); /* a new nonce; the old one no longer serves */
    reply = challenge;
    CHECK(!prove(1, true, 3 * SECOND));
    CHECK_INT(reply.code, ERR_AUTH);
    struct join_message odd = {.kind = JOIN_ANSWER};
    CHECK(!say(2, &odd, 9 * SECOND));
    CHECK_INT(reply.code, ERR_FORMAT);
}

static void a_crowd_pushes_nobody_in(void)
{
    begin();
    for (int i = 0; i < 3 * INVITATION_ASKERS_MAX; i++) {
        char key[KEY_TEXT];
        struct join_message m = {.kind = JOIN_ASK};
        uint8_t nonce[JOIN_NONCE_BYTES] = {0};
        snprintf(key, sizeof key, "%040d", i);
        CHECK(!invitation_step(&invitation, key, &m, (i + 1) * 1000, nonce, &reply));
        CHECK_INT(reply.kind, JOIN_CHALLENGE);
    }
    CHECK_INT(invitation.asker_count, INVITATION_ASKERS_MAX);
    ask(1, SECOND);
    CHECK(prove(1, true, SECOND));
}

/* ---- cluster.yaml ------------------------------------------------------------------------------------------------ */

static char folder[64], path[128];

static char *content(void)
{
    struct buffer b = {0};
    CHECK_INT(file_read(path, &b, NULL), 0);
    return buffer_steal(&b);
}

static void a_cluster_is_made_and_filled(void)
{
    char public_key[KEY_TEXT], key_path[160];
    struct error err = {0};
    struct config *c = NULL;
    struct config_node was;
    struct stat st;
    bool changed = false;
    snprintf(folder, sizeof folder, "/tmp/brigade-joining-XXXXXX");
    REQUIRE(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/cluster.yaml", folder);
    snprintf(key_path, sizeof key_path, "%s/k.key", folder);
    CHECK_INT(cluster_file_add(path, "a", "tcp://10.0.0.1:7700", key_public_text(keys[1]), &changed, &err),
              ERR_NOTFOUND);
    CHECK(strstr(err.text, "brigade init") != NULL);
    REQUIRE(!cluster_file_init(path, "k.key", public_key, &err));
    CHECK(!stat(key_path, &st) && (st.st_mode & 0777) == 0600);
    CHECK_INT(cluster_file_init(path, "k.key", public_key, &err), ERR_USAGE);
    char *empty = content();
    REQUIRE(!config_read(path, &c, &err));
    CHECK_INT(c->node_count, 0);
    CHECK_TEXT(c->key_path, key_path);
    config_free(c);

    CHECK_INT(cluster_file_add(path, "a", "tcp://10.0.0.1:7700", key_public_text(keys[1]), &changed, &err), 0);
    CHECK(changed);
    CHECK_INT(cluster_file_add(path, "a", "tcp://10.0.0.1:7700", key_public_text(keys[1]), &changed, &err), 0);
    CHECK(!changed); /* again: nothing to do */
    CHECK_INT(cluster_file_add(path, "b", "tcp://10.0.0.2:7700", key_public_text(keys[1]), &changed, &err), ERR_USAGE);
    CHECK(strstr(err.text, "revoke a") != NULL);
    CHECK_INT(cluster_file_add(path, "a", "tcp://10.0.0.2:7700", key_public_text(keys[2]), &changed, &err), ERR_USAGE);
    CHECK(strstr(err.text, "--name") != NULL);
    CHECK_INT(cluster_file_add(path, "b", "tcp://10.0.0.1:7700", key_public_text(keys[2]), &changed, &err), ERR_FORMAT);
    CHECK_INT(cluster_file_add(path, "b", "tcp://127.0.0.1:7700", key_public_text(keys[2]), &changed, &err),
              ERR_FORMAT);
    CHECK_INT(cluster_file_add(path, "b \"c\"", "tcp://10.0.0.2:7700", key_public_text(keys[2]), &changed, &err),
              ERR_FORMAT);
    CHECK_INT(cluster_file_add(path, "b: [1] \\", "tcp://10.0.0.2:7700", key_public_text(keys[2]), &changed, &err), 0);
    REQUIRE(!config_read(path, &c, &err));
    CHECK_INT(c->node_count, 2);
    CHECK_TEXT(c->nodes[1].name, "b: [1] \\");
    config_free(c);
    CHECK_INT(cluster_file_remove(path, "c", &was, &err), ERR_NOTFOUND);
    CHECK_INT(cluster_file_remove(path, "b: [1] \\", &was, &err), 0);
    CHECK_TEXT(was.endpoint, "tcp://10.0.0.2:7700");
    CHECK_INT(cluster_file_remove(path, "a", &was, &err), 0);
    char *back = content();
    CHECK_TEXT(back, empty);
    mem_free(back);
    mem_free(empty);
    unlink(key_path);
    unlink(path);
    CHECK_INT(rmdir(folder), 0);
}

static void links_go_with_their_node(void)
{
    static const char before[] = "# mine\nversion: 1\ncoordinator: {key: k}\nnodes:\n"
                                 "  - {name: a, endpoint: \"tcp://h:1\", public_key: \"%s\"} # first\n"
                                 "  - {name: b, endpoint: \"tcp://h:2\", public_key: \"%s\"}\n"
                                 "  # the third\n"
                                 "  - {name: c, endpoint: \"tcp://h:3\", public_key: \"%s\"}\n"
                                 "links:\n  - {from: a, to: b, bandwidth: 1Gbit, rtt: 1ms}\n  - {from: b, to: c, "
                                 "bandwidth: 1Gbit, rtt: 1ms} # slow\n"
                                 "  - {from: c, to: a, bandwidth: 1Gbit, rtt: 1ms}\nactivations: f16 # as measured\n";
    static const char after[] =
        "# mine\nversion: 1\ncoordinator: {key: k}\nnodes:\n"
        "  - {name: a, endpoint: \"tcp://h:1\", public_key: \"%s\"} # first\n"
        "  # the third\n"
        "  - {name: c, endpoint: \"tcp://h:3\", public_key: \"%s\"}\n"
        "links:\n  - {from: c, to: a, bandwidth: 1Gbit, rtt: 1ms}\nactivations: f16 # as measured\n";
    struct error err = {0};
    struct config_node was;
    snprintf(folder, sizeof folder, "/tmp/brigade-joining-XXXXXX");
    REQUIRE(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/cluster.yaml", folder);
    const char *a = key_public_text(keys[0]), *b = key_public_text(keys[1]), *c = key_public_text(keys[2]);
    char *text = mem_printf(before, a, b, c), *want = mem_printf(after, a, c);
    REQUIRE(!file_create(path, text, strlen(text), 0600, &err));
    CHECK_INT(cluster_file_remove(path, "b", &was, &err), 0);
    char *got = content();
    CHECK_TEXT(got, want);
    mem_free(got);
    mem_free(want);
    mem_free(text);
    unlink(path);
    CHECK_INT(rmdir(folder), 0);
}

static const struct check_test tests[] = {
    {"a board comes in once", a_board_comes_in_once},
    {"expired tokens are dead", expired_tokens_are_dead},
    {"guesses cost time and then the token", guesses_cost_time_and_then_the_token},
    {"nonces serve once and for one", nonces_serve_once_and_for_one},
    {"a crowd pushes nobody in", a_crowd_pushes_nobody_in},
    {"a cluster is made and filled", a_cluster_is_made_and_filled},
    {"links go with their node", links_go_with_their_node},
};

int main(int argc, char **argv)
{
    struct error err = {0};
    for (int i = 0; i < 3; i++)
        if (key_generate(&keys[i], &err))
            return 1;
    if (join_token_create(key_public_text(keys[0]), "10.0.0.9", 7799, 0, &token, &err))
        return 1;
    int rc = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    join_token_free(token);
    for (int i = 0; i < 3; i++)
        key_free(keys[i]);
    return rc;
}
