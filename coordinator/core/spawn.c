/* Starts, watches and stops loopback workers. Owns the processes, their pipes and their folder. One thread. */
#include "coordinator/core/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/machine.h"
#include "base/memory.h"

#define READY_MS 10000
#define STOP_MS 2000
#define LINE_MAX_BYTES 2048

struct child {
    struct spawn_worker worker;
    int out, err; /* our ends of its stdout and stderr */
    bool ready, gone;
    char line[LINE_MAX_BYTES]; /* of stdout, until it is ready */
    size_t line_size;
    char complaint[LINE_MAX_BYTES]; /* the last of its stderr */
    size_t complaint_size;
};

struct spawn {
    char folder[PATH_MAX];
    uint32_t count;
    struct spawn_worker *workers;
    struct child *children;
};

/* ---- Finding the program ----------------------------------------------------------------------------------------- */

static bool runnable(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

static int find_program(const char *given, char *path, size_t size, struct error *err)
{
    char self[PATH_MAX - 64];
    if (!given)
        given = getenv("BRIGADE_WORKER"); /* a wrapper around it, say */
    if (given && *given) {
        snprintf(path, size, "%s", given);
        return runnable(path) ? 0 : error_set(err, ERR_NOTFOUND, "%s is not a program", given);
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        static const char *const places[] = {"brigade-worker", "../worker/brigade-worker",
                                             "../../worker/brigade-worker"};
        self[n] = 0;
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = 0;
        for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
            snprintf(path, size, "%s/%s", self, places[i]);
            if (runnable(path))
                return 0;
        }
    }
    const char *folders = getenv("PATH");
    while (folders && *folders) {
        int length = (int)strcspn(folders, ":");
        snprintf(path, size, "%.*s/brigade-worker", length, folders);
        if (length && runnable(path))
            return 0;
        folders += length + (folders[length] == ':');
    }
    return error_set(err, ERR_NOTFOUND,
                     "brigade-worker is neither beside brigade nor in PATH; install it, or run without --stages");
}

/* ---- Starting ---------------------------------------------------------------------------------------------------- */

/* Worker `index` of `count` gets its own share of the cores this process may use (all of them when there are too
 * few). */
static void share_cores(cpu_set_t *set, uint32_t index, uint32_t count)
{
    cpu_set_t all;
    if (sched_getaffinity(0, sizeof all, &all)) {
        CPU_ZERO(set);
        return;
    }
    uint32_t cores = (uint32_t)CPU_COUNT(&all), from = index * cores / count, to = (index + 1) * cores / count,
             rank = 0;
    if (from == to) { /* more workers than cores: one core each, in turn */
        from = index % cores;
        to = from + 1;
    }
    CPU_ZERO(set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            if (rank >= from && rank < to)
                CPU_SET(cpu, set);
            rank++;
        }
}

/* In the child: only calls that are safe after fork. */
static _Noreturn void become_worker(const char *program, char *const *arguments, int out, int err,
                                    const cpu_set_t *cores, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127); /* the parent died before the kernel was told */
    setpgid(0, 0);  /* Ctrl-C is the coordinator's: it stops the workers itself */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0)
        dup2(null, 0);
    dup2(out, 1);
    dup2(err, 2);
    if (CPU_COUNT(cores))
        sched_setaffinity(0, sizeof *cores, cores);
    execv(program, arguments);
    _exit(127);
}

