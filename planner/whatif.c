/* A what-if file becomes a problem: strict about names and numbers, with the line of every complaint. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "planner/problem.h"

#define MOST 1e30

static const char *const top_keys[] = {"model",     "devices",   "coordinator", "links",
                                       "workload", "objective", "pin_first",   NULL};
static const char *const model_keys[] = {"hidden", "embedding_bytes", "head", "blocks", NULL};
static const char *const head_keys[] = {"weight_bytes", "flops_per_token", NULL};
static const char *const block_keys[] = {"repeat",   "weight_bytes",   "flops_per_token", "attention_flops",
                                         "kv_bytes", "resident_bytes", NULL};
static const char *const device_keys[] = {"name", "memory", "read", "compute", "overhead_us", "buffers", NULL};
static const char *const links_keys[] = {"default", "pairs", NULL};
static const char *const default_keys[] = {"bandwidth", "rtt_us", NULL};
static const char *const pair_keys[] = {"a", "b", "bandwidth", "rtt_us", NULL};
static const char *const workload_keys[] = {"prompt_tokens", "output_tokens", "concurrency", "context",
                                            "kv_tokens",     "chunk",         "value_bytes", NULL};

static int count_blocks(const struct yaml_value *blocks, int *out, struct error *e)
{
    int total = 0;
    for (size_t i = 0; i < yaml_count(blocks); i++) {
        const struct yaml_value *entry = yaml_item(blocks, i);
        int64_t repeat = 1;
        int rc = yaml_only_keys(entry, block_keys, e);
        if (!rc)
            rc = yaml_want_int(entry, "repeat", 1, PLAN_MAX_BLOCKS, &repeat, e);
        if (rc)
            return rc;
        if ((total += (int)repeat) > PLAN_MAX_BLOCKS)
            return yaml_error(entry, e, ERR_BOUND, "more than %d blocks in all", PLAN_MAX_BLOCKS);
    }
    *out = total;
    return 0;
}

static int read_blocks(struct plan_model *m, const struct yaml_value *blocks, struct error *e)
{
    struct plan_block *to = m->block;
    for (size_t i = 0; i < yaml_count(blocks); i++) {
        const struct yaml_value *entry = yaml_item(blocks, i);
        struct plan_block b = {0};
        int64_t repeat = 1;
        int rc = 0;
        if ((rc = yaml_want_int(entry, "repeat", 1, PLAN_MAX_BLOCKS, &repeat, e)) ||
            (rc = yaml_need_double(entry, "weight_bytes", 0, MOST, &b.weight_bytes, e)) ||
            (rc = yaml_want_double(entry, "resident_bytes", 0, MOST, &b.resident_bytes, e)) ||
            (rc = yaml_want_double(entry, "flops_per_token", 0, MOST, &b.flops_per_token, e)) ||
            (rc = yaml_want_double(entry, "attention_flops", 0, MOST, &b.attention_flops, e)) ||
            (rc = yaml_want_double(entry, "kv_bytes", 0, MOST, &b.kv_bytes, e)))
            return rc;
        while (repeat-- > 0)
            *to++ = b;
    }
    return 0;
}

static int read_model(struct plan_model *m, const struct yaml_value *model, const struct yaml_value *blocks,
                      struct error *e)
{
    const struct yaml_value *head = NULL;
    int rc = 0;
    if ((rc = yaml_need_double(model, "hidden", 1, MOST, &m->hidden, e)) ||
        (rc = yaml_want_double(model, "embedding_bytes", 0, MOST, &m->embedding_bytes, e)) ||
        (rc = yaml_want_mapping(model, "head", &head, e)))
        return rc;
    if (head && ((rc = yaml_only_keys(head, head_keys, e)) ||
                 (rc = yaml_want_double(head, "weight_bytes", 0, MOST, &m->head_weight_bytes, e)) ||
                 (rc = yaml_want_double(head, "flops_per_token", 0, MOST, &m->head_flops_per_token, e))))
        return rc;
    return read_blocks(m, blocks, e);
}

static int read_devices(struct plan_problem *p, const struct yaml_value *devices, struct error *e)
{
    for (int i = 0; i < p->devices; i++) {
        const struct yaml_value *entry = yaml_item(devices, (size_t)i);
        struct plan_device *d = &p->device[i];
        const char *name = NULL;
        double overhead_us = 0;
        int rc = 0;
        if ((rc = yaml_only_keys(entry, device_keys, e)) || (rc = yaml_need_text(entry, "name", &name, e)))
            return rc;
        if (!*name || strlen(name) > 64)
            return yaml_error(entry, e, ERR_FORMAT, "a device's name has 1 to 64 characters");
        if (plan_problem_device(p, name) >= 0)
            return yaml_error(entry, e, ERR_FORMAT, "a second device named \"%s\"; give each its own name", name);
        if (!(d->name = mem_strdup(name)))
            return error_set(e, ERR_NOMEM, "out of memory while reading the devices");
        if ((rc = yaml_need_double(entry, "memory", 0, MOST, &d->memory, e)) ||
            (rc = yaml_need_double(entry, "read", 1e-9, MOST, &d->read, e)) ||
            (rc = yaml_need_double(entry, "compute", 1e-9, MOST, &d->compute, e)) ||
            (rc = yaml_want_double(entry, "overhead_us", 0, 1e12, &overhead_us, e)) ||
            (rc = yaml_want_double(entry, "buffers", 0, MOST, &d->buffers, e)))
            return rc;
        d->overhead_s = overhead_us * 1e-6;
    }
    return 0;
}

static int read_link(struct plan_link *l, const struct yaml_value *entry, struct error *e)
{
    double rtt_us = 0;
    int rc = yaml_need_double(entry, "bandwidth", 1e-9, MOST, &l->bandwidth, e);
    if (!rc)
        rc = yaml_need_double(entry, "rtt_us", 0, 1e12, &rtt_us, e);
    l->rtt_s = rtt_us * 1e-6;
    return rc;
}

/* A name at one end of a link: a device, or the coordinator's own name. */
static int read_end(const struct plan_problem *p, const struct yaml_value *pair, const char *key, int *out,
                    struct error *e)
{
    const char *name = NULL;
    int rc = yaml_need_text(pair, key, &name, e);
    if (rc)
        return rc;
    int i = plan_problem_device(p, name);
    if (i < 0 && !strcmp(name, p->coordinator))
        i = p->devices;
    if (i < 0)
        return yaml_error(yaml_find(pair, key), e, ERR_FORMAT, "no device or coordinator is named \"%.64s\"", name);
    *out = i;
    return 0;
}

