/* `brigade init`: a coordinator key and an empty cluster. */
#include <stdio.h>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/output.h"
#include "coordinator/core/cluster_file.h"

static const struct command_help help = {
    "brigade init [FILE] [--key NAME] [--json]",
    "Makes a new cluster: a commented cluster.yaml without nodes and, beside it, the coordinator's secret key (mode "
    "0600).\n"
    "Overwrites nothing. Next: 'brigade invite' lets boards in.",
    "brigade init cluster.yaml",
};

int command_init(int argc, char **argv)
{
    const char *key = "coordinator.key", *path = "cluster.yaml";
    char public_key[KEY_TEXT];
    bool json = false;
    const struct option table[] = {
        {"--key", 0, OPTION_TEXT, &key, "NAME", "file name of the secret key, beside FILE (default coordinator.key)"},
        {"--json", 0, OPTION_FLAG, &json, NULL, "print {\"file\": ..., \"key\": ..., \"public_key\": ...}"},
    };
    size_t words;
    enum options_outcome parsed =
        options_parse(argc, argv, table, sizeof table / sizeof *table, &help, &path, 1, &words);
    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    struct error err = {0};
    if (cluster_file_init(path, key, public_key, &err))
        return output_failure(&err);
    if (json)
        return output_json(json_pack("{s:s, s:s, s:s}", "file", path, "key", key, "public_key", public_key));
    printf("%s: a cluster without nodes, commanded by %s\n", path, key);
    printf("next, for each board: brigade invite -c %s\n", path);
    return 0;
}
