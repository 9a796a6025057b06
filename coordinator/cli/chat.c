/* `brigade chat`: a conversation in the terminal. The command's thread edits lines and waits; a thread of its own steps
 * the runner, so that heartbeats go on while a person thinks. Ctrl-C goes to the command's thread. */
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/log.h"
#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/sampling_options.h"
#include "coordinator/core/chat_prompt.h"

static const struct command_help help = {
    "brigade chat -m MODEL [--system TEXT] [options]",
    "A conversation. A line that ends in \\ goes on in the next one; Ctrl-C stops the answer, Ctrl-D leaves. Commands:\n"
    "/reset forgets the conversation, /stats tells about the last answer, /help, /quit.",
    "brigade chat -m models/stories-5m-q8_0.gguf\n"
    "brigade chat -c cluster.yaml -m qwen3-8b-q4_k_m.gguf --system 'Answer in one sentence.'",
};

struct chat {
    struct compute_options compute;
    struct sampling_options sampling;
    const char *system_text;
    struct chat_prompt *prompt;
    json_t *messages;
    EditLine *editor;
    History *history;
    bool terminal;
    const char *prompt_text;
    sigset_t usual; /* signals that are blocked where no line is being edited */

    pthread_t thread; /* the runner's */
    atomic_bool quit;

    pthread_mutex_t lock; /* what follows; changed is signalled when it changes */
    pthread_cond_t changed;
    struct runner *runner;     /* NULL until it is open, and again when it is gone */
    bool opened, running;
    struct error error;        /* of the runner: the conversation is over */
    uint64_t id;
    struct buffer answer;
    enum finish_reason reason;
    struct error answer_error;
    uint32_t prompt_tokens, tokens;
    struct request_timing timing;
};

/* ---- The runner's thread -------------------------------------------------------------------------------------------- */

static void put_text(struct chat *c, const char *text, size_t bytes)
{
    if (!bytes)
        return;
    pthread_mutex_lock(&c->lock);
    buffer_append(&c->answer, text, bytes);
    pthread_mutex_unlock(&c->lock);
    output_text(text, bytes, NULL);
}

static void on_token(void *context, uint64_t id, const struct request_token *token)
{
    (void)id;
    put_text(context, token->text, token->text_bytes);
}

