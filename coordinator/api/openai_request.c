/* One row a field of the API: who reads it, or that it is harmless, or that it is refused. Pure. */
#include "coordinator/api/openai_request.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/memory.h"

enum { CHAT = 1, TEXT = 2, BOTH = 3 };

struct field {
    const char *name;
    unsigned where;
    int (*parse)(struct api_request *r, const json_t *value, const char *name, struct api_error *e);
};

/* ---- Values --------------------------------------------------------------------------------------------------------- */

static int get_number(const json_t *value, const char *name, double min, double max, float *out, struct api_error *e)
{
    double v = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(v >= min && v <= max))
        return api_refuse(e, "invalid_value", name, "'%s' must be a number from %g to %g", name, min, max);
    *out = (float)v;
    return 0;
}

static int get_integer(const json_t *value, const char *name, int64_t min, int64_t max, int64_t *out, struct api_error *e)
{
    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max)
        return api_refuse(e, "invalid_value", name, "'%s' must be a whole number from %lld to %lld", name, (long long)min,
                          (long long)max);
    *out = json_integer_value(value);
    return 0;
}

static int get_bool(const json_t *value, const char *name, bool *out, struct api_error *e)
{
    if (!json_is_boolean(value))
        return api_refuse(e, "invalid_value", name, "'%s' must be true or false", name);
    *out = json_is_true(value);
    return 0;
}

/* ---- Fields --------------------------------------------------------------------------------------------------------- */

/* Texts that say something to a company with many customers, and nothing here. */
static int parse_harmless(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    (void)r;
    return json_is_string(value) ? 0 : api_refuse(e, "invalid_value", name, "'%s' must be a string", name);
}

static int parse_metadata(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    (void)r;
    return json_is_object(value) ? 0 : api_refuse(e, "invalid_value", name, "'%s' must be an object", name);
}

static int parse_refused(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    (void)r, (void)value;
    return api_refuse(e, "unsupported_parameter", name, "'%s' is not supported by this server", name);
}

/* Nothing is stored: who asks for it would look for it later. */
static int parse_store(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return json_is_false(value) ? 0 : parse_refused(r, value, name, e);
}

static int parse_model(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    (void)r;
    return json_is_string(value) ? 0 : api_refuse(e, "invalid_value", name, "'%s' must be a string", name);
}

static int parse_messages(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    (void)name;
    return api_parse_messages(value, &r->messages, e);
}

static int parse_prompt(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    bool good = json_is_string(value) || (json_is_array(value) && json_array_size(value) > 0);
    for (size_t i = 0; good && i < json_array_size(value); i++)
        good = json_typeof(json_array_get(value, i)) == json_typeof(json_array_get(value, 0)) &&
               (json_is_string(json_array_get(value, i)) || json_is_integer(json_array_get(value, i)) ||
                json_array_size(json_array_get(value, i)) > 0);
    for (size_t i = 0; good && i < json_array_size(value); i++)
        for (size_t j = 0; good && j < json_array_size(json_array_get(value, i)); j++)
            good = json_is_integer(json_array_get(json_array_get(value, i), j));
    if (!good)
        return api_refuse(e, "invalid_value", name,
                          "'%s' must be a string, an array of strings, an array of token ids, or an array of such arrays", name);
    r->prompt = value;
    return 0;
}

static int parse_max_tokens(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t n = 0;
    int rc = get_integer(value, name, r->chat ? 1 : 0, UINT32_MAX - 1, &n, e);
    if (rc)
        return rc;
    bool completion = !strcmp(name, "max_completion_tokens");
    if (completion ? r->max_given : r->max_completion_given)
        return api_refuse(e, "invalid_value", name, "'max_tokens' and 'max_completion_tokens' exclude each other");
    *(completion ? &r->max_completion_given : &r->max_given) = true;
    r->asked.max_tokens = (uint32_t)n;
    return 0;
}

static int parse_temperature(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_number(value, name, 0, 2, &r->asked.sampling.temperature, e);
}

static int parse_top_p(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int rc = get_number(value, name, 0, 1, &r->asked.sampling.top_p, e);
    if (!rc && r->asked.sampling.top_p < 1e-6f)
        r->asked.sampling.top_p = 1e-6f; /* the likeliest token alone */
    return rc;
}

static int parse_min_p(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_number(value, name, 0, 1, &r->asked.sampling.min_p, e);
}

