/* Own addresses and endpoint texts. Owns nothing; any thread. */
#include "base/net.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int net_address_toward(const char *host, char out[static NET_ADDRESS_TEXT], struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    int rc = getaddrinfo(host, "9", &hints, &found);
    if (rc)
        return error_set(err, ERR_NOTFOUND, "%s: %s", host, gai_strerror(rc));
    /* Connecting a datagram socket only looks up the route. */
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[NET_ADDRESS_TEXT];
    bool good = fd >= 0 && !connect(fd, found->ai_addr, found->ai_addrlen) &&
                !getsockname(fd, (struct sockaddr *)&own, &size) &&
                !getnameinfo((struct sockaddr *)&own, size, text, sizeof text, NULL, 0, NI_NUMERICHOST);
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    if (!good)
        return error_set(err, ERR_NOTFOUND, "there is no route to %s; is this machine's network up?", host);
    memcpy(out, text, sizeof text);
    return 0;
}

/* Whether others on the network could use it. */
static bool is_reachable(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        uint32_t ip = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
        return ip >> 24 != 127 && ip >> 16 != 0xA9FE;
    }
    if (address->sa_family != AF_INET6)
        return false;
    const struct in6_addr *ip = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return !IN6_IS_ADDR_LOOPBACK(ip) && !IN6_IS_ADDR_LINKLOCAL(ip);
}

static bool address_text(const struct sockaddr *address, char out[static NET_ADDRESS_TEXT])
{
    socklen_t size = address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    return !getnameinfo(address, size, out, NET_ADDRESS_TEXT, NULL, 0, NI_NUMERICHOST);
}

int net_own_address(char out[static NET_ADDRESS_TEXT], struct error *err)
{
    static const int families[] = {AF_INET, AF_INET6};
    struct ifaddrs *all = NULL;
    bool found = false;
    if (getifaddrs(&all))
        return error_set(err, ERR_IO, "cannot list this machine's network addresses");
    for (size_t f = 0; f < 2 && !found; f++)
        for (const struct ifaddrs *a = all; a && !found; a = a->ifa_next)
            found = a->ifa_addr && a->ifa_addr->sa_family == families[f] && (a->ifa_flags & IFF_UP) &&
                    is_reachable(a->ifa_addr) && address_text(a->ifa_addr, out);
    freeifaddrs(all);
    return found ? 0
                 : error_set(err, ERR_NOTFOUND, "this machine has no network address but loopback; name one to use");
}

bool net_interface_of(const char *address, char out[static NET_INTERFACE_TEXT])
{
    struct ifaddrs *all = NULL;
    char text[NET_ADDRESS_TEXT];
    bool found = false;
    if (getifaddrs(&all))
        return false;
    for (const struct ifaddrs *a = all; a && !found; a = a->ifa_next)
        if (a->ifa_addr && (a->ifa_addr->sa_family == AF_INET || a->ifa_addr->sa_family == AF_INET6) &&
            address_text(a->ifa_addr, text) && !strcmp(text, address)) {
            snprintf(out, NET_INTERFACE_TEXT, "%s", a->ifa_name);
            found = true;
        }
    freeifaddrs(all);
    return found;
}

bool net_split_endpoint(const char *endpoint, char *host, size_t host_size, char port[static 8])
{
    const char *start = endpoint + 6, *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) || colon <= start || strlen(colon + 1) > 7 || !colon[1])
        return false;
    size_t n = (size_t)(colon - start);
    bool bracketed = n > 2 && *start == '[' && start[n - 1] == ']';
    n -= bracketed ? 2 : 0;
    if (n >= host_size)
        return false;
    snprintf(host, host_size, "%.*s", (int)n, start + bracketed);
    snprintf(port, 8, "%s", colon + 1);
    return true;
}

bool net_is_wildcard(const char *host)
{
    return !strcmp(host, "*") || !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

bool net_join_endpoint(const char *host, const char *port, char *out, size_t size)
{
    bool v6 = strchr(host, ':') != NULL;
    int n = snprintf(out, size, "tcp://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
    return n > 0 && (size_t)n < size;
}
