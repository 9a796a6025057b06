/* Why nothing fits: the arithmetic of what is needed against the largest total that the devices take. Pure. */
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/units.h"
#include "planner/cost.h"
#include "planner/solver.h"

struct fit {
    int device, blocks;
    double bytes;
};

/* The most consecutive blocks the device takes anywhere, without embedding and head. */
static struct fit best_fit(const struct plan_problem *p, int device)
{
    struct fit f = {device, 0, 0};
    double room = p->device[device].memory - p->device[device].buffers, bytes = 0;
    int first = 0;
    for (int k = 0; k < p->model.blocks; k++) {
        bytes += cost_block_memory(p, k);
        while (bytes > room && first <= k)
            bytes -= cost_block_memory(p, first++);
        if (k + 1 - first > f.blocks || (k + 1 - first == f.blocks && bytes > f.bytes))
            f = (struct fit){device, k + 1 - first, bytes};
    }
    return f;
}

/* The most fitting devices first: `stages` of them when their number is fixed. */
static int largest_fits(const struct plan_problem *p, int stages, struct fit *fits)
{
    int n = 0;
    for (int d = 0; d < p->devices; d++) {
        struct fit f = best_fit(p, d);
        int at = n++;
        while (at > 0 && fits[at - 1].blocks < f.blocks) {
            fits[at] = fits[at - 1];
            at--;
        }
        fits[at] = f;
    }
    return stages && stages < n ? stages : n;
}

int infeasible(const struct plan_problem *p, const struct plan_options *options, struct error *e)
{
    struct fit fits[PLAN_MAX_DEVICES];
    char need_text[UNITS_TEXT], fit_text[UNITS_TEXT], kv_text[UNITS_TEXT], short_text[UNITS_TEXT];
    int n = p->model.blocks, stages = options ? options->stages : 0, total = 0;
    double need = p->model.embedding_bytes + p->model.head_weight_bytes, kv = 0, bytes = 0, room = 0;
    for (int k = 0; k < n; k++) {
        need += cost_block_memory(p, k);
        kv += p->model.block[k].kv_bytes * p->workload.kv_tokens;
    }
    int count = largest_fits(p, stages, fits);
    char list[200] = "";
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        const struct plan_device *d = &p->device[fits[i].device];
        room += d->memory > d->buffers ? d->memory - d->buffers : 0;
        if (total >= n)
            continue;
        int take = fits[i].blocks < n - total ? fits[i].blocks : n - total;
        bytes += fits[i].blocks ? fits[i].bytes * take / fits[i].blocks : 0;
        total += take;
        if (used < sizeof list) {
            int wrote = snprintf(list + used, sizeof list - used, "%s%.24s %d", used ? ", " : "", d->name, take);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
    }
    if (used > 150)
        strcpy(list + 146, "...");
    cost_bytes_text(need, need_text);
    cost_bytes_text(kv, kv_text);
    cost_bytes_text(bytes, fit_text);
    if (total < n) {
        double lacking = need - bytes;
        cost_bytes_text(lacking, short_text);
        return error_set(e, ERR_INFEASIBLE,
                         "no plan fits: %d blocks with embedding, head and cache need %s (cache %s); the largest total "
                         "that fits is %s, %d blocks (%s)%s; short by %s: add memory, take fewer kv_tokens or a smaller "
                         "model",
                         n, need_text, kv_text, fit_text, total, list, stages ? " with that many stages" : "",
                         short_text);
    }
    cost_bytes_text(room, fit_text);
    return error_set(e, ERR_INFEASIBLE,
                     "no plan fits: %d blocks with embedding, head and cache need %s (cache %s) and the devices have %s "
                     "after their buffers, but no order of whole blocks%s%s leaves room for the embedding (%.0f bytes, "
                     "first stage) and the head (%.0f bytes, last stage): add memory or take fewer kv_tokens",
                     n, need_text, kv_text, fit_text, stages ? " under the given stages" : "",
                     p->pin_first >= 0 ? " with the pinned first device" : "", p->model.embedding_bytes,
                     p->model.head_weight_bytes);
}
