#include "devd/net/wire.h"

#include "libshared/base/descriptor.h"
#include "libshared/virtio/state.h"
#include <errno.h>
#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

/* How long the other end may not read before it is taken for one that never will: a card does not
 * hold up its guest for that. */
#define PATIENCE_MS 500

static struct wire *wire_of(struct net_backend *backend)
{
    return (struct wire *)backend;
}

/* ---- To the guest ---- */

/* The pending frame: false when there still is no room. */
static bool wire_deliver(struct wire *wire)
{
    const struct net_port *port = &wire->backend.port;

    wire->has_pending = !port->receive(port->context, &wire->pending.header, wire->pending.frame,
                                       wire->pending_bytes);
    return !wire->has_pending;
}

static void wire_read(evutil_socket_t fd, short what, void *context)
{
    struct wire *wire = context;
    const size_t header = sizeof(wire->pending.header);

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < NET_FRAMES_A_TURN && wire->fd >= 0; i++) {
        ssize_t bytes = read(wire->fd, &wire->pending, sizeof(wire->pending));
        if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR)) {
            wire->broken(wire);
            break;
        }
        if (bytes < 0) {
            break;
        }
        if ((size_t)bytes <= header) {
            continue;
        }
        wire->pending_bytes = (size_t)bytes - header;
        if (!wire_deliver(wire)) {
            event_del(wire->readable);
            break;
        }
    }
    wire->backend.port.received(wire->backend.port.context);
}

void wire_resume(struct net_backend *backend)
{
    struct wire *wire = wire_of(backend);

    if (wire->has_pending && !wire_deliver(wire)) {
        return;
    }
    if (wire->fd >= 0) {
        event_add(wire->readable, NULL);
    }
}

/* ---- From the guest ---- */

static void wire_can_write(evutil_socket_t fd, short what, void *context)
{
    struct wire *wire = context;

    (void)fd;
    (void)what;
    wire->impatient = false;
    event_del(wire->patience);
    wire->backend.port.writable(wire->backend.port.context);
}

static void wire_lose_patience(evutil_socket_t fd, short what, void *context)
{
    struct wire *wire = context;

    (void)fd;
    (void)what;
    wire->impatient = true;
    wire->backend.port.writable(wire->backend.port.context);
}

/* The other end is full: again later, unless it has been for long. */
static int wire_wait(struct wire *wire)
{
    static const struct timeval patience = {0, PATIENCE_MS * 1000};

    event_add(wire->writable, NULL);
    if (wire->impatient) {
        return 0;
    }
    event_add(wire->patience, &patience);
    return -EAGAIN;
}

int wire_send(struct net_backend *backend, const struct virtio_net_hdr_v1 *header,
              const struct iovec *parts, unsigned count, size_t length)
{
    struct wire *wire = wire_of(backend);
    struct virtio_net_hdr_v1 copy = *header;
    struct iovec vectors[VIRTIO_QUEUE_SIZE_MAX + 1];
    ssize_t sent;

    (void)length;
    if (wire->fd < 0) {
        return 0;
    }
    vectors[0] = (struct iovec){.iov_base = &copy, .iov_len = sizeof(copy)};
    for (unsigned i = 0; i < count; i++) {
        vectors[i + 1] = parts[i];
    }
    do {
        sent = writev(wire->fd, vectors, (int)count + 1);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
        return wire_wait(wire);
    }
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)) {
        wire->broken(wire);
    }
    return 0; /* anything else is about this frame: it is lost */
}

/* ---- Life ---- */

int wire_open(struct wire *wire, const struct net_backend_operations *operations,
              struct event_base *base, const struct net_port *port)
{
    wire->backend = (struct net_backend){.operations = operations, .base = base, .port = *port};
    wire->fd = -1;
    wire->patience = evtimer_new(base, wire_lose_patience, wire);
    return wire->patience ? 0 : -ENOMEM;
}

static void wire_detach(struct wire *wire)
{
    struct event **events[] = {&wire->readable, &wire->writable};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (*events[i]) {
            event_free(*events[i]);
            *events[i] = NULL;
        }
    }
    descriptor_close(&wire->fd);
    event_del(wire->patience);
    wire->impatient = false;
}

void wire_attach(struct wire *wire, int fd)
{
    struct event_base *base = wire->backend.base;

    wire_detach(wire);
    if (fd >= 0) {
        wire->fd = fd;
        wire->readable = event_new(base, fd, EV_READ | EV_PERSIST, wire_read, wire);
        wire->writable = event_new(base, fd, EV_WRITE, wire_can_write, wire);
        if (!wire->readable || !wire->writable ||
            (!wire->has_pending && event_add(wire->readable, NULL) < 0)) {
            wire_detach(wire);
        }
    }
    /* What waited for the old descriptor goes to the new one, or is lost. */
    wire->backend.port.writable(wire->backend.port.context);
}

void wire_close(struct wire *wire)
{
    if (wire->patience) {
        wire_detach(wire);
        event_free(wire->patience);
    }
}
