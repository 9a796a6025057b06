/* The room's door: whole templates of our own, errors with their lines, bounds, options, threads. */
#include "tests/check.h"

#include <pthread.h>

#include "tests/template/common.h"

static void whole_templates_render(void)
{
    static const char *const names[] = {"plain", "tools", "strict"};
    const struct template_options options = {.now = &common_now};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char file[3][64];
        static const char *const kinds[] = {"jinja", "json", "txt"};
        char *source[3];
        for (int k = 0; k < 3; k++) {
            snprintf(file[k], sizeof file[k], "%s.%s", names[i], kinds[k]);
            source[k] = common_read(file[k]);
            REQUIRE(source[k]);
        }
        struct error e = {0};
        char *text = common_render(source[0], source[1], &options, &e);
        if (!text)
            CHECK_FAIL("%s: %s", names[i], e.text);
        else
            CHECK_TEXT(text, source[2]);
        mem_free(text);
        for (int k = 0; k < 3; k++)
            free(source[k]);
    }
}

static void check_error(const char *source, const char *variables, int code, const char *want)
{
    struct error e = {0};
    char *text = common_render(source, variables, NULL, &e);
    if (text)
        CHECK_FAIL("%s gives \"%s\", not an error", source, text);
    else if (e.code != code || !strstr(e.text, want) || strchr(e.text, '\n'))
        CHECK_FAIL("%s fails with %d \"%s\", not %d \"%s\"", source, e.code, e.text, code, want);
    mem_free(text);
}

