/* The language, feature by feature: what templates make of one set of variables, in Jinja's own words. */
#include "tests/check.h"

#include "tests/template/common.h"

/* clang-format off */
static const char variables[] =
    "{\"s\": \"Hello, World\","
    " \"u\": \"Grüße 😀\","
    " \"n\": 3,"
    " \"f\": 2.5,"
    " \"t\": true,"
    " \"no\": null,"
    " \"l\": [3, 1, 2],"
    " \"w\": [\"b\", \"A\", \"c\"],"
    " \"e\": [],"
    " \"d\": {\"b\": 1, \"a\": {\"x\": [1, \"two\"]}, \"items\": \"own\"},"
    " \"people\": [{\"name\": \"Ann\", \"age\": 30, \"tags\": [\"x\"]}, "
    "  {\"name\": \"bob\", \"age\": 20}, {\"name\": \"Cid\", \"age\": 30, \"admin\": true}]}";

struct row {
    const char *template, *text;
};

static const struct row white_space[] = {
    {"  {% if t %}\n  x\n  {% endif %}\ny",
     "  x\ny"},
    {"a  {{- 1 -}}  b",
     "a1b"},
    {"a\n  {%- if t %} b {% endif -%}  \n c",
     "a b c"},
    {"a {# note #}\n b {#- note -#} c",
     "a  bc"},
    {"  {%+ if t %}x{% endif +%}\ny",
     "  x\ny"},
    {"line\n",
     "line"},
    {"line\n\n",
     "line\n"},
    {"{% raw %}{{ x }}{% if %}{% endraw %}\n|",
     "{{ x }}{% if %}|"},
    {"{{ '\n' }}  {% set x = 1 %}\n  {{ x }}\n",
     "\n    1"},
    {"{{ {'a': {'b': 1}} }}",
     "{'a': {'b': 1}}"},
    {"{{ '}}' }}{% if '%}' %}y{% endif %}",
     "}}y"},
};

static const struct row conditions[] = {
    {"{% if n > 5 %}a{% elif n == 3 %}b{% else %}c{% endif %}",
     "b"},
    {"{% if not e and (no or t) %}y{% endif %}",
     "y"},
    {"{{ 'a' if n is odd else 'b' }}{{ 'a' if e }}",
     "a"},
    {"{{ 1 < 2 < 3 }}{{ 3 > 2 > 2 }}{{ 1 == 1.0 }}{{ 'a' != 'b' }}",
     "TrueFalseTrueTrue"},
    {"{{ e or 'none' }}{{ n and s }}",
     "noneHello, World"},
    {"{{ 'ell' in s }}{{ 2 in l }}{{ 'b' in d }}{{ 'z' not in d }}",
     "TrueTrueTrueTrue"},
};

static const struct row loops[] = {
    {"{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ "
     "loop.last }}{{ loop.length }}{{ x }};{% endfor %}",
     "1032TrueFalse33;2121FalseFalse31;3210FalseTrue32;"},
    {"{% for x in e %}x{% else %}empty{% endfor %}",
     "empty"},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
     "b=1;a={'x': [1, 'two']};items=own;"},
    {"{% for x in l if x != 1 %}{{ loop.index }}:{{ x }} {% endfor %}",
     "1:3 2:2 "},
    {"{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
     "32"},
    {"{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
     "3"},
    {"{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
     "<3>1 3<1>2 1<2> "},
    {"{% for x in [1,[2,[3]]] recursive %}{{ loop.depth }}{{ x if x is number else loop(x) }}{% endfor %}",
     "11122233"},
    {"{% for x in l %}{{ loop.cycle('a','b') }}{{ loop.changed(x > 1) }}{% endfor %}",
     "aTruebTrueaTrue"},
    {"{% for c in u %}{{ c }}.{% endfor %}",
     "G.r.ü.ß.e. .😀."},
    {"{% for a, (b) in [[1, 2]] %}{{ a }}{{ b }}{% endfor %}",
     "12"},
    {"{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}",
     "531"},
    {"{% for k in d %}{{ k }}{% endfor %}",
     "baitems"},
};

static const struct row scopes[] = {
    {"{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
     "3121"},
    {"{% if t %}{% set x = 1 %}{% endif %}{{ x }}",
     "1"},
    {"{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
     "6"},
    {"{% set a, b = 1, (2, 3) %}{{ a }}{{ b }}",
     "1(2, 3)"},
    {"{% set x %}in {{ n }}{% endset %}[{{ x }}]",
     "[in 3]"},
    {"{% set x | upper | trim %} a {% endset %}[{{ x }}]",
     "[A]"},
    {"{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
     "13False"},
    {"{% filter upper %}x{{ s }}{% endfilter %}",
     "XHELLO, WORLD"},
};

