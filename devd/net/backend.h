/*
 * Where a network card's frames go and come from: one backend a process, chosen by the card's
 * setting. A frame travels with a virtio_net_hdr_v1 that says what is left to do for it (checksum,
 * segmentation); both sides check it, neither trusts it.
 *
 * Main thread only. The card owns the backend; the backend calls the card through its port.
 */
#ifndef POLYVISOR_DEVD_NET_BACKEND_H
#define POLYVISOR_DEVD_NET_BACKEND_H

#include "libshared/base/error.h"
#include "libshared/net/setting.h"
#include <event2/event.h>
#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Frames taken from a backend in one turn of the event loop. */
#define NET_FRAMES_A_TURN 64

/* What the card does for its backend. */
struct net_port {
    /* A frame for the guest, at most NET_FRAME_MAX bytes, which may be changed. False when the
     * guest has no room: keep it, and no more until `resume`. */
    bool (*receive)(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *frame,
                    size_t length);
    /* The last of several frames was received: tell the guest. */
    void (*received)(void *context);
    /* Frames that `send` refused can be sent now. */
    void (*writable)(void *context);
    /* The cable's other end was plugged in or pulled. */
    void (*carrier)(void *context, bool up);
    void *context;
};

struct net_backend {
    const struct net_backend_operations *operations;
    struct event_base *base;
    struct net_port port;
    unsigned mtu; /* of the guest's interface, as far as it is known */
};

struct net_backend_operations {
    /* Make one. `fd` is the descriptor vmmd gave it, or -1; it is the backend's, on failure too.
     * NULL with *err set. */
    struct net_backend *(*open)(const struct net_setting *setting, int fd, struct event_base *base,
                                const struct net_port *port, struct error *err);
    void (*close)(struct net_backend *backend);
    /* Send a frame whose bytes the guest may change meanwhile. 0 when it is sent or can never be;
     * -EAGAIN: again after `writable`. */
    int (*send)(struct net_backend *backend, const struct virtio_net_hdr_v1 *header,
                const struct iovec *parts, unsigned count, size_t length);
    /* The guest has room again. */
    void (*resume)(struct net_backend *backend);
    /* A driver took over the card that can do this (VIRTIO_NET_F_GUEST_... of virtio's features).
     * NULL: no matter. */
    void (*guest_features)(struct net_backend *backend, uint64_t features);
    bool has_carrier; /* tells by `carrier` whether the cable has another end; else it always has */
};

extern const struct net_backend_operations net_backend_user, net_backend_tap, net_backend_link;

#endif
