/* POST /tokenize and /detokenize. HTTP threads; nothing is kept. */
#include <string.h>

#include "base/memory.h"
#include "coordinator/api/json_text.h"
#include "coordinator/api/openai_request.h"
#include "coordinator/api/server_state.h"

static int read_flag(const json_t *root, const char *name, bool *flag, struct api_error *e)
{
    const json_t *value = json_object_get(root, name);
    if (value && !json_is_boolean(value))
        return api_refuse(e, "invalid_value", name, "'%s' must be true or false", name);
    if (value)
        *flag = json_is_true(value);
    return 0;
}

static int only_fields(const json_t *root, const char *const *known, struct api_error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key))
            i++;
        if (!known[i])
            return api_refuse(e, "unknown_parameter", key, "unrecognized request argument: '%.60s'", key);
    }
    return 0;
}

static int first_of(const json_t *root, const char *const *names, const json_t **out)
{
    *out = NULL;
    for (; *names; names++) {
        const json_t *value = json_object_get(root, *names);
        if (value && *out)
            return ERR_USAGE;
        if (value)
            *out = value;
    }
    return *out ? 0 : ERR_USAGE;
}

static void put_ids(struct buffer *b, const char *name, const struct token_list *ids)
{
    buffer_printf(b, "\"%s\":[", name);
    for (size_t i = 0; i < ids->count; i++)
        buffer_printf(b, "%s%d", i ? "," : "", ids->ids[i]);
    buffer_putc(b, ']');
}

static int tokenize(struct api_server *s, const json_t *root, struct runner *runner, struct token_list *ids,
                    struct api_error *e)
{
    static const char *const known[] = {"content", "prompt", "text", "messages", "add_special", "parse_special", "model", NULL};
    static const char *const sources[] = {"content", "prompt", "text", "messages", NULL};
    const json_t *source;
    bool add = true, parse = true;
    struct error err = {0};
    int rc = only_fields(root, known, e);
    if (!rc && first_of(root, sources, &source))
        rc = api_refuse(e, "missing_required_parameter", "content", "give either 'content' (a text; 'prompt' and 'text' mean the same) or 'messages'");
    if (!rc && !(rc = read_flag(root, "add_special", &add, e)))
        rc = read_flag(root, "parse_special", &parse, e);
    if (rc)
        return rc;
    if (json_is_array(source)) {
        json_t *messages = NULL;
        rc = api_parse_messages(source, &messages, e);
        if (!rc && chat_prompt_encode(s->chat, messages, NULL, ids, &err))
            rc = api_from_error(e, &err);
        json_decref(messages);
        return rc;
    }
    if (!json_is_string(source))
        return api_refuse(e, "invalid_value", "content", "'content' must be a string");
    unsigned flags = (add ? TOKENIZER_ADD_SPECIAL : 0) | (parse ? TOKENIZER_PARSE_SPECIAL : 0);
    return tokenizer_encode(runner_tokenizer(runner), json_string_value(source), json_string_length(source), flags, ids, &err)
               ? api_from_error(e, &err)
               : 0;
}

void tokenize_handle(struct api_server *s, struct http_call *call)
{
    const struct buffer *body = http_body(call);
    struct api_error e = {0};
    struct token_list ids = {0};
    struct buffer b = {0};
    json_t *root = NULL;
    int rc = api_parse_json(body->data ? body->data : "", body->size, &root, &e);
    struct runner *runner = rc ? NULL : api_borrow(s, &e);
    if (runner) {
        rc = tokenize(s, root, runner, &ids, &e);
        api_unborrow(s);
    } else {
        rc = ERR_USAGE;
    }
    if (rc) {
        api_reply_error(s, call, &e);
    } else {
        buffer_putc(&b, '{');
        put_ids(&b, "tokens", &ids);
        buffer_putc(&b, ',');
        put_ids(&b, "ids", &ids);
        buffer_printf(&b, ",\"count\":%zu}", ids.count);
        api_reply(s, call, 200, "application/json", &b);
    }
    token_list_free(&ids);
    json_decref(root);
}

static int detokenize(const json_t *root, struct runner *runner, struct buffer *text, struct api_error *e)
{
    static const char *const known[] = {"tokens", "ids", "show_special", "model", NULL}, *const sources[] = {"tokens", "ids", NULL};
    const json_t *source;
    bool show = false;
    struct error err = {0};
    int rc = only_fields(root, known, e);
    if (!rc && (first_of(root, sources, &source) || !json_is_array(source)))
        rc = api_refuse(e, "missing_required_parameter", "tokens", "'tokens' (or 'ids') must be an array of token ids");
    if (!rc)
        rc = read_flag(root, "show_special", &show, e);
    size_t n = rc ? 0 : json_array_size(source);
    int32_t *ids = rc ? NULL : mem_resize(NULL, n, sizeof *ids);
    if (!rc && !ids)
        rc = api_fail(e, 500, "server_error", NULL, "out of memory");
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *id = json_array_get(source, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            rc = api_refuse(e, "invalid_value", "tokens", "entry %zu of 'tokens' is no token id", i);
        else
            ids[i] = (int32_t)json_integer_value(id);
    }
    if (!rc && tokenizer_decode(runner_tokenizer(runner), ids, n,
                                DETOKENIZER_START | (show ? DETOKENIZER_SHOW_SPECIAL : 0), text, &err)) {
        rc = api_from_error(e, &err);
        strcpy(e->param, "tokens");
    }
    mem_free(ids);
    return rc;
}

void detokenize_handle(struct api_server *s, struct http_call *call)
{
    const struct buffer *body = http_body(call);
    struct api_error e = {0};
    struct buffer text = {0}, b = {0};
    json_t *root = NULL;
    int rc = api_parse_json(body->data ? body->data : "", body->size, &root, &e);
    struct runner *runner = rc ? NULL : api_borrow(s, &e);
    if (runner) {
        rc = detokenize(root, runner, &text, &e);
        api_unborrow(s);
    } else {
        rc = ERR_USAGE;
    }
    if (rc) {
        api_reply_error(s, call, &e);
    } else {
        buffer_puts(&b, "{\"content\":");
        json_put_text(&b, text.data ? text.data : "", text.size);
        buffer_puts(&b, ",\"text\":");
        json_put_text(&b, text.data ? text.data : "", text.size);
        buffer_putc(&b, '}');
        api_reply(s, call, 200, "application/json", &b);
    }
    buffer_free(&text);
    json_decref(root);
}
