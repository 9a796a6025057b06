/* `brigade quantize`: a model file in a smaller type. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "engine/quant/quantize_model.h"
#include "engine/quant/types.h"

static const struct command_help help = {
    "brigade quantize IN OUT TYPE [--threads N] [--list] [--json]",
    "Writes a GGUF again in another type. OUT is replaced only once the new file is whole. --list shows the types.",
    "brigade quantize stories-5m-f32.gguf stories-5m-q8_0.gguf Q8_0",
};

static int show(void *context, const struct quantize_progress *p)
{
    char what[96];
    snprintf(what, sizeof what, "%.60s -> %s", p->tensor->name, type_name(p->type));
    progress_show(context, what, p->done_values, p->values);
    return 0;
}

static int list_recipes(void)
{
    for (size_t i = 0; recipe_at(i); i++)
        printf("%-8s %s\n", recipe_at(i)->name, recipe_at(i)->about);
    return 0;
}

int command_quantize(int argc, char **argv)
{
    const char *words[3];
    int64_t threads = sysconf(_SC_NPROCESSORS_ONLN);
    bool json = false, list = false;
    const struct option table[] = {
        {"--threads", 't', OPTION_INT, &threads, "N", "threads (default: all cores); the result does not depend on them", 1, 256},
        {"--list", 0, OPTION_FLAG, &list, NULL, "show the types"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"bytes\": ..., \"bits_per_weight\": ...}"},
    };
    size_t count;
    enum options_outcome parsed = options_parse(argc, argv, table, sizeof table / sizeof *table, &help, words, 3, &count);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (list)
        return list_recipes();
    if (count != 3)
        return options_wrong(&help, "give IN, OUT and TYPE");
    const struct recipe *recipe = recipe_find(words[2]);
    if (!recipe)
        return options_wrong(&help, "'%s' is no type to quantise to (--list shows them)", words[2]);

    struct error err = {0};
    struct gguf *in = NULL;
    struct quantize_result result;
    struct progress progress = {0};
    int rc = gguf_open(words[0], &in, &err);
    if (!rc)
        rc = quantize_model(in, words[1], recipe, threads > 256 ? 256 : (int)threads, show, &progress, &result, &err);
    progress_clear(&progress);
    gguf_close(in);
    if (rc)
        return output_failure(&err);
    if (json)
        return output_json(json_pack("{s:I, s:f, s:I, s:s, s:s}", "bytes", (json_int_t)result.bytes, "bits_per_weight",
                                     result.bits_per_weight, "parameters", (json_int_t)result.parameters, "type", recipe->name,
                                     "file", words[1]));
    char size[UNITS_TEXT];
    printf("%s: %s, %.2f bits a weight\n", words[1], units_bytes_text(result.bytes, size), result.bits_per_weight);
    return 0;
}
