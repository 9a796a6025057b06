/* What one token says by itself: texts with their escapes, numbers, constants and names. Owns nothing; one thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/template/parser.h"
#include "engine/template/unicode.h"

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* Reads exactly `digits` hexadecimal digits; -1 when they are not there. */
static long read_hex(const char *s, const char *end, int digits)
{
    long value = 0;
    for (int i = 0; i < digits; i++) {
        int digit = s + i < end ? hex_digit(s[i]) : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Resolves the escape behind a backslash at *s, as Python's "unicode-escape"; returns bytes written, -1 when malformed.
 * Two \u escapes of a surrogate pair make one character. */
static int unescape(const char **s, const char *end, char out[static 4])
{
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = *(*s)++;
    for (const char *p = plain; *p; p += 2)
        if (*p == c) {
            out[0] = p[1];
            return 1;
        }
    if (c == '\n')
        return 0;
    if (c >= '0' && c <= '7') {
        uint32_t point = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *s < end && **s >= '0' && **s <= '7'; i++)
            point = point * 8 + (uint32_t)(*(*s)++ - '0');
        return (int)jinja_utf8_encode(point, out);
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits) {
        long point = read_hex(*s, end, digits);
        if (point < 0 || point > 0x10FFFF)
            return -1;
        *s += digits;
        long low = point >= 0xD800 && point < 0xDC00 && end - *s >= 6 && (*s)[0] == '\\' && (*s)[1] == 'u'
                       ? read_hex(*s + 2, end, 4)
                       : -1;
        if (low >= 0xDC00 && low < 0xE000) {
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
            *s += 6;
        }
        return (int)jinja_utf8_encode((uint32_t)point, out);
    }
    if (c == 'N')
        return -1;
    out[0] = '\\'; /* an unknown escape stays as it is; its character is copied next */
    (*s)--;
    return 1;
}

/* One or more quoted texts in a row. */
static struct node *parse_string(struct parser *p)
{
    struct node *n = jinja_node(p, NODE_CONSTANT);
    size_t room = 0;
    for (size_t i = p->at; p->tokens.list[i].kind == TOKEN_STRING; i++)
        room += p->tokens.list[i].n_bytes * 2; /* an escape may grow: \1 to two bytes of UTF-8 at most */
    struct string *text = jinja_arena_alloc(&p->template->arena, sizeof *text);
    char *to = jinja_arena_alloc(&p->template->arena, room);
    if (!n || !text || !to)
        return jinja_parse_error(p, p->template->arena.failed, "no memory for a text");
    const char *start = to;
    for (; jinja_at(p, TOKEN_STRING, NULL); p->at++) {
        const char *s = jinja_current(p)->bytes + 1, *end = s + jinja_current(p)->n_bytes - 2;
        while (s < end) {
            if (*s != '\\') {
                *to++ = *s++;
                continue;
            }
            s++;
            char bytes[4];
            int count = unescape(&s, end, bytes);
            if (count < 0)
                return jinja_parse_error(p, ERR_FORMAT, "a malformed escape in a text");
            memcpy(to, bytes, (size_t)count);
            to += count;
        }
    }
    *text = (struct string){start, (size_t)(to - start), jinja_utf8_points(start, (size_t)(to - start))};
    n->constant = jinja_text(text);
    return n;
}

static struct node *parse_number(struct parser *p)
{
    const struct token *t = jinja_current(p);
    struct node *n = jinja_node(p, NODE_CONSTANT);
    char text[64], *end;
    size_t length = 0;
    for (size_t i = 0; i < t->n_bytes && length < sizeof text - 1; i++)
        if (t->bytes[i] != '_')
            text[length++] = t->bytes[i];
    text[length] = 0;
    if (!n || length == sizeof text - 1)
        return jinja_parse_error(p, ERR_BOUND, "a number of too many digits");
    errno = 0;
    if (t->kind == TOKEN_FLOAT) {
        n->constant = jinja_float(strtod(text, &end));
    } else {
        char radix = text[0] == '0' ? text[1] | 0x20 : 0;
        int base = radix == 'x' ? 16 : radix == 'o' ? 8 : radix == 'b' ? 2 : 10;
        n->constant = jinja_int(strtoll(text + (base == 10 ? 0 : 2), &end, base));
        if (base == 10 && text[0] == '0' && strspn(text, "0") != length)
            end = text;
        if (errno)
            return jinja_parse_error(p, ERR_BOUND, "a number beyond 64 bits");
    }
    if (*end || end == text)
        return jinja_parse_error(p, ERR_FORMAT, "a malformed number");
    p->at++;
    return n;
}

static struct node *parse_name(struct parser *p)
{
    static const struct {
        const char *name;
        struct value value;
    } words[] = {
        {"true", {.kind = KIND_BOOL, .integer = 1}},
        {"True", {.kind = KIND_BOOL, .integer = 1}},
        {"false", {.kind = KIND_BOOL, .integer = 0}},
        {"False", {.kind = KIND_BOOL, .integer = 0}},
        {"none", {.kind = KIND_NONE}},
        {"None", {.kind = KIND_NONE}},
    };
    struct node *n = jinja_node(p, NODE_NAME);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n && jinja_skip(p, TOKEN_NAME, words[i].name)) {
            n->kind = NODE_CONSTANT;
            n->constant = words[i].value;
            return n;
        }
    const struct token *t = jinja_current(p);
    struct name *name = jinja_intern(p, t->bytes, t->n_bytes);
    if (!n || !name)
        return NULL;
    static const char *const special[] = {"varargs", "kwargs", "caller"};
    for (int i = 0; p->macro && i < 3; i++)
        if (jinja_at(p, TOKEN_NAME, special[i]))
            p->macro->op |= (uint8_t)(1 << i); /* enum macro_uses, in this order */
    name->read = true;
    n->name = &name->text;
    p->at++;
    return n;
}

struct node *jinja_parse_literal(struct parser *p)
{
    switch (jinja_current(p)->kind) {
    case TOKEN_NAME:
        return parse_name(p);
    case TOKEN_STRING:
        return parse_string(p);
    default:
        return parse_number(p);
    }
}
