/* What store.c and crate.c share. Nobody else includes this. */
#ifndef BRIGADE_WEIGHTS_CRATE_H
#define BRIGADE_WEIGHTS_CRATE_H

#include <fcntl.h>

#include "weights/store.h"

#define CRATE_NAME 34 /* 16 hexadecimal digits, '-', 16 more, NUL */

struct store {
    char *folder;
    uint64_t limit_bytes;
};

struct crate {
    char name[CRATE_NAME];
    char *path;
    const struct manifest *manifest;
    int fd, state_fd;
    const char *map;       /* file_bytes of the sparse file, read only; what is written shows here */
    uint8_t *bits;
    size_t bit_bytes;
    uint64_t bits_at;      /* in the state file */
};

/* The list in a state file; the caller's. */
int crate_read_list(const struct store *s, const char *name, struct manifest **out);
/* Gives back the chunks that are not wanted, if nobody else has the file open; whether any were. */
bool crate_drop_unwanted(struct crate *h, const uint8_t *wanted);

#endif
