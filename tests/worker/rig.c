/* Real workers, a tiny coordinator. */
#include "tests/worker/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "engine/model/model.h"
#include "tests/check.h"
#include "tests/engine/model_builder.h"

unsigned rig_progress_heard, rig_beats_heard;
int rig_patience_ms;
static uint64_t next_request = 100;
static char complaint[600];

static int patient(int ms)
{
    return rig_patience_ms && rig_patience_ms < ms ? rig_patience_ms : ms;
}

static int64_t limit(int ms)
{
    return rig_patience_ms ? ms : check_limit_ms(ms);
}

static const char *complain(const char *what, const struct error *err)
{
    snprintf(complaint, sizeof complaint, "%s: %s", what, err ? err->text : "");
    return complaint;
}

/* ---- Place ------------------------------------------------------------------------------------------------------- */

static const char *write_model(struct rig *r)
{
    static const struct model_variant variant = {.name = "rig", .architecture = "llama", .blocks = RIG_BLOCKS};
    size_t size;
    void *bytes = model_build(&variant, TYPE_Q8_0, &size);
    FILE *f = fopen(r->model_path, "wb");
    bool written = f && fwrite(bytes, 1, size, f) == size;
    if (f)
        fclose(f);
    mem_free(bytes);
    struct model *m = NULL;
    struct error err = {0};
    if (!written || model_open(r->model_path, &m, &err))
        return complain("model", &err);
    r->fingerprint = model_info(m)->fingerprint;
    model_close(m);
    return NULL;
}

