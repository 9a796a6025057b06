/* `brigade keygen`: a fresh node key. */
#include <stdio.h>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "proto/keys.h"

static const struct command_help help = {
    "brigade keygen [-o FILE | --public FILE] [--json]",
    "Writes a fresh secret key (mode 0600, never over an existing file) and prints its public key. The secret stays on\n"
    "the node; the public key goes into cluster.yaml or a worker's --allow.",
    "brigade keygen -o node.key",
};

int command_keygen(int argc, char **argv)
{
    const char *path = "node.key", *existing = NULL;
    bool json = false;
    const struct option table[] = {
        {"--output", 'o', OPTION_TEXT, &path, "FILE", "where the secret key goes (default node.key)"},
        {"--public", 0, OPTION_TEXT, &existing, "FILE", "only print the public key of an existing secret key"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"public_key\": ..., \"file\": ...}"},
    };
    size_t words;
    enum options_outcome parsed = options_parse(argc, argv, table, sizeof table / sizeof *table, &help, NULL, 0, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;

    struct error err = {0};
    struct node_key *key = NULL;
    int failed = existing ? key_load(existing, &key, &err) : key_generate(&key, &err) || key_save(key, path, &err);
    if (failed) {
        key_free(key);
        return output_failure(&err);
    }
    int rc = 0;
    if (json)
        rc = output_json(json_pack("{s:s, s:s}", "public_key", key_public_text(key), "file", existing ? existing : path));
    else
        printf("%s\n", key_public_text(key));
    key_free(key);
    return rc;
}
