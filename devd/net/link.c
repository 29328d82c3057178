/* A link to another machine's card; libshared/net/link.h says how its connection gets here. */
#include "libshared/net/link.h"
#include "devd/net/wire.h"
#include "libshared/base/log.h"
#include "libshared/ipc/rights.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct link {
    struct wire wire; /* first */
    int control_fd;
    struct event *control;
};

/* One message of vmmd's: its kind, or -errno; *fd is the connection or -1. */
static int control_receive(struct link *link, int *fd)
{
    char kind = 0;
    const struct iovec body = {.iov_base = &kind, .iov_len = sizeof(kind)};
    size_t count = 1;

    *fd = -1;
    ssize_t bytes = rights_receive(link->control_fd, 0, &body, 1, fd, &count);
    if (bytes == -EBADMSG) {
        return LINK_GONE;
    }
    if (bytes <= 0) {
        return bytes < 0 ? (int)bytes : -EPIPE;
    }
    return kind;
}

/* All messages that are there. */
static void link_follow(struct link *link)
{
    struct wire *wire = &link->wire;
    int connection = -1, fd, kind;
    bool changed = false;

    while ((kind = control_receive(link, &fd)) >= 0) {
        if (connection >= 0) {
            close(connection);
        }
        connection = fd;
        changed = true;
        if (kind != LINK_CONNECTED && fd >= 0) {
            close(fd);
            connection = -1;
        }
    }
    if (kind != -EAGAIN && link->control) {
        event_del(link->control); /* vmmd is gone: the connection stays */
    }
    if (changed) {
        if (connection >= 0) {
            fcntl(connection, F_SETFL, O_RDWR | O_NONBLOCK);
        }
        wire_attach(wire, connection);
        wire->backend.port.carrier(wire->backend.port.context, connection >= 0);
    }
}

static void link_control(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    link_follow(context);
}

/* The other machine has ended. vmmd sees it too and looks for another. */
static void link_broken(struct wire *wire)
{
    wire->backend.port.carrier(wire->backend.port.context, false);
    wire_attach(wire, -1);
}

static void link_close(struct net_backend *backend)
{
    struct link *link = (struct link *)backend;

    if (link->control) {
        event_free(link->control);
    }
    if (link->control_fd >= 0) {
        close(link->control_fd);
    }
    wire_close(&link->wire);
    free(link);
}

static struct net_backend *link_open(const struct net_setting *setting, int fd,
                                     struct event_base *base, const struct net_port *port,
                                     struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));

    if (!link) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for link '%.100s'", setting->path);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    link->control_fd = fd;
    link->wire.broken = link_broken;
    if (fd < 0 || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0) {
        error_set(err, ERROR_CONFIG, 0, "got no descriptor of link '%.100s'", setting->path);
        link_close(&link->wire.backend);
        return NULL;
    }
    int status = wire_open(&link->wire, &net_backend_link, base, port);
    link->control = event_new(base, fd, EV_READ | EV_PERSIST, link_control, link);
    if (status < 0 || !link->control || event_add(link->control, NULL) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for link '%.100s'", setting->path);
        link_close(&link->wire.backend);
        return NULL;
    }
    /* What vmmd has said already: a restarted card shall not look unplugged. */
    link_follow(link);
    return &link->wire.backend;
}

const struct net_backend_operations net_backend_link = {
    .open = link_open,
    .close = link_close,
    .send = wire_send,
    .resume = wire_resume,
    .has_carrier = true,
};
