/* Progress of loading, summed over nodes. Owns nothing beyond its struct; pure. */
#include "coordinator/cli/loading.h"

#include <stdio.h>
#include <string.h>

#include "base/units.h"

void loading_note(struct loading *l, const char *node, const char *what, uint64_t done, uint64_t total)
{
    uint32_t i = 0;
    while (i < l->count && strncmp(l->node[i].name, node, sizeof l->node[i].name - 1) != 0)
        i++;
    if (i == LOADING_NODES_MAX)
        return;
    if (i == l->count) {
        l->count++;
        l->node[i].share = 0;
        l->node[i].bytes = 0;
        snprintf(l->node[i].name, sizeof l->node[i].name, "%s", node);
    }
    double share = total ? (double)done / (double)total : 0;
    if (share > l->node[i].share)
        l->node[i].share = share > 1 ? 1 : share;
    if (what && *what && total > l->node[i].bytes)
        l->node[i].bytes = total;
}

void loading_text(const struct loading *l, char *text, size_t size, uint64_t *done, uint64_t *total)
{
    char bytes[UNITS_TEXT], where[80];
    double have = 0;
    *total = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        have += l->node[i].share * (double)l->node[i].bytes;
        *total += l->node[i].bytes;
    }
    *done = (uint64_t)have;
    if (l->count == 1)
        snprintf(where, sizeof where, "%s", l->node[0].name);
    else
        snprintf(where, sizeof where, "%u nodes", l->count);
    if (*total)
        snprintf(text, size, "loading %s into %s", units_bytes_text(*total, bytes), where);
    else
        snprintf(text, size, "loading into %s", where);
}
