/* Multicast sockets for dns_sd.c's packets: the announcing thread of a worker, and the asking of a command. The thread
 * owns its socket; stopping rings a waker. */
#include "proto/discovery.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/net.h"
#include "proto/hub.h"
#include "proto/join.h"

#define JOIN_AGAIN_MS 30000 /* interfaces come and go */
#define INTERFACES_MAX 32

struct announcer {
    struct dns_sd_service service;
    bool any_address; /* listens everywhere: tell the address of the interface that asks */
    int fd;
    pthread_t thread;
    struct waker *waker;
    _Atomic bool stop;
};

static struct sockaddr_in group_address(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    to.sin_port = htons(DNS_SD_PORT);
    inet_pton(AF_INET, DNS_SD_GROUP, &to.sin_addr);
    return to;
}

struct interface {
    unsigned index;
    struct in_addr address;
};

/* The interfaces that can multicast, loopback left out. */
static size_t list_interfaces(struct interface out[static INTERFACES_MAX])
{
    struct ifaddrs *all = NULL;
    size_t n = 0;
    if (getifaddrs(&all))
        return 0;
    for (const struct ifaddrs *a = all; a && n < INTERFACES_MAX; a = a->ifa_next)
        if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && (a->ifa_flags & IFF_UP) &&
            (a->ifa_flags & IFF_MULTICAST) && !(a->ifa_flags & IFF_LOOPBACK))
            out[n++] = (struct interface){if_nametoindex(a->ifa_name), ((struct sockaddr_in *)a->ifa_addr)->sin_addr};
    freeifaddrs(all);
    return n;
}

static void send_on(int fd, const struct interface *i, const uint8_t *packet, size_t n)
{
    struct ip_mreqn request = {.imr_address = i->address, .imr_ifindex = (int)i->index};
    struct sockaddr_in to = group_address();
    if (!setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) &&
        sendto(fd, packet, n, 0, (struct sockaddr *)&to, sizeof to) < 0)
        log_debug("multicast: cannot send: %s", strerror(errno));
}

/* ---- A worker ---------------------------------------------------------------------------------------------------- */

static void tell_all(struct announcer *a, uint32_t ttl_seconds)
{
    struct interface list[INTERFACES_MAX];
    size_t count = list_interfaces(list);
    for (size_t i = 0; i < count; i++) {
        uint8_t packet[DNS_SD_PACKET_MAX];
        struct dns_sd_service s = a->service;
        if (a->any_address)
            memcpy(s.address, &list[i].address, 4);
        send_on(a->fd, &list[i], packet, dns_sd_answer(&s, ttl_seconds, NULL, 0, packet));
    }
}

static void join_all(struct announcer *a)
{
    struct interface list[INTERFACES_MAX];
    size_t count = list_interfaces(list);
    for (size_t i = 0; i < count; i++) {
        struct ip_mreqn request = {.imr_address = list[i].address, .imr_ifindex = (int)list[i].index};
        request.imr_multiaddr = group_address().sin_addr;
        if (setsockopt(a->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) && errno != EADDRINUSE)
            log_debug("multicast: cannot listen on interface %u: %s", list[i].index, strerror(errno));
    }
}

static void answer_one(struct announcer *a)
{
    uint8_t query[9000], packet[DNS_SD_PACKET_MAX];
    union {
        char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
        struct cmsghdr align;
    } control;
    struct sockaddr_in from;
    struct iovec piece = {query, sizeof query};
    struct msghdr m = {.msg_name = &from,
                       .msg_namelen = sizeof from,
                       .msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    ssize_t n = recvmsg(a->fd, &m, MSG_DONTWAIT);
    if (n <= 0 || !dns_sd_asks(query, (size_t)n, &a->service))
        return;
    struct dns_sd_service s = a->service;
    struct interface came = {0};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            came = (struct interface){(unsigned)info.ipi_ifindex, info.ipi_spec_dst};
        }
    if (a->any_address)
        memcpy(s.address, &came.address, 4);
    bool plain = ntohs(from.sin_port) != DNS_SD_PORT; /* a plain resolver: answered to itself alone */
    size_t size = dns_sd_answer(&s, DNS_SD_TTL_SECONDS, plain ? query : NULL, (size_t)n, packet);
    if (plain && size)
        sendto(a->fd, packet, size, MSG_DONTWAIT, (struct sockaddr *)&from, sizeof from);
    else if (size)
        send_on(a->fd, &came, packet, size);
}

static void *announcer_thread(void *context)
{
    struct announcer *a = context;
    struct pollfd fds[2] = {{.fd = a->fd, .events = POLLIN}, {.fd = waker_fd(a->waker), .events = POLLIN}};
    int64_t joined = clock_ms();
    join_all(a);
    tell_all(a, DNS_SD_TTL_SECONDS);
    for (bool again = true; !a->stop;) {
        if (poll(fds, 2, again ? 1000 : JOIN_AGAIN_MS) < 0 && errno != EINTR)
            break;
        if (fds[0].revents)
            answer_one(a);
        if (again && clock_ms() - joined >= 1000) { /* once more: the first one may have been lost */
            tell_all(a, DNS_SD_TTL_SECONDS);
            again = false;
        }
        if (clock_ms() - joined >= JOIN_AGAIN_MS) {
            joined = clock_ms();
            join_all(a);
        }
    }
    tell_all(a, 0);
    return NULL;
}

