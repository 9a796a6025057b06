/* The keys that clients may use. Constant after opening; any thread. */
#ifndef BRIGADE_COORDINATOR_API_KEYS_H
#define BRIGADE_COORDINATOR_API_KEYS_H

#include <stddef.h>

#include "base/error.h"

struct api_keys;

/* One key a line; empty lines and lines that begin with # do not count. ERR_FORMAT when there is none. */
int api_keys_read(const char *path, struct api_keys **out, struct error *err);
void api_keys_free(struct api_keys *k); /* NULL is fine */
/* The number of the key that an Authorization header bears ("Bearer KEY"), from 1; 0 when it bears none of ours. Takes
 * the same time wherever a wrong key differs and whichever key is right. */
unsigned api_keys_find(const struct api_keys *k, const char *authorization);

#endif
