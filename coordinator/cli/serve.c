/* `brigade serve`: the HTTP API before a runner. The command's thread is the runner's thread; api/ owns the others. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "coordinator/api/server.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"

#define RETRY_MS 2000    /* between attempts to bring a lost cluster up again */
#define DELIVERY_MS 1000 /* for the last bytes of answers that were ended */

static const struct command_help help = {
    "brigade serve -m MODEL [--host ADDRESS] [--port PORT] [--api-key-file FILE] [options]",
    "Serves a model over HTTP as OpenAI's API does (chat and text completions, streamed or whole), with Prometheus metrics\n"
    "and a dashboard at /. Runs in this process, on K local workers (--stages K), or on a cluster (-c cluster.yaml).\n"
    "Ctrl-C: no new requests, those that run may finish within --grace; a second Ctrl-C ends them.",
    "brigade serve -m models/stories-5m-q8_0.gguf --stages 2\n"
    "brigade serve -c cluster.yaml -m qwen3-8b-q4_k_m.gguf --host 0.0.0.0 --api-key-file keys.txt",
};

struct serve_options {
    const char *host, *keys, *alias, *origin;
    int64_t port, parallel, queue, timeout, grace, read_timeout;
    uint64_t body_bytes, client_bytes;
    bool log_prompts;
};

/* "models/stories-5m-q8_0.gguf" is served as "stories-5m-q8_0". */
static void model_name(const char *path, char *name, size_t bytes)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    snprintf(name, bytes, "%s", slash ? slash + 1 : path ? path : "");
    size_t n = strlen(name);
    if (n > 5 && !strcmp(name + n - 5, ".gguf"))
        name[n - 5] = 0;
}

static void note_progress(void *context, const struct runner_progress *progress)
{
    api_progress(context, progress);
}

static void announce(const struct serve_options *o, const struct compute_options *compute, const char *event,
                     const struct api_server *api, const char *model)
{
    bool v6 = strchr(o->host, ':') != NULL;
    if (compute->json)
        printf("{\"event\":\"%s\",\"url\":\"http://%s%s%s:%u\",\"model\":\"%s\"}\n", event, v6 ? "[" : "", o->host,
               v6 ? "]" : "", api_port(api), model);
    else
        printf("%s: %s at http://%s%s%s:%u\n", event, model, v6 ? "[" : "", o->host, v6 ? "]" : "", api_port(api));
    fflush(stdout);
    /* Who waits for this service wants answers, not a port. */
    if (notify_send(strcmp(event, "listening") ? "READY=1\nSTATUS=serving" : "STATUS=loading the model") < 0)
        log_warn("cannot tell the service manager that this server is ready");
}

static bool loopback(const char *host)
{
    return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost");
}

/* Steps until someone wants us to stop (ERR_CANCELLED) or the cluster is lost. */
static int serve(struct api_server *api, struct runner *runner, struct error *err)
{
    int64_t refreshed_ms = clock_ms();
    for (;;) {
        int rc = runner_step(runner, 100, err);
        if (rc)
            return rc;
        if (clock_ms() - refreshed_ms >= 1000) {
            api_refresh(api);
            refreshed_ms = clock_ms();
        }
    }
}

/* No new requests; those inside may finish, until patience or a second Ctrl-C ends it. */
static void drain(struct api_server *api, struct runner *runner, int64_t grace_ms)
{
    int64_t until = clock_ms() + grace_ms;
    compute_interrupted = 0;
    notify_send("STOPPING=1");
    api_stop(api);
    while ((runner_busy(runner) || api_live(api)) && clock_ms() < until)
        if (runner_step(runner, 50, NULL))
            break;
    compute_interrupted = 0;
}

static void rest(int64_t ms)
{
    for (int64_t until = clock_ms() + ms; clock_ms() < until && !compute_interrupted;)
        usleep(50000);
}

/* Up, serving, lost, up again; returns 0 after Ctrl-C. */
static int run(const struct serve_options *o, struct compute_options *compute, struct api_server *api, const char *model,
               struct error *err)
{
    bool served = false;
    for (;;) {
        struct runner *runner = NULL;
        compute->served = false;
        int rc = compute_open(compute, &runner, err);
        if (!rc && (rc = api_attach(api, runner, err))) {
            runner_close(runner);
            runner = NULL;
        }
        if (rc && compute_interrupted)
            return 0;
        if (rc && !served)
            return rc;
        if (!rc) {
            announce(o, compute, served ? "ready again" : "ready", api, model);
            if (!served && !api_has_template(api))
                log_warn("the model has no chat template; messages of a conversation are joined by blank lines");
            served = true;
            rc = serve(api, runner, err);
            if (rc == ERR_CANCELLED)
                drain(api, runner, o->grace * 1000);
            api_detach(api, rc == ERR_CANCELLED ? "the server is stopping" : err->text);
            runner_close(runner);
            if (rc == ERR_CANCELLED)
                return 0;
        }
        log_warn("%s; trying again", err->text);
        notify_send("STATUS=the cluster is lost; trying again");
        rest(RETRY_MS);
        if (compute_interrupted)
            return 0;
    }
}

