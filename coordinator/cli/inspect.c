/* `brigade inspect`: what a model file holds, before anything is loaded. */
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "engine/files/inspect.h"

static const struct command_help help = {
    "brigade inspect MODEL [--tensors] [--json]",
    "Shows a GGUF file's architecture, shapes, quantisation and size by block; --tensors lists every tensor.",
    "brigade inspect models/stories-5m-q8_0.gguf",
};

static void line(const char *what, int64_t value)
{
    if (value >= 0)
        printf("  %-16s %lld\n", what, (long long)value);
}

static void part(const char *what, const struct inspect_part *p)
{
    char size[UNITS_TEXT];
    if (p->tensors)
        printf("  %-16s %10s  %zu tensors\n", what, units_bytes_text(p->bytes, size), p->tensors);
}

/* Neighbouring blocks of one size share a line. */
static void print_blocks(const struct inspect_summary *s)
{
    for (size_t i = 0; i < s->block_count;) {
        size_t last = i;
        char what[64], size[UNITS_TEXT];
        while (last + 1 < s->block_count && s->block[last + 1].bytes == s->block[i].bytes &&
               s->block[last + 1].tensors == s->block[i].tensors)
            last++;
        if (last > i)
            snprintf(what, sizeof what, "blocks %zu-%zu", i, last);
        else
            snprintf(what, sizeof what, "block %zu", i);
        printf("  %-16s %10s  %zu tensors%s\n", what, units_bytes_text(s->block[i].bytes, size), s->block[i].tensors,
               last > i ? ", each" : "");
        i = last + 1;
    }
}

static void print_summary(const struct gguf *g, const struct inspect_summary *s)
{
    char size[UNITS_TEXT];
    printf("%s: %s%s%s, %s, GGUF v%u%s\n", gguf_path(g), s->architecture[0] ? s->architecture : "no architecture",
           s->name[0] ? ", " : "", s->name, s->file_type, s->version, s->files > 1 ? ", split" : "");
    printf("  %-16s %.3f million\n", "parameters", (double)s->all.parameters / 1e6);
    printf("  %-16s %s, %.2f bits a weight\n", "size", units_bytes_text(s->file_bytes, size), s->bits_per_weight);
    line("blocks", s->blocks);
    line("width", s->width);
    line("heads", s->heads);
    line("kv heads", s->kv_heads);
    line("feed-forward", s->feed_forward);
    if (s->experts > 0) {
        line("experts", s->experts);
        line("experts used", s->experts_used);
    }
    line("context", s->context_tokens);
    line("vocabulary", s->vocabulary);
    printf("by type:\n");
    for (size_t i = 0; i < s->type_count; i++)
        part(type_name(s->types[i].type), &s->types[i].part);
    printf("by place:\n");
    part("embedding", &s->embedding);
    print_blocks(s);
    part("head", &s->head);
    part("other", &s->other);
}

static void print_tensors(const struct gguf *g)
{
    struct table *t = table_create(4);
    static const char *const heads[] = {"tensor", "type", "shape", "bytes"};
    for (size_t i = 0; i < 4; i++)
        table_cell(t, "%s", heads[i]);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(g, i);
        char shape[96] = "";
        for (uint32_t d = 0; d < tensor->dims; d++)
            snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%llu", d ? " x " : "",
                     (unsigned long long)tensor->shape[d]);
        table_cell(t, "%s", tensor->name);
        table_cell(t, "%s", type_name(tensor->type));
        table_cell(t, "%s", shape);
        table_cell(t, "%llu", (unsigned long long)tensor->bytes);
    }
    table_print(t);
    table_destroy(t);
}

int command_inspect(int argc, char **argv)
{
    const char *path = NULL;
    bool tensors = false, json = false;
    const struct option table[] = {
        {"--tensors", 0, OPTION_FLAG, &tensors, NULL, "list every tensor"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"architecture\": ..., \"blocks\": ..., \"tensors\": [...]}"},
    };
    size_t count;
    enum options_outcome parsed = options_parse(argc, argv, table, 2, &help, &path, 1, &count);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (count != 1)
        return options_wrong(&help, "give a model file");

    struct error err = {0};
    struct gguf *g = NULL;
    struct inspect_summary *summary = NULL;
    int rc = gguf_open(path, &g, &err);
    if (!rc)
        rc = inspect_model(g, &summary, &err);
    int code = rc ? output_failure(&err) : 0;
    if (!rc && json) {
        code = output_json(inspect_json(g, summary));
    } else if (!rc) {
        print_summary(g, summary);
        if (tensors)
            print_tensors(g);
    }
    inspect_free(summary);
    gguf_close(g);
    return code;
}
