/* What the template tests share: rendering from texts, reading fixture files. */
#ifndef BRIGADE_TESTS_TEMPLATE_COMMON_H
#define BRIGADE_TESTS_TEMPLATE_COMMON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/template/template.h"

static const struct tm common_now = {.tm_year = 126, .tm_mon = 0, .tm_mday = 15, .tm_wday = 4, .tm_yday = 14};

/* The template over a JSON object's text ("" for none): its text (mem_free), or NULL and e. */
static inline char *common_render(const char *source, const char *variables, const struct template_options *options,
                                  struct error *e)
{
    struct template *t = NULL;
    char *text = NULL;
    json_error_t why;
    json_t *json = *variables ? json_loads(variables, 0, &why) : NULL;
    if (*variables && !json)
        error_set(e, ERR_FORMAT, "the test's variables: %s", why.text);
    else if (template_parse(source, strlen(source), &t, e) == 0)
        template_render(t, json, options, &text, NULL, e);
    template_free(t);
    json_decref(json);
    return text;
}

/* A whole file as a C string (free), NULL when it cannot be read. */
static inline char *common_read(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", FIXTURES, name);
    FILE *f = fopen(path, "rb");
    char *text = f ? calloc(1, 1 << 16) : NULL;
    if (text)
        text[fread(text, 1, (1 << 16) - 1, f)] = 0;
    if (f)
        fclose(f);
    return text;
}

#endif