static int start(struct spawn *s, uint32_t index, const char *program, const struct spawn_options *o, struct error *err)
{
    struct child *c = &s->children[index];
    char key_path[PATH_MAX + 64], cache[PATH_MAX + 64], models[PATH_MAX], threads[16], memory[32];
    struct node_key *key = NULL;
    snprintf(c->worker.name, sizeof c->worker.name, "local-%u", index + 1);
    snprintf(key_path, sizeof key_path, "%s/%s.key", s->folder, c->worker.name);
    snprintf(cache, sizeof cache, "%s/%s.cache", s->folder, c->worker.name);
    snprintf(models, sizeof models, "%s", o->model_path);
    char *slash = strrchr(models, '/');
    if (slash)
        slash[slash == models] = 0;
    else
        snprintf(models, sizeof models, ".");
    int rc = key_generate(&key, err);
    if (!rc) {
        snprintf(c->worker.public_key, sizeof c->worker.public_key, "%s", key_public_text(key));
        rc = key_save(key, key_path, err);
    }
    key_free(key);
    if (rc)
        return rc;

    cpu_set_t cores;
    share_cores(&cores, index, o->count);
    int n = o->threads > 0 ? o->threads : CPU_COUNT(&cores);
    if (o->threads > CPU_COUNT(&cores))
        CPU_ZERO(&cores); /* asked for more threads than its share: let them spread */
    snprintf(threads, sizeof threads, "%d", n > 0 ? n : 1);
    /* They share this machine's memory, too. */
    uint64_t available = machine_memory_available(), margin = machine_memory_margin();
    snprintf(memory, sizeof memory, "%llu",
             (unsigned long long)(available > margin ? (available - margin) / o->count + 1 : 1));
    char *arguments[] = {"brigade-worker",
                         "--listen",
                         "tcp://127.0.0.1:*",
                         "--key",
                         key_path,
                         "--allow",
                         (char *)(uintptr_t)o->coordinator_key,
                         "--name",
                         c->worker.name,
                         "--models",
                         models,
                         "--cache",
                         cache,
                         "--threads",
                         threads,
                         available ? "--memory" : NULL,
                         memory,
                         NULL};
    int out[2] = {-1, -1}, complaints[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC) || pipe2(complaints, O_CLOEXEC)) {
        rc = error_set(err, ERR_IO, "cannot make a pipe for a worker: %s", strerror(errno));
        goto done;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        rc = error_set(err, ERR_IO, "cannot start %s: %s", program, strerror(errno));
        goto done;
    }
    if (!pid)
        become_worker(program, arguments, out[1], complaints[1], &cores, parent);
    c->worker.pid = (int)pid;
    c->out = out[0];
    c->err = complaints[0];
    out[0] = complaints[0] = -1;
    fcntl(c->out, F_SETFL, O_NONBLOCK);
    fcntl(c->err, F_SETFL, O_NONBLOCK);
done:
    for (int i = 0; i < 2; i++) {
        if (out[i] >= 0)
            close(out[i]);
        if (complaints[i] >= 0)
            close(complaints[i]);
    }
    return rc;
}

/* ---- Listening --------------------------------------------------------------------------------------------------- */