static int read_links(struct plan_problem *p, const struct yaml_value *links, struct error *e)
{
    int nodes = p->devices + 1, rc = 0;
    struct plan_link base = {0};
    const struct yaml_value *standard = NULL, *pairs = NULL;
    if (links && ((rc = yaml_only_keys(links, links_keys, e)) ||
                  (rc = yaml_want_mapping(links, "default", &standard, e)) ||
                  (rc = yaml_want_sequence(links, "pairs", 0, (size_t)nodes * (size_t)nodes, &pairs, e))))
        return rc;
    if (standard && ((rc = yaml_only_keys(standard, default_keys, e)) || (rc = read_link(&base, standard, e))))
        return rc;
    for (size_t i = 0; pairs && i < yaml_count(pairs); i++) {
        const struct yaml_value *pair = yaml_item(pairs, i);
        struct plan_link l = {0};
        int a = 0, b = 0;
        if ((rc = yaml_only_keys(pair, pair_keys, e)) || (rc = read_end(p, pair, "a", &a, e)) ||
            (rc = read_end(p, pair, "b", &b, e)) || (rc = read_link(&l, pair, e)))
            return rc;
        if (a == b)
            return yaml_error(pair, e, ERR_FORMAT, "a link needs two different ends");
        if (p->link[a * nodes + b].bandwidth > 0)
            return yaml_error(pair, e, ERR_FORMAT, "this pair stands in the list already; remove one");
        p->link[a * nodes + b] = p->link[b * nodes + a] = l;
    }
    for (int a = 0; a < nodes; a++)
        for (int b = 0; b < nodes; b++) {
            struct plan_link *l = &p->link[a * nodes + b];
            if (a == b || l->bandwidth > 0)
                continue;
            *l = base;
            if (!standard && plan_problem_link(p, a, b) == l)
                return error_set(e, ERR_FORMAT, "links: nothing says how %s and %s are connected; add links.default",
                                 a < p->devices ? p->device[a].name : p->coordinator,
                                 b < p->devices ? p->device[b].name : p->coordinator);
        }
    return 0;
}