static void on_finish(void *context, uint64_t id, const struct request_finish *finish)
{
    struct chat *c = context;
    (void)id;
    put_text(c, finish->text, finish->text_bytes);
    pthread_mutex_lock(&c->lock);
    c->reason = finish->reason;
    c->answer_error = finish->error ? *finish->error : (struct error){0};
    c->prompt_tokens = finish->prompt_tokens;
    c->tokens = finish->generated_tokens;
    c->timing = finish->timing;
    c->running = false;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Ctrl-C while an answer comes ends the answer; at other times it ended the line. */
static void stop_answer(struct chat *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t id = c->running ? c->id : 0;
    struct runner *runner = c->runner;
    pthread_mutex_unlock(&c->lock);
    compute_interrupted = 0;
    if (id)
        runner_cancel(runner, id);
}

static void *step_runner(void *context)
{
    struct chat *c = context;
    struct runner *runner = NULL;
    struct error err = {0};
    int rc = compute_open(&c->compute, &runner, &err);
    pthread_mutex_lock(&c->lock);
    c->runner = runner;
    c->opened = true;
    c->error = err;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    while (!rc && !atomic_load(&c->quit)) {
        rc = runner_step(runner, 100, &err);
        if (rc == ERR_CANCELLED) {
            stop_answer(c);
            rc = 0;
        }
    }
    if (rc && runner) {
        pthread_mutex_lock(&c->lock);
        c->error = err;
        pthread_cond_broadcast(&c->changed);
        pthread_mutex_unlock(&c->lock);
        while (!atomic_load(&c->quit)) /* the other thread may still use it */
            usleep(20000);
    }
    runner_close(runner);
    return NULL;
}

/* ---- The command's thread ------------------------------------------------------------------------------------------- */

static int ask(struct chat *c, struct error *err)
{
    struct token_list ids = {0};
    struct request_options request = {.on_token = on_token, .on_finish = on_finish, .context = c};
    int rc = chat_prompt_encode(c->prompt, c->messages, NULL, &ids, err);
    if (!rc) {
        request.prompt = ids.ids;
        request.prompt_count = ids.count;
        sampling_options_apply(&c->sampling, &request);
        pthread_mutex_lock(&c->lock);
        buffer_clear(&c->answer);
        c->running = true;
        rc = runner_submit(c->runner, &request, &c->id, err);
        if (rc)
            c->running = false;
        while (c->running)
            pthread_cond_wait(&c->changed, &c->lock);
        if (!rc && c->reason == FINISH_ERROR)
            rc = error_set(err, c->answer_error.code ? c->answer_error.code : ERR_INTERNAL, "%s", c->answer_error.text);
        pthread_mutex_unlock(&c->lock);
    }
    token_list_free(&ids);
    return rc;
}

static int add_message(struct chat *c, const char *role, const char *text, size_t bytes, struct error *err)
{
    json_t *message = json_pack("{s:s, s:s%}", "role", role, "content", text, bytes);
    if (!message)
        return error_set(err, ERR_FORMAT, "the text is not valid UTF-8");
    return json_array_append_new(c->messages, message) ? error_set(err, ERR_NOMEM, "out of memory for the conversation") : 0;
}

static int reset(struct chat *c, struct error *err)
{
    json_array_clear(c->messages);
    return c->system_text ? add_message(c, "system", c->system_text, strlen(c->system_text), err) : 0;
}

static void print_stats(const struct chat *c)
{
    const struct request_timing *t = &c->timing;
    if (!t->finished_us) {
        puts("no answer yet");
        return;
    }
    double ttft = t->first_token_us ? (double)(t->first_token_us - t->arrived_us) / 1e3 : 0;
    double tpot = c->tokens > 1 ? (double)(t->last_token_us - t->first_token_us) / 1e3 / (c->tokens - 1) : 0;
    printf("prompt %u tokens, answer %u (%s); first token %.1f ms, then %.2f ms a token (%.1f tokens/s); context %u\n",
           c->prompt_tokens, c->tokens, finish_reason_name(c->reason), ttft, tpot, tpot > 0 ? 1e3 / tpot : 0.0,
           runner_max_context(c->runner));
}

/* True when the line was a command. */
static bool obey(struct chat *c, const char *line, bool *quit, struct error *err)
{
    if (*line != '/')
        return false;
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit"))
        *quit = true;
    else if (!strcmp(line, "/reset"))
        puts(reset(c, err) ? err->text : "the conversation is forgotten");
    else if (!strcmp(line, "/stats"))
        print_stats(c);
    else if (!strcmp(line, "/help"))
        puts("/reset  forget the conversation\n/stats  about the last answer\n/quit   leave (or Ctrl-D)\n"
             "A line that ends in \\ goes on in the next one. Ctrl-C stops the answer.");
    else
        printf("there is no command %s; /help lists them\n", line);
    fflush(stdout);
    return true;
}

static int turn(struct chat *c, const struct buffer *said, struct error *err)
{
    size_t before = json_array_size(c->messages);
    int rc = add_message(c, "user", said->data, said->size, err);
    if (!rc)
        rc = ask(c, err);
    if (!rc) {
        output_text("\n", 1, NULL);
        if (c->reason == FINISH_CANCELLED)
            fputs("(stopped)\n", stderr);
        else if (c->reason == FINISH_LENGTH)
            fputs("(the answer reached its longest length; /reset begins anew)\n", stderr);
        rc = add_message(c, "assistant", c->answer.data ? c->answer.data : "", c->answer.size, err);
    }
    while (rc && json_array_size(c->messages) > before) /* as if it had not been said */
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    return rc;
}

static char *prompt_of(EditLine *editor)
{
    struct chat *c = NULL;
    el_get(editor, EL_CLIENTDATA, &c);
    return (char *)(uintptr_t)c->prompt_text;
}

/* A Ctrl-C that came before the bytes that can be read now; it is let through. */
static bool take_interrupt(const struct chat *c)
{
    sigset_t pending;
    if (sigpending(&pending) || !sigismember(&pending, SIGINT))
        return false;
    sigsuspend(&c->usual);
    return true;
}

/* One key for the editor, which by itself would read on after a Ctrl-C. Signals come in only while it waits for a byte,
 * so that none is lost between a look and the wait. */
static int read_key(EditLine *editor, wchar_t *key)
{
    struct chat *c = NULL;
    mbstate_t state = {0};
    el_get(editor, EL_CLIENTDATA, &c);
    for (;;) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        char byte;
        if (ppoll(&in, 1, NULL, &c->usual) < 0 || take_interrupt(c))
            return -1;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(key, &byte, 1, &state);
        if (used == (size_t)-1)
            state = (mbstate_t){0}; /* no character of this locale: as if it had not been typed */
        else if (used != (size_t)-2)
            return 1;
    }
}

enum line_outcome { LINE_READ, LINE_INTERRUPTED, LINE_END };

/* One line without its end, into `line`. */
static enum line_outcome read_line(struct chat *c, struct buffer *line)
{
    int n = 0;
    char *plain = NULL;
    size_t room = 0;
    const char *text;
    errno = 0;
    if (c->editor) {
        sigset_t interrupt;
        sigemptyset(&interrupt);
        sigaddset(&interrupt, SIGINT);
        pthread_sigmask(SIG_BLOCK, &interrupt, &c->usual);
        text = el_gets(c->editor, &n);
        pthread_sigmask(SIG_SETMASK, &c->usual, NULL);
    } else {
        n = (int)getline(&plain, &room, stdin);
        text = n > 0 ? plain : NULL;
    }
    enum line_outcome outcome = LINE_READ;
    if (!text || n <= 0) {
        outcome = compute_interrupted || errno == EINTR || n < 0 ? LINE_INTERRUPTED : LINE_END;
        if (!c->editor && feof(stdin))
            outcome = LINE_END;
        clearerr(stdin);
    } else {
        while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
            n--;
        buffer_append(line, text, (size_t)n);
    }
    free(plain);
    return outcome;
}

