/* Arithmetic and comparisons as Python does them, with 64-bit integers. Owns nothing; one thread a run. */
#include <math.h>
#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/print.h"

static const char *sign_of(enum operation op)
{
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};
    return signs[op];
}

static struct value cannot(struct run *r, enum operation op, struct value a, struct value b)
{
    if (a.kind == KIND_UNDEFINED || b.kind == KIND_UNDEFINED)
        return jinja_fail_undefined(r, a.kind == KIND_UNDEFINED ? a : b);
    return jinja_fail(r, ERR_FORMAT, "'%s' does not work between a %s and a %s", sign_of(op), jinja_type_name(a),
                      jinja_type_name(b));
}

static struct value too_large(struct run *r)
{
    return jinja_fail(r, ERR_BOUND, "a number grows beyond 64 bits");
}

static struct value power(struct run *r, int64_t base, int64_t exponent)
{
    int64_t result = 1;
    if (exponent < 0)
        return base ? jinja_float(pow((double)base, (double)exponent)) : jinja_fail(r, ERR_FORMAT, "division by zero");
    if (base == 0 || base == 1 || base == -1)
        return jinja_int(exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base);
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(result, base, &result))
            return too_large(r);
    return jinja_int(result);
}

/* Division and remainder towards minus infinity. */
static struct value divide(struct run *r, enum operation op, int64_t a, int64_t b)
{
    if (b == 0)
        return jinja_fail(r, ERR_FORMAT, "division by zero");
    if (b == -1)
        return op == OP_MODULO ? jinja_int(0) : a == INT64_MIN ? too_large(r) : jinja_int(-a);
    int64_t quotient = a / b, remainder = a % b;
    bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
    return jinja_int(op == OP_MODULO ? remainder + (adjust ? b : 0) : quotient - adjust);
}

static struct value on_integers(struct run *r, enum operation op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
    case OP_ADD:
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case OP_SUBTRACT:
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case OP_MULTIPLY:
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    case OP_DIVIDE:
        return b ? jinja_float((double)a / (double)b) : jinja_fail(r, ERR_FORMAT, "division by zero");
    case OP_POWER:
        return power(r, a, b);
    default:
        return divide(r, op, a, b);
    }
    return overflow ? too_large(r) : jinja_int(result);
}

static struct value on_floats(struct run *r, enum operation op, double a, double b)
{
    if (b == 0 && (op == OP_DIVIDE || op == OP_FLOOR_DIVIDE || op == OP_MODULO))
        return jinja_fail(r, ERR_FORMAT, "division by zero");
    switch (op) {
    case OP_ADD:
        return jinja_float(a + b);
    case OP_SUBTRACT:
        return jinja_float(a - b);
    case OP_MULTIPLY:
        return jinja_float(a * b);
    case OP_DIVIDE:
        return jinja_float(a / b);
    case OP_POWER:
        if ((a == 0 && b < 0) || (a < 0 && b != floor(b)))
            return jinja_fail(r, ERR_FORMAT, "a power that is no real number");
        return jinja_float(pow(a, b));
    default: {
        double remainder = fmod(a, b);
        if (remainder != 0 && (remainder < 0) != (b < 0))
            remainder += b;
        if (op == OP_MODULO)
            return jinja_float(remainder != 0 ? remainder : copysign(0, b));
        double quotient = (a - remainder) / b, whole = floor(quotient);
        return jinja_float(quotient - whole > 0.5 ? whole + 1 : whole);
    }
    }
}

static struct value join_texts(struct run *r, struct value a, struct value b)
{
    if (a.detail != b.detail) { /* one is marked safe: the other is made so */
        a = jinja_escape(r, a);
        b = jinja_escape(r, b);
    }
    size_t n = a.text->n_bytes + b.text->n_bytes;
    if (!r->failed && n > r->output_limit)
        jinja_fail(r, ERR_BOUND, "makes a text of more than %zu MiB", r->output_limit >> 20);
    struct string *s = jinja_alloc(r, 1, sizeof *s);
    char *bytes = jinja_alloc(r, n, 1);
    if (!s || !bytes)
        return a;
    memcpy(bytes, a.text->bytes, a.text->n_bytes);
    memcpy(bytes + a.text->n_bytes, b.text->bytes, b.text->n_bytes);
    *s = (struct string){bytes, n, a.text->n_points + b.text->n_points};
    return (struct value){.kind = KIND_STRING, .detail = a.detail, .text = s};
}

