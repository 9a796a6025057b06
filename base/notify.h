/* Telling the service manager how we are (systemd's notification protocol: lines of NAME=value in a datagram to the
 * socket that $NOTIFY_SOCKET names). Without that variable nothing is sent and nothing fails. Any thread. */
#ifndef BRIGADE_BASE_NOTIFY_H
#define BRIGADE_BASE_NOTIFY_H

#include <stdint.h>

/* Sends lines such as "READY=1\nSTATUS=waiting". 1: sent, 0: nobody asked, negative: ERR_IO, ERR_FORMAT (a socket's
 * name that cannot be one). */
int notify_send(const char *lines);

/* How often the manager must hear WATCHDOG=1 from this very process, at the latest; 0: never. */
int64_t notify_watchdog_us(void);

#endif
