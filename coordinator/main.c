/* brigade: everything a person types. Finds the command and hands over; owns nothing. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/cli/commands.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", command_run, "answer one prompt, streamed to the terminal"},
    {"chat", command_chat, "talk with a model in the terminal"},
    {"serve", command_serve, "answer over HTTP as OpenAI's API does, with a dashboard"},
    {"plan", command_plan, "show how a model would be split, and why"},
    {"bench", command_bench, "measure prefill and decode speed beside what is predicted"},
    {"status", command_status, "show nodes, stages, memory, load and links"},
    {"drain", command_drain, "take a node out of a running server's work, or let it in again"},
    {"rebalance", command_rebalance, "plan a running server's stages anew, by what was measured"},
    {"init", command_init, "make a coordinator key and an empty cluster.yaml"},
    {"invite", command_invite, "let a board into the cluster with a one-time token"},
    {"nodes", command_nodes, "list the nodes of a cluster, or find workers on the network"},
    {"revoke", command_revoke, "take a node out of the cluster, at once"},
    {"doctor", command_doctor, "examine every node, and say what to change"},
    {"top", command_top, "a live view of stages, nodes and links"},
    {"keygen", command_keygen, "make a node's secret key"},
    {"inspect", command_inspect, "show what a model file holds"},
    {"quantize", command_quantize, "convert a model file to a smaller type"},
    {"tokenize", command_tokenize, "text to token ids"},
    {"detokenize", command_detokenize, "token ids to text"},
    {"logits", command_logits, "numbers for checking: logits, log-likelihoods, greedy path"},
    {"perplexity", command_perplexity, "perplexity of a model over a text"},
};

static void print_usage(FILE *to)
{
    fputs("usage: brigade COMMAND [options]\n\n"
          "Runs a language model too big for one board on several of them together.\n\nCommands:\n", to);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fputs("\n'brigade COMMAND --help' tells about one of them. On each board: brigade-worker.\n", to);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, reported as a line */
    log_set_default("brigade", LOG_LEVEL_WARN);
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version") || !strcmp(name, "version")) {
        puts("brigade " BRIGADE_VERSION);
        return 0;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_usage(stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(name, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "brigade: there is no command '%s'; 'brigade --help' lists them\n", name);
    return 2;
}