static struct value join_lists(struct run *r, struct value a, struct value b)
{
    size_t n = a.list->n + b.list->n;
    struct value v = jinja_list(r, a.kind, jinja_spend(r, n / 16) ? n : 0);
    for (size_t i = 0; i < n && !r->failed; i++)
        jinja_push(r, v.list, i < a.list->n ? a.list->items[i] : b.list->items[i - a.list->n]);
    return v;
}

static struct value repeat(struct run *r, struct value v, int64_t times)
{
    size_t each = v.kind == KIND_STRING ? v.text->n_bytes : v.list->n, n;
    if (times < 0 || each == 0)
        times = 0;
    if (__builtin_mul_overflow(each, (size_t)times, &n) || n > r->output_limit)
        return jinja_fail(r, ERR_BOUND, "repeats something too often");
    if (v.kind != KIND_STRING) {
        struct value list = jinja_list(r, v.kind, jinja_spend(r, n / 16) ? n : 0);
        for (size_t i = 0; i < n && !r->failed; i++)
            jinja_push(r, list.list, v.list->items[i % each]);
        return list;
    }
    char *bytes = jinja_alloc(r, n, 1);
    if (!bytes)
        return v;
    for (size_t at = 0; at < n; at += each)
        memcpy(bytes + at, v.text->bytes, each);
    struct value text = jinja_borrow(r, bytes, n);
    if (!r->failed)
        text.detail = v.detail;
    return text;
}

struct value jinja_operate(struct run *r, enum operation op, struct value a, struct value b)
{
    bool a_sequence = a.kind == KIND_STRING || a.kind == KIND_LIST || a.kind == KIND_TUPLE;
    bool b_sequence = b.kind == KIND_STRING || b.kind == KIND_LIST || b.kind == KIND_TUPLE;
    if (jinja_is_integer(a) && jinja_is_integer(b))
        return on_integers(r, op, a.integer, b.integer);
    if (jinja_is_number(a) && jinja_is_number(b))
        return on_floats(r, op, jinja_number(a), jinja_number(b));
    if (op == OP_ADD && a_sequence && a.kind == b.kind)
        return a.kind == KIND_STRING ? join_texts(r, a, b) : join_lists(r, a, b);
    if (op == OP_MULTIPLY && a_sequence && jinja_is_integer(b))
        return repeat(r, a, b.integer);
    if (op == OP_MULTIPLY && b_sequence && jinja_is_integer(a))
        return repeat(r, b, a.integer);
    if (op == OP_MODULO && a.kind == KIND_STRING)
        return jinja_format_percent(r, a, b);
    return cannot(r, op, a, b);
}

bool jinja_compare(struct run *r, enum operation op, struct value a, struct value b)
{
    switch (op) {
    case OP_EQUAL:
        return jinja_equal(r, a, b);
    case OP_UNEQUAL:
        return !jinja_equal(r, a, b);
    case OP_IN:
        return jinja_contains(r, b, a);
    case OP_NOT_IN:
        return !jinja_contains(r, b, a);
    default:
        break;
    }
    int order = jinja_order(r, a, b);
    if (order == 2) /* not a number: in no order with anything */
        return false;
    return op == OP_LESS ? order < 0 : op == OP_LESS_EQUAL ? order <= 0 : op == OP_GREATER ? order > 0 : order >= 0;
}

struct value jinja_negate(struct run *r, struct value v, bool minus)
{
    if (r->failed)
        return v;
    if (v.kind == KIND_FLOAT)
        return jinja_float(minus ? -v.number : v.number);
    if (jinja_is_integer(v))
        return minus && v.integer == INT64_MIN ? too_large(r) : jinja_int(minus ? -v.integer : v.integer);
    if (v.kind == KIND_UNDEFINED)
        return jinja_fail_undefined(r, v);
    return jinja_fail(r, ERR_FORMAT, "a sign does not work on a %s", jinja_type_name(v));
}
