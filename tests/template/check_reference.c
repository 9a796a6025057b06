/* For hand use: renders every case of a folder's expected.json (a list of {template, messages, tools,
 * add_generation_prompt, bos_token, eos_token, and text or error}) with the template files beside it and compares the
 * text byte for byte; a case with an error must fail. `now` is frozen at 2026-01-15.
 * Usage: check_reference DIRECTORY */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/template/template.h"

static struct template *load(const char *folder, const char *name)
{
    static char text[TEMPLATE_TEXT_BYTES_MAX];
    char path[4096];
    struct error e;
    struct template *t = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text, f) : 0;
    if (!f)
        printf("%s: cannot be read\n", path);
    else if (template_parse(text, n, &t, &e))
        printf("%s: %s\n", name, e.text);
    if (f)
        fclose(f);
    return t;
}

/* 1 when the case holds. */
static int check(const char *folder, json_t *one, size_t number, const struct tm *now)
{
    const char *name = json_string_value(json_object_get(one, "template"));
    const json_t *want = json_object_get(one, "text"), *want_error = json_object_get(one, "error");
    struct template_options options = {.now = now};
    struct error e = {0};
    char *text = NULL;
    size_t n = 0;
    int holds = 0;
    if (!name || (!want && !want_error))
        return printf("case %zu is malformed\n", number), 0;
    struct template *t = load(folder, name);
    json_t *variables = json_copy(one);
    const char *const ours[] = {"template", "text", "error"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        json_object_del(variables, ours[i]);
    if (json_is_null(json_object_get(variables, "tools"))) /* no tools: the variable was not there */
        json_object_del(variables, "tools");
    if (t) {
        int rc = template_render(t, variables, &options, &text, &n, &e);
        if (want_error)
            holds = rc < 0;
        else
            holds = rc == 0 && n == json_string_length(want) && !memcmp(text, json_string_value(want), n);
        if (!holds) {
            size_t at = 0;
            while (rc == 0 && want && text[at] && text[at] == json_string_value(want)[at])
                at++;
            printf("case %zu, %s: %s\n", number, name, rc ? e.text : want ? "differs" : "should be an error");
            if (rc == 0 && want)
                printf("  at byte %zu: got  %.120s\n  want %.120s\n", at, text + at, json_string_value(want) + at);
        }
    }
    mem_free(text);
    json_decref(variables);
    template_free(t);
    return holds;
}

int main(int argc, char **argv)
{
    char path[4096];
    json_error_t why;
    struct tm now = {.tm_year = 126, .tm_mon = 0, .tm_mday = 15, .tm_wday = 4, .tm_yday = 14};
    if (argc != 2) {
        fprintf(stderr, "usage: check_reference DIRECTORY\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/expected.json", argv[1]);
    json_t *cases = json_load_file(path, 0, &why);
    if (!json_is_array(cases)) {
        fprintf(stderr, "%s: %s\n", path, cases ? "not a list" : why.text);
        return 2;
    }
    size_t held = 0, count = json_array_size(cases);
    for (size_t i = 0; i < count; i++)
        held += (size_t)check(argv[1], json_array_get(cases, i), i, &now);
    printf("%zu of %zu cases hold\n", held, count);
    json_decref(cases);
    return held == count ? 0 : 1;
}
