/* Shared by tokenize, detokenize, run, logits and perplexity. One thread. */
#include "coordinator/cli/tokens.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "engine/files/gguf.h"

int tokens_read_text(const char *text, const char *file, struct buffer *out, struct error *err)
{
    if (!text == !file)
        return error_set(err, ERR_USAGE, "give the text with -p TEXT or -f FILE, one of them");
    out->limit = TOKENS_FILE_BYTES_MAX;
    if (text)
        return buffer_puts(out, text) ? error_set(err, ERR_NOMEM, "out of memory for the prompt") : 0;
    FILE *f = strcmp(file, "-") ? fopen(file, "rb") : stdin;
    if (!f)
        return error_set(err, ERR_IO, "%s: cannot open: %s", file, strerror(errno));
    int rc = 0;
    while (!rc) {
        char *at = buffer_reserve(out, 65536);
        if (!at) {
            rc = out->failed == ERR_BOUND
                     ? error_set(err, ERR_BOUND, "%s: longer than %zu MiB", file, TOKENS_FILE_BYTES_MAX >> 20)
                     : error_set(err, ERR_NOMEM, "%s: out of memory", file);
            break;
        }
        size_t n = fread(at, 1, 65536, f);
        out->size += n;
        if (n == 0)
            break;
    }
    if (!rc && ferror(f))
        rc = error_set(err, ERR_IO, "%s: cannot read: %s", file, strerror(errno));
    if (!rc && !buffer_reserve(out, 0)) /* terminates an empty text too */
        rc = error_set(err, ERR_NOMEM, "%s: out of memory", file);
    if (f != stdin)
        fclose(f);
    return rc;
}

int tokens_open(const char *model, struct tokenizer **out, struct error *err)
{
    struct gguf *g = NULL;
    if (!model)
        return error_set(err, ERR_USAGE, "no model: give one with -m MODEL.gguf");
    int rc = gguf_open(model, &g, err);
    if (!rc)
        rc = tokenizer_open(g, out, err);
    gguf_close(g);
    return rc;
}

json_t *tokens_json(const int32_t *ids, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < count; i++)
        if (json_array_append_new(array, json_integer(ids[i]))) {
            json_decref(array);
            return NULL;
        }
    return array;
}

int tokens_from_list(const struct option_list *list, size_t vocabulary, int32_t **out, struct error *err)
{
    int32_t *ids = mem_zalloc(list->count, sizeof *ids);
    if (!ids)
        return error_set(err, ERR_NOMEM, "out of memory for %zu tokens", list->count);
    for (size_t i = 0; i < list->count; i++) {
        if (list->values[i] < 0 || (uint64_t)list->values[i] >= vocabulary) {
            mem_free(ids);
            return error_set(err, ERR_USAGE, "token %lld is not in the vocabulary (0 to %zu)",
                             (long long)list->values[i], vocabulary - 1);
        }
        ids[i] = (int32_t)list->values[i];
    }
    *out = ids;
    return 0;
}
