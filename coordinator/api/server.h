/* The serving front: an OpenAI-compatible HTTP API and a dashboard before a runner that someone else steps.
 *
 * The server listens from api_open on, answers 503 while no runner is attached, and never steps or closes the runner:
 * that is its thread's affair. HTTP threads parse, tokenise and submit; the runner's thread writes tokens into the
 * replies' buffers.
 *
 *     api_open(&options, &server, &err);
 *     runner_open(…, &runner, &err);
 *     api_attach(server, runner, &err);
 *     while (…)
 *         runner_step(runner, 100, &err), api_refresh(server);
 *     api_stop(server);                      // no new requests; step until api_live is 0 or patience ends
 *     api_detach(server, "stopping");
 *     runner_close(runner);                  // finishes what still runs
 *     api_close(server); */
#ifndef BRIGADE_COORDINATOR_API_SERVER_H
#define BRIGADE_COORDINATOR_API_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "coordinator/core/runner.h"

struct api_server;

struct api_options {
    const char *host;
    uint16_t port;             /* 0: the system chooses */
    const char *key_path;      /* one API key a line; NULL: no keys */
    const char *model;         /* what clients call it; borrowed */
    const char *origin;        /* of CORS: "*" or one origin; "" for none */
    uint32_t parallel, queue;  /* what the runner was told, for /status */
    uint32_t request_seconds;  /* longest computation of a request; 0: no limit */
    size_t body_bytes_max, stream_bytes_max;
    bool log_prompts;          /* else no text of anybody's is logged */
    unsigned read_seconds;     /* a request must have come within */
};

int api_open(const struct api_options *options, struct api_server **out, struct error *err);
uint16_t api_port(const struct api_server *s);
/* What bringing up does now, for /health; any thread. */
void api_progress(struct api_server *s, const struct runner_progress *progress);
/* Runner's thread. attach: requests are answered from now on. detach: none uses the runner any more when it returns;
 * `why` is told to clients until the next attach. */
int api_attach(struct api_server *s, struct runner *r, struct error *err);
void api_detach(struct api_server *s, const char *why);
/* Notes the plan in use for the dashboard; the runner's thread, about once a second. */
void api_refresh(struct api_server *s);
bool api_has_template(struct api_server *s); /* of the attached runner's model */
/* New requests and connections are refused from now on. */
void api_stop(struct api_server *s);
unsigned api_live(struct api_server *s); /* replies not yet delivered */
void api_close(struct api_server *s);    /* detached; NULL is fine */

#endif
