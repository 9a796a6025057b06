/* Each allocation fails once: parsing and rendering report it and leak nothing. Every run is a child of its own. */
#include "tests/check.h"
#include "tests/child.h"

#include "tests/template/common.h"

enum { CHILD_FINE = 0, CHILD_NO_MEMORY = 40, CHILD_WRONG = 41 };

struct sample {
    const char *source, *want;
    json_t *variables;
};

static int render_once(void *context)
{
    const struct sample *sample = context;
    const struct template_options options = {.now = &common_now};
    struct template *t = NULL;
    char *text = NULL;
    struct error e = {0};
    int rc = template_parse(sample->source, strlen(sample->source), &t, &e);
    if (rc == 0)
        rc = template_render(t, sample->variables, &options, &text, NULL, &e);
    int right = rc == 0 ? text && !strcmp(text, sample->want) : rc == ERR_NOMEM && e.code == rc && !text;
    mem_free(text);
    template_free(t);
    return !right ? CHILD_WRONG : rc == 0 ? CHILD_FINE : CHILD_NO_MEMORY;
}

static void every_allocation_may_fail(void)
{
    char *source = common_read("tools.jinja"), *variables = common_read("tools.json"), *want = common_read("tools.txt");
    REQUIRE(source && variables && want);
    json_t *json = json_loads(variables, 0, NULL);
    REQUIRE(json);
    struct sample sample = {source, want, json};
    int k = 1, ended = CHILD_NO_MEMORY;
    for (; k < 2000 && ended == CHILD_NO_MEMORY; k++)
        ended = child_run(render_once, &sample, k);
    CHECK_INT(ended, CHILD_FINE); /* the first run that has fewer than k allocations */
    CHECK(k > 20);
    json_decref(json);
    free(source);
    free(variables);
    free(want);
}

static const struct check_test tests[] = {
    {"every allocation may fail", every_allocation_may_fail},
};
CHECK_MAIN(tests)
