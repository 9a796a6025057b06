/* The door of the room: parse, render, free. Owns the template and, during a render, its run; a template is never
 * written after parsing, so threads may share it. */
#include "engine/template/template.h"

#include <string.h>

#include "base/memory.h"
#include "engine/template/evaluate.h"
#include "engine/template/parser.h"
#include "engine/template/print.h"

enum { PARSED_BYTES_MAX = 256 << 20, DEFAULT_MEMORY_BYTES = 256 << 20, DEFAULT_OUTPUT_BYTES = 64 << 20,
       DEFAULT_STEPS = 20000000, DEFAULT_DEPTH = 1000 };

int template_parse(const char *text, size_t bytes, struct template **out, struct error *e)
{
    if (bytes > TEMPLATE_TEXT_BYTES_MAX)
        return error_set(e, ERR_BOUND, "chat template: %zu bytes are more than the %zu allowed", bytes,
                         TEMPLATE_TEXT_BYTES_MAX);
    struct template *t = mem_zalloc(1, sizeof *t);
    if (!t)
        return error_set(e, ERR_NOMEM, "chat template: out of memory");
    t->arena.limit_bytes = PARSED_BYTES_MAX;
    struct parser p = {.template = t, .error = e};
    int rc = jinja_lex(text, bytes, &t->arena, &p.tokens, e);
    if (rc == 0) {
        const struct string **known[] = {&t->loop, &t->varargs, &t->kwargs, &t->caller};
        static const char *const names[] = {"loop", "varargs", "kwargs", "caller"};
        for (int i = 0; i < 4; i++) {
            struct name *name = jinja_intern(&p, names[i], strlen(names[i]));
            *known[i] = name ? &name->text : NULL;
        }
        t->body = jinja_parse_body(&p);
        rc = p.failed;
        mem_free(p.tokens.list);
    }
    if (rc)
        template_free(t);
    else
        *out = t;
    return rc;
}

void template_free(struct template *t)
{
    if (!t)
        return;
    jinja_arena_free(&t->arena);
    mem_free(t);
}

int template_reads(const struct template *t, const char *name)
{
    const struct name *found = jinja_find_name(t, name, strlen(name));
    return found && found->read;
}

int template_render(const struct template *t, const json_t *variables, const struct template_options *options,
                    char **text, size_t *text_bytes, struct error *e)
{
    struct template_options o = options ? *options : (struct template_options){0};
    struct buffer out = {.limit = o.output_bytes ? o.output_bytes : DEFAULT_OUTPUT_BYTES};
    struct scope root = {0};
    struct run r = {
        .arena = {.limit_bytes = o.memory_bytes ? o.memory_bytes : DEFAULT_MEMORY_BYTES},
        .error = e,
        .line = 1,
        .depth_limit = o.depth ? o.depth : DEFAULT_DEPTH,
        .steps_left = o.steps ? o.steps : DEFAULT_STEPS,
        .output_limit = out.limit,
        .now = o.now,
        .template = t,
        .out = &out,
        .scope = &root,
    };
    const char *key;
    json_t *member;
    if (variables && !json_is_object(variables))
        jinja_fail(&r, ERR_USAGE, "its variables must be a JSON object");
    json_object_foreach((json_t *)(uintptr_t)variables, key, member) {
        const struct name *name = jinja_find_name(t, key, strlen(key));
        if (name && name->read) /* others are out of the template's sight */
            jinja_assign(&r, &name->text, jinja_from_json(&r, member));
    }
    jinja_execute(&r, t->body);
    char *made = NULL;
    size_t size = out.size;
    if (!r.failed && !(made = buffer_steal(&out)))
        jinja_fail(&r, ERR_NOMEM, "out of memory");
    buffer_free(&out);
    jinja_arena_free(&r.arena);
    if (r.failed)
        return r.failed;
    *text = made;
    if (text_bytes)
        *text_bytes = size;
    return 0;
}
