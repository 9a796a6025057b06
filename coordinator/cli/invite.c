/* `brigade invite`: prints a token, waits for the board that brings it, asks the person, enters it into cluster.yaml.
 * Opens a port while it waits, and only then. One thread, beside the hub's. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/net.h"
#include "base/units.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "coordinator/core/cluster_file.h"
#include "coordinator/core/invitation.h"
#include "proto/link.h"

#define ANSWER_MS 1000 /* for the last message to leave, and for a board that asks again */
#define REACH_MS 20000 /* for the board to start serving once it is in */

static const struct command_help help = {
    "brigade invite [-c cluster.yaml] [--listen ENDPOINT] [--address HOST] [--expires TIME] [--yes] [--json]",
    "Prints a token that lets one board into the cluster, and waits for it: on the board, run the printed command. "
    "Shows\n"
    "the board's name, address and key fingerprint (the board shows the same one) and asks before it is entered into\n"
    "cluster.yaml. A token serves once and dies with its time or with this command.",
    "brigade invite -c cluster.yaml",
};

struct invite {
    const char *config_path, *listen, *address, *expires;
    bool yes, json;
    struct config *config;
    struct node_key *key;
    struct hub *hub;
    struct link *link;
    struct join_token *token;
    struct invitation invitation;
    struct progress progress;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------
 */

static int open_token(struct invite *v, double seconds, struct error *err)
{
    char host[JOIN_HOST_TEXT], port[8], own[NET_ADDRESS_TEXT];
    int rc;
    if (!net_split_endpoint(v->listen, host, sizeof host, port))
        return error_set(err, ERR_USAGE, "--listen: \"%.80s\" is not tcp://ADDRESS:PORT", v->listen);
    if ((rc = config_read(v->config_path, &v->config, err))) {
        if (rc == ERR_NOTFOUND)
            error_set(err, rc, "%s: there is no such file; 'brigade init %s' makes one", v->config_path,
                      v->config_path);
        return rc;
    }
    if ((rc = key_load(v->config->key_path, &v->key, err)) || (rc = hub_create(v->key, &v->hub, err)))
        return rc;
    hub_admit_guests(v->hub);
    if ((rc = link_listen(v->hub, PLANE_JOIN, v->listen, &v->link, err)))
        return error_prefix(err, "--listen");
    if (!v->address && net_is_wildcard(host)) {
        if ((rc = net_own_address(own, err)))
            return error_prefix(err, "--address");
        v->address = own;
    }
    rc = join_token_create(key_public_text(v->key), v->address ? v->address : host, (uint16_t)link_port(v->link),
                           (int64_t)time(NULL) + (int64_t)seconds, &v->token, err);
    if (v->address == own)
        v->address = NULL;
    invitation_start(&v->invitation, v->token, clock_us() + (int64_t)(seconds * 1e6));
    return rc;
}

static void say_token(const struct invite *v)
{
    if (v->json) {
        printf("{\"event\":\"invited\",\"token\":\"%s\",\"endpoint\":\"%s\",\"expires\":%lld}\n",
               join_token_text(v->token), join_token_endpoint(v->token), (long long)join_token_expires_s(v->token));
    } else {
        char until[32];
        time_t at = (time_t)join_token_expires_s(v->token);
        struct tm tm;
        strftime(until, sizeof until, "%H:%M:%S", localtime_r(&at, &tm));
        printf("On the board, within reach of %s and until %s, run:\n\n  brigade-worker --join %s\n\n",
               join_token_endpoint(v->token), until, join_token_text(v->token));
    }
    fflush(stdout);
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------
 */

static int send_reply(struct invite *v, const struct link_peer *to, const struct join_message *reply, struct error *err)
{
    struct buffer bytes = {0};
    int rc = join_encode(reply, &bytes, err);
    if (!rc)
        rc = link_send(v->link, to, &(struct frame_part){bytes.data, bytes.size}, 1, err);
    buffer_free(&bytes);
    if (rc == ERR_LOST || rc == ERR_BUSY) /* it will ask again, or not */
        rc = 0;
    return rc;
}

/* Takes what waits; *proven with the board that has shown the secret. */
static int receive(struct invite *v, struct link_peer *guest, bool *proven, struct error *err)
{
    struct link_message in;
    int got, rc = 0;
    while (!rc && (got = link_receive(v->link, &in, err)) != 0) {
        struct join_message message, reply;
        struct error bad = {0};
        uint8_t nonce[JOIN_NONCE_BYTES];
        if (got < 0) {
            if (got == ERR_IO)
                return got;
            continue;
        }
        join_random(nonce, sizeof nonce);
        if (in.part_count != 1)
            error_set(&bad, ERR_FORMAT, "a message of %zu parts", in.part_count);
        else
            join_decode(in.parts[0].data, in.parts[0].size, &message, &bad);
        if (bad.code) {
            reply = (struct join_message){.kind = JOIN_ANSWER, .code = bad.code};
            snprintf(reply.text, sizeof reply.text, "%s", bad.text);
        } else if (invitation_step(&v->invitation, in.from.public_key, &message, clock_us(), nonce, &reply)) {
            *proven = true;
            *guest = in.from;
        } else if (reply.kind == JOIN_ANSWER && reply.code) {
            log_warn("a board with the key %s was turned away: %s", in.from.public_key, reply.text);
        }
        rc = send_reply(v, &in.from, &reply, err);
        link_message_free(&in);
    }
    return rc;
}

/* Waits at most timeout_ms for something to read. */
static int wait_link(struct invite *v, int timeout_ms, struct error *err)
{
    bool ready = false;
    int rc = link_wait(&v->link, 1, NULL, timeout_ms, &ready);
    return rc < 0 ? error_set(err, rc, "waiting for a board: %s", error_name(rc)) : 0;
}

static int wait_for_guest(struct invite *v, double seconds, struct link_peer *guest, struct error *err)
{
    bool proven = false;
    for (;;) {
        int rc = receive(v, guest, &proven, err);
        if (rc || proven)
            return rc;
        int64_t now = clock_us(), left = v->invitation.expires_us - now;
        if (v->invitation.state == INVITATION_SPOILT)
            return error_set(err, ERR_AUTH,
                             "%d wrong proofs: the invitation is withdrawn; somebody guesses, or pastes an "
                             "old token",
                             INVITATION_WRONG_MAX);
        if (invitation_over(&v->invitation, now))
            return error_set(err, ERR_TIMEOUT,
                             "no board came in time; invite again, with a longer --expires if need be");
        if (interrupted)
            return error_set(err, ERR_CANCELLED, "the invitation is withdrawn; nobody was let in");
        progress_show(&v->progress, "waiting for the board", (uint64_t)(seconds * 1e6) - (uint64_t)left,
                      (uint64_t)(seconds * 1e6));
        if ((rc = wait_link(v, 200, err)))
            return rc;
    }
}

/* A person's yes or no; the board hears meanwhile that it has to wait. */
static int ask_person(struct invite *v, bool *yes, struct error *err)
{
    struct link_peer other;
    bool again = false;
    char line[64];
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    fprintf(stderr, "let it in? [y/N] ");
    fflush(stderr);
    while (!interrupted) {
        int rc = receive(v, &other, &again, err);
        if (rc)
            return rc;
        if (poll(&in, 1, 100) > 0) {
            *yes = fgets(line, sizeof line, stdin) && (*line == 'y' || *line == 'Y');
            return 0;
        }
    }
    *yes = false;
    return 0;
}

static int decide(struct invite *v, const struct link_peer *guest, struct error *err)
{
    const struct invitation_asker *board = &v->invitation.guest;
    const char *name = board->ask.name, *endpoint = board->ask.endpoint;
    char fingerprint[JOIN_FINGERPRINT_TEXT];
    bool yes = v->yes, changed = false;
    struct join_message reply;
    int rc = 0;
    join_fingerprint(guest->public_key, fingerprint);
    if (!v->json)
        printf("a board brings the token:\n  name         %s\n  endpoint     %s\n  fingerprint  %s\n  program      "
               "brigade %s\n",
               name, endpoint, fingerprint, board->ask.program_version);
    fflush(stdout);
    if (!yes && (rc = ask_person(v, &yes, err)))
        return rc;
    struct error why = {0};
    if (!yes)
        rc = error_set(&why, ERR_CANCELLED, "the person at the coordinator said no");
    else
        rc = cluster_file_add(v->config_path, name, endpoint, guest->public_key, &changed, &why);
    invitation_decide(&v->invitation, rc, name, why.text, &reply);
    int sent = send_reply(v, guest, &reply, err);
    if (rc)
        return error_set(err, rc == ERR_USAGE ? ERR_AUTH : rc,
                         rc == ERR_CANCELLED ? "not let in; the token is used up" : "%s", why.text);
    if (!sent && !v->json)
        printf(changed ? "%s: \"%s\" is entered\n" : "%s: \"%s\" was entered before\n", v->config_path, name);
    fflush(stdout);
    return sent;
}

/* The board starts serving now: does it answer at the address it gave, with the key it showed? */
static int check_reach(struct invite *v, struct error *err)
{
    const char *endpoint = v->invitation.guest.ask.endpoint, *name = v->invitation.guest.ask.name;
    char why[192] = "";
    struct link *link = NULL;
    struct link_peer other;
    bool again, up = false;
    int64_t until = clock_ms() + REACH_MS;
    int rc = link_connect(v->hub, PLANE_CONTROL, endpoint, v->invitation.guest.public_key, &link, err);
    while (!rc && !(up = link_state(link, why, sizeof why) == LINK_UP) && clock_ms() < until && !interrupted) {
        if (!(rc = receive(v, &other, &again, err)))
            rc = wait_link(v, 50, err);
    }
    if (!rc && !up && !*why)
        link_explain(endpoint, 500, why, sizeof why);
    link_close(link, 0);
    if (rc)
        return rc;
    if (v->json)
        return output_json(json_pack("{s:s, s:s, s:s, s:s, s:b}", "event", "joined", "name", name, "endpoint", endpoint,
                                     "public_key", v->invitation.guest.public_key, "answers", up));
    if (up)
        printf("it answers at %s\n", endpoint);
    else
        printf("it does not answer at %s yet (%s): start it there, or look for a firewall\n", endpoint, why);
    return 0;
}

static int run(struct invite *v, double seconds, struct error *err)
{
    struct link_peer guest;
    int rc = open_token(v, seconds, err);
    if (rc)
        return rc;
    say_token(v);
    rc = wait_for_guest(v, seconds, &guest, err);
    progress_clear(&v->progress);
    if (!rc)
        rc = decide(v, &guest, err);
    return rc ? rc : check_reach(v, err);
}

int command_invite(int argc, char **argv)
{
    struct invite v = {.config_path = "cluster.yaml", .listen = "tcp://0.0.0.0:7799", .expires = "10m"};
    const struct option table[] = {
        {"--config", 'c', OPTION_TEXT, &v.config_path, "FILE", "cluster.yaml (default: the one here)"},
        {"--listen", 0, OPTION_TEXT, &v.listen, "ENDPOINT", "where the board comes to (default tcp://0.0.0.0:7799)"},
        {"--address", 0, OPTION_TEXT, &v.address, "HOST",
         "this machine as the board reaches it (default: its first address)"},
        {"--expires", 0, OPTION_TEXT, &v.expires, "TIME", "how long the token lives: 90s, 10m (default), 2h"},
        {"--yes", 'y', OPTION_FLAG, &v.yes, NULL, "let the board in without asking: for scripts"},
        {"--json", 0, OPTION_FLAG, &v.json, NULL, "print one object an event; needs --yes"},
    };
    size_t words;
    double seconds;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (units_parse_seconds(v.expires, &seconds) || seconds < 1 || seconds > 7 * 86400)
        return options_wrong(&help, "--expires: \"%.40s\" is no time from 1s to 168h", v.expires);
    if (v.json && !v.yes)
        return options_wrong(&help, "--json has nobody to ask; add --yes");
    if (!v.yes && !isatty(STDIN_FILENO))
        return options_wrong(&help, "there is no terminal to ask at; add --yes");
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct error err = {0};
    int rc = run(&v, seconds, &err);
    progress_clear(&v.progress);
    link_close(v.link, ANSWER_MS);
    hub_destroy(v.hub);
    key_free(v.key);
    join_token_free(v.token);
    config_free(v.config);
    return options_exit(&help, rc, &err);
}