static int read_workload(struct plan_workload *w, const struct yaml_value *v, struct error *e)
{
    int64_t prompt = w->prompt_tokens, output = w->output_tokens, concurrency = w->concurrency, chunk = w->chunk;
    int rc = 0;
    if (v && ((rc = yaml_only_keys(v, workload_keys, e)) ||
              (rc = yaml_want_int(v, "prompt_tokens", 1, 1 << 30, &prompt, e)) ||
              (rc = yaml_want_int(v, "output_tokens", 0, 1 << 30, &output, e)) ||
              (rc = yaml_want_int(v, "concurrency", 1, PLAN_MAX_CONCURRENCY, &concurrency, e)) ||
              (rc = yaml_want_int(v, "chunk", 1, 1 << 30, &chunk, e)) ||
              (rc = yaml_want_double(v, "value_bytes", 0, 1e6, &w->value_bytes, e))))
        return rc;
    w->prompt_tokens = (int)prompt;
    w->output_tokens = (int)output;
    w->concurrency = (int)concurrency;
    w->chunk = (int)chunk;
    w->context = (double)(prompt + output);
    if (v && (rc = yaml_want_double(v, "context", 0, MOST, &w->context, e)))
        return rc;
    w->kv_tokens = w->context * w->concurrency;
    return v ? yaml_want_double(v, "kv_tokens", 0, MOST, &w->kv_tokens, e) : 0;
}

/* The parts that name devices: who coordinates, what is wanted, what is pinned. */
static int read_names(struct plan_problem *p, const struct yaml_value *root, struct error *e)
{
    const char *coordinator = NULL, *objective = NULL, *pin = NULL;
    int rc = 0;
    if ((rc = yaml_need_text(root, "coordinator", &coordinator, e)) ||
        (rc = yaml_want_text(root, "objective", &objective, e)) || (rc = yaml_want_text(root, "pin_first", &pin, e)))
        return rc;
    if (!*coordinator || strlen(coordinator) > 64)
        return yaml_error(yaml_find(root, "coordinator"), e, ERR_FORMAT, "a name has 1 to 64 characters");
    if (!(p->coordinator = mem_strdup(coordinator)))
        return error_set(e, ERR_NOMEM, "out of memory while reading the coordinator");
    p->coordinator_device = plan_problem_device(p, coordinator);
    if (objective && (rc = plan_objective_parse(objective, &p->objective, e)))
        return yaml_error(yaml_find(root, "objective"), e, ERR_FORMAT, "unknown objective \"%.40s\"; known: latency, "
                          "throughput, ttft", objective);
    if (pin && (p->pin_first = plan_problem_device(p, pin)) < 0)
        return yaml_error(yaml_find(root, "pin_first"), e, ERR_FORMAT, "no device is named \"%.64s\"", pin);
    return 0;
}

int plan_problem_from_yaml(struct plan_problem **out, const struct yaml_doc *doc, struct error *e)
{
    const struct yaml_value *root = yaml_root(doc), *model = NULL, *blocks = NULL, *devices = NULL;
    const struct yaml_value *links = NULL, *workload = NULL;
    int count = 0, rc = 0;
    if ((rc = yaml_only_keys(root, top_keys, e)) || (rc = yaml_need_mapping(root, "model", &model, e)) ||
        (rc = yaml_only_keys(model, model_keys, e)) ||
        (rc = yaml_need_sequence(model, "blocks", 1, PLAN_MAX_BLOCKS, &blocks, e)) ||
        (rc = yaml_need_sequence(root, "devices", 1, PLAN_MAX_DEVICES, &devices, e)) ||
        (rc = yaml_want_mapping(root, "links", &links, e)) || (rc = yaml_want_mapping(root, "workload", &workload, e)) ||
        (rc = count_blocks(blocks, &count, e)))
        return rc;
    struct plan_problem *p = plan_problem_new(count, (int)yaml_count(devices));
    if (!p)
        return error_set(e, ERR_NOMEM, "out of memory for a problem of %d blocks", count);
    if ((rc = read_model(&p->model, model, blocks, e)) || (rc = read_devices(p, devices, e)) ||
        (rc = read_names(p, root, e)) || (rc = read_links(p, links, e)) ||
        (rc = read_workload(&p->workload, workload, e)) || (rc = plan_problem_check(p, e))) {
        plan_problem_free(p);
        return rc;
    }
    *out = p;
    return 0;
}
