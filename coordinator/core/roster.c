/* cluster.yaml looked at again. Reads the file; owns nothing else. */
#include "coordinator/core/roster.h"

#include <string.h>

#include "base/log.h"

static bool lists(const struct config *c, const char *public_key)
{
    for (uint32_t i = 0; i < c->node_count; i++)
        if (!strcmp(c->nodes[i].public_key, public_key))
            return true;
    return false;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool roster_look(struct roster *r, const struct config *config, int64_t now_us, bool gone[static CONFIG_NODES_MAX],
                 uint32_t *added)
{
    struct stat st;
    struct config *now = NULL;
    struct error err = {0};
    if (now_us < r->next_us)
        return false;
    r->next_us = now_us + ROSTER_LOOK_US;
    if (stat(config->path, &st) || (r->known && same_file(&st, &r->seen)))
        return false;
    r->seen = st;
    r->known = true;
    if (config_read(config->path, &now, &err)) {
        log_warn("%s; nodes stay as they were", err.text);
        return false;
    }
    *added = 0;
    for (uint32_t i = 0; i < now->node_count; i++)
        *added += !lists(config, now->nodes[i].public_key);
    for (uint32_t i = 0; i < config->node_count; i++)
        gone[i] = !lists(now, config->nodes[i].public_key);
    config_free(now);
    return true;
}