static int open_socket(uint16_t port, int *out, struct error *err)
{
    int one = 1, ttl = 255, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
        (port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one)) ||
        setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one) ||
        setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl) ||
        bind(fd, (struct sockaddr *)&own, sizeof own)) {
        int rc = error_set(err, ERR_IO, "multicast DNS: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *out = fd;
    return 0;
}

int announcer_start(const char *name, const char *endpoint, int port, const char *public_key, struct announcer **out,
                    struct error *err)
{
    char host[256], number[8], fingerprint[JOIN_FINGERPRINT_TEXT];
    struct in_addr address = {0};
    sigset_t all, before;
    if (!net_split_endpoint(endpoint, host, sizeof host, number))
        return error_set(err, ERR_USAGE, "\"%.80s\" is no endpoint", endpoint);
    bool any = net_is_wildcard(host);
    if (!any && (inet_pton(AF_INET, host, &address) != 1 || ntohl(address.s_addr) >> 24 == 127))
        return error_set(err, ERR_UNSUPPORTED, "%s is not announced: no IPv4 address that others reach", endpoint);
    struct announcer *a = mem_zalloc(1, sizeof *a);
    if (!a)
        return error_set(err, ERR_NOMEM, "no memory for announcing this worker");
    join_fingerprint(public_key, fingerprint);
    a->fd = -1;
    a->any_address = any;
    memcpy(a->service.address, &address, 4);
    a->service.port = (uint16_t)port;
    snprintf(a->service.name, sizeof a->service.name, "%s", name);
    snprintf(a->service.instance, sizeof a->service.instance, "%.50s [%.4s]", name, fingerprint);
    snprintf(a->service.host, sizeof a->service.host, "brigade-%s", fingerprint);
    snprintf(a->service.public_key, sizeof a->service.public_key, "%s", public_key);
    snprintf(a->service.version, sizeof a->service.version, "%s", BRIGADE_VERSION);
    int rc = open_socket(DNS_SD_PORT, &a->fd, err);
    if (!rc)
        rc = waker_create(&a->waker, err);
    if (!rc) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
        rc = pthread_create(&a->thread, NULL, announcer_thread, a);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (rc)
            rc = error_set(err, ERR_NOMEM, "cannot start the announcing thread: %s", strerror(rc));
    }
    if (rc) {
        if (a->waker)
            waker_destroy(a->waker);
        if (a->fd >= 0)
            close(a->fd);
        mem_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void announcer_stop(struct announcer *a)
{
    if (!a)
        return;
    a->stop = true;
    waker_ring(a->waker);
    pthread_join(a->thread, NULL);
    waker_destroy(a->waker);
    close(a->fd);
    mem_free(a);
}

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

static void take_answers(int fd, struct dns_sd_service *list, size_t *count)
{
    uint8_t packet[9000];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    ssize_t n;
    while ((n = recvfrom(fd, packet, sizeof packet, MSG_DONTWAIT, (struct sockaddr *)&from, &size)) > 0) {
        struct dns_sd_service found[8];
        size_t got = dns_sd_read(packet, (size_t)n, found, 8);
        for (size_t i = 0; i < got; i++) {
            bool known = *count == DISCOVERY_MAX;
            if (!memcmp(found[i].address, "\0\0\0\0", 4))
                memcpy(found[i].address, &from.sin_addr, 4);
            for (size_t k = 0; k < *count && !known; k++)
                known = !strcmp(list[k].instance, found[i].instance);
            if (!known)
                list[(*count)++] = found[i];
        }
    }
}

int discovery_ask(int timeout_ms, struct dns_sd_service **out, size_t *count, struct error *err)
{
    struct interface interfaces[INTERFACES_MAX];
    uint8_t query[DNS_SD_PACKET_MAX];
    size_t size = dns_sd_query(query), found = 0, n = list_interfaces(interfaces);
    int fd = -1;
    if (!n)
        return error_set(err, ERR_IO, "no network interface here can multicast; is the network up?");
    struct dns_sd_service *list = mem_zalloc(DISCOVERY_MAX, sizeof *list);
    int rc = list ? open_socket(0, &fd, err) : error_set(err, ERR_NOMEM, "no memory for what is found");
    int64_t started = clock_ms(), asked = 0;
    while (!rc && clock_ms() - started < timeout_ms) {
        int64_t now = clock_ms();
        if (!asked || now - asked >= timeout_ms / 2) { /* twice: a packet may be lost */
            asked = now;
            for (size_t i = 0; i < n; i++)
                send_on(fd, &interfaces[i], query, size);
        }
        poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 50);
        take_answers(fd, list, &found);
    }
    if (fd >= 0)
        close(fd);
    if (rc) {
        mem_free(list);
        return rc;
    }
    *out = list;
    *count = found;
    return 0;
}
