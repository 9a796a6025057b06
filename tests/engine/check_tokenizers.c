/* Checks tokenizers against reference ids, by hand:
 *     check_tokenizers DIRECTORY [NAME]
 * DIRECTORY holds expected.json ({"NAME": [[text, [ids]], ...]}; no begin token, special texts not parsed) and
 * NAME.gguf of each. Also: decoding gives every text back, 10,000 random Unicode strings survive the round trip where
 * the vocabulary can say every byte, and the speed over mixed and hostile texts is printed. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/files/gguf.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/random_text.h"

static int round_trip(const struct tokenizer *t, const char *text, size_t bytes)
{
    struct token_list ids = {0};
    struct buffer back = {0};
    struct error err = {0};
    int rc = tokenizer_encode(t, text, bytes, 0, &ids, &err);
    if (!rc)
        rc = tokenizer_decode(t, ids.ids, ids.count, DETOKENIZER_START, &back, &err);
    int same = !rc && back.size == bytes && !memcmp(bytes ? back.data : "", text, bytes);
    if (rc)
        printf("    %s\n", err.text);
    token_list_free(&ids);
    buffer_free(&back);
    return same;
}

static size_t check_pairs(const struct tokenizer *t, json_t *pairs)
{
    size_t wrong = 0, i;
    json_t *pair;
    json_array_foreach(pairs, i, pair)
    {
        json_t *text = json_array_get(pair, 0), *want = json_array_get(pair, 1);
        struct token_list ids = {0};
        struct error err = {0};
        int rc = tokenizer_encode(t, json_string_value(text), json_string_length(text), 0, &ids, &err);
        int same = !rc && ids.count == json_array_size(want);
        for (size_t k = 0; same && k < ids.count; k++)
            same = ids.ids[k] == json_integer_value(json_array_get(want, k));
        if (!same && wrong++ < 5) {
            printf("    \"%s\":", json_string_value(text));
            for (size_t k = 0; k < ids.count; k++)
                printf(" %d", ids.ids[k]);
            printf("\n    want");
            for (size_t k = 0; k < json_array_size(want); k++)
                printf(" %lld", (long long)json_integer_value(json_array_get(want, k)));
            printf(" %s\n", err.text);
        }
        token_list_free(&ids);
    }
    return wrong;
}

static size_t check_random(const struct tokenizer *t, size_t count)
{
    size_t wrong = 0;
    char text[512];
    for (size_t i = 0; i < count; i++) {
        size_t bytes = random_text(i, text, sizeof text);
        if (!round_trip(t, text, bytes) && wrong++ < 3)
            printf("    round trip of random string %zu fails\n", i);
    }
    return wrong;
}

static void measure(const struct tokenizer *t, const char *what, const char *text, size_t bytes)
{
    struct token_list ids = {0};
    struct error err = {0};
    int64_t start = clock_us();
    int rc = tokenizer_encode(t, text, bytes, 0, &ids, &err);
    double us = (double)(clock_us() - start);
    printf("    %-10s %6.1f MB/s  %8.1f ms  %7zu tokens%s%s\n", what, (double)bytes / us, us / 1000, ids.count,
           rc ? "  " : "", err.text);
    token_list_free(&ids);
}

static void measure_all(const struct tokenizer *t, const char *prose, size_t prose_bytes)
{
    const size_t bytes = (size_t)1 << 20;
    static const char *const units[] = {"a", " ", "\n", "1", "A", "\xE4\xB8\x80", " \n", "!", "\xCC\x81"};
    static const char *const names[] = {"letters", "spaces", "newlines", "digits", "capitals",
                                        "han",     "blank",  "marks",    "accents"};
    char *text = mem_alloc(bytes + 512);
    if (!text)
        return;
    if (prose_bytes) {
        for (size_t at = 0; at < bytes; at++)
            text[at] = prose[at % prose_bytes];
        measure(t, "prose", text, bytes);
    }
    for (size_t at = 0, i = 0; at < bytes; i++)
        at += random_text(i, text + at, 512);
    measure(t, "random", text, bytes);
    for (size_t at = 0, i = 0; at < bytes; at++) {
        i = hash_mix64(at);
        text[at] = (char)(i % 6 ? 'a' + i / 6 % 26 : ' ');
    }
    measure(t, "gibberish", text, bytes);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u]);
        for (size_t at = 0; at < bytes; at++)
            text[at] = units[u][at % n];
        measure(t, names[u], text, bytes / n * n);
    }
    mem_free(text);
}

static char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    char *text = mem_alloc((size_t)8 << 20);
    *bytes = f && text ? fread(text, 1, (size_t)8 << 20, f) : 0;
    if (f)
        fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    log_set_default("check_tokenizers", LOG_LEVEL_WARN);
    if (argc < 2) {
        fprintf(stderr, "usage: check_tokenizers DIRECTORY [NAME [PROSE.txt]]\n");
        return 2;
    }
    char path[4096];
    json_error_t why;
    snprintf(path, sizeof path, "%s/expected.json", argv[1]);
    json_t *all = json_load_file(path, JSON_ALLOW_NUL, &why);
    if (!all) {
        fprintf(stderr, "%s: %s\n", path, why.text);
        return 1;
    }
    size_t prose_bytes = 0;
    char *prose = argc > 3 ? read_file(argv[3], &prose_bytes) : NULL;
    size_t failed = 0;
    const char *name;
    json_t *pairs;
    json_object_foreach(all, name, pairs)
    {
        if (argc > 2 && *argv[2] && strcmp(argv[2], name))
            continue;
        struct error err = {0};
        struct gguf *g = NULL;
        struct tokenizer *t = NULL;
        snprintf(path, sizeof path, "%s/%s.gguf", argv[1], name);
        int64_t start = clock_us();
        int rc = gguf_open(path, &g, &err);
        if (!rc)
            rc = tokenizer_open(g, &t, &err);
        double ms = (double)(clock_us() - start) / 1000;
        gguf_close(g);
        if (rc) {
            printf("%s: %s\n", name, err.text);
            failed++;
            continue;
        }
        size_t wrong = check_pairs(t, pairs), lost = 0, i;
        json_t *pair;
        json_array_foreach(pairs, i, pair)
        {
            json_t *text = json_array_get(pair, 0);
            lost += !round_trip(t, json_string_value(text), json_string_length(text));
        }
        size_t random = check_random(t, 10000);
        printf("%s: %s, %zu tokens, opened in %.0f ms; %zu texts, %zu wrong, %zu not restored; of 10000 random %zu not "
               "restored\n",
               name, tokenizer_kind(t), tokenizer_count(t), ms, json_array_size(pairs), wrong, lost, random);
        if (!tokenizer_is_complete(t))
            printf("    (not byte-complete: some characters cannot be restored)\n");
        failed += wrong || (tokenizer_is_complete(t) && (lost || random));
        measure_all(t, prose, prose_bytes);
        tokenizer_close(t);
    }
    mem_free(prose);
    json_decref(all);
    return failed ? 1 : 0;
}
