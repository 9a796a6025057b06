/* Adding to and removing from lists of a YAML text: every other byte stays. And whole files: created, replaced, locked.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/yaml.h"
#include "base/yaml_edit.h"
#include "tests/check.h"
#include "tests/child.h"

static const struct yaml_pair pi[] = {{"name", "pi"}, {"endpoint", "tcp://10.0.0.9:7700"}, {"public_key", "a b"}};

static char *add(const char *text)
{
    struct buffer out = {0};
    struct error err = {0};
    if (yaml_add_item("c", text, strlen(text), "nodes", pi, 3, &out, &err)) {
        buffer_free(&out);
        return mem_printf("error: %s", err.text);
    }
    struct yaml_doc *doc = NULL;
    if (yaml_read_text(&doc, "c", out.data, out.size, &err))
        printf("    no longer YAML: %s\n%s\n", err.text, out.data);
    const struct yaml_value *nodes = doc ? yaml_find(yaml_root(doc), "nodes") : NULL;
    const struct yaml_value *last = nodes && yaml_count(nodes) ? yaml_item(nodes, yaml_count(nodes) - 1) : NULL;
    CHECK(last && yaml_find(last, "name") && !strcmp(yaml_scalar(yaml_find(last, "name"), NULL), "pi"));
    yaml_doc_free(doc);
    return buffer_steal(&out);
}

static char *take(const char *text, size_t index)
{
    struct buffer out = {0};
    struct error err = {0};
    if (yaml_remove_item("c", text, strlen(text), "nodes", index, &out, &err)) {
        buffer_free(&out);
        return mem_printf("error: %s", err.text);
    }
    return buffer_steal(&out);
}

#define ITEM(in) in "- name: pi\n" in "  endpoint: tcp://10.0.0.9:7700\n" in "  public_key: \"a b\"\n"
#define FLOW "{name: \"pi\", endpoint: \"tcp://10.0.0.9:7700\", public_key: \"a b\"}"

static void adding(void)
{
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"version: 1\nnodes: []  # none yet\nkv: {}\n", "version: 1\nnodes:  # none yet\n" ITEM("  ") "kv: {}\n"},
        {"nodes: []", "nodes:\n" ITEM("  ")},
        {"nodes:\nkv: {}\n", "nodes:\n" ITEM("  ") "kv: {}\n"},
        {"kv: {}", "kv: {}\nnodes:\n" ITEM("  ")},
        {"nodes:\n  - name: a   # first\n    memory: 1G\n    # its own remark\n\n# links of old\nlinks: []\n",
         "nodes:\n  - name: a   # first\n    memory: 1G\n    # its own remark\n" ITEM(
             "  ") "\n# links of old\nlinks: []\n"},
        {"nodes:\n- name: a\n", "nodes:\n- name: a\n" ITEM("")},
        {"nodes:\n  - {name: a, tags: [x, y]} # short\n", "nodes:\n  - {name: a, tags: [x, y]} # short\n" ITEM("  ")},
        {"nodes: [{name: a}, {name: \"]\"}] # all\nkv: 1\n",
         "nodes: [{name: a}, {name: \"]\"}, " FLOW "] # all\nkv: 1\n"},
        {"{version: 1, nodes: []}\n", "{version: 1, nodes: [" FLOW "]}\n"},
        {"\xEF\xBB\xBF# \xC3\xA4\xE2\x82\xAC\nnodes:\n  - name: \"\xC3\xBC\"\nx: 1\n",
         "\xEF\xBB\xBF# \xC3\xA4\xE2\x82\xAC\nnodes:\n  - name: \"\xC3\xBC\"\n" ITEM("  ") "x: 1\n"},
        {"# nodes: none\nother: {nodes: [1]}\nnodes:\n  -\n    name: a\n",
         "# nodes: none\nother: {nodes: [1]}\nnodes:\n  -\n    name: a\n" ITEM("  ")},
        {"{version: 1}\n", "error: c: has no list \"nodes\" to add to; write \"nodes: []\" there"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = strncmp(cases[i].after, "error", 5) ? add(cases[i].before) : NULL;
        if (!got) {
            struct buffer out = {0};
            struct error err = {0};
            CHECK_INT(yaml_add_item("c", cases[i].before, strlen(cases[i].before), "nodes", pi, 3, &out, &err),
                      ERR_FORMAT);
            got = mem_printf("error: %s", err.text);
            buffer_free(&out);
        }
        CHECK_TEXT(got, cases[i].after);
        mem_free(got);
    }
    char *windows = add("version: 1\r\nnodes: []\r\n");
    CHECK(strstr(windows, "nodes:\r\n  - name: pi\r\n") != NULL);
    mem_free(windows);
}

static void adding_texts(void)
{
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"allow: abc # one\n", "allow: [abc, \"k\"] # one\n"},
        {"allow: [\"abc\"]\n", "allow: [\"abc\", \"k\"]\n"},
        {"allow:\n  - abc\nkey: x\n", "allow:\n  - abc\n  - k\nkey: x\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer out = {0};
        CHECK_INT(yaml_add_item("w", cases[i].before, strlen(cases[i].before), "allow", &(struct yaml_pair){NULL, "k"},
                                1, &out, NULL),
                  0);
        CHECK_TEXT(out.data, cases[i].after);
        buffer_free(&out);
    }
}

static void removing(void)
{
    static const struct {
        const char *before, *after;
        size_t index;
    } cases[] = {
        {"nodes:\n  # a is old\n  - name: a # here\n    memory: 1G\n    # more\n  # b is new\n  - name: b\nx: 1\n",
         "nodes:\n  # a is old\n  # b is new\n  - name: b\nx: 1\n", 0},
        {"nodes:\n  - name: a\n  - name: b\n\n# end\n", "nodes:\n  - name: a\n\n# end\n", 1},
        {"nodes: # boards\n  - name: a\nx: 1\n", "nodes: [] # boards\nx: 1\n", 0},
        {"nodes:\n  -\n    name: a\n  -\n    name: b\n", "nodes:\n  -\n    name: a\n", 1},
        {"nodes: [{name: a}, {name: b}, {name: c}] # r\n", "nodes: [{name: b}, {name: c}] # r\n", 0},
        {"nodes: [{name: a}, {name: b}, {name: c}] # r\n", "nodes: [{name: a}, {name: b}] # r\n", 2},
        {"nodes: [{name: a}]\n", "nodes: []\n", 0},
        {"nodes: []\n", "error: c: \"nodes\" has no entry 0", 0},
        {"x: 1\n", "error: c: \"nodes\" has no entry 3", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = take(cases[i].before, cases[i].index);
        CHECK_TEXT(got, cases[i].after);
        mem_free(got);
    }
}

/* Adding and then removing the same item gives the first text back, wherever it had entries before. */
static void there_and_back(void)
{
    const char *text =
        "# top\nversion: 1\nnodes:\n  # one\n  - {name: a}\n\n  - name: b # two\n    x: 1\n\nkv: {} # end\n";
    char *more = add(text), *back = take(more, 2);
    CHECK_TEXT(back, text);
    mem_free(more);
    mem_free(back);
}

