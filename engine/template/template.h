/* Chat templates: the Jinja that published models carry in their files, read once and rendered many times.
 *
 * The language is Jinja 3.1's as chat templates use it, with trim_blocks and lstrip_blocks on, loop controls, and no
 * autoescaping; `docs/templates.md` lists it. A template reaches nothing but the variables it is given: no files, no
 * clock, no environment. Memory, steps, depth and output are bounded, so a hostile template ends in an error.
 * A parsed template never changes: any number of threads may render the same one at once. */
#ifndef BRIGADE_ENGINE_TEMPLATE_TEMPLATE_H
#define BRIGADE_ENGINE_TEMPLATE_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

struct template; /* opaque; owns a copy of what it needs of its text */

#define TEMPLATE_TEXT_BYTES_MAX ((size_t)1 << 20) /* a longer template is refused */

/* What a render may use up; a 0 means the default. */
struct template_options {
    const struct tm *now;     /* local time for strftime_now(); NULL: the template finds it undefined */
    size_t memory_bytes;      /* everything a render holds but its output; default 256 MiB */
    size_t output_bytes;      /* the text, and each macro's or block's text; default 64 MiB */
    uint64_t steps;           /* evaluated nodes and handled elements; default 20 million (about a second) */
    unsigned depth;           /* nested evaluations, some ten a macro call; default 1000 (under 1 MiB of stack) */
};

/* Reads a template of `bytes` bytes of UTF-8 into *out (template_free). ERR_FORMAT for what is not Jinja,
 * ERR_UNSUPPORTED for a tag that has no meaning here (import, extends), ERR_BOUND, ERR_NOMEM. Texts name the line. */
int template_parse(const char *text, size_t bytes, struct template **out, struct error *e);
void template_free(struct template *t);

/* Whether the template reads a variable of that name ("tools", "enable_thinking") anywhere: tells what it can use. */
int template_reads(const struct template *t, const char *name);

/* Renders with the members of the JSON object `variables` (messages, tools, bos_token, eos_token,
 * add_generation_prompt and whatever else; borrowed, never changed) as the template's variables.
 * *text is NUL-terminated and the caller's (mem_free); *text_bytes (NULL allowed) its length without the NUL.
 * `options` may be NULL. ERR_USAGE when the template itself refuses with raise_exception (the error's text is the
 * template's message, after the line), ERR_FORMAT for its own mistakes (a sum of a text and a number, a part of
 * something undefined), ERR_UNSUPPORTED for an unknown filter or test, ERR_BOUND, ERR_NOMEM. */
int template_render(const struct template *t, const json_t *variables, const struct template_options *options,
                    char **text, size_t *text_bytes, struct error *e);

#endif
