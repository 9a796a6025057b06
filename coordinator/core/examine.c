/* One control link a node, a few questions each. One thread beside the hub's. */
#include "coordinator/core/examine.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/net.h"
#include "base/sensors.h"

#define BEATS 5         /* round trips; the least counts */
#define PADDING 65536   /* more than any MTU */
#define PADDING_MS 1500 /* a large reply that has not come then does not come */
#define ANSWER_MS 2000  /* of a connected worker */

enum { ASK_HELLO = 1, ASK_REPORT, ASK_PADDED, ASK_BEAT };

struct patient {
    struct link *link;
    struct node_facts *facts;
    char own[NET_ADDRESS_TEXT]; /* our address on the way to it */
    bool greeted, done;
    int beats;
    int64_t greeted_ms, asked_us, padded_ms;
};

static int64_t wall_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What our kernel knows without asking the node: its address, our interface, the way's MTU. */
static void look_from_here(struct patient *p)
{
    struct node_facts *n = p->facts;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    struct sensors_interface link;
    char host[256], port[8], name[NET_INTERFACE_TEXT];
    if (!net_split_endpoint(n->node->endpoint, host, sizeof host, port) || getaddrinfo(host, port, &hints, &found))
        return;
    getnameinfo(found->ai_addr, found->ai_addrlen, n->address, sizeof n->address, NULL, 0, NI_NUMERICHOST);
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = 0;
    socklen_t size = sizeof mtu;
    bool v6 = found->ai_family == AF_INET6;
    if (fd >= 0 && !connect(fd, found->ai_addr, found->ai_addrlen) &&
        !getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu, &size) && mtu > 0)
        n->path_mtu = (uint32_t)mtu;
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    if (!net_address_toward(n->address, p->own, NULL) && net_interface_of(p->own, name)) {
        sensors_read_interface(sensors_root(), name, &link);
        n->own_mtu = link.mtu;
    }
}

static void say(struct patient *p, struct control_message *m, uint64_t request)
{
    struct buffer bytes = {0};
    m->request = request;
    if (!control_encode(m, &bytes, NULL))
        link_send(p->link, NULL, &(struct frame_part){bytes.data, bytes.size}, 1, NULL);
    buffer_free(&bytes);
}

static void ask_report(struct patient *p, uint32_t padding, uint64_t request)
{
    struct control_message m = {.kind = CONTROL_EXAMINE};
    snprintf(m.u.examine.address, sizeof m.u.examine.address, "%s", p->own);
    m.u.examine.padding_bytes = padding;
    say(p, &m, request);
}

static void ask_beat(struct patient *p)
{
    struct control_message m = {.kind = CONTROL_HEARTBEAT};
    p->asked_us = clock_us();
    say(p, &m, ASK_BEAT);
}

static void take_report(struct patient *p, const struct control_message *m)
{
    struct node_facts *n = p->facts;
    if (m->request == ASK_PADDED) {
        n->padded = m->u.report.padding_bytes == PADDING;
        p->done = true;
        return;
    }
    n->reported = true;
    n->report = m->u.report;
    n->clock_offset_us = m->u.report.clock_us - wall_us();
    n->clock_error_us = clock_us() - p->asked_us;
    p->padded_ms = clock_ms();
    ask_report(p, PADDING, ASK_PADDED);
}

static void take(struct patient *p, const struct control_message *m)
{
    struct node_facts *n = p->facts;
    switch (m->kind) {
    case CONTROL_WELCOME:
        n->welcomed = true;
        snprintf(n->name, sizeof n->name, "%s", m->u.welcome.name);
        snprintf(n->program_version, sizeof n->program_version, "%s", m->u.welcome.program_version);
        snprintf(n->isa, sizeof n->isa, "%s", m->u.welcome.isa);
        snprintf(n->cpu, sizeof n->cpu, "%s", m->u.welcome.cpu);
        n->kernels_version = m->u.welcome.kernels_version;
        n->memory_bytes = m->u.welcome.memory_bytes;
        n->has_loaded = m->u.welcome.has_loaded;
        ask_beat(p);
        break;
    case CONTROL_HEARTBEAT_REPLY: {
        double rtt = (double)(clock_us() - p->asked_us) / 1e6;
        if (n->rtt_seconds <= 0 || rtt < n->rtt_seconds)
            n->rtt_seconds = rtt;
        if (++p->beats < BEATS) {
            ask_beat(p);
        } else {
            p->asked_us = clock_us();
            ask_report(p, 0, ASK_REPORT);
        }
        break;
    }
    case CONTROL_REPORT:
        take_report(p, m);
        break;
    case CONTROL_FAILURE: /* an older worker does not know the question; another protocol says so */
        if (!n->welcomed)
            error_set(&n->refusal, m->u.failure.code, "%s", m->u.failure.text);
        p->done = true;
        break;
    default:
        break;
    }
}

