/* Flags and worker.yaml. Pure but for reading the file and asking for the host's name; the control thread, once. */
#include "worker/options.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/units.h"
#include "base/yaml.h"
#include "execution/throttle.h"
#include "worker/join.h"

static const char help[] =
    "usage: brigade-worker --join TOKEN [options]\n"
    "       brigade-worker --config worker.yaml\n"
    "       brigade-worker --listen ENDPOINT --key FILE --allow PUBKEY [options]\n"
    "\n"
    "Holds a range of a model's blocks and computes them for a brigade coordinator, over encrypted links.\n"
    "\n"
    "  --join TOKEN        enter the cluster that 'brigade invite' made this token for, make a key if there is none,\n"
    "                      remember both in --config (default worker.yaml), and serve; -: read the token from stdin\n"
    "  --join-only         with --join: end when that is done\n"
    "  --listen ENDPOINT   where coordinators connect, e.g. tcp://0.0.0.0:7700\n"
    "  --key FILE          this node's secret key (make one: brigade keygen -o node.key)\n"
    "  --allow PUBKEY      a coordinator's public key; repeat for more\n"
    "  --name NAME         how this node calls itself (default: the host's name)\n"
    "  --models DIR        where model files lie; repeat for more (default: .)\n"
    "  --cache DIR         where received weights and measured profiles are kept (default: nowhere)\n"
    "  --cache-limit SIZE  most that received weights may take on disk (default: what the disk has)\n"
    "  --memory SIZE       most that a stage may take, e.g. 3G (default: what is free, less a margin)\n"
    "  --threads N|auto    compute threads (default: auto, one a core)\n"
    "  --data-port PORT    port of the data plane (default: the one after --listen's; any free one after ':*')\n"
    "  --weights-port PORT port of the weights plane (default: the one after the data plane's; any free one after ':*')\n"
    "  --throttle FACTOR   for testing: every micro-batch takes FACTOR times as long (1 to 1000)\n"
    "  --announce on|off   tell the local network that this worker is there (multicast DNS; default: on)\n"
    "  --awake on|off      idle cores do not sleep while there is work: shorter hops, more power (default: off)\n"
    "  --config FILE       the same settings from a YAML file; flags win\n"
    "  --keygen            make --key's file if it is missing, print its public key, and exit\n"
    "  --memory-limit      print the limit in bytes under which the admitted memory can be had, and exit\n"
    "  --version, --help\n"
    "\n"
    "example: brigade-worker --join brigade1.AbCd... --models models\n"
    "example: brigade-worker --listen tcp://0.0.0.0:7700 --key node.key --allow \"$COORDINATOR\" --models models\n";

static int add_allow(struct worker_options *o, const char *key, struct error *err)
{
    if (!key_text_valid(key))
        return error_set(err, ERR_USAGE, "\"%.60s\" is no public key (40 characters, as 'brigade keygen' prints)", key);
    if (o->allow_count == WORKER_ALLOW_MAX)
        return error_set(err, ERR_BOUND, "more than %d allowed keys", WORKER_ALLOW_MAX);
    memcpy(o->allow[o->allow_count++], key, KEY_TEXT);
    return 0;
}

int worker_options_allow(struct worker_options *o, const char *key, struct error *err)
{
    for (uint32_t i = 0; i < o->allow_count; i++)
        if (!strcmp(o->allow[i], key))
            return 0;
    return add_allow(o, key, err);
}

static int add_models(struct worker_options *o, const char *folder, struct error *err)
{
    if (o->model_count == WORKER_MODELS_MAX)
        return error_set(err, ERR_BOUND, "more than %d model folders", WORKER_MODELS_MAX);
    if (!(o->models[o->model_count] = mem_strdup(folder)))
        return error_set(err, ERR_NOMEM, "no memory for a folder's name");
    o->model_count++;
    return 0;
}