static int add_once(void *context)
{
    const char *text = "nodes:\n  - name: a\n  - name: b\n";
    struct buffer out = {0};
    struct error err = {0};
    int rc = yaml_add_item("c", text, strlen(text), "nodes", pi, 3, &out, &err);
    buffer_free(&out);
    (void)context;
    return rc == 0 ? 0 : rc == ERR_NOMEM && *err.text ? 1 : 2;
}

static void failing_allocations(void)
{
    int last = 1;
    for (long k = 1; k < 50 && last == 1; k++)
        last = child_run(add_once, NULL, k);
    CHECK_INT(last, 0);
}

static void files(void)
{
    char folder[] = "/tmp/brigade-file-XXXXXX", path[64], link[64];
    struct buffer text = {.limit = 100};
    struct error err = {0};
    struct stat st;
    REQUIRE(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.yaml", folder);
    snprintf(link, sizeof link, "%s/link.yaml", folder);
    CHECK_INT(file_read(path, &text, &err), ERR_NOTFOUND);
    CHECK_INT(file_replace(path, "x", 1, &err), ERR_NOTFOUND);
    CHECK_INT(file_create(path, "one\n", 4, 0640, &err), 0);
    CHECK_INT(file_create(path, "two\n", 4, 0640, &err), ERR_USAGE);
    CHECK_INT(symlink("a.yaml", link), 0);
    CHECK_INT(file_replace(link, "three\n", 6, &err), 0);
    CHECK_INT(file_read(path, &text, &err), 0);
    CHECK_TEXT(text.data, "three\n");
    CHECK(!lstat(link, &st) && S_ISLNK(st.st_mode));
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0640);
    text.limit = 8;
    CHECK_INT(file_read(path, &text, &err), ERR_BOUND);
    int one = -1, two = -1;
    CHECK_INT(file_lock_folder(path, 0, &one, &err), 0);
    CHECK_INT(file_lock_folder(path, 30, &two, &err), ERR_BUSY);
    close(one);
    CHECK_INT(file_lock_folder(path, 0, &two, &err), 0);
    close(two);
    buffer_free(&text);
    unlink(link);
    unlink(path);
    CHECK_INT(rmdir(folder), 0); /* nothing else was left there */
}

static const struct check_test tests[] = {
    {"adding an item", adding},
    {"adding a text", adding_texts},
    {"removing an item", removing},
    {"there and back", there_and_back},
    {"failing allocations", failing_allocations},
    {"whole files", files},
};

CHECK_MAIN(tests)
