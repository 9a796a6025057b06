/* The lexer: Jinja 3.1's rules with trim_blocks and lstrip_blocks on and the last line end dropped
 * (jinja.palletsprojects.com, "Template Designer Documentation", whitespace control). Owns the token list it fills. */
#include "engine/template/lexer.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "engine/template/unicode.h"

enum { BRACKETS_MAX = 200 };

struct lexer {
    const char *text;
    size_t n, at;
    size_t counted_at; /* line is the line of this byte */
    int line;
    bool line_starting; /* the last tag took the line end behind it (or the text begins) */
    struct tokens tokens;
    struct error *error;
    int failed;
};

static int line_at(struct lexer *l, size_t at)
{
    for (; l->counted_at < at; l->counted_at++)
        l->line += l->text[l->counted_at] == '\n';
    return l->line;
}

static void fail(struct lexer *l, int code, const char *what)
{
    if (!l->failed)
        l->failed = error_set(l->error, code, "chat template, line %d: %s", line_at(l, l->at), what);
}

static void add(struct lexer *l, enum token_kind kind, size_t from, size_t to)
{
    struct tokens *t = &l->tokens;
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 256;
        struct token *list = mem_resize(t->list, capacity, sizeof *list);
        if (!list) {
            fail(l, ERR_NOMEM, "out of memory");
            return;
        }
        t->list = list;
        t->capacity = capacity;
    }
    t->list[t->n++] = (struct token){(uint8_t)kind, line_at(l, from), l->text + from, to - from};
}

static char peek(const struct lexer *l, size_t at)
{
    return at < l->n ? l->text[at] : 0;
}

static bool stands(const struct lexer *l, size_t at, const char *what)
{
    size_t n = strlen(what);
    return at <= l->n && l->n - at >= n && !memcmp(l->text + at, what, n);
}

static size_t skip_space(const struct lexer *l, size_t at)
{
    return at + jinja_lstrip(l->text + at, l->n - at);
}

/* The text [from, to) before a tag whose opening is followed by `sign`. */
static void add_text(struct lexer *l, size_t from, size_t to, char sign, bool may_strip_line)
{
    if (sign == '-') {
        to = from + jinja_rstrip(l->text + from, to - from);
    } else if (sign != '+' && may_strip_line) {
        size_t start = to;
        while (start > from && l->text[start - 1] != '\n')
            start--;
        if ((start > from || l->line_starting) && skip_space(l, start) >= to)
            to = start;
    }
    if (to > from)
        add(l, TOKEN_TEXT, from, to);
}

static char sign_at(const struct lexer *l, size_t at)
{
    char c = peek(l, at);
    return c == '-' || c == '+' ? c : 0;
}

/* How many bytes a block's (or a comment's) end takes at `at`, 0 when none stands there. */
static size_t block_end(const struct lexer *l, size_t at, const char *close)
{
    if (peek(l, at) == '-' && stands(l, at + 1, close))
        return skip_space(l, at + 3) - at;
    if (peek(l, at) == '+' && stands(l, at + 1, close))
        return 3;
    if (stands(l, at, close))
        return 2 + (peek(l, at + 2) == '\n');
    return 0;
}

static size_t output_end(const struct lexer *l, size_t at)
{
    if (stands(l, at, "-}}"))
        return skip_space(l, at + 3) - at;
    return stands(l, at, "}}") ? 2 : 0;
}

static void end_tag(struct lexer *l, size_t end)
{
    l->at = end;
    l->line_starting = peek(l, end - 1) == '\n';
}

static void lex_comment(struct lexer *l, size_t start)
{
    for (size_t at = start; at < l->n; at++) {
        size_t end = block_end(l, at, "#}");
        if (end) {
            end_tag(l, at + end);
            return;
        }
    }
    fail(l, ERR_FORMAT, "a comment is not closed with #}");
}

/* Where the inside of a raw block begins when `{% raw %}` stands at l->at, else 0. */
static size_t raw_begin(const struct lexer *l)
{
    size_t at = l->at + 2;
    at = skip_space(l, at + (sign_at(l, at) != 0));
    if (!stands(l, at, "raw"))
        return 0;
    at = skip_space(l, at + 3);
    if (stands(l, at, "-%}"))
        return skip_space(l, at + 3);
    return stands(l, at, "%}") ? at + 2 : 0;
}

