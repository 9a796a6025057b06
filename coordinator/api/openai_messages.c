/* Conversations: roles and contents as OpenAI's clients send them, as chat templates want them. Pure. */
#include <stdio.h>
#include <string.h>

#include "coordinator/api/openai_request.h"

/* The texts of a content given in parts, joined by line breaks. */
static int join_parts(const json_t *parts, const char *where, struct buffer *text, struct api_error *e)
{
    if (!json_array_size(parts))
        return api_refuse(e, NULL, where, "'%s' is an empty array", where);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *type = json_object_get(part, "type"),
                     *content = json_object_get(part, "text");
        char at[96];
        snprintf(at, sizeof at, "%.60s[%zu]", where, i);
        if (!json_is_object(part) || !json_is_string(type))
            return api_refuse(e, NULL, at, "'%s' must be an object with a 'type'", at);
        if (strcmp(json_string_value(type), "text"))
            return api_refuse(e, "unsupported_content", at, "'%s' has the type '%.40s': this server reads only 'text'", at,
                              json_string_value(type));
        if (!json_is_string(content))
            return api_refuse(e, NULL, at, "'%s.text' must be a string", at);
        if (i)
            buffer_putc(text, '\n');
        buffer_append(text, json_string_value(content), json_string_length(content));
    }
    return 0;
}

static int content_text(const json_t *content, const char *where, json_t **out, struct api_error *e)
{
    struct buffer text = {0};
    int rc = 0;
    if (json_is_string(content)) {
        *out = json_stringn(json_string_value(content), json_string_length(content));
    } else if (json_is_array(content)) {
        rc = join_parts(content, where, &text, e);
        if (!rc)
            *out = json_stringn(text.data ? text.data : "", text.size);
    } else {
        rc = api_refuse(e, NULL, where, "'%s' must be a string or an array of text parts", where);
    }
    buffer_free(&text);
    if (!rc && !*out)
        rc = api_fail(e, 500, "server_error", NULL, "out of memory for the conversation");
    return rc;
}

/* Fields beside role and content: a name is passed on, an absent thing may be said to be absent. */
static int check_other_fields(const json_t *message, size_t index, json_t *to, struct api_error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)message, key, value) {
        char at[96];
        snprintf(at, sizeof at, "messages[%zu].%.40s", index, key);
        if (!strcmp(key, "role") || !strcmp(key, "content") || json_is_null(value))
            continue;
        if (!strcmp(key, "name") && json_is_string(value))
            json_object_set(to, "name", value);
        else if (!strcmp(key, "tool_calls") && json_is_array(value) && !json_array_size(value))
            continue;
        else if (!strcmp(key, "annotations") && json_is_array(value)) /* clients send answers back as they came */
            continue;
        else
            return api_refuse(e, "unsupported_parameter", at, "'%s' is not supported by this server", at);
    }
    return 0;
}

static int one_message(const json_t *message, size_t index, json_t *all, struct api_error *e)
{
    static const char *const roles[] = {"system", "user", "assistant", "developer"};
    const json_t *role = json_object_get(message, "role");
    char at[64];
    size_t i = 0;
    snprintf(at, sizeof at, "messages[%zu]", index);
    if (!json_is_object(message))
        return api_refuse(e, NULL, at, "'%s' must be an object with 'role' and 'content'", at);
    snprintf(at, sizeof at, "messages[%zu].role", index);
    if (!json_is_string(role))
        return api_refuse(e, NULL, at, "'%s' must be a string: system, developer, user or assistant", at);
    while (i < 4 && strcmp(json_string_value(role), roles[i]))
        i++;
    if (i == 4)
        return api_refuse(e, "unsupported_role", at, "'%s' is '%.40s'; this server knows system, developer, user and assistant",
                          at, json_string_value(role));
    json_t *content = NULL;
    snprintf(at, sizeof at, "messages[%zu].content", index);
    int rc = content_text(json_object_get(message, "content"), at, &content, e);
    if (rc)
        return rc;
    /* Templates know system; developer is its newer name. */
    json_t *made = json_pack("{s:s, s:o}", "role", i == 3 ? "system" : roles[i], "content", content);
    rc = made ? check_other_fields(message, index, made, e)
              : api_fail(e, 500, "server_error", NULL, "out of memory for the conversation");
    if (rc)
        json_decref(made);
    else if (json_array_append_new(all, made))
        rc = api_fail(e, 500, "server_error", NULL, "out of memory for the conversation");
    return rc;
}

int api_parse_messages(const json_t *messages, json_t **out, struct api_error *e)
{
    size_t count = json_array_size(messages);
    if (!json_is_array(messages) || !count)
        return api_refuse(e, NULL, "messages", "'messages' must be an array of at least one message");
    if (count > API_MESSAGES_MAX)
        return api_refuse(e, NULL, "messages", "'messages' has %zu entries; at most %d", count, API_MESSAGES_MAX);
    json_t *all = json_array();
    int rc = all ? 0 : api_fail(e, 500, "server_error", NULL, "out of memory for the conversation");
    for (size_t i = 0; i < count && !rc; i++)
        rc = one_message(json_array_get(messages, i), i, all, e);
    if (rc)
        json_decref(all);
    else
        *out = all;
    return rc;
}
