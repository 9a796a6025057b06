/* Finding workers on the local network: the packets of DNS service discovery over multicast DNS (RFC 6762, RFC 6763),
 * as far as one kind of service, _brigade._tcp, needs them: a query, the answer to one, an announcement, and reading
 * all of these from bytes that may be anything. What is found is a hint, never trusted: keys are in cluster.yaml. Pure
 * functions; any thread. */
#ifndef BRIGADE_PROTO_DNS_SD_H
#define BRIGADE_PROTO_DNS_SD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/keys.h"

#define DNS_SD_PACKET_MAX 1400
#define DNS_SD_PORT 5353
#define DNS_SD_GROUP "224.0.0.251"
#define DNS_SD_TTL_SECONDS 120

struct dns_sd_service {
    char instance[64]; /* how lists show it; unique on the network */
    char host[64];     /* one label; ".local" follows */
    char name[64];     /* the node's own */
    char public_key[KEY_TEXT];
    char version[32];
    uint16_t port;
    uint8_t address[4]; /* IPv4; zeroes: not told */
};

/* A question for all services of our kind. Returns the packet's bytes. */
size_t dns_sd_query(uint8_t out[static DNS_SD_PACKET_MAX]);
/* Whether a packet asks something that this service answers. */
bool dns_sd_asks(const uint8_t *packet, size_t size, const struct dns_sd_service *s);
/* The service's records. ttl_seconds 0: it is going away. With `query` (a packet that asked from a port that is not
 * multicast DNS's), its number and question are repeated, as plain resolvers expect. 0: does not fit. */
size_t dns_sd_answer(const struct dns_sd_service *s, uint32_t ttl_seconds, const uint8_t *query, size_t query_size,
                     uint8_t out[static DNS_SD_PACKET_MAX]);
/* The services of our kind that an answer tells of, at most `most`; texts are made printable. Those that go away are
 * left out. */
size_t dns_sd_read(const uint8_t *packet, size_t size, struct dns_sd_service *out, size_t most);

#endif
