/* Templates damaged at random: whatever comes of it is a text or one line of error, and comes soon. */
#include "tests/check.h"

#include "base/hash.h"
#include "tests/template/common.h"

enum { MUTANTS = 600, ROOM = 1 << 15 };

static uint64_t seed = 20260115;

static size_t pick(size_t below)
{
    return below ? (size_t)(hash_mix64(seed++) % below) : 0;
}

/* Pieces that mean something to a template, so that damage gets past the lexer. */
/* clang-format off */
static const char *const pieces[] = {
    "{{", "}}", "{%", "%}", "{#", "#}", "-%}", "{%-", "(", ")", "[", "]", "{", "}", "'", "\"", "\\", "|", ".", ",",
    "~", ":", " if ", " else ", " for ", " in ", " is ", " not ", " and ", "*", "**", "%", "//", "==", "<", "1",
    "9223372036854775807", "-1", "0", "1e308", "none", "loop", "loop(", "namespace(", "range(", "messages",
    "messages[0]", ".items()", "|tojson", "|list", "|map(", "|sort", "|join", "|first", "|length", "|indent(",
    "|default(", "|groupby('role')", "[::-1]", "[1:", ".format(", ".split(", ".append(messages)", "caller()",
    "varargs", "kwargs", "{% set x = ", "{% endfor %}", "{% endif %}", "{% else %}", "{% break %}",
    "{% continue %}", "{% macro m(a) %}", "{% endmacro %}", "{% call m(1) %}", "{% endcall %}", "{% raw %}",
    "{% endraw %}", "{% for x in messages recursive %}", "\xC3\xA9", "\xF0\x9F\x98\x80", "\xFF", "\r\n",
};
/* clang-format on */

static size_t mutate(char *text, size_t n)
{
    for (size_t rounds = 1 + pick(4); rounds > 0; rounds--) {
        size_t at = pick(n + 1), length = pick(24), to = pick(n + 1);
        const char *piece = pieces[pick(sizeof pieces / sizeof *pieces)];
        length = length < n - at ? length : n - at;
        switch (pick(5)) {
        case 0: /* a bit turned */
            if (at < n)
                text[at] = (char)(text[at] ^ 1 << pick(8));
            break;
        case 1: /* a part cut out */
            memmove(text + at, text + at + length, n - at - length);
            n -= length;
            break;
        case 2: /* a part doubled elsewhere */
            if (n + length < ROOM) {
                char part[24];
                memcpy(part, text + at, length);
                memmove(text + to + length, text + to, n - to);
                memcpy(text + to, part, length);
                n += length;
            }
            break;
        default: /* a piece put in */
            length = strlen(piece);
            if (n + length < ROOM) {
                memmove(text + at + length, text + at, n - at);
                memcpy(text + at, piece, length);
                n += length;
            }
        }
    }
    return n;
}

static void check_mutants(const char *name)
{
    static char text[ROOM];
    char file[64];
    snprintf(file, sizeof file, "%s.jinja", name);
    char *source = common_read(file);
    snprintf(file, sizeof file, "%s.json", name);
    char *variables = common_read(file);
    REQUIRE(source && variables);
    json_t *json = json_loads(variables, 0, NULL);
    const struct template_options options = {
        .now = &common_now, .memory_bytes = 8 << 20, .output_bytes = 1 << 20, .steps = 100000};
    int rendered = 0, refused = 0;
    for (int i = 0; i < MUTANTS; i++) {
        struct template *t = NULL;
        struct error e = {0};
        char *made = NULL;
        size_t n = strlen(source);
        memcpy(text, source, n);
        n = mutate(text, n);
        int rc = template_parse(text, n, &t, &e);
        if (rc == 0) {
            rc = template_render(t, json, &options, &made, &n, &e);
            CHECK((rc == 0) == (made != NULL));
            CHECK(rc < 0 || strlen(made) <= n);
        }
        if (rc < 0) {
            CHECK_INT(e.code, rc);
            CHECK(rc != ERR_INTERNAL && rc != ERR_NOMEM);
            CHECK(!strncmp(e.text, "chat template", 13) && !strchr(e.text, '\n'));
        }
        rendered += rc == 0;
        refused += rc < 0;
        mem_free(made);
        template_free(t);
    }
    CHECK(rendered > 20 && refused > 100); /* the damage is neither nothing nor everything */
    json_decref(json);
    free(source);
    free(variables);
}

static void damaged_templates_end_well(void)
{
    check_mutants("plain");
    check_mutants("tools");
    check_mutants("strict");
}

static const struct check_test tests[] = {
    {"damaged templates end well", damaged_templates_end_well},
};
CHECK_MAIN(tests)
