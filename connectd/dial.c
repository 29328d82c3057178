#include "connectd/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* So that a server whose host vanished is noticed. */
#define KEEP_ALIVE_SECONDS 10

static void socket_tune(int fd)
{
    const int on = 1, seconds = KEEP_ALIVE_SECONDS;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
}

/* 0 once it is connected, or negative errno. */
static int socket_connect(int fd, const struct sockaddr *address, socklen_t length, int timeout_ms)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    int cause = 0;
    socklen_t size = sizeof(cause);

    if (connect(fd, address, length) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS) {
        return -errno;
    }
    int ready = poll(&writable, 1, timeout_ms);
    if (ready <= 0) {
        return ready < 0 ? -errno : -ETIMEDOUT;
    }
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &size) < 0 ? -errno : -cause;
}

static int dial_one(const struct sockaddr *address, socklen_t length, int timeout_ms)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int status = fd < 0 ? -errno : socket_connect(fd, address, length, timeout_ms);

    if (status < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    if (address->sa_family != AF_UNIX) {
        socket_tune(fd);
    }
    return fd;
}

static int dial_failed(const char *place, int cause, struct error *err)
{
    error_set(err, ERROR_DISK, cause, "cannot connect to %.150s: %s", place, strerror(cause));
    error_hint(err, cause == EACCES || cause == EPERM ? "this user may not connect there"
                                                      : "does the server run?");
    return -ERROR_DISK;
}

static int dial_unix(const struct nbd_uri *uri, int timeout_ms, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(address.sun_path, uri->socket);
    int fd = dial_one((const struct sockaddr *)&address, sizeof(address), timeout_ms);
    return fd < 0 ? dial_failed(uri->socket, -fd, err) : fd;
}

int dial(const struct nbd_uri *uri, int timeout_ms, struct error *err)
{
    const struct addrinfo wanted = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    int fd = -EADDRNOTAVAIL;

    if (uri->is_unix) {
        return dial_unix(uri, timeout_ms, err);
    }
    int status = getaddrinfo(uri->host, uri->port, &wanted, &list);
    if (status != 0) {
        error_set(err, ERROR_DISK, status == EAI_SYSTEM ? errno : 0,
                  "cannot find the host '%.100s': %s", uri->host, gai_strerror(status));
        error_hint(err, "is its name right, and does this host's name server know it?");
        return -ERROR_DISK;
    }
    for (const struct addrinfo *one = list; one && fd < 0; one = one->ai_next) {
        fd = dial_one(one->ai_addr, one->ai_addrlen, timeout_ms);
    }
    freeaddrinfo(list);
    return fd < 0 ? dial_failed(uri->host, -fd, err) : fd;
}