static void lex_raw(struct lexer *l, size_t start)
{
    l->line_starting = peek(l, start - 1) == '\n';
    for (size_t at = start; at < l->n; at++) {
        if (!stands(l, at, "{%"))
            continue;
        char sign = sign_at(l, at + 2);
        size_t name = skip_space(l, at + 2 + (sign != 0));
        size_t close = stands(l, name, "endraw") ? skip_space(l, name + 6) : l->n;
        size_t end = close < l->n ? block_end(l, close, "%}") : 0;
        if (end) {
            add_text(l, start, at, sign, true);
            end_tag(l, close + end);
            return;
        }
    }
    fail(l, ERR_FORMAT, "a raw block is not closed");
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

/* Digits with single underscores between them. */
static size_t skip_digits(const struct lexer *l, size_t at)
{
    while (is_digit(peek(l, at)) || (peek(l, at) == '_' && is_digit(peek(l, at + 1))))
        at++;
    return at;
}

static void lex_number(struct lexer *l)
{
    size_t at = l->at;
    char radix = peek(l, at + 1) | 0x20;
    if (peek(l, at) == '0' && (radix == 'x' || radix == 'o' || radix == 'b')) {
        at += 2;
        for (char c = peek(l, at) | 0x20; is_digit(peek(l, at)) || peek(l, at) == '_' || (c >= 'a' && c <= 'f');)
            c = peek(l, ++at) | 0x20;
        add(l, TOKEN_INTEGER, l->at, at);
        l->at = at;
        return;
    }
    enum token_kind kind = TOKEN_INTEGER;
    bool after_dot = l->at > 0 && l->text[l->at - 1] == '.';
    at = skip_digits(l, at);
    if (!after_dot && peek(l, at) == '.' && is_digit(peek(l, at + 1))) {
        kind = TOKEN_FLOAT;
        at = skip_digits(l, at + 1);
    }
    size_t power = at + 1 + (peek(l, at + 1) == '+' || peek(l, at + 1) == '-');
    if (!after_dot && (peek(l, at) | 0x20) == 'e' && is_digit(peek(l, power))) {
        kind = TOKEN_FLOAT;
        at = skip_digits(l, power);
    }
    add(l, kind, l->at, at);
    l->at = at;
}

static void lex_string(struct lexer *l)
{
    char quote = l->text[l->at];
    size_t at = l->at + 1;
    while (at < l->n && l->text[at] != quote)
        at += l->text[at] == '\\' ? 2 : 1;
    if (at >= l->n) {
        fail(l, ERR_FORMAT, "a text is not closed with its quote");
        return;
    }
    add(l, TOKEN_STRING, l->at, at + 1);
    l->at = at + 1;
}

static void lex_operator(struct lexer *l, char *brackets, size_t *depth)
{
    static const char *const doubles[] = {"==", "!=", ">=", "<=", "//", "**"};
    char c = l->text[l->at];
    size_t n = 1;
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
        if (stands(l, l->at, doubles[i]))
            n = 2;
    if (!c || !strchr("+-/*%~[](){}=<>.:|,;!", c) || (c == '!' && n == 1)) {
        fail(l, ERR_FORMAT, "a character that has no meaning in a tag");
        return;
    }
    if (c == '(' || c == '[' || c == '{') {
        if (*depth == BRACKETS_MAX) {
            fail(l, ERR_BOUND, "brackets nested too deeply");
            return;
        }
        brackets[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if ((c == ')' || c == ']' || c == '}') && (*depth == 0 || brackets[--*depth] != c)) {
        fail(l, ERR_FORMAT, "a closing bracket that does not match");
        return;
    }
    add(l, TOKEN_OPERATOR, l->at, l->at + n);
    l->at += n;
}

/* Everything from behind `{{` or `{%` to its end. */
static void lex_tag(struct lexer *l, bool is_output)
{
    char brackets[BRACKETS_MAX];
    size_t depth = 0, opened_at = l->at;
    while (!l->failed) {
        size_t end = depth ? 0 : is_output ? output_end(l, l->at) : block_end(l, l->at, "%}");
        if (end) {
            add(l, is_output ? TOKEN_OUTPUT_END : TOKEN_BLOCK_END, l->at, l->at + end);
            end_tag(l, l->at + end);
            return;
        }
        size_t start = skip_space(l, l->at);
        if (start > l->at) {
            l->at = start;
            continue;
        }
        char c = peek(l, l->at);
        if (l->at >= l->n) {
            l->at = opened_at;
            if (l->counted_at > opened_at)
                l->line = l->tokens.list[l->tokens.n - 1].line;
            fail(l, ERR_FORMAT, is_output ? "a {{ is not closed" : "a {% is not closed");
        } else if (c == '"' || c == '\'') {
            lex_string(l);
        } else if (is_digit(c)) {
            lex_number(l);
        } else if (is_name_start(c)) {
            size_t at = l->at;
            while (is_name_start(peek(l, at)) || is_digit(peek(l, at)))
                at++;
            add(l, TOKEN_NAME, l->at, at);
            l->at = at;
        } else {
            lex_operator(l, brackets, &depth);
        }
    }
}

static void lex_all(struct lexer *l)
{
    while (!l->failed && l->at < l->n) {
        size_t start = l->at, at = start;
        while (at < l->n && !(l->text[at] == '{' && at + 1 < l->n && strchr("{%#", l->text[at + 1]) && l->text[at + 1]))
            at++;
        if (at == l->n) {
            add(l, TOKEN_TEXT, start, at);
            l->at = at;
            return;
        }
        char tag = l->text[at + 1], sign = sign_at(l, at + 2);
        add_text(l, start, at, sign, tag != '{');
        l->at = at;
        size_t inside = at + 2 + (sign != 0), raw = tag == '%' ? raw_begin(l) : 0;
        if (tag == '#') {
            lex_comment(l, inside);
        } else if (raw) {
            lex_raw(l, raw);
        } else {
            add(l, tag == '{' ? TOKEN_OUTPUT_BEGIN : TOKEN_BLOCK_BEGIN, at, inside);
            l->at = inside;
            lex_tag(l, tag == '{');
        }
    }
}

int jinja_lex(const char *text, size_t bytes, struct arena *arena, struct tokens *out, struct error *e)
{
    size_t bad = jinja_utf8_check(text, bytes), n = 0;
    if (bad < bytes)
        return error_set(e, ERR_FORMAT, "chat template: byte %zu is not UTF-8", bad);
    char *copy = jinja_arena_alloc(arena, bytes);
    if (!copy)
        return error_set(e, arena->failed, "chat template: no memory for its text");
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n')
            continue;
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (n && copy[n - 1] == '\n')
        n--;
    struct lexer l = {.text = copy, .n = n, .line = 1, .line_starting = true, .error = e};
    lex_all(&l);
    if (!l.failed)
        add(&l, TOKEN_END, l.n, l.n);
    if (l.failed)
        mem_free(l.tokens.list);
    else
        *out = l.tokens;
    return l.failed;
}
