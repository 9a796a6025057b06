/* A slower board, for tests: --throttle FACTOR, or BRIGADE_TEST_SLOWDOWN=FACTOR in the environment, or =@FILE, whose factor
 * may be changed while the worker runs. Owns nothing. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/units.h"
#include "execution/throttle.h"
#include "worker/worker.h"

static void take_slowdown(struct worker *w, const char *text)
{
    double factor;
    if (!units_parse_double(text, &factor) && factor >= 1 && factor <= THROTTLE_MAX)
        w->slowdown = factor;
}

double worker_slowdown(struct worker *w)
{
    char text[32] = "";
    FILE *f = w->slowdown_file ? fopen(w->slowdown_file, "re") : NULL;
    if (f && fscanf(f, "%31s", text) == 1)
        take_slowdown(w, text);
    if (f)
        fclose(f);
    return w->slowdown;
}

void worker_slowdown_read(struct worker *w)
{
    const char *text = getenv("BRIGADE_TEST_SLOWDOWN");
    w->slowdown = w->options->throttle > 0 ? w->options->throttle : 1;
    if (w->options->throttle <= 0 && text && *text == '@')
        w->slowdown_file = text + 1;
    else if (w->options->throttle <= 0 && text)
        take_slowdown(w, text);
    worker_slowdown(w);
    if (w->slowdown > 1)
        log_warn("%s: every micro-batch is made to take %.2f times as long",
                 w->options->throttle > 0 ? "--throttle" : "BRIGADE_TEST_SLOWDOWN", w->slowdown);
}