static int parse_top_k(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t k = 0;
    int rc = get_integer(value, name, -1, 1 << 24, &k, e);
    if (!rc)
        r->asked.sampling.top_k = k < 0 ? 0 : (uint32_t)k;
    return rc;
}

static int parse_repeat_penalty(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    r->asked.sampling.repeat_last = 64;
    return get_number(value, name, 0.01, 100, &r->asked.sampling.repeat_penalty, e);
}

static int parse_presence(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_number(value, name, -2, 2, &r->asked.sampling.presence_penalty, e);
}

static int parse_frequency(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_number(value, name, -2, 2, &r->asked.sampling.frequency_penalty, e);
}

static int parse_seed(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t seed = 0;
    int rc = get_integer(value, name, INT64_MIN, INT64_MAX, &seed, e);
    if (!rc)
        r->asked.sampling.seed = (uint64_t)seed;
    return rc;
}

static int parse_priority(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t priority = 0;
    int rc = get_integer(value, name, -REQUEST_PRIORITY_MAX, REQUEST_PRIORITY_MAX, &priority, e);
    if (!rc)
        r->asked.priority = (int32_t)priority;
    return rc;
}

static int parse_n(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t n = 0;
    int rc = get_integer(value, name, 1, API_CHOICES_MAX, &n, e);
    if (!rc)
        r->choices = (uint32_t)n;
    return rc;
}

static int parse_best_of(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t n = 0;
    int rc = get_integer(value, name, 1, API_CHOICES_MAX, &n, e);
    if (!rc)
        r->best_of = (uint32_t)n;
    return rc;
}

static int parse_stop(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    size_t count = json_is_string(value) ? 1 : json_array_size(value);
    if (!json_is_string(value) && !json_is_array(value))
        return api_refuse(e, "invalid_value", name, "'%s' must be a string or an array of strings", name);
    if (count > REQUEST_STOPS_MAX)
        return api_refuse(e, "invalid_value", name, "'%s' has %zu strings; at most %d", name, count, REQUEST_STOPS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_t *stop = json_is_string(value) ? value : json_array_get(value, i);
        size_t bytes = json_string_length(stop);
        if (!json_is_string(stop) || !bytes || bytes > REQUEST_STOP_BYTES_MAX)
            return api_refuse(e, "invalid_value", name, "each string of '%s' must have 1 to %d bytes", name,
                              REQUEST_STOP_BYTES_MAX);
        r->stops[i] = json_string_value(stop);
    }
    r->asked.stop = r->stops;
    r->asked.stop_count = count;
    return 0;
}

static int parse_bias(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    const char *key;
    json_t *bias;
    struct sampling *s = &r->asked.sampling;
    if (!json_is_object(value))
        return api_refuse(e, "invalid_value", name, "'%s' must be an object of token ids and numbers", name);
    if (json_object_size(value) > SAMPLING_BIAS_MAX)
        return api_refuse(e, "invalid_value", name, "'%s' has %zu tokens; at most %d", name, json_object_size(value),
                          SAMPLING_BIAS_MAX);
    json_object_foreach((json_t *)value, key, bias) {
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || errno || id > INT32_MAX)
            return api_refuse(e, "invalid_value", name, "'%.40s' in '%s' is no token id", key, name);
        struct sampling_bias *to = &s->bias[s->bias_count];
        int rc = get_number(bias, name, -100, 100, &to->bias, e);
        if (rc)
            return rc;
        to->token = (int32_t)id;
        s->bias_count++;
    }
    return 0;
}

static int parse_logprobs(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t n = 0;
    if (r->chat) {
        int rc = get_bool(value, name, &r->chat_logprobs, e);
        r->logprobs = r->chat_logprobs;
        return rc;
    }
    int rc = get_integer(value, name, 0, SAMPLING_TOP_MAX, &n, e);
    if (rc)
        return rc;
    r->logprobs = true;
    r->asked.sampling.top_logprobs = (uint32_t)n;
    return 0;
}

static int parse_top_logprobs(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    int64_t n = 0;
    int rc = get_integer(value, name, 0, SAMPLING_TOP_MAX, &n, e);
    r->top_logprobs_given = true;
    if (!rc)
        r->asked.sampling.top_logprobs = (uint32_t)n;
    return rc;
}

static int parse_stream(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_bool(value, name, &r->stream, e);
}

