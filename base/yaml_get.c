/* Typed questions to a YAML value, each with a one-line answer when it is not what was asked for. Pure; any thread. */
#include "base/yaml.h"

#include <math.h>
#include <string.h>

#include "base/units.h"

static int expected(const struct yaml_value *v, struct error *e, const char *what)
{
    bool plain = false;
    const char *text = yaml_scalar(v, &plain);
    if (!text)
        return yaml_error(v, e, ERR_FORMAT, "expected %s, not a %s", what,
                          yaml_kind(v) == YAML_SEQUENCE ? "list" : "mapping");
    if (yaml_is_null(v))
        return yaml_error(v, e, ERR_FORMAT, "expected %s, not null", what);
    return yaml_error(v, e, ERR_FORMAT, "expected %s, not %s\"%.64s\"", what, plain ? "" : "the quoted text ", text);
}

int yaml_text(const struct yaml_value *v, const char **out, struct error *e)
{
    const char *text = yaml_scalar(v, NULL);
    if (!text || yaml_is_null(v))
        return expected(v, e, "a text");
    *out = text;
    return 0;
}

int yaml_double(const struct yaml_value *v, double min, double max, double *out, struct error *e)
{
    bool plain = false;
    const char *text = yaml_scalar(v, &plain);
    double value;
    if (!text || !plain || units_parse_double(text, &value))
        return expected(v, e, "a number");
    if (value < min)
        return yaml_error(v, e, ERR_BOUND, "%s is too small; the least is %g", text, min);
    if (value > max)
        return yaml_error(v, e, ERR_BOUND, "%s is too large; the most is %g", text, max);
    *out = value;
    return 0;
}

int yaml_int(const struct yaml_value *v, int64_t min, int64_t max, int64_t *out, struct error *e)
{
    bool plain = false;
    const char *text = yaml_scalar(v, &plain);
    int64_t value;
    double wide;
    if (!text || !plain || units_parse_double(text, &wide))
        return expected(v, e, "a whole number");
    if (units_parse_int(text, INT64_MIN, INT64_MAX, &value)) {
        if (wide != floor(wide))
            return expected(v, e, "a whole number");
        /* Out of a double's exact range both ends are over any bound a caller can mean. */
        value = wide >= 0x1p53 ? INT64_MAX : wide <= -0x1p53 ? INT64_MIN : (int64_t)wide;
    }
    if (value < min)
        return yaml_error(v, e, ERR_BOUND, "%s is too small; the least is %lld", text, (long long)min);
    if (value > max)
        return yaml_error(v, e, ERR_BOUND, "%s is too large; the most is %lld", text, (long long)max);
    *out = value;
    return 0;
}

int yaml_bool(const struct yaml_value *v, bool *out, struct error *e)
{
    bool plain = false;
    const char *text = yaml_scalar(v, &plain);
    if (text && plain && !strcmp(text, "true")) {
        *out = true;
        return 0;
    }
    if (text && plain && !strcmp(text, "false")) {
        *out = false;
        return 0;
    }
    return expected(v, e, "true or false");
}

/* By key */

int yaml_need(const struct yaml_value *map, const char *key, const struct yaml_value **out, struct error *e)
{
    if (yaml_kind(map) != YAML_MAPPING)
        return expected(map, e, "a mapping (key: value)");
    const struct yaml_value *v = yaml_find(map, key);
    if (!v)
        return yaml_error(map, e, ERR_FORMAT, "\"%s\" is missing", key);
    *out = v;
    return 0;
}

static int is_mapping(const struct yaml_value *v, const struct yaml_value **out, struct error *e)
{
    if (yaml_kind(v) != YAML_MAPPING)
        return expected(v, e, "a mapping (key: value)");
    *out = v;
    return 0;
}

static int is_sequence(const struct yaml_value *v, size_t min, size_t max, const struct yaml_value **out,
                       struct error *e)
{
    if (yaml_kind(v) != YAML_SEQUENCE)
        return expected(v, e, "a list");
    if (yaml_count(v) < min)
        return yaml_error(v, e, ERR_BOUND, "%zu entries; at least %zu are needed", yaml_count(v), min);
    if (yaml_count(v) > max)
        return yaml_error(v, e, ERR_BOUND, "%zu entries; at most %zu are allowed", yaml_count(v), max);
    *out = v;
    return 0;
}

int yaml_need_mapping(const struct yaml_value *map, const char *key, const struct yaml_value **out, struct error *e)
{
    const struct yaml_value *v = NULL;
    int rc = yaml_need(map, key, &v, e);
    return rc ? rc : is_mapping(v, out, e);
}

int yaml_need_sequence(const struct yaml_value *map, const char *key, size_t min, size_t max,
                       const struct yaml_value **out, struct error *e)
{
    const struct yaml_value *v = NULL;
    int rc = yaml_need(map, key, &v, e);
    return rc ? rc : is_sequence(v, min, max, out, e);
}

int yaml_need_text(const struct yaml_value *map, const char *key, const char **out, struct error *e)
{
    const struct yaml_value *v = NULL;
    int rc = yaml_need(map, key, &v, e);
    return rc ? rc : yaml_text(v, out, e);
}

int yaml_need_int(const struct yaml_value *map, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct error *e)
{
    const struct yaml_value *v = NULL;
    int rc = yaml_need(map, key, &v, e);
    return rc ? rc : yaml_int(v, min, max, out, e);
}

int yaml_need_double(const struct yaml_value *map, const char *key, double min, double max, double *out,
                     struct error *e)
{
    const struct yaml_value *v = NULL;
    int rc = yaml_need(map, key, &v, e);
    return rc ? rc : yaml_double(v, min, max, out, e);
}

/* The value of a key that may be absent or null; NULL then. */
static const struct yaml_value *wanted(const struct yaml_value *map, const char *key)
{
    const struct yaml_value *v = yaml_find(map, key);
    return v && !yaml_is_null(v) ? v : NULL;
}

int yaml_want_mapping(const struct yaml_value *map, const char *key, const struct yaml_value **out, struct error *e)
{
    const struct yaml_value *v = wanted(map, key);
    return v ? is_mapping(v, out, e) : 0;
}

int yaml_want_sequence(const struct yaml_value *map, const char *key, size_t min, size_t max,
                       const struct yaml_value **out, struct error *e)
{
    const struct yaml_value *v = wanted(map, key);
    return v ? is_sequence(v, min, max, out, e) : 0;
}

int yaml_want_text(const struct yaml_value *map, const char *key, const char **out, struct error *e)
{
    const struct yaml_value *v = wanted(map, key);
    return v ? yaml_text(v, out, e) : 0;
}

int yaml_want_int(const struct yaml_value *map, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct error *e)
{
    const struct yaml_value *v = wanted(map, key);
    return v ? yaml_int(v, min, max, out, e) : 0;
}

int yaml_want_double(const struct yaml_value *map, const char *key, double min, double max, double *out,
                     struct error *e)
{
    const struct yaml_value *v = wanted(map, key);
    return v ? yaml_double(v, min, max, out, e) : 0;
}

int yaml_want_bool(const struct yaml_value *map, const char *key, bool *out, struct error *e)
{
    const struct yaml_value *v = wanted(map, key);
    return v ? yaml_bool(v, out, e) : 0;
}
