/* A small coordinator for tests: starts real brigade-worker processes on loopback and talks to them with proto/ alone.
 * Failures are recorded as CHECK failures of the test program that includes check.h before this. One thread. */
#ifndef BRIGADE_TESTS_WORKER_RIG_H
#define BRIGADE_TESTS_WORKER_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "proto/frame.h"
#include "proto/link.h"

#define RIG_MODEL "rig.gguf"
#define RIG_BLOCKS 4u
#define RIG_CONTEXT 128u
#define RIG_PAGES 16u
#define RIG_VOCABULARY 128u

/* The test's place: a folder with a small model, a coordinator's key and its sockets. */
struct rig {
    char folder[64], model_path[128], key_path[128];
    struct node_key *key;
    struct hub *hub;
    uint64_t fingerprint;
};

struct rig_worker {
    pid_t pid;
    char name[32], endpoint[64], key[KEY_TEXT], log_path[128];
    int port;
    struct link *control;
    int data_port;
};

/* What a call gives besides success: one line. NULL when all went well. */
const char *rig_open(struct rig *r);
void rig_close(struct rig *r);

/* Starts a worker that allows the rig's key; extra: further arguments, NULL-terminated, or NULL. Waits for its ready
 * line. */
const char *rig_start(struct rig *r, struct rig_worker *w, const char *name, const char *const *extra);
/* SIGTERM and wait, at most ms; the exit status, or -1 when it had to be killed or was not running. */
int rig_stop(struct rig_worker *w, int ms);
int rig_wait(struct rig_worker *w, int ms); /* the same without a signal */
void rig_kill(struct rig_worker *w); /* SIGKILL and reap */
/* How often a text stands in the worker's log. */
int rig_logged(const struct rig_worker *w, const char *text);
/* Runs the program with arguments to its end: exit code, and what it said on stderr. */
int rig_run(const char *const *arguments, char *said, size_t size);

/* Control plane. */
int rig_say(struct link *l, const struct control_message *m);
/* Waits for the reply to a request (or, for request 0, any message of a kind); heartbeat replies and progress are
 * passed over and counted. False after ms. control_free(out) is the caller's. */
bool rig_hear(struct link *l, uint64_t request, int kind, struct control_message *out, int ms);
/* Both. Zeroes request: a fresh one is used. */
bool rig_ask(struct link *l, struct control_message *m, struct control_message *out, int ms);
extern unsigned rig_progress_heard, rig_beats_heard;
extern int rig_patience_ms; /* when set, no wait of the calls below is longer */
/* Connects w->control, says Hello (claiming) and, with allow, lets these keys onto the data plane. */
const char *rig_claim(struct rig *r, struct rig_worker *w);
const char *rig_allow(struct rig *r, struct rig_worker *const *workers, size_t count);
struct control_message rig_load_message(struct rig *r, uint64_t epoch, uint32_t first, uint32_t last, uint32_t stage,
                                        uint32_t stages);

/* A pipe over `count` loaded workers: feeds the first, hears the last. */
struct rig_pipe {
    struct link *feed, *results;
    uint64_t epoch, microbatch;
};
/* Loads an even split over the workers as one epoch and attaches both ends. */
const char *rig_pipe_open(struct rig *r, struct rig_worker *const *workers, size_t count, uint64_t epoch,
                          enum frame_codec codec, struct rig_pipe *p);
void rig_pipe_close(struct rig_pipe *p); /* also of one that did not open */

/* Tokens [first, first+count) of a sequence that owns pages base, base+1, …; want as in frames. */
struct rig_span {
    uint32_t sequence, first, count, want, base_page;
    const int32_t *tokens; /* all of the sequence's */
    const struct frame_sampling *sampling;
    uint64_t wrong_hash;   /* xor into the right one */
};
int rig_feed(struct rig_pipe *p, const struct rig_span *spans, uint32_t count, bool trace);
/* The next Result; its frame and message stay valid until rig_result_free. */
struct rig_result {
    struct data_frame frame;
    struct link_message message;
};
bool rig_result(struct rig_pipe *p, struct rig_result *out, int ms);
void rig_result_free(struct rig_result *r);

#endif
