/* cluster.yaml made and changed. Owns nothing; one thread. */
#include "coordinator/core/cluster_file.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/yaml.h"
#include "base/yaml_edit.h"

#define LOCK_MS 5000

static const char template[] =
    "# A brigade: machines that run a language model together.\n"
    "#\n"
    "#   brigade invite -c %1$s            let a board in (on the board: brigade-worker --join TOKEN)\n"
    "#   brigade nodes -c %1$s             who is in; 'brigade revoke NAME' takes one out\n"
    "#   brigade doctor -c %1$s            is every board well, and what to change\n"
    "#   brigade run -c %1$s -m MODEL.gguf -p \"Hello\"\n"
    "version: 1\n"
    "coordinator:\n"
    "  key: %2$s   # secret: this machine's proof that it commands the boards\n"
    "\n"
    "# One entry a board; 'brigade invite' adds them. A cap on its memory is optional (memory: 6G).\n"
    "nodes: []\n"
    "\n"
    "# Links are measured. One that you know can be given instead:\n"
    "# links:\n"
    "#   - {from: pi-kitchen, to: orin, bandwidth: 900Mbit, rtt: 0.4ms}\n"
    "\n"
    "# How much cache to admit, over all conversations, and how exact it is (f16 or q8):\n"
    "# kv: {type: f16, tokens: 16384}\n";

/* "dir/cluster.yaml" and "coordinator.key" give "dir/coordinator.key". */
static char *beside(const char *path, const char *name)
{
    char *folder = file_folder(path);
    char *joined = *name == '/' || !strchr(path, '/') ? mem_strdup(name)
                   : folder                           ? mem_printf("%s/%s", strcmp(folder, "/") ? folder : "", name)
                                                      : NULL;
    mem_free(folder);
    return joined;
}

int cluster_file_init(const char *path, const char *key_name, char public_key[static KEY_TEXT], struct error *err)
{
    struct node_key *key = NULL;
    char *key_path = beside(path, key_name), *text = mem_printf(template, path, key_name);
    bool made = false;
    int rc = key_path && text ? 0 : error_set(err, ERR_NOMEM, "%s: out of memory", path);
    if (!rc && !access(path, F_OK))
        rc = error_set(err, ERR_USAGE, "%s: exists; a cluster is never overwritten: name another file or remove it",
                       path);
    if (!rc && access(key_path, F_OK)) {
        made = true;
        if (!(rc = key_generate(&key, err)))
            rc = key_save(key, key_path, err);
    } else if (!rc) {
        rc = key_load(key_path, &key, err);
    }
    if (!rc && (rc = file_create(path, text, strlen(text), 0644, err)) && made)
        unlink(key_path);
    if (!rc)
        memcpy(public_key, key_public_text(key), KEY_TEXT);
    key_free(key);
    mem_free(key_path);
    mem_free(text);
    return rc;
}

/* The lock, the text and what it says. */
struct change {
    const char *path;
    int lock;
    struct buffer text;
    struct config *config;
};

static void change_end(struct change *c)
{
    config_free(c->config);
    buffer_free(&c->text);
    if (c->lock >= 0)
        close(c->lock);
}

static int change_begin(struct change *c, struct error *err)
{
    int rc = file_lock_folder(c->path, LOCK_MS, &c->lock, err);
    c->text.limit = YAML_MAX_BYTES;
    if (!rc)
        rc = file_read(c->path, &c->text, err);
    if (rc == ERR_NOTFOUND)
        error_set(err, rc, "%s: there is no such file; 'brigade init %s' makes one", c->path, c->path);
    return rc ? rc : config_read_text(c->path, c->text.data ? c->text.data : "", c->text.size, &c->config, err);
}

/* The edited text takes the place of the one at hand, if it still is a cluster.yaml. */
static int change_take(struct change *c, struct buffer *edited, struct error *err)
{
    struct config *config = NULL;
    struct error why = {0};
    int rc = config_read_text(c->path, edited->data ? edited->data : "", edited->size, &config, &why);
    if (rc)
        return error_set(err, rc, "%s", why.text);
    config_free(c->config);
    c->config = config;
    buffer_free(&c->text);
    c->text = *edited;
    *edited = (struct buffer){0};
    return 0;
}

