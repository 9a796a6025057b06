/* What the bar says while stages are loaded: how much of all weights is where it belongs, over all nodes. Each node tells
 * how much it has received (where it lacks the file) and how much it has laid out; the further of both counts. Pure; one
 * thread. */
#ifndef BRIGADE_COORDINATOR_CLI_LOADING_H
#define BRIGADE_COORDINATOR_CLI_LOADING_H

#include <stddef.h>
#include <stdint.h>

#define LOADING_NODES_MAX 64u

struct loading {
    struct {
        char name[64];
        double share;     /* 0 to 1; never falls */
        uint64_t bytes;   /* of weights; 0: not known yet */
    } node[LOADING_NODES_MAX];
    uint32_t count;
};

/* A node's word, as struct runner_progress has it: total 0 says nothing yet, an empty `what` that it is done. */
void loading_note(struct loading *l, const char *node, const char *what, uint64_t done, uint64_t total);
/* "loading 526 MiB into 2 nodes", and the bar's two numbers. */
void loading_text(const struct loading *l, char *text, size_t size, uint64_t *done, uint64_t *total);

#endif
