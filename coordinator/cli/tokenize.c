/* `brigade tokenize` and `brigade detokenize`: the model's tokenizer on its own. */
#include <stdio.h>

#include "base/memory.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/output.h"
#include "coordinator/cli/tokens.h"

static const struct command_help tokenize_help = {
    "brigade tokenize -m MODEL (-p TEXT | -f FILE) [--no-bos] [--no-special] [--json]",
    "Prints the token ids of a text, with the pieces they stand for.",
    "brigade tokenize -m models/stories-5m-q8_0.gguf -p 'Once upon a time'",
};

int command_tokenize(int argc, char **argv)
{
    const char *model = NULL, *text = NULL, *file = NULL;
    bool json = false, no_bos = false, no_special = false;
    const struct option table[] = {
        {"--model", 'm', OPTION_TEXT, &model, "MODEL", "GGUF file"},
        {"--prompt", 'p', OPTION_TEXT, &text, "TEXT", "the text"},
        {"--file", 'f', OPTION_TEXT, &file, "FILE", "read the text from a file ('-': standard input)"},
        {"--no-bos", 0, OPTION_FLAG, &no_bos, NULL, "do not put the beginning-of-text token in front"},
        {"--no-special", 0, OPTION_FLAG, &no_special, NULL, "texts of special tokens are plain text"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"ids\": [...]}"},
    };
    size_t words;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &tokenize_help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;

    struct error err = {0};
    struct buffer input = {0};
    struct tokenizer *tokenizer = NULL;
    struct token_list ids = {0};
    unsigned flags = (no_bos ? 0 : TOKENIZER_ADD_SPECIAL) | (no_special ? 0 : TOKENIZER_PARSE_SPECIAL);
    int rc = tokens_read_text(text, file, &input, &err);
    if (!rc)
        rc = tokens_open(model, &tokenizer, &err);
    if (!rc)
        rc = tokenizer_encode(tokenizer, input.data, input.size, flags, &ids, &err);
    int code = options_exit(&tokenize_help, rc, &err);
    if (!rc && json) {
        code = output_json(json_pack("{s:o}", "ids", tokens_json(ids.ids, ids.count)));
    } else if (!rc) {
        for (size_t i = 0; i < ids.count; i++) {
            struct gguf_text piece = tokenizer_piece(tokenizer, ids.ids[i]);
            printf("%6d  '%.*s'\n", ids.ids[i], (int)piece.size, piece.data);
        }
    }
    token_list_free(&ids);
    tokenizer_close(tokenizer);
    buffer_free(&input);
    return code;
}

static const struct command_help detokenize_help = {
    "brigade detokenize -m MODEL --tokens 1,2,3 [--special] [--json]",
    "Prints the text that token ids stand for.",
    "brigade detokenize -m models/stories-5m-q8_0.gguf --tokens 1,403,407",
};

int command_detokenize(int argc, char **argv)
{
    const char *model = NULL;
    struct option_list list = {0};
    bool json = false, special = false;
    const struct option table[] = {
        {"--model", 'm', OPTION_TEXT, &model, "MODEL", "GGUF file"},
        {"--tokens", 0, OPTION_LIST, &list, "LIST", "token ids, comma-separated"},
        {"--special", 0, OPTION_FLAG, &special, NULL, "show the texts of special tokens"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"text\": ...}"},
    };
    size_t words;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &detokenize_help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (!list.values)
        return options_wrong(&detokenize_help, "no tokens: give them with --tokens 1,2,3");

    struct error err = {0};
    struct tokenizer *tokenizer = NULL;
    struct buffer text = {0};
    int32_t *ids = NULL;
    int rc = tokens_open(model, &tokenizer, &err);
    if (!rc)
        rc = tokens_from_list(&list, tokenizer_count(tokenizer), &ids, &err);
    if (!rc)
        rc = tokenizer_decode(tokenizer, ids, list.count,
                              DETOKENIZER_START | (special ? DETOKENIZER_SHOW_SPECIAL : 0), &text, &err);
    int code = options_exit(&detokenize_help, rc, &err);
    if (!rc && json)
        code = output_json(json_pack("{s:s%}", "text", text.data ? text.data : "", text.size));
    else if (!rc)
        code = output_text(text.data ? text.data : "", text.size, &err) || output_text("\n", 1, &err)
                   ? output_failure(&err)
                   : 0;
    buffer_free(&text);
    mem_free(ids);
    mem_free(list.values);
    tokenizer_close(tokenizer);
    return code;
}