static int set_text(char *out, size_t size, const char *value, const char *what, struct error *err)
{
    if (!*value || strlen(value) >= size)
        return error_set(err, ERR_USAGE, "%s: 1 to %zu characters, please", what, size - 1);
    for (const char *c = value; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            return error_set(err, ERR_USAGE, "%s holds a control character", what);
    memcpy(out, value, strlen(value) + 1);
    return 0;
}

static int set_path(char **out, const char *value, struct error *err)
{
    char *copy = mem_strdup(value);
    if (!copy)
        return error_set(err, ERR_NOMEM, "no memory for a path");
    mem_free(*out);
    *out = copy;
    return 0;
}

static int set_number(int *out, const char *value, int min, int max, const char *what, struct error *err)
{
    int64_t number;
    if (units_parse_int(value, min, max, &number))
        return error_set(err, ERR_USAGE, "%s: \"%.40s\" is no whole number from %d to %d", what, value, min, max);
    *out = (int)number;
    return 0;
}

static int set_size(uint64_t *out, const char *value, const char *what, struct error *err)
{
    if (units_parse_bytes(value, out) || !*out)
        return error_set(err, ERR_USAGE, "%s: \"%.40s\" is no size; write 3G or 512M", what, value);
    return 0;
}

static int set_threads(int *out, const char *value, struct error *err)
{
    if (strcmp(value, "auto"))
        return set_number(out, value, 1, 1024, "threads (or \"auto\")", err);
    *out = 0;
    return 0;
}

static int set_throttle(double *out, const char *value, struct error *err)
{
    if (units_parse_double(value, out) || !(*out >= 1 && *out <= THROTTLE_MAX))
        return error_set(err, ERR_USAGE, "throttle: \"%.40s\" is no factor from 1 to %g", value, THROTTLE_MAX);
    return 0;
}

static int set_switch(int *out, const char *value, const char *what, struct error *err)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true"};
    for (int i = 0; i < 6; i++)
        if (!strcmp(words[i], value)) {
            *out = i % 2;
            return 0;
        }
    return error_set(err, ERR_USAGE, "%s: \"%.40s\" is neither on nor off", what, value);
}

/* Takes the token over: what stood on the command line is wiped, where everyone could read it. */
static int set_join(struct worker_options *o, char *value, struct error *err)
{
    enum { ROOM = 1024 };
    sodium_free(o->join);
    if (sodium_init() < 0 || !(o->join = sodium_malloc(ROOM)))
        return error_set(err, ERR_NOMEM, "no locked memory for a token");
    bool from_input = !strcmp(value, "-");
    if (from_input && !fgets(o->join, ROOM, stdin))
        return error_set(err, ERR_USAGE, "standard input holds no token");
    if (!from_input)
        snprintf(o->join, ROOM, "%s", value);
    size_t n = strlen(o->join), given = strlen(value);
    while (n && strchr(" \t\r\n", o->join[n - 1]))
        o->join[--n] = 0;
    if (!from_input)
        memset(value, '*', given);
    return 0;
}

static int set_option(struct worker_options *o, const char *name, const char *value, struct error *err)
{
    if (!strcmp(name, "listen"))
        return set_text(o->listen, sizeof o->listen, value, "listen", err);
    if (!strcmp(name, "name"))
        return set_text(o->name, sizeof o->name, value, "name", err);
    if (!strcmp(name, "key"))
        return set_path(&o->key_path, value, err);
    if (!strcmp(name, "cache"))
        return set_path(&o->cache_path, value, err);
    if (!strcmp(name, "memory"))
        return set_size(&o->memory_bytes, value, "memory", err);
    if (!strcmp(name, "cache-limit"))
        return set_size(&o->cache_bytes, value, "cache limit", err);
    if (!strcmp(name, "threads"))
        return set_threads(&o->threads, value, err);
    if (!strcmp(name, "data-port"))
        return set_number(&o->data_port, value, 1, 65535, "data port", err);
    if (!strcmp(name, "weights-port"))
        return set_number(&o->weights_port, value, 1, 65535, "weights port", err);
    if (!strcmp(name, "throttle"))
        return set_throttle(&o->throttle, value, err);
    if (!strcmp(name, "announce"))
        return set_switch(&o->announce, value, "announce", err);
    if (!strcmp(name, "awake"))
        return set_switch(&o->awake, value, "awake", err);
    if (!strcmp(name, "allow"))
        return add_allow(o, value, err);
    return add_models(o, value, err);
}

/* A path of the file, relative to the file's folder. */
static int resolve(const char *file, const char *path, char **out, struct error *err)
{
    const char *slash = strrchr(file, '/');
    *out = *path == '/' || !slash ? mem_strdup(path) : mem_printf("%.*s/%s", (int)(slash - file), file, path);
    return *out ? 0 : error_set(err, ERR_NOMEM, "no memory for a path");
}

/* One key of the file, single or a list. Complaints gain the file and line. */
static int from_file(struct worker_options *o, const char *file, const char *name, const struct yaml_value *v,
                     bool list, bool path, struct error *err)
{
    size_t count = list && yaml_kind(v) == YAML_SEQUENCE ? yaml_count(v) : 1;
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++) {
        const struct yaml_value *item = list && yaml_kind(v) == YAML_SEQUENCE ? yaml_item(v, i) : v;
        const char *text;
        char *resolved = NULL;
        struct error complaint = {0};
        if ((rc = yaml_text(item, &text, err)))
            break;
        if (path && (rc = resolve(file, text, &resolved, err)))
            break;
        if ((rc = set_option(o, name, path ? resolved : text, &complaint)))
            yaml_error(item, err, rc, "%s", complaint.text);
        mem_free(resolved);
    }
    return rc;
}