/* Keeps the last line of what a worker says on stderr, and passes on what it says when ours is asked to be chatty. */
static void read_complaints(struct child *c)
{
    char text[1024];
    ssize_t n;
    while (c->ready && read(c->out, text, sizeof text) > 0)
        ; /* nothing more is expected there, and nobody hangs on a full pipe */
    while (c->err >= 0 && (n = read(c->err, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            if (c->complaint_size && c->complaint[c->complaint_size - 1] == '\n')
                c->complaint_size = 0;
            if (c->complaint_size < sizeof c->complaint - 1)
                c->complaint[c->complaint_size++] = text[i];
            c->complaint[c->complaint_size] = 0;
            if (getenv("BRIGADE_LOG"))
                fputc(text[i], stderr);
        }
}

static int died(struct child *c, int status, struct error *err)
{
    char how[64], last[256] = "";
    c->gone = true;
    read_complaints(c);
    if (WIFEXITED(status))
        snprintf(how, sizeof how, "exited with %d", WEXITSTATUS(status));
    else
        snprintf(how, sizeof how, "was killed by signal %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    if (c->complaint_size) {
        snprintf(last, sizeof last, "%.*s", (int)strcspn(c->complaint, "\n"), c->complaint);
    }
    return error_set(err, ERR_LOST, "worker \"%s\" (process %d) %s%s%s", c->worker.name, c->worker.pid, how,
                     *last ? ": " : "", last);
}

int spawn_check(struct spawn *s, uint32_t *index, struct error *err)
{
    for (uint32_t i = 0; i < s->count; i++) {
        struct child *c = &s->children[i];
        int status;
        if (c->worker.pid <= 0)
            continue;
        read_complaints(c);
        if (!c->gone && waitpid(c->worker.pid, &status, WNOHANG) == c->worker.pid) {
            if (index)
                *index = i;
            return died(c, status, err);
        }
    }
    return 0;
}

/* The ready line holds the endpoint and the public key among its words. */
static int read_ready_line(struct child *c, struct error *err)
{
    char key[KEY_TEXT] = "", *rest = NULL;
    c->line[c->line_size] = 0;
    for (char *word = strtok_r(c->line, " \t\r\n,", &rest); word; word = strtok_r(NULL, " \t\r\n,", &rest)) {
        if (!strncmp(word, "tcp://", 6))
            snprintf(c->worker.endpoint, sizeof c->worker.endpoint, "%s", word);
        else if (!strcmp(word, c->worker.public_key))
            snprintf(key, sizeof key, "%s", word);
    }
    if (!*c->worker.endpoint || !*key)
        return error_set(err, ERR_FORMAT,
                         "worker \"%s\" did not print its endpoint and key; are both programs of one build?",
                         c->worker.name);
    return 0;
}

static bool has_line(const struct child *c)
{
    return memchr(c->line, '\n', c->line_size) != NULL;
}

static int await_ready(struct spawn *s, struct child *c, const struct spawn_options *o, int64_t until_ms,
                       struct error *err)
{
    while (!has_line(c)) {
        struct pollfd fds[2] = {{.fd = c->out, .events = POLLIN}, {.fd = c->err, .events = POLLIN}};
        poll(fds, 2, 20);
        ssize_t n = read(c->out, c->line + c->line_size, sizeof c->line - 1 - c->line_size);
        if (n > 0)
            c->line_size += (size_t)n;
        int rc = spawn_check(s, NULL, err);
        if (rc)
            return rc;
        if (o->interrupt && *o->interrupt)
            return error_set(err, ERR_CANCELLED, "interrupted");
        if (!has_line(c) && (clock_ms() > until_ms || c->line_size == sizeof c->line - 1))
            return error_set(err, ERR_TIMEOUT, "worker \"%s\" was not ready within %d s", c->worker.name,
                             READY_MS / 1000);
    }
    c->ready = true;
    return read_ready_line(c, err);
}

int spawn_start(const struct spawn_options *o, struct spawn **out, struct error *err)
{
    char program[PATH_MAX];
    const char *temporary = getenv("TMPDIR");
    int rc = find_program(o->worker_path, program, sizeof program, err);
    if (rc)
        return rc;
    struct spawn *s = mem_zalloc(1, sizeof *s);
    if (!s || !(s->children = mem_zalloc(o->count, sizeof *s->children)) ||
        !(s->workers = mem_zalloc(o->count, sizeof *s->workers))) {
        rc = error_set(err, ERR_NOMEM, "out of memory for %u workers", o->count);
        goto failed;
    }
    s->count = o->count;
    for (uint32_t i = 0; i < o->count; i++)
        s->children[i].out = s->children[i].err = -1;
    snprintf(s->folder, sizeof s->folder, "%s/brigade-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (!mkdtemp(s->folder)) { /* mode 0700 */
        rc = error_set(err, ERR_IO, "cannot make a temporary folder %s: %s", s->folder, strerror(errno));
        s->folder[0] = 0;
        goto failed;
    }
    for (uint32_t i = 0; i < o->count && !rc; i++)
        rc = start(s, i, program, o, err);
    int64_t until = clock_ms() + READY_MS;
    for (uint32_t i = 0; i < o->count && !rc; i++)
        rc = await_ready(s, &s->children[i], o, until, err);
    if (rc)
        goto failed;
    for (uint32_t i = 0; i < o->count; i++)
        s->workers[i] = s->children[i].worker;
    *out = s;
    return 0;
failed:
    spawn_stop(s);
    return rc;
}

const struct spawn_worker *spawn_workers(const struct spawn *s, uint32_t *count)
{
    *count = s->count;
    return s->workers;
}

/* ---- Stopping ---------------------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

static bool all_gone(struct spawn *s)
{
    bool gone = true;
    for (uint32_t i = 0; i < s->count; i++) {
        struct child *c = &s->children[i];
        if (c->worker.pid <= 0 || c->gone)
            continue;
        pid_t got = waitpid(c->worker.pid, NULL, WNOHANG);
        c->gone = got == c->worker.pid || (got < 0 && errno == ECHILD);
        gone &= c->gone;
    }
    return gone;
}

void spawn_stop(struct spawn *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->children[i].worker.pid > 0 && !s->children[i].gone)
            kill(s->children[i].worker.pid, SIGTERM);
    int64_t until = clock_ms() + STOP_MS;
    while (!all_gone(s) && clock_ms() < until) {
        for (uint32_t i = 0; i < s->count; i++)
            read_complaints(&s->children[i]); /* nobody hangs on a full pipe */
        poll(NULL, 0, 5);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        struct child *c = &s->children[i];
        if (c->worker.pid > 0 && !c->gone) {
            kill(c->worker.pid, SIGKILL);
            waitpid(c->worker.pid, NULL, 0);
        }
        if (c->out >= 0)
            close(c->out);
        if (c->err >= 0)
            close(c->err);
    }
    if (s->folder[0])
        nftw(s->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    mem_free(s->children);
    mem_free(s->workers);
    mem_free(s);
}
