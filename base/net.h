/* Addresses of this machine, as other machines on the network know them. Any thread; sends nothing. */
#ifndef BRIGADE_BASE_NET_H
#define BRIGADE_BASE_NET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define NET_ADDRESS_TEXT 72 /* an IPv4 or IPv6 address, terminated */
#define NET_INTERFACE_TEXT 16

/* The address from which packets to `host` would leave, by the routing table. ERR_NOTFOUND: no route, or no such host.
 */
int net_address_toward(const char *host, char out[static NET_ADDRESS_TEXT], struct error *err);
/* The first address of this machine that others can reach: IPv4 before IPv6, never loopback or link-local. ERR_NOTFOUND
 * when there is none. */
int net_own_address(char out[static NET_ADDRESS_TEXT], struct error *err);
/* The network interface that holds an address; false when none does. */
bool net_interface_of(const char *address, char out[static NET_INTERFACE_TEXT]);

/* Cuts "tcp://HOST:PORT" into host (without brackets) and port text; false when it is no such thing. */
bool net_split_endpoint(const char *endpoint, char *host, size_t host_size, char port[static 8]);
/* Whether a host to listen at means every address: "*", "0.0.0.0", "::". */
bool net_is_wildcard(const char *host);
/* "tcp://HOST:PORT", brackets added for IPv6; false when it does not fit. */
bool net_join_endpoint(const char *host, const char *port, char *out, size_t size);

#endif