int worker_options_file(const char *path, struct worker_options *o, struct error *err)
{
    static const struct {
        const char *key, *option;
        bool list, path;
    } rows[] = {
        {"listen", "listen", false, false}, {"key", "key", false, true},         {"allow", "allow", true, false},
        {"name", "name", false, false},     {"models", "models", true, true},    {"cache", "cache", false, true},
        {"memory", "memory", false, false}, {"threads", "threads", false, false},
        {"data_port", "data-port", false, false}, {"throttle", "throttle", false, false},
        {"weights_port", "weights-port", false, false},
        {"cache_limit", "cache-limit", false, false},
        {"announce", "announce", false, false}, {"awake", "awake", false, false},
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    const char *known[ROWS + 2] = {"version"};
    struct yaml_doc *doc = NULL;
    int64_t version = 1;
    int rc = yaml_read_file(&doc, path, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < ROWS; i++)
        known[i + 1] = rows[i].key;
    const struct yaml_value *root = yaml_root(doc);
    if ((rc = yaml_only_keys(root, known, err)) || (rc = yaml_want_int(root, "version", 1, 1, &version, err)))
        goto done;
    for (size_t i = 0; i < ROWS && !rc; i++) {
        const struct yaml_value *v = yaml_find(root, rows[i].key);
        const char *option = rows[i].option;
        bool given = (!strcmp(option, "listen") && *o->listen) || (!strcmp(option, "name") && *o->name) ||
                     (!strcmp(option, "key") && o->key_path) || (!strcmp(option, "cache") && o->cache_path) ||
                     (!strcmp(option, "allow") && o->allow_count) || (!strcmp(option, "models") && o->model_count) ||
                     (!strcmp(option, "memory") && o->memory_bytes) ||
                     (!strcmp(option, "threads") && o->threads >= 0) ||
                     (!strcmp(option, "announce") && o->announce >= 0) ||
                     (!strcmp(option, "awake") && o->awake >= 0) ||
                     (!strcmp(option, "data-port") && o->data_port >= 0) ||
                     (!strcmp(option, "weights-port") && o->weights_port >= 0) ||
                     (!strcmp(option, "cache-limit") && o->cache_bytes);
        if (v && !given && !yaml_is_null(v))
            rc = from_file(o, path, option, v, rows[i].list, rows[i].path, err);
    }
done:
    yaml_doc_free(doc);
    return rc;
}

/* What nobody said. */
static enum worker_options_outcome complete(struct worker_options *o, struct error *err)
{
    if (o->threads < 0)
        o->threads = 0;
    if (o->announce < 0)
        o->announce = 1;
    if (o->awake < 0)
        o->awake = 0;
    if (!*o->name && (gethostname(o->name, sizeof o->name - 1) || !*o->name))
        snprintf(o->name, sizeof o->name, "worker");
    if (!o->model_count && add_models(o, ".", err))
        return WORKER_EXIT_ERROR;
    if (o->chore == WORKER_CHORE_MEMORY_LIMIT || (o->chore == WORKER_CHORE_KEYGEN && o->key_path))
        return WORKER_RUN;
    if (o->join && worker_join_defaults(o, err))
        return err->code == ERR_NOMEM ? WORKER_EXIT_ERROR : WORKER_EXIT_USAGE;
    const char *missing = o->chore ? "--key FILE (where the key shall lie)"
                          : o->join ? NULL
                          : !*o->listen ? "--listen ENDPOINT (e.g. tcp://0.0.0.0:7700)"
                          : !o->key_path ? "--key FILE (make one with 'brigade keygen -o node.key')"
                          : !o->allow_count ? "--allow PUBKEY (the coordinator's; 'brigade keygen' prints it)"
                                            : NULL;
    if (missing) {
        if (o->config_path && !o->chore)
            error_set(err, ERR_USAGE, "%s sets no %s: missing %s; 'brigade-worker --join TOKEN' sets all of it",
                      o->config_path, !*o->listen ? "listen" : !o->key_path ? "key" : "allow", missing);
        else
            error_set(err, ERR_USAGE, "missing %s; --help explains", missing);
        return WORKER_EXIT_USAGE;
    }
    if (o->join)
        return WORKER_RUN;
    char endpoint[300];
    return worker_data_endpoint(o, 1, endpoint, sizeof endpoint, err) ? WORKER_EXIT_USAGE : WORKER_RUN;
}

enum worker_options_outcome worker_options_read(int argc, char **argv, struct worker_options *out, struct error *err)
{
    static const char *const names[] = {"listen", "key",     "allow",     "name",  "models",
                                        "cache",  "memory",  "threads",   "data-port", "throttle", "config", "join",
                                        "cache-limit", "weights-port", "announce", "awake"};
    int rc;
    *out = (struct worker_options){.threads = -1, .data_port = -1, .weights_port = -1, .announce = -1, .awake = -1};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *name = NULL;
        char *value = NULL;
        if (!strcmp(word, "--join-only")) {
            out->join_only = true;
            continue;
        }
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            fputs(help, stdout);
            return WORKER_EXIT_OK;
        }
        if (!strcmp(word, "--version")) {
            printf("brigade-worker %s\n", BRIGADE_VERSION);
            return WORKER_EXIT_OK;
        }
        if (!strcmp(word, "--keygen") || !strcmp(word, "--memory-limit")) {
            out->chore = word[2] == 'k' ? WORKER_CHORE_KEYGEN : WORKER_CHORE_MEMORY_LIMIT;
            continue;
        }
        for (size_t k = 0; !strncmp(word, "--", 2) && k < sizeof names / sizeof *names; k++) {
            size_t n = strlen(names[k]);
            if (!strncmp(word + 2, names[k], n) && (!word[2 + n] || word[2 + n] == '=')) {
                name = names[k];
                value = word[2 + n] ? argv[i] + 3 + n : i + 1 < argc ? argv[++i] : NULL;
            }
        }
        if (!name) {
            error_set(err, ERR_USAGE, "unknown option %.60s; --help lists them", word);
            return WORKER_EXIT_USAGE;
        }
        if (!value) {
            error_set(err, ERR_USAGE, "--%s needs a value; --help explains", name);
            return WORKER_EXIT_USAGE;
        }
        rc = !strcmp(name, "config") ? set_path(&out->config_path, value, err)
             : !strcmp(name, "join") ? set_join(out, value, err)
                                     : set_option(out, name, value, err);
        if (rc) {
            error_prefix(err, "--%s", name);
            return rc == ERR_NOMEM ? WORKER_EXIT_ERROR : WORKER_EXIT_USAGE;
        }
    }
    if (out->join_only && !out->join) {
        error_set(err, ERR_USAGE, "--join-only needs --join TOKEN");
        return WORKER_EXIT_USAGE;
    }
    /* A board that joins may have settings already, and writes them otherwise. */
    const char *config = out->config_path ? out->config_path : out->join ? "worker.yaml" : NULL;
    if (config && (!out->join || !access(config, F_OK)) && worker_options_file(config, out, err))
        return WORKER_EXIT_ERROR;
    return complete(out, err);
}

