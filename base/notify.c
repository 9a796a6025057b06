/* One datagram a call to the service manager. Owns nothing; any thread. */
#include "base/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"

int notify_send(const char *lines)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = name ? strlen(name) : 0, size = strlen(lines);
    if (!length)
        return 0;
    if ((*name != '/' && *name != '@') || length >= sizeof to.sun_path)
        return ERR_FORMAT;
    memcpy(to.sun_path, name, length);
    if (*name == '@')
        to.sun_path[0] = 0; /* the abstract namespace */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_IO;
    ssize_t sent = sendto(fd, lines, size, MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&to,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    close(fd);
    return sent == (ssize_t)size ? 1 : ERR_IO;
}

int64_t notify_watchdog_us(void)
{
    const char *every = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    int64_t us, of;
    if (!every || units_parse_int(every, 1, INT64_MAX, &us))
        return 0;
    if (pid && (units_parse_int(pid, 1, INT32_MAX, &of) || of != getpid()))
        return 0;
    return us;
}