static const struct row macros[] = {
    {"{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}",
     "1-2;1-3;5-4;-2;"},
    {"{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
     "(1, 2){'x': 3}"},
    {"{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m(7) %}got {{ y }}{% endcall %}",
     "<got 7>"},
    {"{% macro f(n) %}{{ n }}{% if n > 0 %} {{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
     "3 2 1 0"},
    {"{% macro m() %}{{ x }}{% endmacro %}{% set x = 5 %}{{ m() }}",
     "5"},
    {"{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(*[1], **{'b': 2}) }}{{ m(9) }}",
     "29"},
    {"{% macro m(a) %}{% endmacro %}{{ m.name }}{{ m.arguments }}",
     "m('a',)"},
};

static const struct row numbers[] = {
    {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}",
     "3 -4 2 3.5 2.0 1024 0.5"},
    {"{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 100.0 }} {{ 5 // 2.0 }} {{ -7.5 % 2 }}",
     "0.30000000000000004 1e+16 1000000000000000.0 1e-05 100.0 2.0 0.5"},
    {"{{ true + 1 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ -n }} {{ +n }}",
     "2 1000 31 3 -3 3"},
    {"{{ 3.7 | int }} {{ '12' | int }} {{ 'x' | int(5) }} {{ '0x1f' | int(base=16) }} {{ '1.5' | float }} {{ 2 | "
     "float }}",
     "3 12 5 31 1.5 2.0"},
    {"{{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ -3 | abs }}",
     "2.0 3.14 3.0 3"},
};

static const struct row texts[] = {
    {"{{ 'a' 'b' ~ 1 ~ none ~ true }}",
     "ab1NoneTrue"},
    {"{{ 'tab\\tq\\'\\x41\\u00e9\\n\\d' }}",
     "tab\tq'Aé\n\\d"},
    {"{{ 'ab' * 3 }}{{ 'a' + 'b' }}",
     "abababab"},
    {"{{ s[0] }}{{ s[-1] }}{{ s[1:4] }}{{ s[::-1] }}{{ u[2:-2] }}{{ u | length }}",
     "HdelldlroW ,olleHüße7"},
    {"{{ '%s is %05.1f%% %d %-3s|' % ('x', 2.25, 7, 'a') }}",
     "x is 002.2% 7 a  |"},
    {"{{ '{} {1}'.replace('1', '') .format(1, 2) }}{{ '{a:>4}|{0:.2f}'.format(1.5, a='x') }}",
     "1 2   x|1.50"},
    {"{{ ['a\"b', \"it's\", 'é\\n', 1.0, none, {'k': (1,)}] }}",
     "['a\"b', \"it's\", 'é\\n', 1.0, None, {'k': (1,)}]"},
    {"{{ '<' + ('&'|safe) }} {{ '<a>' | e }}",
     "&lt;& &lt;a&gt;"},
};

static const struct row methods[] = {
    {"{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' x'.lstrip() }}|{{ 'x '.rstrip() }}|",
     "x|a|x|x|"},
    {"{{ 'a,b,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'a\nb'.splitlines() }}",
     "['a', 'b', 'c']['a', 'b']['a,b', 'c']['a', 'b']"},
    {"{{ s.upper() }}{{ s.lower() }}{{ 'a bc'.title() }}{{ 'aBC'.capitalize() }}{{ u.upper() }}",
     "HELLO, WORLDhello, worldA BcAbcGRÜSSE 😀"},
    {"{{ s.startswith('He') }}{{ s.endswith(('x', 'ld')) }}{{ s.find('o') }}{{ s.rfind('o') }}{{ s.count('l') }}",
     "TrueTrue483"},
    {"{{ s.replace('l', 'L', 2) }}{{ '-'.join(w) }}{{ 'x=1'.partition('=') }}",
     "HeLLo, Worldb-A-c('x', '=', '1')"},
    {"{{ d.get('b') }}{{ d.get('z') }}{{ d.get('z', 4) }}{{ d.keys() | list }}{{ d.values() | list }}",
     "1None4['b', 'a', 'items'][1, {'x': [1, 'two']}, 'own']"},
    {"{{ d['items'] }}{{ d.a.x[1] }}{{ d['a']['x'][0] }}",
     "owntwo1"},
    {"{% set x = [1] %}{% set _ = x.append(2) %}{{ x }}{{ x.pop(0) }}{{ x }}",
     "[1, 2]1[2]"},
    {"{{ 'abc'.isalpha() }}{{ '12'.isdigit() }}{{ ' '.isspace() }}{{ 'A'.isupper() }}{{ '7'.zfill(3) }}{{ "
     "'ab'.center(6, '*') }}",
     "TrueTrueTrueTrue007**ab**"},
};