static void errors_name_what_and_where(void)
{
    static const struct {
        const char *source;
        int code;
        const char *text;
    } rows[] = {
        {"a\n{{ raise_exception('Roles\nmust alternate') }}", ERR_USAGE, "line 2: Roles must alternate"},
        {"\n\n{{ 'a' + 1 }}", ERR_FORMAT, "line 3: '+' does not work between a str and a int"},
        {"{{ missing.part }}", ERR_FORMAT, "'missing' is undefined"},
        {"{{ {}.a.b }}", ERR_FORMAT, "the dict has no 'a'"},
        {"{{ [][0].b }}", ERR_FORMAT, "uses an element that the list does not have"},
        {"{{ missing() }}", ERR_FORMAT, "'missing' is undefined"},
        {"{{ missing + 1 }}", ERR_FORMAT, "'missing' is undefined"},
        {"{{ missing < 1 }}", ERR_FORMAT, "'missing' is undefined"},
        {"{{ missing | tojson }}", ERR_FORMAT, "'missing' is undefined"},
        {"{{ 'x'() }}", ERR_FORMAT, "a str cannot be called"},
        {"{{ 1 | nonesuch }}", ERR_UNSUPPORTED, "there is no filter named 'nonesuch'"},
        {"{{ 1 is nonesuch }}", ERR_UNSUPPORTED, "there is no test named 'nonesuch'"},
        {"{{ [1] | map('nonesuch') | list }}", ERR_UNSUPPORTED, "there is no filter named 'nonesuch'"},
        {"{% include 'x' %}", ERR_UNSUPPORTED, "no meaning in a chat template"},
        {"{% nonesuch %}", ERR_FORMAT, "an unknown tag"},
        {"{% if x %}\n\n", ERR_FORMAT, "expected {% elif %}"},
        {"{% for x in y %}", ERR_FORMAT, "expected {% endfor %}"},
        {"{% for x y %}{% endfor %}", ERR_FORMAT, "expected 'in' at 'y'"},
        {"{% endif %}", ERR_FORMAT, "an end that matches none, at 'endif'"},
        {"{% break %}", ERR_FORMAT, "belong into a loop"},
        {"{% set true = 1 %}", ERR_FORMAT, "cannot assign to a constant"},
        {"{% set d = {} %}{% set d.x = 1 %}", ERR_FORMAT, "only a namespace's attributes can be set"},
        {"{% for a, b in [[1]] %}{% endfor %}", ERR_FORMAT, "fewer values than names"},
        {"{% for a, b in [[1, 2, 3]] %}{% endfor %}", ERR_FORMAT, "more values than names"},
        {"{{ 1", ERR_FORMAT, "a {{ is not closed"},
        {"a {# b", ERR_FORMAT, "a comment is not closed"},
        {"{% raw %} x", ERR_FORMAT, "a raw block is not closed"},
        {"{{ 'x }}", ERR_FORMAT, "a text is not closed"},
        {"{{ (1] }}", ERR_FORMAT, "a closing bracket that does not match"},
        {"{{ 1 $ 2 }}", ERR_FORMAT, "no meaning in a tag"},
        {"{{ }}", ERR_FORMAT, "expected an expression at '}}'"},
        {"{{ 1 2 }}", ERR_FORMAT, "expected '}}' at '2'"},
        {"{{ '\\x4' }}", ERR_FORMAT, "a malformed escape"},
        {"{{ f(a=1, 2) }}", ERR_FORMAT, "a positional argument behind a keyword"},
        {"{% macro m(a=1, b) %}{% endmacro %}", ERR_FORMAT, "without a default"},
        {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", ERR_FORMAT, "a macro of 1 arguments is given 2"},
        {"{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", ERR_FORMAT, "takes no argument named 'b'"},
        {"{{ 'x'.replace('a') }}", ERR_FORMAT, "replace needs its argument 'new'"},
        {"{{ 'x' | trim(1, 2, 3) }}", ERR_FORMAT, "trim is given an argument it does not take"},
        {"{{ 1 // 0 }}", ERR_FORMAT, "division by zero"},
        {"{{ [1, 'a'] | sort }}", ERR_FORMAT, "have no order"},
        {"{{ {[]: 1} }}", ERR_FORMAT, "a list cannot be a dictionary's key"},
        {"{{ 1 in 'abc' }}", ERR_FORMAT, "'in' a text needs a text"},
        {"{% for x in 3 %}{% endfor %}", ERR_FORMAT, "a int cannot be iterated"},
        {"{{ strftime_now('%Y') }}", ERR_FORMAT, "'strftime_now' is undefined"},
        {"{{ 99999999999999999999 }}", ERR_BOUND, "beyond 64 bits"},
        {"{{ 9223372036854775807 + 1 }}", ERR_BOUND, "beyond 64 bits"},
        {"{{ range(200000) }}", ERR_BOUND, "range: more than"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_error(rows[i].source, "{}", rows[i].code, rows[i].text);
    check_error("x", "[]", ERR_USAGE, "must be a JSON object");
    struct template *t = NULL;
    struct error e = {0};
    CHECK_INT(template_parse("a\xFFz", 3, &t, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "chat template: byte 1 is not UTF-8");
    CHECK(!t);
}

/* Hostile templates: each ends, soon, in an error of a bound. */
static void bounds_hold(void)
{
    static const char *const rows[] = {
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ("{% macro a() %}{% call b() %}{{ a() }}{% endcall %}{% endmacro %}"
         "{% macro b() %}{{ caller() }}{% endmacro %}{{ a() }}"),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 'x' | center(1000000000000) }}",
        "{{ 'x' | indent(1000000000000) }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{% set n = namespace(a='aa') %}{% for i in range(64) %}{% set n.a = n.a + n.a %}{% endfor %}",
        "{% set n = namespace(a=[1]) %}{% for i in range(64) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}",
        ("{% set n = namespace(a=1, b=1) %}"
         "{% for i in range(64) %}{% set n.a, n.b = [n.a, n.a], [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"),
        "{% set a = [] %}{% set _ = a.append(a) %}{{ a }}",
        "{% set a = [] %}{% set _ = a.append(a) %}{{ a | tojson }}",
        "{% set a = [] %}{% set b = [a] %}{% set _ = a.append(b) %}{{ a == b }}",
        "{% set a = [1] %}{% for x in a %}{% set _ = a.append(1) %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s.rfind('b' + s[1:]) }}{% endfor %}",
        "{% set s = ' ' * 1000000 %}{% for i in range(100000) %}{{ s.split() }}{{ s.strip() }}{% endfor %}",
        "{% set l = range(100000) | list %}{% for i in l %}{{ l.insert(0, 1) }}{% endfor %}",
        "{% set d = {} %}{% for i in range(100000) %}{% set _ = d.update({i: i}) %}{% endfor %}",
        "{{ [1, 2] | batch(9223372036854775807, 'x') | list }}",
    };
    const struct template_options options = {.memory_bytes = 16 << 20, .output_bytes = 4 << 20, .steps = 1000000};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error e = {0};
        char *text = common_render(rows[i], "{}", &options, &e);
        if (text || e.code != ERR_BOUND)
            CHECK_FAIL("%s gives %s", rows[i], text ? "a text" : e.text);
        mem_free(text);
    }
}

/* `count` times `unit` between two texts: nesting that a parser or evaluator could fall into. */
static void deep_templates_end(void)
{
    static const struct {
        const char *before, *unit, *after;
    } rows[] = {
        {"{{ ", "(", ""},         {"{{ ", "[", "1"},          {"{{ ", "-", "1 }}"},    {"{{ ", "not ", "1 }}"},
        {"{{ x", ".x", " }}"},    {"{{ 1", "+1", " }}"},      {"{{ 1", "|e", " }}"},   {"{{ x", "[0]", " }}"},
        {"{{ ", "1 if 1 else ", "1 }}"}, {"", "{% if 1 %}", ""}, {"", "{% for x in [1] %}", ""},
        {"{% set ", "(", "a"},    {"{{ x", "()", " }}"},      {"{% filter e", "|e", " %}{% endfilter %}"},
    };
    enum { COUNT = 20000 };
    char *source = malloc(COUNT * 24);
    REQUIRE(source);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = (size_t)sprintf(source, "%s", rows[i].before);
        for (int k = 0; k < COUNT; k++)
            n += (size_t)sprintf(source + n, "%s", rows[i].unit);
        sprintf(source + n, "%s", rows[i].after);
        struct error e = {0};
        char *text = common_render(source, "{\"x\": 1}", NULL, &e);
        CHECK(!text);
        CHECK(e.code == ERR_BOUND || e.code == ERR_FORMAT);
        mem_free(text);
    }
    free(source);
    struct template *t = NULL;
    char *large = calloc(1, TEMPLATE_TEXT_BYTES_MAX + 1);
    REQUIRE(large);
    CHECK_INT(template_parse(large, TEMPLATE_TEXT_BYTES_MAX + 1, &t, NULL), ERR_BOUND);
    CHECK(!t);
    free(large);
}