static int parse_stream_options(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    const char *key;
    json_t *option;
    if (!json_is_object(value))
        return api_refuse(e, "invalid_value", name, "'%s' must be an object", name);
    r->stream_options_given = true;
    json_object_foreach((json_t *)value, key, option) {
        char at[96];
        bool ignored;
        snprintf(at, sizeof at, "stream_options.%.60s", key);
        int rc = json_is_null(option)                       ? 0
                 : !strcmp(key, "include_usage")            ? get_bool(option, at, &r->include_usage, e)
                 : !strcmp(key, "include_obfuscation")      ? get_bool(option, at, &ignored, e)
                 : api_refuse(e, "unknown_parameter", at, "'%s' is not known to this server", at);
        if (rc)
            return rc;
    }
    return 0;
}

static int parse_echo(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_bool(value, name, &r->echo, e);
}

static int parse_suffix(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return json_is_string(value) && !json_string_length(value) ? 0 : parse_refused(r, value, name, e);
}

static int parse_ignore_end(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return get_bool(value, name, &r->asked.ignore_end, e);
}

static int parse_response_format(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    (void)r;
    return type && !strcmp(type, "text") ? 0
                                         : api_refuse(e, "unsupported_parameter", name,
                                                      "'%s' other than {\"type\": \"text\"} is not supported by this server", name);
}

static int parse_empty_array(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return json_is_array(value) && !json_array_size(value) ? 0 : parse_refused(r, value, name, e);
}

static int parse_none(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    return json_is_string(value) && !strcmp(json_string_value(value), "none") ? 0 : parse_refused(r, value, name, e);
}

static int parse_modalities(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    const char *only = json_array_size(value) == 1 ? json_string_value(json_array_get(value, 0)) : NULL;
    return only && !strcmp(only, "text") ? 0 : parse_refused(r, value, name, e);
}

static int parse_service_tier(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    const char *tier = json_string_value(value);
    return tier && (!strcmp(tier, "auto") || !strcmp(tier, "default")) ? 0 : parse_refused(r, value, name, e);
}

static int parse_template_variables(struct api_request *r, const json_t *value, const char *name, struct api_error *e)
{
    static const char *const ours[] = {"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"};
    if (!json_is_object(value))
        return api_refuse(e, "invalid_value", name, "'%s' must be an object", name);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (json_object_get(value, ours[i]))
            return api_refuse(e, "invalid_value", name, "'%s' must not set '%s'", name, ours[i]);
    r->template_variables = value;
    return 0;
}

static const struct field fields[] = {
    {"model", BOTH, parse_model},
    {"messages", CHAT, parse_messages},
    {"prompt", TEXT, parse_prompt},
    {"max_tokens", BOTH, parse_max_tokens},
    {"max_completion_tokens", CHAT, parse_max_tokens},
    {"temperature", BOTH, parse_temperature},
    {"top_p", BOTH, parse_top_p},
    {"top_k", BOTH, parse_top_k},
    {"min_p", BOTH, parse_min_p},
    {"repeat_penalty", BOTH, parse_repeat_penalty},
    {"repetition_penalty", BOTH, parse_repeat_penalty},
    {"presence_penalty", BOTH, parse_presence},
    {"frequency_penalty", BOTH, parse_frequency},
    {"seed", BOTH, parse_seed},
    {"n", BOTH, parse_n},
    {"best_of", TEXT, parse_best_of},
    {"stop", BOTH, parse_stop},
    {"logit_bias", BOTH, parse_bias},
    {"logprobs", BOTH, parse_logprobs},
    {"top_logprobs", CHAT, parse_top_logprobs},
    {"stream", BOTH, parse_stream},
    {"stream_options", BOTH, parse_stream_options},
    {"echo", TEXT, parse_echo},
    {"suffix", TEXT, parse_suffix},
    {"ignore_eos", BOTH, parse_ignore_end},
    {"priority", BOTH, parse_priority},
    {"chat_template_kwargs", CHAT, parse_template_variables},
    {"response_format", BOTH, parse_response_format},
    {"tools", CHAT, parse_empty_array},
    {"functions", CHAT, parse_empty_array},
    {"tool_choice", CHAT, parse_none},
    {"function_call", CHAT, parse_none},
    {"modalities", CHAT, parse_modalities},
    {"service_tier", BOTH, parse_service_tier},
    /* Refused by name. */
    {"audio", CHAT, parse_refused},
    {"parallel_tool_calls", CHAT, parse_refused},
    {"prediction", CHAT, parse_refused},
    {"reasoning_effort", CHAT, parse_refused},
    {"verbosity", CHAT, parse_refused},
    {"web_search_options", CHAT, parse_refused},
    /* Sent by many clients, and without meaning for one server that stores nothing. */
    {"user", BOTH, parse_harmless},
    {"metadata", BOTH, parse_metadata},
    {"store", BOTH, parse_store},
    {"safety_identifier", BOTH, parse_harmless},
    {"prompt_cache_key", BOTH, parse_harmless},
    {"prompt_cache_retention", BOTH, parse_harmless},
};

