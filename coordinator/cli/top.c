/* `brigade top`: a live view in the terminal, of a server that runs (its /status) or of the nodes of a cluster. One
 * thread. */
#include <curses.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/compute.h"
#include "coordinator/cli/http_client.h"
#include "coordinator/cli/status.h"
#include "coordinator/cli/top_frame.h"

#define DEFAULT_URL "http://127.0.0.1:8080"
#define ONCE_COLUMNS 160

static const struct command_help help = {
    "brigade top [URL | -c cluster.yaml] [--interval S] [--once]",
    "A live view: stages, blocks, tokens a second, busy, memory, temperature, power, links. Of a server that runs "
    "(URL,\n"
    "default " DEFAULT_URL
    "; a key it wants: BRIGADE_API_KEY), or with -c by looking at the nodes of a cluster. q ends it.\n"
    "--once prints one frame as plain text, for pipes.",
    "brigade top\nbrigade top http://coordinator:8080 --once",
};

struct top {
    const char *url;
    struct compute_options look; /* with a config */
    json_t *now, *before;
    int64_t now_us, before_us;
    char trouble[512];
};

static int ask_server(struct top *t, json_t **out, struct error *err)
{
    struct buffer body = {0};
    json_error_t why;
    int rc = http_get(&(struct http_question){t->url, "/status", getenv("BRIGADE_API_KEY"), NULL, 2000}, &body, err);
    if (!rc && !(*out = json_loads(body.data ? body.data : "", 0, &why)))
        rc = error_set(err, ERR_FORMAT, "%.80s: its status is no JSON; is that 'brigade serve'?", t->url);
    buffer_free(&body);
    return rc;
}

static int ask_nodes(struct top *t, json_t **out, struct error *err)
{
    struct runner *runner = NULL;
    struct runner_status status = {0};
    int rc = compute_open(&t->look, &runner, err);
    if (!rc)
        rc = runner_status(runner, &status, err);
    if (!rc && !(*out = status_json(&status)))
        rc = error_set(err, ERR_NOMEM, "out of memory for the status");
    runner_status_free(&status);
    runner_close(runner);
    return rc;
}

/* A new look; the last one becomes the one before. */
static int refresh_view(struct top *t, struct error *err)
{
    json_t *got = NULL;
    int rc = t->look.config ? ask_nodes(t, &got, err) : ask_server(t, &got, err);
    if (rc)
        return rc;
    json_decref(t->before);
    t->before = t->now;
    t->before_us = t->now_us;
    t->now = got;
    t->now_us = clock_us();
    return 0;
}

static void compose(const struct top *t, int columns, struct buffer *out)
{
    if (t->now)
        top_frame(t->now, t->before, (double)(t->now_us - t->before_us) / 1e6, t->look.config ? t->look.config : t->url,
                  columns, out);
}

static void draw(const struct top *t)
{
    struct buffer frame = {0};
    int row = 0;
    erase();
    compose(t, COLS, &frame);
    if (*t->trouble) {
        attrset(A_BOLD | COLOR_PAIR(1));
        mvaddnstr(row++, 0, t->trouble, COLS);
    }
    for (char *line = frame.data; line && *line && row < LINES - 1; row++) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        attr_t style = *line == TOP_TITLE     ? A_REVERSE
                       : *line == TOP_HEADING ? A_BOLD
                       : *line == TOP_ALARM   ? COLOR_PAIR(1)
                                              : A_NORMAL;
        bool styled = *line == TOP_TITLE || *line == TOP_HEADING || *line == TOP_ALARM;
        attrset(style);
        mvaddstr(row, 0, line + styled);
        if (*line == TOP_TITLE)
            hline(' ' | A_REVERSE, COLS);
        line = end ? end + 1 : NULL;
    }
    attrset(A_DIM);
    mvaddnstr(LINES - 1, 0, "q: quit", COLS);
    attrset(A_NORMAL);
    refresh();
    buffer_free(&frame);
}

static int watch(struct top *t, double interval, struct error *err)
{
    struct error why = {0};
    setlocale(LC_ALL, "");
    if (!initscr())
        return error_set(err, ERR_IO, "this terminal cannot be drawn on; use --once");
    if (has_colors()) {
        start_color();
        use_default_colors();
        init_pair(1, COLOR_RED, -1);
    }
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    int64_t next = 0;
    for (;;) {
        int64_t now = clock_ms();
        if (now >= next) {
            next = now + (int64_t)(interval * 1000);
            *t->trouble = 0;
            if (refresh_view(t, &why)) /* it may come back */
                snprintf(t->trouble, sizeof t->trouble, "%s", why.text);
        }
        draw(t); /* also after KEY_RESIZE: LINES and COLS are the new ones */
        timeout(200);
        int key = getch();
        if (key == 'q' || key == 'Q' || key == 3 || compute_interrupted)
            break;
    }
    endwin();
    return 0;
}

/* Two looks, so that rates are known. */
static int print_once(struct top *t, double interval, struct error *err)
{
    struct buffer frame = {0};
    int rc = refresh_view(t, err);
    if (!rc) {
        usleep((useconds_t)(interval * 1e6));
        rc = refresh_view(t, err);
    }
    if (!rc) {
        compose(t, ONCE_COLUMNS, &frame);
        size_t n = 0;
        for (size_t i = 0; i < frame.size; i++)
            if (frame.data[i] != TOP_TITLE && frame.data[i] != TOP_HEADING && frame.data[i] != TOP_ALARM)
                frame.data[n++] = frame.data[i];
        rc = output_text(frame.data ? frame.data : "", n, err);
    }
    buffer_free(&frame);
    return rc;
}

int command_top(int argc, char **argv)
{
    struct top t = {.url = DEFAULT_URL, .look = {.goal = RUNNER_LOOK}};
    bool once = false;
    double interval = 1;
    const struct option table[] = {
        {"--config", 'c', OPTION_TEXT, &t.look.config, "FILE",
         "look at the nodes of this cluster.yaml instead of a server"},
        {"--interval", 0, OPTION_NUMBER, &interval, "S", "seconds between looks (default 1)", 0.1, 3600},
        {"--once", 0, OPTION_FLAG, &once, NULL, "print one frame as plain text"},
    };
    size_t words;
    const char *url = NULL;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &help, &url, 1, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (url && t.look.config)
        return options_wrong(&help, "either a URL or -c, not both");
    if (url)
        t.url = url;
    struct error err = {0};
    bool terminal = output_on_terminal();
    int rc = once || !terminal ? print_once(&t, interval, &err) : watch(&t, interval, &err);
    json_decref(t.now);
    json_decref(t.before);
    return options_exit(&help, rc, &err);
}