const char *rig_open(struct rig *r)
{
    struct error err = {0};
    *r = (struct rig){.folder = "/tmp/brigade-rig-XXXXXX"};
    if (!mkdtemp(r->folder))
        return complain(r->folder, NULL);
    snprintf(r->model_path, sizeof r->model_path, "%s/%s", r->folder, RIG_MODEL);
    snprintf(r->key_path, sizeof r->key_path, "%s/coordinator.key", r->folder);
    if (key_generate(&r->key, &err) || key_save(r->key, r->key_path, &err) || hub_create(r->key, &r->hub, &err))
        return complain("coordinator", &err);
    return write_model(r);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

void rig_close(struct rig *r)
{
    hub_destroy(r->hub);
    key_free(r->key);
    nftw(r->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- Processes --------------------------------------------------------------------------------------------------- */

static void parse_ready(struct rig_worker *w, char *line)
{
    char *rest = NULL;
    for (char *word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
        if (!strncmp(word, "tcp://", 6))
            snprintf(w->endpoint, sizeof w->endpoint, "%s", word);
        else if (strlen(word) == KEY_TEXT - 1 && key_text_valid(word))
            snprintf(w->key, sizeof w->key, "%s", word);
    char *colon = strrchr(w->endpoint, ':');
    w->port = colon ? atoi(colon + 1) : 0;
}

static const char *await_ready(struct rig_worker *w, int out)
{
    char line[1024];
    size_t n = 0;
    for (int64_t end = clock_ms() + check_patience_ms(); clock_ms() < end && n < sizeof line - 1;) {
        struct pollfd p = {.fd = out, .events = POLLIN};
        ssize_t got = poll(&p, 1, 100) == 1 ? read(out, line + n, sizeof line - 1 - n) : 0;
        if (got < 0 || (got == 0 && p.revents))
            break;
        n += (size_t)got;
        if (n && line[n - 1] == '\n') {
            line[n] = 0;
            parse_ready(w, line);
            return *w->endpoint && *w->key ? NULL : complain("the ready line lacks endpoint or key", NULL);
        }
    }
    return complain("no ready line", NULL);
}

const char *rig_start(struct rig *r, struct rig_worker *w, const char *name, const char *const *extra)
{
    struct error err = {0};
    char key_path[160], public_key[KEY_TEXT];
    struct node_key *key = NULL;
    *w = (struct rig_worker){0};
    snprintf(w->name, sizeof w->name, "%s", name);
    snprintf(w->log_path, sizeof w->log_path, "%s/%s.log", r->folder, name);
    snprintf(key_path, sizeof key_path, "%s/%s.key", r->folder, name);
    unlink(key_path);
    if (key_generate(&key, &err) || key_save(key, key_path, &err))
        return complain("key", &err);
    key_free(key);
    snprintf(public_key, sizeof public_key, "%s", key_public_text(r->key));
    const char *arguments[40] = {WORKER, "--listen", "tcp://127.0.0.1:*", "--key", key_path, "--allow", public_key,
                                 "--name", name, "--models", r->folder, "--threads", "2"};
    size_t n = 13;
    for (size_t i = 0; extra && extra[i] && n < 39; i++)
        arguments[n++] = extra[i];
    int out[2];
    if (pipe2(out, O_CLOEXEC))
        return complain("pipe", NULL);
    pid_t pid = fork();
    if (pid < 0)
        return complain("fork", NULL);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test leaves no workers behind */
        int log = open(w->log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out[1], 1);
        dup2(log, 2);
        execv(WORKER, (char **)(uintptr_t)arguments);
        _exit(127);
    }
    close(out[1]);
    w->pid = pid;
    const char *wrong = await_ready(w, out[0]);
    close(out[0]);
    return wrong;
}

int rig_wait(struct rig_worker *w, int ms)
{
    int status;
    for (int64_t end = clock_ms() + limit(ms); clock_ms() < end; usleep(2000))
        if (waitpid(w->pid, &status, WNOHANG) == w->pid) {
            w->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    return -1;
}

int rig_stop(struct rig_worker *w, int ms)
{
    int rc = -1;
    if (w->pid > 0) {
        kill(w->pid, SIGTERM);
        rc = rig_wait(w, ms);
        rig_kill(w);
    }
    if (w->control)
        link_close(w->control, 0);
    w->control = NULL;
    return rc;
}

void rig_kill(struct rig_worker *w)
{
    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        waitpid(w->pid, NULL, 0);
    }
    w->pid = 0;
}

int rig_logged(const struct rig_worker *w, const char *text)
{
    static char log[1 << 18];
    FILE *f = fopen(w->log_path, "rb");
    size_t n = f ? fread(log, 1, sizeof log - 1, f) : 0;
    int count = 0;
    if (f)
        fclose(f);
    log[n] = 0;
    for (const char *at = log; (at = strstr(at, text)); at++)
        count++;
    return count;
}

int rig_run(const char *const *arguments, char *said, size_t size)
{
    int out[2], status = 0;
    if (pipe2(out, O_CLOEXEC))
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 2);
        dup2(out[1], 1);
        execv(WORKER, (char **)(uintptr_t)arguments);
        _exit(127);
    }
    close(out[1]);
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(out[0], said + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = 0;
    close(out[0]);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- Control plane ----------------------------------------------------------------------------------------------- */

int rig_say(struct link *l, const struct control_message *m)
{
    struct buffer b = {0};
    struct error err = {0};
    int rc = control_encode(m, &b, &err);
    if (!rc)
        rc = link_send(l, NULL, &(struct frame_part){b.data, b.size}, 1, &err);
    buffer_free(&b);
    return rc;
}

bool rig_hear(struct link *l, uint64_t request, int kind, struct control_message *out, int ms)
{
    for (int64_t end = clock_ms() + limit(ms); clock_ms() < end;) {
        struct link_message in;
        struct control_message m;
        struct error err = {0};
        bool ready;
        if (link_receive(l, &in, &err) != 1) {
            link_wait(&l, 1, NULL, 20, &ready);
            continue;
        }
        int rc = control_decode(in.parts[0].data, in.parts[0].size, &m, &err);
        link_message_free(&in);
        if (rc)
            continue;
        rig_progress_heard += m.kind == CONTROL_PROGRESS;
        rig_beats_heard += m.kind == CONTROL_HEARTBEAT_REPLY;
        bool wanted = request ? m.request == request && m.kind != CONTROL_PROGRESS : (int)m.kind == kind;
        if (!wanted || m.kind == CONTROL_LOADED) /* what a stage still holds is looked at in tests/execution */
            control_free(&m);
        if (wanted) {
            *out = m;
            return true;
        }
    }
    return false;
}

bool rig_ask(struct link *l, struct control_message *m, struct control_message *out, int ms)
{
    m->request = next_request++;
    return !rig_say(l, m) && rig_hear(l, m->request, 0, out, ms);
}

const char *rig_claim(struct rig *r, struct rig_worker *w)
{
    struct error err = {0};
    struct control_message hello = {.kind = CONTROL_HELLO}, reply;
    if (!w->control && link_connect(r->hub, PLANE_CONTROL, w->endpoint, w->key, &w->control, &err))
        return complain("control link", &err);
    hello.u.hello.claim = true;
    if (!rig_ask(w->control, &hello, &reply, patient(5000)))
        return complain("no welcome", NULL);
    if (reply.kind != CONTROL_WELCOME || !reply.u.welcome.claimed)
        return complain("not claimed", NULL);
    w->data_port = (int)reply.u.welcome.data_port;
    return NULL;
}

const char *rig_allow(struct rig *r, struct rig_worker *const *workers, size_t count)
{
    char keys[8][FRAME_KEY_TEXT];
    snprintf(keys[0], sizeof keys[0], "%s", key_public_text(r->key));
    for (size_t i = 0; i < count; i++)
        memcpy(keys[i + 1], workers[i]->key, sizeof keys[0]);
    for (size_t i = 0; i < count; i++) {
        struct control_message m = {.kind = CONTROL_ALLOW}, reply;
        m.u.allow.count = (uint32_t)count + 1;
        m.u.allow.keys = keys;
        if (!rig_ask(workers[i]->control, &m, &reply, patient(5000)) || reply.kind != CONTROL_DONE)
            return complain("allow was not done", NULL);
    }
    return NULL;
}

struct control_message rig_load_message(struct rig *r, uint64_t epoch, uint32_t first, uint32_t last, uint32_t stage,
                                        uint32_t stages)
{
    struct control_message m = {.kind = CONTROL_LOAD, .epoch = epoch};
    snprintf(m.u.load.model, sizeof m.u.load.model, RIG_MODEL);
    m.u.load.fingerprint = r->fingerprint;
    m.u.load.stage = stage;
    m.u.load.stages = stages;
    m.u.load.first_block = first;
    m.u.load.last_block = last;
    m.u.load.kv_pages = RIG_PAGES;
    m.u.load.max_tokens = 64;
    m.u.load.max_context = RIG_CONTEXT;
    m.u.load.max_sequences = 4;
    m.u.load.codec = CODEC_F32;
    snprintf(m.u.load.previous_key, sizeof m.u.load.previous_key, "%s", key_public_text(r->key));
    snprintf(m.u.load.coordinator_key, sizeof m.u.load.coordinator_key, "%s", key_public_text(r->key));
    return m;
}

/* ---- Data plane -------------------------------------------------------------------------------------------------- */

static const char *load_stages(struct rig *r, struct rig_worker *const *workers, size_t count, uint64_t epoch,
                               enum frame_codec codec)
{
    struct control_message reply;
    uint32_t first = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t blocks = RIG_BLOCKS / (uint32_t)count + (i < RIG_BLOCKS % count);
        struct control_message m = rig_load_message(r, epoch, first, first + blocks - 1, (uint32_t)i, (uint32_t)count);
        first += blocks;
        m.u.load.codec = codec;
        if (i)
            memcpy(m.u.load.previous_key, workers[i - 1]->key, KEY_TEXT);
        if (i + 1 < count) {
            m.u.load.has_next = true;
            snprintf(m.u.load.next.name, sizeof m.u.load.next.name, "%s", workers[i + 1]->name);
            snprintf(m.u.load.next.endpoint, sizeof m.u.load.next.endpoint, "tcp://127.0.0.1:%d",
                     workers[i + 1]->data_port);
            memcpy(m.u.load.next.public_key, workers[i + 1]->key, KEY_TEXT);
        }
        if (!rig_ask(workers[i]->control, &m, &reply, patient(20000)))
            return complain("no answer to load", NULL);
        if (reply.kind != CONTROL_LOADED)
            return reply.kind == CONTROL_FAILURE ? complain(reply.u.failure.text, NULL) : complain("not loaded", NULL);
    }
    return NULL;
}

static bool attach(struct link *l, uint64_t epoch, uint32_t role)
{
    struct buffer header = {0};
    bool attached = false, ready;
    frame_encode_attach(epoch, role, &header, NULL);
    for (int64_t end = clock_ms() + limit(patient(5000)), again = 0; clock_ms() < end && !attached;) {
        struct link_message m;
        struct data_frame f;
        if (clock_ms() >= again) {
            link_send(l, NULL, &(struct frame_part){header.data, header.size}, 1, NULL);
            again = clock_ms() + 300;
        }
        if (link_receive(l, &m, NULL) != 1) {
            link_wait(&l, 1, NULL, 10, &ready);
            continue;
        }
        if (!frame_decode_data(m.parts, 1, &f, NULL)) {
            attached = f.kind == DATA_ATTACHED && f.epoch == epoch;
            frame_free(&f);
        }
        link_message_free(&m);
    }
    buffer_free(&header);
    return attached;
}

const char *rig_pipe_open(struct rig *r, struct rig_worker *const *workers, size_t count, uint64_t epoch,
                          enum frame_codec codec, struct rig_pipe *p)
{
    struct error err = {0};
    char endpoint[64];
    const char *wrong = rig_allow(r, workers, count);
    *p = (struct rig_pipe){.epoch = epoch};
    if (!wrong)
        wrong = load_stages(r, workers, count, epoch, codec);
    if (wrong)
        return wrong;
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", workers[0]->data_port);
    if (link_connect(r->hub, PLANE_DATA, endpoint, workers[0]->key, &p->feed, &err))
        return complain("feed", &err);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", workers[count - 1]->data_port);
    if (link_connect(r->hub, PLANE_DATA, endpoint, workers[count - 1]->key, &p->results, &err))
        return complain("results", &err);
    return attach(p->feed, epoch, 1) && attach(p->results, epoch, 2) ? NULL : complain("not attached", NULL);
}

void rig_pipe_close(struct rig_pipe *p)
{
    link_close(p->feed, 0);
    link_close(p->results, 0);
    *p = (struct rig_pipe){0};
}

int rig_feed(struct rig_pipe *p, const struct rig_span *spans, uint32_t count, bool trace)
{
    struct frame_span out[8];
    uint32_t pages[8][RIG_CONTEXT / 32];
    struct frame_work w = {.epoch = p->epoch, .microbatch = ++p->microbatch, .span_count = count, .spans = out,
                           .want_trace = trace};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t end = spans[i].first + spans[i].count, page_count = (end + 31) / 32;
        for (uint32_t k = 0; k < page_count; k++)
            pages[i][k] = spans[i].base_page + k;
        out[i] = (struct frame_span){
            .sequence = spans[i].sequence,
            .first = spans[i].first,
            .count = spans[i].count,
            .known = spans[i].first,
            .page_count = page_count,
            .pages = pages[i],
            .hash = hash_tokens(HASH_TOKENS_START, spans[i].tokens, end) ^ spans[i].wrong_hash,
            .want = spans[i].want,
            .next_token = spans[i].want == 3 ? spans[i].tokens[end] : -1,
            .sampling = spans[i].sampling,
            .tokens = spans[i].tokens + spans[i].first,
        };
    }
    struct buffer header = {0}, tokens = {0};
    int rc = frame_encode_work(&w, &header, &tokens, NULL);
    struct frame_part parts[2] = {{header.data, header.size}, {tokens.data, tokens.size}};
    if (!rc)
        rc = link_send(p->feed, NULL, parts, 2, NULL);
    buffer_free(&header);
    buffer_free(&tokens);
    return rc;
}

bool rig_result(struct rig_pipe *p, struct rig_result *out, int ms)
{
    for (int64_t end = clock_ms() + limit(ms); clock_ms() < end;) {
        struct link *links[2] = {p->results, p->feed};
        bool ready[2];
        if (link_receive(p->results, &out->message, NULL) != 1) {
            link_wait(links, 1, NULL, 10, ready);
            continue;
        }
        if (!frame_decode_data(out->message.parts, out->message.part_count, &out->frame, NULL)) {
            if (out->frame.kind == DATA_RESULT)
                return true;
            frame_free(&out->frame);
        }
        link_message_free(&out->message);
    }
    return false;
}

void rig_result_free(struct rig_result *r)
{
    frame_free(&r->frame);
    link_message_free(&r->message);
}
