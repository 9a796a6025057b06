/* The strict YAML reader: what it accepts, and the one line it gives for everything it refuses. */
#include "tests/check.h"

#include <unistd.h>

#include "base/memory.h"
#include "base/yaml.h"

static int read_text(struct yaml_doc **doc, const char *text, struct error *e)
{
    return yaml_read_text(doc, "f.yaml", text, strlen(text), e);
}

static void refused(const char *text, int code, const char *why)
{
    struct yaml_doc *doc = NULL;
    struct error e = {0};
    CHECK_INT(read_text(&doc, text, &e), code);
    CHECK(doc == NULL);
    CHECK_TEXT(e.text, why);
}

static const char cluster[] = "version: 1\n"
                              "nodes:\n"
                              "  - name: pi\n"
                              "    memory: 7.2e9   # bytes\n"
                              "    on: true\n"
                              "  - {name: \"5\", memory: 200000000, on: no}\n"
                              "pin: null\n"
                              "tilde: ~\n"
                              "empty:\n"
                              "quoted: \"null\"\n"
                              "links: {pairs: [{a: x, b: y, rtt: 2.5e3}]}\n"
                              "below:\n"
                              "\n"
                              "  deep: {}\n";

static void values_have_types_lines_and_paths(void)
{
    struct yaml_doc *doc;
    struct error e = {0};
    REQUIRE(!read_text(&doc, cluster, &e));
    const struct yaml_value *root = yaml_root(doc), *nodes, *v;
    int64_t n = -1;
    double d = -1;
    bool b = false;
    const char *text = NULL;
    CHECK_INT(yaml_need_int(root, "version", 1, 1, &n, &e), 0);
    CHECK_INT(n, 1);
    REQUIRE(!yaml_need_sequence(root, "nodes", 1, 2, &nodes, &e));
    CHECK_INT(yaml_count(nodes), 2);
    CHECK_INT(yaml_line(nodes), 2);
    CHECK(yaml_item(nodes, 2) == NULL);
    CHECK_INT(yaml_need_double(yaml_item(nodes, 0), "memory", 0, 1e12, &d, &e), 0);
    CHECK_NEAR(d, 7.2e9, 0);
    CHECK_INT(yaml_need_int(yaml_item(nodes, 0), "memory", 0, INT64_MAX, &n, &e), 0);
    CHECK_INT(n, 7200000000);
    CHECK_INT(yaml_want_bool(yaml_item(nodes, 0), "on", &b, &e), 0);
    CHECK(b);
    CHECK_INT(yaml_need_text(yaml_item(nodes, 1), "name", &text, &e), 0);
    CHECK_TEXT(text, "5");
    CHECK_TEXT(yaml_key(yaml_item(nodes, 1), 1), "memory");
    CHECK(yaml_is_null(yaml_find(root, "pin")) && yaml_is_null(yaml_find(root, "tilde")) &&
          yaml_is_null(yaml_find(root, "empty")) && !yaml_is_null(yaml_find(root, "quoted")));
    CHECK(yaml_find(root, "absent") == NULL && yaml_find(nodes, "absent") == NULL);

    /* An absent or null key keeps the default. */
    text = "default";
    CHECK_INT(yaml_want_text(root, "pin", &text, &e), 0);
    CHECK_INT(yaml_want_text(root, "absent", &text, &e), 0);
    CHECK_TEXT(text, "default");

    /* Every wrong question has an answer that says where. */
    CHECK_INT(yaml_want_bool(yaml_item(nodes, 1), "on", &b, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:6: nodes[1].on: expected true or false, not \"no\"");
    CHECK_INT(yaml_need_int(yaml_item(nodes, 1), "name", 0, 9, &n, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:6: nodes[1].name: expected a whole number, not the quoted text \"5\"");
    CHECK_INT(yaml_need_int(yaml_item(nodes, 1), "memory", 0, 9, &n, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:6: nodes[1].memory: 200000000 is too large; the most is 9");
    CHECK_INT(yaml_need_double(yaml_item(nodes, 1), "memory", 3e8, 4e8, &d, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:6: nodes[1].memory: 200000000 is too small; the least is 3e+08");
    CHECK_INT(yaml_need_text(root, "nodes", &text, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:2: nodes: expected a text, not a list");
    CHECK_INT(yaml_need_text(root, "pin", &text, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:7: pin: expected a text, not null");
    CHECK_INT(yaml_need_text(root, "name", &text, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:1: \"name\" is missing");
    CHECK_INT(yaml_need_mapping(root, "nodes", &v, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:2: nodes: expected a mapping (key: value), not a list");
    CHECK_INT(yaml_need_sequence(root, "nodes", 3, 9, &v, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:2: nodes: 2 entries; at least 3 are needed");
    CHECK_INT(yaml_need_sequence(root, "nodes", 0, 1, &v, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:2: nodes: 2 entries; at most 1 are allowed");
    REQUIRE(!yaml_need_mapping(root, "links", &v, &e));
    REQUIRE(!yaml_need_sequence(v, "pairs", 0, 9, &v, &e));
    CHECK_INT(yaml_need_double(yaml_item(v, 0), "a", 0, 1, &d, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:11: links.pairs[0].a: expected a number, not \"x\"");
    CHECK_INT(yaml_need_int(yaml_item(v, 0), "rtt", 0, 2500, &n, &e), 0);
    CHECK_INT(n, 2500);
    CHECK_INT(yaml_line(yaml_find(root, "below")), 12);
    CHECK_NEAR(d, 7.2e9, 0);
    yaml_doc_free(doc);
}

static void unknown_keys_name_the_known_ones(void)
{
    static const char *const known[] = {"name", "memory", "on", NULL}, *const top[] = {"version", "nodes", NULL};
    struct yaml_doc *doc;
    struct error e = {0};
    REQUIRE(!read_text(&doc, "version: 1\nnodes:\n  - name: pi\n    memroy:\n      6G\n", &e));
    const struct yaml_value *nodes = yaml_find(yaml_root(doc), "nodes");
    CHECK_INT(yaml_only_keys(yaml_item(nodes, 0), known, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:4: unknown key \"memroy\" in nodes[0]; known: name, memory, on");
    CHECK_INT(yaml_only_keys(yaml_root(doc), top, &e), 0);
    CHECK_INT(yaml_only_keys(yaml_root(doc), known, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:1: unknown key \"version\"; known: name, memory, on");
    CHECK_INT(yaml_only_keys(nodes, known, &e), ERR_FORMAT);
    CHECK_TEXT(e.text, "f.yaml:2: nodes: expected a mapping (key: value), not a list");
    yaml_doc_free(doc);
}

static void whole_numbers_are_strict(void)
{
    static const char *const good[] = {"12", "-3", "2.0e8", "1e3"};
    static const int64_t want[] = {12, -3, 200000000, 1000};
    static const char *const bad[] = {"1.5", "0x10", "1_000", "12k", ".inf", ".nan", "nan", "''", "1 2", "true", "[1]"};
    struct yaml_doc *doc;
    struct error e;
    int64_t n = 0;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        REQUIRE(!read_text(&doc, good[i], &e));
        CHECK_INT(yaml_int(yaml_root(doc), INT64_MIN, INT64_MAX, &n, &e), 0);
        CHECK_INT(n, want[i]);
        yaml_doc_free(doc);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REQUIRE(!read_text(&doc, bad[i], &e));
        CHECK_INT(yaml_int(yaml_root(doc), INT64_MIN, INT64_MAX, &n, &e), ERR_FORMAT);
        CHECK_INT(n, 1000);
        yaml_doc_free(doc);
    }
    REQUIRE(!read_text(&doc, "1e300", &e));
    CHECK_INT(yaml_int(yaml_root(doc), 0, 100, &n, &e), ERR_BOUND);
    yaml_doc_free(doc);
}

static void hostile_texts_are_refused(void)
{
    refused("", ERR_FORMAT, "f.yaml: empty; nothing to read");
    refused("# only a comment\n", ERR_FORMAT, "f.yaml: empty; nothing to read");
    refused("a: 1\nb: 2\na: 3\n", ERR_FORMAT, "f.yaml:3: duplicate key \"a\" (first on line 1); remove one of them");
    refused("a: &x 1\nb: *x\n", ERR_UNSUPPORTED,
            "f.yaml:1: anchors and aliases (& and *) are not supported; write the value out");
    refused("b: 1\na: *x\n", ERR_UNSUPPORTED,
            "f.yaml:2: anchors and aliases (& and *) are not supported; write the value out");
    refused("a: !!int 1\n", ERR_UNSUPPORTED, "f.yaml:1: tags (!) are not supported; quote a text that starts with !");
    refused("a: 1\n---\nb: 2\n", ERR_FORMAT, "f.yaml:2: a second document; only one is read");
    refused("a: 1\n[1, 2]: 3\n", ERR_FORMAT, "f.yaml:2: a key must be a plain text, not a list or a mapping");
    refused("a: \"x\\0y\"\n", ERR_FORMAT, "f.yaml:1: a text holds a NUL byte");

    struct yaml_doc *doc = NULL;
    struct error e = {0};
    static const char *const broken[] = {"a: [1, 2", "a: 1\n b: 2\n", "\t- x", "a: \"unclosed", "%BAD\n---\n", "}",
                                         "a: 1\nb", "\xff\xfe", "a: \xc3\x28", "- a\nb: 1\n", "? [", "a: |9z\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        CHECK_INT(read_text(&doc, broken[i], &e), ERR_FORMAT);
        CHECK(!strncmp(e.text, "f.yaml:", 7) && !strchr(e.text, '\n'));
    }
    CHECK_INT(yaml_read_text(&doc, "f.yaml", "a: \0b", 5, &e), ERR_FORMAT);
    CHECK(doc == NULL);
}

static void everything_is_bounded(void)
{
    struct yaml_doc *doc = NULL;
    struct error e = {0};
    size_t big = YAML_MAX_BYTES + 1;
    char *text = mem_alloc(big);
    REQUIRE(text);
    memset(text, '[', big);
    CHECK_INT(yaml_read_text(&doc, "f.yaml", text, big, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml: larger than 1 MiB; this is not a configuration file");
    CHECK_INT(yaml_read_text(&doc, "f.yaml", text, big - 1, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:1: nested more than 32 deep");
    for (size_t i = 0; i < big; i++)
        text[i] = i % 2 ? ',' : i ? '0' : '[';
    CHECK_INT(yaml_read_text(&doc, "f.yaml", text, big - 1, &e), ERR_FORMAT);
    text[1] = '1';
    CHECK_INT(yaml_read_text(&doc, "f.yaml", text, big - 1, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:1: more than 65536 values in one file");
    size_t used = 0;
    for (int i = 0; i <= YAML_MAX_KEYS; i++)
        used += (size_t)snprintf(text + used, big - used, "k%d: 0\n", i);
    CHECK_INT(yaml_read_text(&doc, "f.yaml", text, used, &e), ERR_BOUND);
    CHECK_TEXT(e.text, "f.yaml:1025: more than 1024 keys in one mapping");
    mem_free(text);
}

/* Every prefix of a good file, and every file with one byte changed, is read or refused in one line. */
static void damaged_files_never_crash(void)
{
    size_t n = sizeof cluster - 1;
    char copy[sizeof cluster];
    for (size_t i = 0; i <= n; i++)
        for (int byte = -1; byte < 256; byte += 5) {
            struct yaml_doc *doc = NULL;
            struct error e = {0};
            memcpy(copy, cluster, sizeof copy);
            if (byte >= 0 && i < n)
                copy[i] = (char)byte;
            int rc = yaml_read_text(&doc, "f.yaml", copy, byte < 0 ? i : n, &e);
            CHECK(rc == 0 ? doc != NULL : doc == NULL && e.code == rc && e.text[0] && !strchr(e.text, '\n'));
            yaml_doc_free(doc);
        }
}

static void files_are_read_whole(void)
{
    char path[] = "/tmp/brigade-yaml-XXXXXX";
    struct yaml_doc *doc = NULL;
    struct error e = {0};
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    CHECK(write(fd, cluster, sizeof cluster - 1) == (ssize_t)(sizeof cluster - 1));
    close(fd);
    CHECK_INT(yaml_read_file(&doc, path, &e), 0);
    CHECK(doc && yaml_count(yaml_root(doc)) == 8);
    yaml_doc_free(doc);
    doc = NULL;
    CHECK_INT(truncate(path, 0), 0);
    CHECK_INT(yaml_read_file(&doc, path, &e), ERR_FORMAT);
    CHECK_INT(truncate(path, (off_t)YAML_MAX_BYTES + 1), 0);
    CHECK_INT(yaml_read_file(&doc, path, &e), ERR_BOUND);
    unlink(path);
    CHECK_INT(yaml_read_file(&doc, path, &e), ERR_NOTFOUND);
    CHECK_INT(yaml_read_file(&doc, "/", &e), ERR_IO);
    CHECK(doc == NULL);
}

static const struct check_test tests[] = {
    {"values have types, lines and paths", values_have_types_lines_and_paths},
    {"unknown keys name the known ones", unknown_keys_name_the_known_ones},
    {"whole numbers are strict", whole_numbers_are_strict},
    {"hostile texts are refused", hostile_texts_are_refused},
    {"everything is bounded", everything_is_bounded},
    {"damaged files never crash", damaged_files_never_crash},
    {"files are read whole", files_are_read_whole},
};

CHECK_MAIN(tests)