static const struct field *find_field(const char *name, bool chat)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(fields[i].name, name) && fields[i].where & (chat ? CHAT : TEXT))
            return &fields[i];
    return NULL;
}

/* ---- Whole requests ------------------------------------------------------------------------------------------------- */

/* Nesting, outside of strings; the parser below recurses. */
static bool too_deep(const char *body, size_t bytes)
{
    unsigned depth = 0;
    bool text = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = body[i];
        if (text)
            i += c == '\\', text = c != '"';
        else if (c == '"')
            text = true;
        else if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth)
            depth--;
        if (depth > API_DEPTH_MAX)
            return true;
    }
    return false;
}

int api_parse_json(const char *body, size_t bytes, json_t **out, struct api_error *e)
{
    json_error_t why;
    if (!bytes)
        return api_refuse(e, "invalid_json", "", "the body is empty; it must be a JSON object");
    if (too_deep(body, bytes))
        return api_refuse(e, "invalid_json", "", "the JSON is nested deeper than %d", API_DEPTH_MAX);
    json_t *root = json_loadb(body, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return api_refuse(e, "invalid_json", "", "the body is no valid JSON: %s (line %d, column %d)", why.text, why.line,
                          why.column);
    if (!json_is_object(root)) {
        json_decref(root);
        return api_refuse(e, "invalid_json", "", "the body must be a JSON object");
    }
    *out = root;
    return 0;
}

/* What fields say of each other. */
static int check_together(const struct api_request *r, struct api_error *e)
{
    if (r->chat && !r->messages)
        return api_refuse(e, "missing_required_parameter", "messages", "'messages' is required");
    if (!r->chat && !r->prompt)
        return api_refuse(e, "missing_required_parameter", "prompt", "'prompt' is required");
    if (r->stream_options_given && !r->stream)
        return api_refuse(e, "invalid_value", "stream_options", "'stream_options' needs 'stream': true");
    if (r->top_logprobs_given && !r->chat_logprobs)
        return api_refuse(e, "invalid_value", "top_logprobs", "'top_logprobs' needs 'logprobs': true");
    if (r->best_of && r->best_of != r->choices)
        return api_refuse(e, "unsupported_parameter", "best_of", "'best_of' other than 'n' is not supported by this server");
    if (r->echo && r->logprobs)
        return api_refuse(e, "unsupported_parameter", "logprobs", "'logprobs' together with 'echo' is not supported by this server");
    if (!r->asked.max_tokens && !r->echo)
        return api_refuse(e, "invalid_value", "max_tokens", "'max_tokens' of 0 makes sense only with 'echo'");
    return 0;
}

int api_parse_request(bool chat, const char *body, size_t bytes, struct api_request *r, struct api_error *e)
{
    const char *key;
    json_t *value;
    *r = (struct api_request){.chat = chat, .choices = 1};
    sampling_default(&r->asked.sampling);
    r->asked.sampling.temperature = 1;
    r->asked.max_tokens = chat ? UINT32_MAX : API_DEFAULT_TEXT_TOKENS;
    if (getrandom(&r->asked.sampling.seed, sizeof r->asked.sampling.seed, GRND_NONBLOCK) < 0)
        r->asked.sampling.seed = (uint64_t)(uintptr_t)r;
    int rc = api_parse_json(body, bytes, &r->root, e);
    if (rc)
        return rc;
    json_object_foreach(r->root, key, value) {
        const struct field *field = find_field(key, chat);
        if (!field)
            return api_refuse(e, "unknown_parameter", key, "unrecognized request argument: '%.60s'", key);
        if (!json_is_null(value) && (rc = field->parse(r, value, field->name, e)))
            return rc;
    }
    return check_together(r, e);
}

void api_request_free(struct api_request *r)
{
    json_decref(r->messages);
    json_decref(r->root);
    *r = (struct api_request){0};
}
