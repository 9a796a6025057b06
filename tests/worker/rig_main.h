/* What the test programs of the worker share: the rig, a sequence of tokens, and their main. Include after check.h. */
#ifndef BRIGADE_TESTS_WORKER_RIG_MAIN_H
#define BRIGADE_TESTS_WORKER_RIG_MAIN_H

#include "engine/kernels/ops.h"
#include "tests/engine/model_builder.h"
#include "tests/worker/rig.h"

static struct rig rig;
static int32_t tokens[RIG_CONTEXT];

/* Ends the test when a call of the rig gives a complaint. */
#define FINE(call)                                                                                                    \
    do {                                                                                                              \
        const char *wrong_ = (call);                                                                                  \
        if (wrong_) {                                                                                                 \
            CHECK_FAIL("%s", wrong_);                                                                                 \
            return;                                                                                                   \
        }                                                                                                             \
    } while (0)

static inline int rig_main(int argc, char **argv, const struct check_test *tests, size_t count)
{
    struct error err = {0};
    const char *wrong = kernels_init(&err) ? err.text : rig_open(&rig);
    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        return 1;
    }
    for (uint32_t i = 0; i < RIG_CONTEXT; i++)
        tokens[i] = model_built_token(i);
    int rc = check_main(argc, argv, tests, count);
    rig_close(&rig);
    return rc;
}

#endif
