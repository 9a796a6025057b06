/* Opens a model built in memory; a failure is a failed check. */
#ifndef BRIGADE_TESTS_ENGINE_OPEN_BUILT_H
#define BRIGADE_TESTS_ENGINE_OPEN_BUILT_H

#include "tests/check.h"

#include "engine/model/model.h"
#include "tests/engine/model_builder.h"

/* NULL after a failed check. The caller closes the model, then frees *bytes. */
static inline struct model *open_built(const struct model_variant *v, uint32_t type, void **bytes)
{
    struct gguf *g = NULL;
    struct model *m = NULL;
    struct error err = {0};
    size_t size;
    *bytes = model_build(v, type, &size);
    if (gguf_open_memory(*bytes, size, v->name, &g, &err) || model_from_gguf(g, &m, &err)) {
        CHECK_FAIL("%s: %s", v->name, err.text);
        gguf_close(g);
    }
    return m;
}

#endif
