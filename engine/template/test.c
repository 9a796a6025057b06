/* The tests behind `is`. Owns nothing; one thread a run. */
#include <string.h>

#include "engine/template/evaluate.h"
#include "engine/template/method.h"
#include "engine/template/print.h"

#define TEST(name) \
    static struct value name(struct run *r, struct value self, const struct value *args, const struct arguments *all)

TEST(is_defined)
{
    return jinja_bool(self.kind != KIND_UNDEFINED);
}

TEST(is_undefined)
{
    return jinja_bool(self.kind == KIND_UNDEFINED);
}

TEST(is_none)
{
    return jinja_bool(self.kind == KIND_NONE);
}

TEST(is_boolean)
{
    return jinja_bool(self.kind == KIND_BOOL);
}

TEST(is_true)
{
    return jinja_bool(self.kind == KIND_BOOL && self.integer);
}

TEST(is_false)
{
    return jinja_bool(self.kind == KIND_BOOL && !self.integer);
}

TEST(is_integer)
{
    return jinja_bool(self.kind == KIND_INT);
}

TEST(is_float)
{
    return jinja_bool(self.kind == KIND_FLOAT);
}

TEST(is_number)
{
    return jinja_bool(jinja_is_number(self));
}

TEST(is_string)
{
    return jinja_bool(self.kind == KIND_STRING);
}

TEST(is_mapping)
{
    return jinja_bool(self.kind == KIND_DICT);
}

TEST(is_iterable)
{
    return jinja_bool(jinja_is_iterable(self));
}

TEST(is_sequence)
{
    return jinja_bool(jinja_has_length(self) && self.kind != KIND_VIEW && self.kind != KIND_LOOP);
}

TEST(is_callable)
{
    return jinja_bool(self.kind == KIND_FUNCTION || self.kind == KIND_METHOD || self.kind == KIND_MACRO ||
                      self.kind == KIND_JOINER || self.kind == KIND_LOOP || self.kind == KIND_UNDEFINED);
}

TEST(is_sameas)
{
    if (self.kind != args[0].kind)
        return jinja_bool(false);
    if (self.kind == KIND_LIST || self.kind == KIND_DICT || self.kind == KIND_TUPLE)
        return jinja_bool(self.list == args[0].list);
    return jinja_bool(jinja_equal(r, self, args[0]));
}

TEST(is_escaped)
{
    return jinja_bool(self.kind == KIND_STRING && self.detail);
}

static struct value is_cased(struct run *r, struct value self, bool upper)
{
    struct value text = jinja_to_string(r, self);
    return r->failed ? text : jinja_bool(jinja_is_cased(r, text.text, upper));
}

TEST(is_lower)
{
    return is_cased(r, self, false);
}

TEST(is_upper)
{
    return is_cased(r, self, true);
}

static struct value remainder_is(struct run *r, struct value self, struct value divisor, int64_t want)
{
    struct value rest = jinja_operate(r, OP_MODULO, self, divisor);
    return r->failed ? rest : jinja_bool(jinja_equal(r, rest, jinja_int(want)));
}

TEST(is_odd)
{
    return remainder_is(r, self, jinja_int(2), 1);
}

TEST(is_even)
{
    return remainder_is(r, self, jinja_int(2), 0);
}

TEST(is_divisibleby)
{
    return remainder_is(r, self, args[0], 0);
}

TEST(is_in)
{
    return jinja_bool(jinja_contains(r, args[0], self));
}

TEST(is_equal)
{
    return jinja_bool(jinja_compare(r, OP_EQUAL, self, args[0]));
}

TEST(is_unequal)
{
    return jinja_bool(jinja_compare(r, OP_UNEQUAL, self, args[0]));
}

TEST(is_less)
{
    return jinja_bool(jinja_compare(r, OP_LESS, self, args[0]));
}

TEST(is_less_equal)
{
    return jinja_bool(jinja_compare(r, OP_LESS_EQUAL, self, args[0]));
}

TEST(is_greater)
{
    return jinja_bool(jinja_compare(r, OP_GREATER, self, args[0]));
}

TEST(is_greater_equal)
{
    return jinja_bool(jinja_compare(r, OP_GREATER_EQUAL, self, args[0]));
}

TEST(is_filter)
{
    return jinja_bool(self.kind == KIND_STRING && jinja_find_filter(self.text->bytes, self.text->n_bytes));
}

TEST(is_test)
{
    return jinja_bool(self.kind == KIND_STRING && jinja_find_test(self.text->bytes, self.text->n_bytes));
}

static const struct builtin tests[] = {
    {"defined", "", is_defined},
    {"undefined", "", is_undefined},
    {"none", "", is_none},
    {"boolean", "", is_boolean},
    {"true", "", is_true},
    {"false", "", is_false},
    {"integer", "", is_integer},
    {"float", "", is_float},
    {"number", "", is_number},
    {"string", "", is_string},
    {"mapping", "", is_mapping},
    {"iterable", "", is_iterable},
    {"sequence", "", is_sequence},
    {"callable", "", is_callable},
    {"sameas", "other", is_sameas},
    {"escaped", "", is_escaped},
    {"lower", "", is_lower},
    {"upper", "", is_upper},
    {"odd", "", is_odd},
    {"even", "", is_even},
    {"divisibleby", "num", is_divisibleby},
    {"in", "seq", is_in},
    {"eq", "other", is_equal},
    {"equalto", "other", is_equal},
    {"==", "other", is_equal},
    {"ne", "other", is_unequal},
    {"!=", "other", is_unequal},
    {"lt", "other", is_less},
    {"lessthan", "other", is_less},
    {"<", "other", is_less},
    {"le", "other", is_less_equal},
    {"<=", "other", is_less_equal},
    {"gt", "other", is_greater},
    {"greaterthan", "other", is_greater},
    {">", "other", is_greater},
    {"ge", "other", is_greater_equal},
    {">=", "other", is_greater_equal},
    {"filter", "", is_filter},
    {"test", "", is_test},
};

const struct builtin *jinja_find_test(const char *name, size_t n)
{
    return jinja_lookup(tests, sizeof tests / sizeof *tests, name, n);
}