void worker_options_free(struct worker_options *o)
{
    mem_free(o->key_path);
    mem_free(o->cache_path);
    mem_free(o->config_path);
    sodium_free(o->join); /* wipes */
    for (uint32_t i = 0; i < o->model_count; i++)
        mem_free(o->models[i]);
    *o = (struct worker_options){0};
}

/* "tcp://ADDRESS" of --listen with another port: `fixed` if it is above 0, else the one after `before`, or (after ':*')
 * any. */
static int other_endpoint(const struct worker_options *o, int fixed, int before, const char *option, char *out,
                          unsigned size, struct error *err)
{
    const char *colon = strrchr(o->listen, ':');
    bool any = colon && !strcmp(colon, ":*");
    int64_t port;
    if (strncmp(o->listen, "tcp://", 6) || !colon || colon - o->listen < 7 ||
        (!any && units_parse_int(colon + 1, 1, 65535, &port)))
        return error_set(err, ERR_USAGE, "\"%.100s\" is no endpoint to listen at; write tcp://ADDRESS:PORT", o->listen);
    if (fixed < 0 && !any && before > 65534)
        return error_set(err, ERR_USAGE, "there is no port after %d; give %s", before, option);
    int number = fixed > 0 ? fixed : any ? 0 : before + 1;
    if (number)
        snprintf(out, size, "%.*s:%d", (int)(colon - o->listen), o->listen, number);
    else
        snprintf(out, size, "%.*s:*", (int)(colon - o->listen), o->listen);
    return 0;
}

int worker_data_endpoint(const struct worker_options *o, int control_port, char *out, unsigned size, struct error *err)
{
    return other_endpoint(o, o->data_port, control_port, "--data-port", out, size, err);
}

int worker_weights_endpoint(const struct worker_options *o, int data_port, char *out, unsigned size, struct error *err)
{
    return other_endpoint(o, o->weights_port, data_port, "--weights-port", out, size, err);
}
