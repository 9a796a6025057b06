/* Renders messages through engine/template and tokenises the result; adds the beginning-of-text token only where the
 * template did not write it itself. Owns the parsed template; borrows the tokenizer. */
#include "coordinator/core/chat_prompt.h"

#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "engine/template/template.h"

struct chat_prompt {
    const struct tokenizer *tokenizer;
    struct template *template; /* NULL: the plain form */
};

int chat_prompt_open(const struct tokenizer *t, struct chat_prompt **out, struct error *err)
{
    struct gguf_text text = tokenizer_chat_template(t, NULL);
    struct chat_prompt *p = mem_zalloc(1, sizeof *p);
    if (!p)
        return error_set(err, ERR_NOMEM, "out of memory for the chat template");
    p->tokenizer = t;
    int rc = text.size ? template_parse(text.data, text.size, &p->template, err) : 0;
    if (rc) {
        mem_free(p);
        error_prefix(err, "the model's chat template");
        return rc;
    }
    *out = p;
    return 0;
}

void chat_prompt_close(struct chat_prompt *p)
{
    if (!p)
        return;
    template_free(p->template);
    mem_free(p);
}

bool chat_prompt_is_plain(const struct chat_prompt *p)
{
    return !p->template;
}

static json_t *token_text(const struct tokenizer *t, int32_t id)
{
    struct gguf_text piece = tokenizer_piece(t, id);
    return piece.data ? json_stringn(piece.data, piece.size) : json_string("");
}

static int render_plain(const json_t *messages, char **text, size_t *bytes, struct error *err)
{
    struct buffer b = {0};
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        if (i)
            buffer_puts(&b, "\n\n");
        if (json_is_string(content))
            buffer_append(&b, json_string_value(content), json_string_length(content));
    }
    *bytes = b.size;
    *text = buffer_steal(&b);
    return *text ? 0 : error_set(err, ERR_NOMEM, "out of memory for the conversation");
}

static int render_template(const struct chat_prompt *p, const json_t *messages, const json_t *extra, char **text,
                           size_t *bytes, struct error *err)
{
    json_t *variables = json_object();
    time_t seconds = time(NULL);
    struct tm now;
    localtime_r(&seconds, &now);
    struct template_options options = {.now = &now};
    /* json_object_set keeps the caller's references; a failed set leaves a variable undefined and the render says so. */
    json_object_set(variables, "messages", (json_t *)messages);
    json_object_set_new(variables, "bos_token", token_text(p->tokenizer, tokenizer_bos(p->tokenizer)));
    json_object_set_new(variables, "eos_token", token_text(p->tokenizer, tokenizer_eos(p->tokenizer)));
    json_object_set_new(variables, "add_generation_prompt", json_true());
    if (extra)
        json_object_update(variables, (json_t *)extra);
    int rc = variables ? template_render(p->template, variables, &options, text, bytes, err)
                       : error_set(err, ERR_NOMEM, "out of memory for the conversation");
    json_decref(variables);
    return rc;
}

int chat_prompt_encode(const struct chat_prompt *p, const json_t *messages, const json_t *extra, struct token_list *out,
                       struct error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    int rc = p->template ? render_template(p, messages, extra, &text, &bytes, err)
                         : render_plain(messages, &text, &bytes, err);
    if (rc)
        return rc;
    struct gguf_text bos = tokenizer_piece(p->tokenizer, tokenizer_bos(p->tokenizer));
    bool has_bos = bos.size && bytes >= bos.size && !memcmp(text, bos.data, bos.size);
    rc = tokenizer_encode(p->tokenizer, text, bytes, (has_bos ? 0 : TOKENIZER_ADD_BOS) | TOKENIZER_PARSE_SPECIAL, out, err);
    mem_free(text);
    return rc;
}