static void hear(struct patient *p)
{
    struct link_message in;
    struct control_message m;
    struct error bad = {0};
    while (link_receive(p->link, &in, &bad) > 0) {
        int rc = in.part_count == 1 ? control_decode(in.parts[0].data, in.parts[0].size, &m, &bad) : ERR_FORMAT;
        if (!rc) {
            take(p, &m);
            control_free(&m);
        } else if (!p->facts->refusal.code) {
            error_set(&p->facts->refusal, rc, "%s", *bad.text ? bad.text : "it sends what is no message");
            p->done = true;
        }
        link_message_free(&in);
    }
}

/* The link's state, and what has waited long enough. */
static void look(struct patient *p)
{
    struct node_facts *n = p->facts;
    int64_t now = clock_ms();
    n->link = link_state(p->link, n->link_text, sizeof n->link_text);
    if (n->link == LINK_REFUSED)
        p->done = true;
    if (n->link == LINK_UP && !p->greeted) {
        struct control_message hello = {.kind = CONTROL_HELLO};
        snprintf(hello.u.hello.program_version, sizeof hello.u.hello.program_version, "%s", BRIGADE_VERSION);
        p->greeted = true;
        p->greeted_ms = now;
        say(p, &hello, ASK_HELLO);
    }
    if (p->padded_ms && now - p->padded_ms > PADDING_MS)
        p->done = true;
    if (p->greeted && !n->reported && now - p->greeted_ms > ANSWER_MS)
        p->done = true;
}

static int examine_all(struct patient *patients, struct link **links, bool *ready, uint32_t count, int timeout_ms,
                       const volatile sig_atomic_t *stop, struct error *err)
{
    for (int64_t until = clock_ms() + timeout_ms; clock_ms() < until;) {
        uint32_t waiting = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (patients[i].done)
                continue;
            hear(&patients[i]);
            look(&patients[i]);
            waiting += !patients[i].done;
        }
        if (!waiting)
            return 0;
        if (*stop)
            return error_set(err, ERR_CANCELLED, "interrupted");
        int rc = link_wait(links, count, NULL, 20, ready);
        if (rc < 0)
            return error_set(err, rc, "waiting for the nodes: %s", error_name(rc));
    }
    return 0;
}

int examine(const struct config *config, int timeout_ms, const volatile sig_atomic_t *stop, struct node_facts *facts,
            struct error *err)
{
    uint32_t count = config->node_count;
    struct patient *patients = mem_zalloc(count + 1, sizeof *patients);
    struct link **links = mem_zalloc(count + 1, sizeof *links);
    bool *ready = mem_zalloc(count + 1, sizeof *ready);
    struct node_key *key = NULL;
    struct hub *hub = NULL;
    int rc = patients && links && ready ? 0 : error_set(err, ERR_NOMEM, "out of memory for %u nodes", count);
    if (!rc && !(rc = key_load(config->key_path, &key, err)))
        rc = hub_create(key, &hub, err);
    for (uint32_t i = 0; i < count && !rc; i++) {
        facts[i] = (struct node_facts){.node = &config->nodes[i], .link = LINK_CONNECTING};
        patients[i].facts = &facts[i];
        look_from_here(&patients[i]);
        rc = link_connect(hub, PLANE_CONTROL, config->nodes[i].endpoint, config->nodes[i].public_key, &patients[i].link,
                          err);
        links[i] = patients[i].link;
    }
    if (!rc)
        rc = examine_all(patients, links, ready, count, timeout_ms, stop, err);
    for (uint32_t i = 0; i < count && !rc; i++)
        if (facts[i].link != LINK_UP && facts[i].link != LINK_REFUSED && *facts[i].address)
            link_explain(config->nodes[i].endpoint, 300, facts[i].unreachable, sizeof facts[i].unreachable);
    for (uint32_t i = 0; patients && i < count; i++)
        link_close(patients[i].link, 0);
    hub_destroy(hub);
    key_free(key);
    mem_free(patients);
    mem_free(links);
    mem_free(ready);
    return rc;
}
