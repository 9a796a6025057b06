/* Changing cluster.yaml for a person: comments, order and everything else stay as they wrote it. A change is made under
 * the folder's lock, read again by config_read_text before it counts, and takes the file's place at once. One thread.
 */
#ifndef BRIGADE_COORDINATOR_CORE_CLUSTER_FILE_H
#define BRIGADE_COORDINATOR_CORE_CLUSTER_FILE_H

#include "base/error.h"
#include "coordinator/core/config.h"

/* A new cluster without nodes: the commented file and, beside it, a coordinator key of this file name (mode 0600; one
 * that exists already is taken over). ERR_USAGE when the file exists. public_key receives the coordinator's. */
int cluster_file_init(const char *path, const char *key_name, char public_key[static KEY_TEXT], struct error *err);
/* Enters a node. *changed false: it stood there already, with this key, name and endpoint. ERR_USAGE when the name,
 * endpoint or key is another node's; ERR_BOUND when the file is full. */
int cluster_file_add(const char *path, const char *name, const char *endpoint, const char *public_key, bool *changed,
                     struct error *err);
/* Takes a node out, with the links that name it. *was receives what stood there. ERR_NOTFOUND. */
int cluster_file_remove(const char *path, const char *name, struct config_node *was, struct error *err);

#endif
