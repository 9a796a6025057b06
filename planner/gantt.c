/* Gantt pictures: the discrete-event core runs a decode step and a prefill, and each interval becomes a rectangle. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "planner/cost.h"
#include "planner/flow.h"
#include "planner/simulate.h"

enum { LEFT = 150, WIDTH = 820, ROW = 22, BAR = 16, TOP = 34, AXIS = 34 };

struct interval {
    int machine, number;
    double begin, end;
};

struct chart {
    struct interval *intervals;
    size_t count, capacity;
    bool failed;
    double end; /* when the last job is home */
};

static void record(void *context, int machine, const struct flow_job *job, double begin_s, double end_s)
{
    struct chart *c = context;
    if (c->count == c->capacity) {
        size_t more = c->capacity ? 2 * c->capacity : 256;
        struct interval *grown = mem_resize(c->intervals, more, sizeof *grown);
        if (!grown) {
            c->failed = true;
            return;
        }
        c->intervals = grown;
        c->capacity = more;
    }
    c->intervals[c->count++] = (struct interval){machine, job->number, begin_s, end_s};
}

/* Sends the jobs off at time 0 in order and runs until all are home. */
static int run(struct chart *c, const struct plan_problem *p, const struct plan *plan, const struct flow_job *jobs, int n)
{
    struct flow *f = flow_new(p, plan, record, c);
    int rc = f ? 0 : ERR_NOMEM;
    for (int i = 0; i < n && !rc; i++)
        rc = flow_submit(f, 0, &jobs[i]);
    while (!rc && isfinite(flow_next_time(f))) {
        struct flow_job done;
        c->end = flow_next_time(f);
        rc = flow_advance(f, &done);
        if (rc == 1)
            rc = 0;
    }
    flow_free(f);
    return rc ? rc : c->failed ? ERR_NOMEM : 0;
}

static int escape(struct buffer *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<' || c == '>' || c == '&' || c == '"')
            buffer_printf(out, "&#%d;", c);
        else
            buffer_putc(out, c < 32 || c == 127 ? '?' : *text);
    }
    return out->failed;
}

/* 1, 2 or 5 times a power of ten, about an eighth of the span. */
static double tick_of(double span)
{
    double raw = span / 8, power = pow(10, floor(log10(raw)));
    double lead = raw / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

static void draw_axis(struct buffer *out, double span, int top, int bottom)
{
    double step = tick_of(span);
    for (int i = 0; i * step <= span * 1.0001 && i < 100; i++) {
        double x = LEFT + WIDTH * (i * step / span);
        buffer_printf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, top, x, bottom);
        buffer_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g ms</text>\n", x, bottom + 14,
                      i * step * 1e3);
    }
}

static void draw_row_name(struct buffer *out, const struct plan_problem *p, const struct plan *plan, int machine, int y)
{
    const char *name = p->device[plan->stage[machine / 2].device].name;
    buffer_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\"%s>", LEFT - 8, y + BAR - 4,
                  machine % 2 ? " fill=\"#888\"" : "");
    if (machine % 2) {
        buffer_puts(out, "to ");
        name = p->device[plan->stage[machine / 2 + 1].device].name;
    }
    char shortened[24];
    snprintf(shortened, sizeof shortened, "%.20s", name);
    escape(out, shortened);
    buffer_puts(out, "</text>\n");
}

static void draw_interval(struct buffer *out, const struct interval *i, double span, int y, const char *what)
{
    static const char *const colours[] = {"#4878a8", "#e0883a", "#5a9e58", "#c0504d", "#8a6bb0", "#94765b", "#d07fb5",
                                          "#7f7f7f", "#b5b045", "#4fb0bf"};
    double x = LEFT + WIDTH * (i->begin / span), w = WIDTH * ((i->end - i->begin) / span);
    int height = i->machine % 2 ? BAR / 2 : BAR;
    buffer_printf(out,
                  "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"%s\"><title>%s %d: %.6g to %.6g ms "
                  "(%.6g ms)</title></rect>\n",
                  x, y + (BAR - height) / 2, w < 0.3 ? 0.3 : w, height, colours[i->number % 10], what, i->number,
                  i->begin * 1e3, i->end * 1e3, (i->end - i->begin) * 1e3);
}

static void draw(struct buffer *out, const struct plan_problem *p, const struct plan *plan, const struct chart *c,
                 int top, const char *title, const char *what)
{
    int machines = 2 * plan->stages - 1, rows = top + TOP, bottom = rows + machines * ROW;
    double span = c->end > 0 ? c->end : 1;
    buffer_printf(out, "<text x=\"10\" y=\"%d\" font-size=\"14\">%s</text>\n", top + 18, title);
    draw_axis(out, span, rows, bottom);
    for (int m = 0; m < machines; m++)
        draw_row_name(out, p, plan, m, rows + m * ROW);
    for (size_t i = 0; i < c->count; i++)
        draw_interval(out, &c->intervals[i], span, rows + c->intervals[i].machine * ROW, what);
}

int plan_gantt_svg(struct buffer *out, const struct plan_problem *p, const struct plan *plan, struct error *e)
{
    struct flow_job jobs[PLAN_GANTT_JOBS];
    struct chart decode = {0}, prefill = {0};
    char title[256];
    int m = plan->microbatches < PLAN_GANTT_JOBS ? plan->microbatches : PLAN_GANTT_JOBS;
    int chunks = cost_chunks(p), n = chunks < PLAN_GANTT_JOBS ? chunks : PLAN_GANTT_JOBS;
    for (int i = 0; i < m; i++)
        jobs[i] = (struct flow_job){.kind = FLOW_DECODE, .number = i, .batch = plan->batch,
                                    .context = p->workload.context};
    int rc = run(&decode, p, plan, jobs, m);
    for (int i = 0; i < n; i++)
        jobs[i] = (struct flow_job){.kind = FLOW_PREFILL, .number = i, .tokens = cost_chunk_tokens(p, i),
                                    .past = (double)i * p->workload.chunk, .last_chunk = i + 1 == chunks};
    if (!rc)
        rc = run(&prefill, p, plan, jobs, n);
    if (rc) {
        rc = error_set(e, rc, "out of memory for the picture");
        goto done;
    }
    int panel = TOP + (2 * plan->stages - 1) * ROW + AXIS;
    buffer_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
                       "font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                  LEFT + WIDTH + 40, 2 * panel + 10);
    snprintf(title, sizeof title, "One decode step: %d of %d micro-batches of %d at context %.0f, %.6g ms", m,
             plan->microbatches, plan->batch, p->workload.context, decode.end * 1e3);
    draw(out, p, plan, &decode, 0, title, "micro-batch");
    snprintf(title, sizeof title, "Prefill of %d tokens: %d of %d chunks of %d, %.6g ms", p->workload.prompt_tokens, n,
             chunks, p->workload.chunk, prefill.end * 1e3);
    draw(out, p, plan, &prefill, panel, title, "chunk");
    buffer_puts(out, "</svg>\n");
    if (out->failed)
        rc = error_set(e, out->failed, "the picture could not be written: %s", error_name(out->failed));
done:
    mem_free(decode.intervals);
    mem_free(prefill.intervals);
    return rc;
}