static void deep_variables_end(void)
{
    json_t *json = json_integer(1);
    for (int i = 0; i < 5000; i++)
        json = json_pack("[o]", json);
    json_t *variables = json_pack("{s:o}", "x", json);
    struct template *t = NULL;
    char *text = NULL;
    struct error e = {0};
    REQUIRE(template_parse("{{ x }}", 7, &t, &e) == 0);
    CHECK_INT(template_render(t, variables, NULL, &text, NULL, &e), ERR_BOUND);
    CHECK(!text);
    template_free(t);
    REQUIRE(template_parse("no x", 4, &t, &e) == 0); /* what is not read is not even looked at */
    CHECK_INT(template_render(t, variables, NULL, &text, NULL, &e), 0);
    CHECK_TEXT(text, "no x");
    mem_free(text);
    template_free(t);
    json_decref(variables);
}

static void renders_do_not_meet(void)
{
    const char *source = "{% set _ = x.append(1) %}{{ x }}{{ x | length }}\x00z";
    size_t bytes = strlen(source) + 2, n = 0;
    json_t *variables = json_pack("{s:[i]}", "x", 7);
    struct template *t = NULL;
    REQUIRE(template_parse(source, bytes, &t, NULL) == 0);
    CHECK(template_reads(t, "x"));
    CHECK(!template_reads(t, "append"));
    CHECK(!template_reads(t, "_"));
    CHECK(!template_reads(t, "tools"));
    for (int i = 0; i < 3; i++) { /* the caller's values never change */
        char *text = NULL;
        CHECK_INT(template_render(t, variables, NULL, &text, &n, NULL), 0);
        CHECK_INT(n, 9);
        CHECK(text && !memcmp(text, "[7, 1]2\0z", 9));
        mem_free(text);
    }
    template_free(t);
    json_decref(variables);
}

struct shared {
    const struct template *template;
    const json_t *variables;
    const char *want;
    int wrong;
};

static void *render_often(void *argument)
{
    struct shared *s = argument;
    const struct template_options options = {.now = &common_now};
    for (int i = 0; i < 50; i++) {
        char *text = NULL;
        s->wrong += template_render(s->template, s->variables, &options, &text, NULL, NULL) || strcmp(text, s->want);
        mem_free(text);
    }
    return NULL;
}

static void threads_share_a_template(void)
{
    enum { THREADS = 4 };
    char *source = common_read("tools.jinja"), *variables = common_read("tools.json"), *want = common_read("tools.txt");
    REQUIRE(source && variables && want);
    json_t *json = json_loads(variables, 0, NULL);
    struct template *t = NULL;
    REQUIRE(template_parse(source, strlen(source), &t, NULL) == 0);
    pthread_t threads[THREADS];
    struct shared shared[THREADS];
    for (int i = 0; i < THREADS; i++) {
        shared[i] = (struct shared){t, json, want, 0};
        REQUIRE(pthread_create(&threads[i], NULL, render_often, &shared[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(shared[i].wrong, 0);
    }
    template_free(t);
    json_decref(json);
    free(source);
    free(variables);
    free(want);
}

static const struct check_test tests[] = {
    {"whole templates render", whole_templates_render},
    {"errors name what and where", errors_name_what_and_where},
    {"bounds hold", bounds_hold},
    {"deep templates end", deep_templates_end},
    {"deep variables end", deep_variables_end},
    {"renders do not meet", renders_do_not_meet},
    {"threads share a template", threads_share_a_template},
};
CHECK_MAIN(tests)