static const struct row filters[] = {
    {"{{ l | sort }}{{ w | sort }}{{ w | sort(case_sensitive=true, reverse=true) }}{{ people | "
     "sort(attribute='age,name') | map(attribute='name') | join(' ') }}",
     "[1, 2, 3]['A', 'b', 'c']['c', 'b', 'A']bob Ann Cid"},
    {"{{ l | first }}{{ l | last }}{{ l | length }}{{ l | sum }}{{ l | min }}{{ l | max }}{{ l | join('-') }}{{ "
     "e | first }}",
     "3236133-1-2"},
    {"{{ l | reverse | list }}{{ 'abc' | reverse }}{{ [1, 1, 'a', 'A'] | unique | list }}{{ 'ab' | list }}",
     "[2, 1, 3]cba[1, 'a']['a', 'b']"},
    {"{{ people | selectattr('admin') | map(attribute='name') | list }}{{ people | rejectattr('age', 'gt', 25) | "
     "list | length }}{{ people | selectattr('tags', 'defined') | list | length }}",
     "['Cid']11"},
    {"{{ l | select('odd') | list }}{{ l | reject('gt', 1) | list }}{{ w | map('upper') | list }}{{ people | "
     "map(attribute='tags', default='-') | list }}{{ people | map(attribute='tags.0', default='-') | list }}",
     "[3, 1][1]['B', 'A', 'C'][['x'], '-', '-']['x', '-', '-']"},
    {"{{ d | dictsort }}{{ {'x': 2, 'y': 1} | dictsort(by='value') }}{{ d | items | list }}{{ d | list }}",
     "[('a', {'x': [1, 'two']}), ('b', 1), ('items', 'own')][('y', 1), ('x', 2)][('b', 1), ('a', {'x': [1, "
     "'two']}), ('items', 'own')]['b', 'a', 'items']"},
    {"{% for g in people | groupby('age') %}{{ g.grouper }}:{{ g.list | length }}{{ g[0] }} {% endfor %}{{ l | "
     "batch(2) | list }}{{ l | slice(2) | list }}",
     "20:120 30:230 [[3, 1], [2]][[3, 1], [2]]"},
    {"{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, first=true) }}|{{ 'a\n\nb' | indent('> ', blank=true) }}",
     "a\n    b\n\n    c|  a\n  b|a\n> \n> b"},
    {"{{ 'hello-world it\\'s' | title }}{{ 'hELLO' | capitalize }}{{ '  x ' | trim }}{{ 'aab' | replace('a', "
     "'x', 1) }}",
     "Hello-World It'sHelloxxab"},
    {"{{ missing | default('d') }}{{ none | default('d') }}{{ '' | default('d', true) }}{{ missing | d }}",
     "dNoned"},
    {"{{ 'some words here' | truncate(9) }}|{{ 'some words here' | truncate(9, true, '', 0) }}|{{ 'a b c' | "
     "wordcount }}|{{ 'ab' | center(6) }}|",
     "some...|some word|3|  ab  |"},
    {"{{ '%s+%s' | format(1, 2) }}{{ 1.0 | string }}{{ 'a b&c/' | urlencode }}{{ l | map('string') | map('int') "
     "| sum }}",
     "1+21.0a%20b%26c/6"},
};

static const struct row json[] = {
    {"{{ d | tojson }}",
     "{\"b\": 1, \"a\": {\"x\": [1, \"two\"]}, \"items\": \"own\"}"},
    {"{{ d | tojson(indent=2) }}",
     "{\n  \"b\": 1,\n  \"a\": {\n    \"x\": [\n      1,\n      \"two\"\n    ]\n  },\n  \"items\": \"own\"\n}"},
    {"{{ [u, 'a\"\\\\\n\\x01', 1.0, 1e20, none, true, [], {}] | tojson }}",
     "[\"Grüße 😀\", \"a\\\"\\\\\\n\\u0001\", 1.0, 1e+20, null, true, [], {}]"},
    {"{{ u | tojson(ensure_ascii=true) }}",
     "\"Gr\\u00fc\\u00dfe \\ud83d\\ude00\""},
    {"{{ d | tojson(separators=(',', ':'), sort_keys=true) }}",
     "{\"a\":{\"x\":[1,\"two\"]},\"b\":1,\"items\":\"own\"}"},
    {"{{ [] | tojson(indent=1) }}{{ (1, 2) | tojson }}{{ {1: 2, true: 3, none: 4} | tojson }}",
     "[][1, 2]{\"1\": 3, \"null\": 4}"},
};

