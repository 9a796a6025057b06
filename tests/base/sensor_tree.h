/* Unpacks a recorded tree of tests/fixtures/sensors into a folder of its own, which then serves as a board's root. */
#ifndef BRIGADE_TESTS_SENSOR_TREE_H
#define BRIGADE_TESTS_SENSOR_TREE_H

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One file below root, folders made on the way; "\n" in the text becomes a line's end. */
static inline int tree_put(const char *root, const char *name, const char *text)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0755);
        *slash = '/';
    }
    FILE *out = fopen(path, "w");
    if (!out)
        return -1;
    for (const char *c = text; *c; c++) {
        bool end = c[0] == '\\' && c[1] == 'n';
        fputc(end ? '\n' : *c, out);
        c += end;
    }
    fputc('\n', out);
    return fclose(out);
}

/* root receives the folder's name; 0, or -1 when the tree cannot be unpacked. */
static inline int tree_open(const char *name, char root[static 64])
{
    char path[512], line[4096];
    snprintf(path, sizeof path, TREES "/%s.tree", name);
    snprintf(root, 64, "/tmp/brigade-tree-XXXXXX");
    FILE *in = fopen(path, "r");
    int rc = in && mkdtemp(root) ? 0 : -1;
    while (!rc && fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        char *text = strchr(line, '\t');
        if (!text) {
            rc = -1;
            break;
        }
        *text = 0;
        rc = tree_put(root, line, text + 1);
    }
    if (in)
        fclose(in);
    return rc;
}

static inline int tree_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline void tree_close(const char *root)
{
    nftw(root, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
