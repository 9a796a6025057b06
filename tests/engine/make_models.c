/* Writes every variant of model_builder.h as a GGUF file into a directory: to compute them with another engine.
 * For hand use: make_models DIR [TYPE] */
#include <stdio.h>

#include "base/memory.h"
#include "tests/engine/model_builder.h"

int main(int argc, char **argv)
{
    int type = argc > 2 ? type_parse(argv[2]) : TYPE_F32;
    if (argc < 2 || type < 0) {
        fprintf(stderr, "usage: make_models DIR [TYPE]\n");
        return 2;
    }
    for (size_t i = 0; i < model_variant_count(); i++) {
        struct gguf_builder b = {0};
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.gguf", argv[1], model_variant_at(i)->name);
        model_build_into(&b, model_variant_at(i), (uint32_t)type);
        gguf_build_write(&b, path);
        printf("%s%s\n", model_variant_at(i)->name, model_variant_at(i)->ours_only ? " (ours only)" : "");
    }
    return 0;
}
