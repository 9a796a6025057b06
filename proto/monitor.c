/* Socket events into words: the state of a connecting link, and who failed a handshake on a listening one. Runs on the
 * hub thread only. ZeroMQ reports a failed handshake and, right after it from the same I/O thread, the connection it
 * belonged to; that is how an address is found for it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <zmq.h>

#include "proto/hub.h"

static void set_state(struct watch *w, enum link_state state, const char *text)
{
    pthread_mutex_lock(&w->hub->lock);
    snprintf(w->text, sizeof w->text, "%.100s%s%.80s", w->where, *text ? ": " : "", text);
    pthread_mutex_unlock(&w->hub->lock);
    atomic_store(&w->state, state);
}

static void peer_address(int fd, char *out, size_t size)
{
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    char host[INET6_ADDRSTRLEN] = "an address already gone"; /* the socket may be closed by now */
    if (!getpeername(fd, (struct sockaddr *)&a, &length)) {
        if (a.ss_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, host, sizeof host);
        else if (a.ss_family == AF_INET6)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&a)->sin6_addr, host, sizeof host);
    }
    snprintf(out, size, "%s", host);
}

static void remember_accepted(struct watch *w, int fd)
{
    size_t at = 0;
    for (size_t i = 0; i < WATCH_ACCEPTED_MAX; i++) /* the same number again, a free place, or else the first */
        if (w->accepted[i].fd == fd + 1) {
            at = i;
            break;
        } else if (!w->accepted[i].fd && w->accepted[at].fd) {
            at = i;
        }
    w->accepted[at].fd = fd + 1;
    peer_address(fd, w->accepted[at].address, sizeof w->accepted[at].address);
}

static const char *protocol_words(int value)
{
    switch (value) {
    case ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return "it does not speak CURVE";
    case ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
        return "its messages cannot be decrypted; it holds another public key for this node";
    default:
        return "its handshake is malformed";
    }
}

/* A connection that ended in its handshake: refused by us, or given up by the peer. */
static void tell_failed(struct watch *w, const char *address)
{
    if (w->hung_up)
        hub_notice(w->hub, address, "hung up in the handshake; it is no node, or only looked whether the port is open");
    else
        hub_refuse(w->hub, address, "a connection from %s to %s: %s", address, w->where, w->refusal);
    *w->refusal = 0;
}

static void on_listening(struct watch *w, int event, int value)
{
    switch (event) {
    case ZMQ_EVENT_ACCEPTED:
        remember_accepted(w, value);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        snprintf(w->refusal, sizeof w->refusal, "%s", protocol_words(value));
        w->hung_up = false;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        snprintf(w->refusal, sizeof w->refusal, "it hung up");
        w->hung_up = true;
        break;
    case ZMQ_EVENT_DISCONNECTED:
        for (size_t i = 0; i < WATCH_ACCEPTED_MAX; i++) {
            if (w->accepted[i].fd != value + 1)
                continue;
            if (*w->refusal)
                tell_failed(w, w->accepted[i].address);
            w->accepted[i].fd = 0;
        }
        if (*w->refusal) /* more handshakes at once than we remember */
            tell_failed(w, "an address already gone");
        break;
    default: /* a refused key was counted and logged where ZAP refused it */
        break;
    }
}

static void on_connecting(struct watch *w, int event, int value)
{
    int state = atomic_load(&w->state);
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        atomic_fetch_add(&w->connections, 1);
        set_state(w, LINK_UP, "");
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (state == LINK_UP)
            set_state(w, LINK_DOWN, "connection lost");
        break;
    case ZMQ_EVENT_CLOSED: /* the connection could not be made */
        if (state == LINK_CONNECTING || state == LINK_REFUSED)
            set_state(w, LINK_CONNECTING, "nobody answers there");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        set_state(w, LINK_REFUSED, "the peer does not allow this node's key");
        atomic_store(&w->broken, true);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        set_state(w, LINK_REFUSED,
                  value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
                      ? "the peer does not speak CURVE; it is no brigade node"
                      : "handshake failed: the peer is not who its public key says");
        atomic_store(&w->broken, true);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if (state != LINK_DOWN)
            set_state(w, LINK_REFUSED, "the peer hung up in the handshake: another public key, or no node");
        break;
    default:
        break;
    }
}

void watch_read_events(struct watch *w)
{
    for (;;) {
        uint8_t head[6];
        char address[8];
        int n = zmq_recv(w->monitor, head, sizeof head, ZMQ_DONTWAIT);
        if (n < 0)
            return;
        zmq_recv(w->monitor, address, sizeof address, ZMQ_DONTWAIT);
        if (n != sizeof head)
            continue;
        uint16_t event;
        int32_t value;
        memcpy(&event, head, 2);
        memcpy(&value, head + 2, 4);
        if (w->listening)
            on_listening(w, event, value);
        else
            on_connecting(w, event, value);
    }
}