/* Lines joined while they end in a backslash. */
static enum line_outcome read_message(struct chat *c, struct buffer *said)
{
    enum line_outcome outcome;
    buffer_clear(said);
    c->prompt_text = "> ";
    for (;;) {
        outcome = read_line(c, said);
        if (outcome != LINE_READ || !said->size || said->data[said->size - 1] != '\\')
            return outcome;
        said->data[said->size - 1] = '\n';
        c->prompt_text = ". ";
    }
}

static int talk(struct chat *c, struct error *err)
{
    struct buffer said = {.limit = 16 << 20};
    int rc = reset(c, err);
    bool quit = false;
    HistEvent event;
    while (!rc && !quit) {
        enum line_outcome outcome = read_message(c, &said);
        pthread_mutex_lock(&c->lock);
        if (c->error.code)
            rc = error_set(err, c->error.code, "%s", c->error.text);
        pthread_mutex_unlock(&c->lock);
        if (rc || outcome == LINE_END)
            break;
        if (outcome == LINE_INTERRUPTED) {
            compute_interrupted = 0;
            if (c->terminal)
                putchar('\n');
            continue;
        }
        if (!said.size || said.failed)
            continue;
        if (c->history)
            history(c->history, &event, H_ENTER, said.data);
        if (obey(c, said.data, &quit, err))
            continue;
        rc = turn(c, &said, err);
        if (rc == ERR_BOUND || rc == ERR_USAGE || rc == ERR_FORMAT) { /* this message only */
            fprintf(stderr, "%s\n", err->text);
            rc = 0;
        }
    }
    buffer_free(&said);
    return rc;
}

static void open_editor(struct chat *c)
{
    HistEvent event;
    c->terminal = isatty(STDIN_FILENO) && output_on_terminal();
    if (!c->terminal)
        return;
    setlocale(LC_CTYPE, "");
    c->editor = el_init("brigade", stdin, stdout, stderr);
    c->history = history_init();
    if (c->history)
        history(c->history, &event, H_SETSIZE, 1000);
    if (!c->editor)
        return;
    el_set(c->editor, EL_CLIENTDATA, c);
    el_set(c->editor, EL_PROMPT, prompt_of);
    el_set(c->editor, EL_EDITOR, "emacs");
    el_set(c->editor, EL_GETCFN, read_key);
    if (c->history)
        el_set(c->editor, EL_HIST, history, c->history);
    el_source(c->editor, NULL); /* a person's own ~/.editrc, if there is one */
}

/* Starts the runner's thread and waits until it is up. */
static int start(struct chat *c, struct error *err)
{
    sigset_t only_here, before;
    sigemptyset(&only_here);
    sigaddset(&only_here, SIGINT);
    pthread_sigmask(SIG_BLOCK, &only_here, &before);
    int failed = pthread_create(&c->thread, NULL, step_runner, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return error_set(err, ERR_NOMEM, "cannot start a thread: %s", strerror(failed));
    pthread_mutex_lock(&c->lock);
    while (!c->opened)
        pthread_cond_wait(&c->changed, &c->lock);
    int rc = c->error.code ? error_set(err, c->error.code, "%s", c->error.text) : 0;
    pthread_mutex_unlock(&c->lock);
    if (!rc)
        rc = chat_prompt_open(runner_tokenizer(c->runner), &c->prompt, err);
    if (!rc && chat_prompt_is_plain(c->prompt))
        log_warn("the model has no chat template; messages are joined by blank lines");
    return rc;
}

int command_chat(int argc, char **argv)
{
    struct chat c = {.compute = {.sequences = 1}};
    struct option own[1 + SAMPLING_OPTIONS] = {
        {"--system", 0, OPTION_TEXT, &c.system_text, "TEXT", "what the model is told first"},
    };
    size_t rows = 1 + sampling_option_rows(&c.sampling, own + 1);
    int code;
    if (!compute_parse(&c.compute, argc, argv, own, rows, &help, &code))
        return code;
    if (!c.compute.model)
        return options_wrong(&help, "no model: give one with -m MODEL.gguf");
    struct error err = {0};
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.changed, NULL);
    int rc = (c.messages = json_array()) ? 0 : error_set(&err, ERR_NOMEM, "out of memory for the conversation");
    if (!rc)
        rc = start(&c, &err);
    if (!rc) {
        open_editor(&c);
        rc = talk(&c, &err);
    }
    if (c.opened) {
        atomic_store(&c.quit, true);
        pthread_join(c.thread, NULL);
    }
    if (c.editor)
        el_end(c.editor);
    if (c.history)
        history_end(c.history);
    chat_prompt_close(c.prompt);
    json_decref(c.messages);
    buffer_free(&c.answer);
    compute_release(&c.compute);
    pthread_cond_destroy(&c.changed);
    pthread_mutex_destroy(&c.lock);
    return options_exit(&help, rc, &err);
}
