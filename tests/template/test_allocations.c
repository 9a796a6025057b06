/* Each allocation fails once: parsing and rendering report it and leak nothing. The failing one is chosen by an
 * environment variable read once a process, so every run is a child of its own. */
#include "tests/check.h"

#include <sys/wait.h>
#include <unistd.h>

#include "tests/template/common.h"

enum { CHILD_FINE = 0, CHILD_NO_MEMORY = 40, CHILD_WRONG = 41 };

static int child(const char *source, json_t *variables, const char *want)
{
    const struct template_options options = {.now = &common_now};
    struct template *t = NULL;
    char *text = NULL;
    struct error e = {0};
    int rc = template_parse(source, strlen(source), &t, &e);
    if (rc == 0)
        rc = template_render(t, variables, &options, &text, NULL, &e);
    int right = rc == 0 ? text && !strcmp(text, want) : rc == ERR_NOMEM && e.code == rc && !text;
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
    int status = 0, k = 1;
    for (; k < 2000; k++) {
        fflush(NULL);
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            char text[16];
            snprintf(text, sizeof text, "%d", k);
            setenv("BRIGADE_FAIL_ALLOC", text, 1);
            _exit(child(source, json, want));
        }
        REQUIRE(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != CHILD_NO_MEMORY)
            break;
    }
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), CHILD_FINE); /* the first run that has fewer than k allocations */
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