/* Writes what was changed, unless something failed. */
static int change_finish(struct change *c, struct buffer *edited, int rc, struct error *err)
{
    if (!rc)
        rc = file_replace(c->path, c->text.data, c->text.size, err);
    buffer_free(edited);
    change_end(c);
    return rc;
}

int cluster_file_add(const char *path, const char *name, const char *endpoint, const char *public_key, bool *changed,
                     struct error *err)
{
    const struct yaml_pair pairs[] = {{"name", name}, {"endpoint", endpoint}, {"public_key", public_key}};
    struct change c = {.path = path, .lock = -1};
    struct buffer edited = {0};
    int rc = change_begin(&c, err);
    for (uint32_t i = 0; i < (rc ? 0 : c.config->node_count); i++) {
        const struct config_node *n = &c.config->nodes[i];
        bool same_name = !strcmp(n->name, name), same_key = !strcmp(n->public_key, public_key);
        if (same_name && same_key && !strcmp(n->endpoint, endpoint)) {
            change_end(&c);
            *changed = false;
            return 0;
        }
        if (same_key)
            rc = error_set(err, ERR_USAGE,
                           "this board's key is already in %s as \"%s\" at %s; 'brigade revoke %s' takes it out", path,
                           n->name, n->endpoint, n->name);
        else if (same_name)
            rc = error_set(err, ERR_USAGE, "%s has another board of the name \"%s\"; join with --name and another one",
                           path, name);
        if (rc)
            break;
    }
    uint32_t before = rc ? 0 : c.config->node_count;
    if (!rc)
        rc = yaml_add_item(path, c.text.data, c.text.size, "nodes", pairs, 3, &edited, err);
    if (!rc)
        rc = change_take(&c, &edited, err);
    if (!rc && (c.config->node_count != before + 1 || strcmp(c.config->nodes[before].name, name) ||
                strcmp(c.config->nodes[before].public_key, public_key)))
        rc = error_set(err, ERR_FORMAT, "%s: cannot add a node to it as it is written; add it by hand", path);
    rc = change_finish(&c, &edited, rc, err);
    if (!rc)
        *changed = true;
    return rc;
}

static int remove_from(struct change *c, const char *list, uint32_t index, struct buffer *edited, struct error *err)
{
    return yaml_remove_item(c->path, c->text.data, c->text.size, list, index, edited, err);
}

/* The last link of a node, as long as there is one. */
static bool find_link(const struct config *config, uint32_t node, uint32_t *index)
{
    for (uint32_t i = config->link_count; i-- > 0;)
        if (config->links[i].from == node || config->links[i].to == node) {
            *index = i;
            return true;
        }
    return false;
}

int cluster_file_remove(const char *path, const char *name, struct config_node *was, struct error *err)
{
    struct change c = {.path = path, .lock = -1};
    struct buffer edited = {0};
    struct config_node found;
    uint32_t index = 0, link;
    int rc = change_begin(&c, err);
    if (!rc) {
        while (index < c.config->node_count && strcmp(c.config->nodes[index].name, name))
            index++;
        if (index == c.config->node_count)
            rc = error_set(err, ERR_NOTFOUND, "%s has no node \"%s\"; 'brigade nodes -c %s' lists them", path, name,
                           path);
        else
            found = c.config->nodes[index];
    }
    while (!rc && find_link(c.config, index, &link)) { /* each time anew: the numbers change */
        if (!(rc = remove_from(&c, "links", link, &edited, err)))
            rc = change_take(&c, &edited, err);
    }
    uint32_t before = rc ? 0 : c.config->node_count;
    if (!rc && !(rc = remove_from(&c, "nodes", index, &edited, err)))
        rc = change_take(&c, &edited, err);
    if (!rc && c.config->node_count + 1 != before)
        rc = error_set(err, ERR_FORMAT, "%s: cannot take \"%s\" out as it is written; do it by hand", path, name);
    rc = change_finish(&c, &edited, rc, err);
    if (!rc)
        *was = found;
    return rc;
}