int command_serve(int argc, char **argv)
{
    struct compute_options compute = {0};
    struct serve_options o = {.host = "127.0.0.1", .origin = "*", .port = 8080, .parallel = 16, .queue = 256,
                              .grace = 10, .read_timeout = 30, .body_bytes = 8 << 20, .client_bytes = 1 << 20};
    const struct option own[] = {
        {"--host", 0, OPTION_TEXT, &o.host, "ADDRESS", "listen here (default 127.0.0.1; 0.0.0.0 is everywhere)"},
        {"--port", 0, OPTION_INT, &o.port, "PORT", "default 8080; 0: any free one", 0, 65535},
        {"--api-key-file", 0, OPTION_TEXT, &o.keys, "FILE", "keys that clients may use, one a line (default: none needed)"},
        {"--alias", 0, OPTION_TEXT, &o.alias, "NAME", "what clients call the model (default: its file's name)"},
        {"--parallel", 0, OPTION_INT, &o.parallel, "N", "sequences that compute at once (default 16)", 1, 1024},
        {"--queue", 0, OPTION_INT, &o.queue, "N", "sequences that may wait beside those; then 429 (default 256)", 1, 1 << 20},
        {"--timeout", 0, OPTION_INT, &o.timeout, "S", "longest a request may take; 0: no limit (default)", 0, 1 << 24},
        {"--grace", 0, OPTION_INT, &o.grace, "S", "after Ctrl-C, running requests may finish in this time (default 10)", 0, 86400},
        {"--read-timeout", 0, OPTION_INT, &o.read_timeout, "S", "a request must have come, and data be taken, in this time (default 30)", 1, 86400},
        {"--max-body", 0, OPTION_BYTES, &o.body_bytes, "BYTES", "largest request (default 8M)"},
        {"--client-buffer", 0, OPTION_BYTES, &o.client_bytes, "BYTES", "unread bytes of a stream before it is ended (default 1M)"},
        {"--log-prompts", 0, OPTION_FLAG, &o.log_prompts, NULL, "log every prompt (default: no prompt or answer is ever logged)"},
        {"--cors", 0, OPTION_TEXT, &o.origin, "ORIGIN", "web pages that may call (default '*': all; '': none)"},
    };
    int code;
    if (!compute_parse(&compute, argc, argv, own, sizeof own / sizeof *own, &help, &code))
        return code;
    if (!compute.model)
        return options_wrong(&help, "no model: give one with -m MODEL.gguf");
    if (o.body_bytes < 1024 || o.body_bytes > (uint64_t)1 << 30)
        return options_wrong(&help, "--max-body must be from 1K to 1G");
    if (o.client_bytes < 4096 || o.client_bytes > (uint64_t)1 << 30)
        return options_wrong(&help, "--client-buffer must be from 4K to 1G");

    char name[120];
    struct error err = {0};
    struct api_server *api = NULL;
    model_name(o.alias ? o.alias : compute.model, name, sizeof name);
    struct api_options options = {
        .host = o.host,
        .port = (uint16_t)o.port,
        .key_path = o.keys,
        .model = name,
        .origin = o.origin,
        .parallel = (uint32_t)o.parallel,
        .queue = (uint32_t)o.queue,
        .request_seconds = (uint32_t)o.timeout,
        .body_bytes_max = o.body_bytes,
        .stream_bytes_max = o.client_bytes,
        .log_prompts = o.log_prompts,
        .read_seconds = (unsigned)o.read_timeout,
    };
    int rc = api_open(&options, &api, &err);
    if (!rc) {
        compute.sequences = options.parallel;
        compute.queue = options.queue;
        compute.stay = true;
        compute.on_progress = note_progress;
        compute.progress_context = api;
        if (o.log_prompts)
            log_warn("--log-prompts: what clients ask is written to the log");
        if (!o.keys && !loopback(o.host))
            log_warn("%s is open to everyone who can reach it; --api-key-file asks clients for a key", o.host);
        announce(&o, &compute, "listening", api, name);
        rc = run(&o, &compute, api, name, &err);
        api_stop(api);
        for (int64_t until = clock_ms() + DELIVERY_MS; api_live(api) && clock_ms() < until;)
            usleep(10000);
        api_close(api);
    }
    compute_release(&compute);
    return options_exit(&help, rc, &err);
}
