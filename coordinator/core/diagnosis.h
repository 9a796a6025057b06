/* What is wrong with a node, and what to change: a pure judgement over the facts that `brigade doctor` has gathered. No
 * socket, no clock. */
#ifndef BRIGADE_COORDINATOR_CORE_DIAGNOSIS_H
#define BRIGADE_COORDINATOR_CORE_DIAGNOSIS_H

#include "coordinator/core/config.h"
#include "proto/frame.h"
#include "proto/link.h"

enum finding_level { FINDING_GOOD, FINDING_HINT, FINDING_BAD };

struct finding {
    enum finding_level level;
    const char *check; /* "reach", "key", "version", "kernels", "mtu", "clock", "memory", "temperature", "link", ... */
    char text[240];    /* what is, and for others than good: what to change */
};

#define FINDINGS_MAX 24

struct findings {
    size_t count;
    struct finding list[FINDINGS_MAX];
};

struct node_facts {
    const struct config_node *node;
    char address[72];      /* its name resolved; "" when it cannot be */
    char unreachable[160]; /* why no TCP connection stands; "" when one does */
    enum link_state link;  /* the encrypted one */
    char link_text[192];
    struct error refusal; /* code 0, or why it does not talk with us (another version) */
    bool welcomed;
    char program_version[64], isa[16], cpu[96], name[128];
    uint32_t kernels_version;
    uint64_t memory_bytes; /* admitted, as it says */
    bool claimed_by_other, has_loaded;
    bool reported;
    struct control_report report;
    int64_t clock_offset_us, clock_error_us; /* its clock less ours, and half the round trip */
    double rtt_seconds;                      /* least of some; 0 unknown */
    bool padded;                             /* the large reply came, too */
    uint32_t own_mtu;                        /* of our interface to it; 0 unknown */
    uint32_t path_mtu;                       /* as our kernel knows it; 0 unknown */
};

/* kernels_version: the one that most nodes have. */
void diagnose(const struct node_facts *facts, uint32_t kernels_version, struct findings *out);
bool findings_bad(const struct findings *f);

#endif