static const struct row tests[] = {
    {"{{ x is defined }}{{ n is defined }}{{ no is none }}{{ s is string }}{{ n is number }}{{ t is number }}{{ "
     "d is mapping }}{{ l is sequence }}{{ s is iterable }}{{ n is iterable }}",
     "FalseTrueTrueTrueTrueTrueTrueTrueTrueFalse"},
    {"{{ t is true }}{{ t is false }}{{ 1 is true }}{{ t is boolean }}{{ n is integer }}{{ t is integer }}{{ f "
     "is float }}{{ range is callable }}",
     "TrueFalseFalseTrueTrueFalseTrueTrue"},
    {"{{ 4 is even }}{{ 4 is divisibleby 2 }}{{ 2 is in l }}{{ 3 is eq 3 }}{{ 3 is ge(4) }}{{ 'a' is lower }}{{ "
     "'a' is not upper }}{{ n is sameas 3 }}{{ s is not none and t }}",
     "TrueTrueTrueTrueFalseTrueTrueTrueTrue"},
};

static const struct row undefined[] = {
    {"[{{ missing }}]{{ missing is defined }}{{ d.missing }}{{ l[9] }}{{ 'abc'[7] }}",
     "[]False"},
    {"{{ missing | length }}{{ missing | list }}{{ missing == other }}{{ missing ~ 'x' }}{% for x in missing "
     "%}x{% endfor %}{{ not missing }}",
     "0[]TruexTrue"},
};

static const struct row functions[] = {
    {"{{ range(3) | list }}{{ range(1, 7, 2) | list }}{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}",
     "[0, 1, 2][1, 3, 5]{'a': 1, 'b': 2}{'x': 1}"},
    {"{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
     "3, 1, 2"},
    {"{{ strftime_now('%Y-%m-%d %H:%M, %A %d %b') }}",
     "2026-01-15 00:00, Thursday 15 Jan"},
};
/* clang-format on */

static void check_rows(const struct row *rows, size_t count)
{
    const struct template_options options = {.now = &common_now};
    for (size_t i = 0; i < count; i++) {
        struct error e = {0};
        char *text = common_render(rows[i].template, variables, &options, &e);
        if (!text || strcmp(text, rows[i].text))
            CHECK_FAIL("%s\n      gives \"%s\", not \"%s\"", rows[i].template, text ? text : e.text, rows[i].text);
        mem_free(text);
    }
}

static void check_white_space(void)
{
    check_rows(white_space, sizeof white_space / sizeof *white_space);
}

static void check_conditions(void)
{
    check_rows(conditions, sizeof conditions / sizeof *conditions);
}

static void check_loops(void)
{
    check_rows(loops, sizeof loops / sizeof *loops);
}

static void check_scopes(void)
{
    check_rows(scopes, sizeof scopes / sizeof *scopes);
}

static void check_macros(void)
{
    check_rows(macros, sizeof macros / sizeof *macros);
}

static void check_numbers(void)
{
    check_rows(numbers, sizeof numbers / sizeof *numbers);
}

static void check_text(void)
{
    check_rows(texts, sizeof texts / sizeof *texts);
}

static void check_methods(void)
{
    check_rows(methods, sizeof methods / sizeof *methods);
}

static void check_filters(void)
{
    check_rows(filters, sizeof filters / sizeof *filters);
}

static void check_json(void)
{
    check_rows(json, sizeof json / sizeof *json);
}

static void check_tests(void)
{
    check_rows(tests, sizeof tests / sizeof *tests);
}

static void check_undefined(void)
{
    check_rows(undefined, sizeof undefined / sizeof *undefined);
}

static void check_functions(void)
{
    check_rows(functions, sizeof functions / sizeof *functions);
}

static const struct check_test tests_of_language[] = {
    {"white space", check_white_space},
    {"conditions", check_conditions},
    {"loops", check_loops},
    {"scopes", check_scopes},
    {"macros", check_macros},
    {"numbers", check_numbers},
    {"text", check_text},
    {"methods", check_methods},
    {"filters", check_filters},
    {"json", check_json},
    {"tests", check_tests},
    {"undefined", check_undefined},
    {"functions", check_functions},
};
CHECK_MAIN(tests_of_language)
