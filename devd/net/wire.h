/*
 * A descriptor that carries one frame a read and a write, each behind its virtio_net_hdr_v1: a tap,
 * or a packet socket of another machine's card. What the guest has no room for stays in
 * the kernel's queue, which holds up the sender or drops, as the descriptor's kind does.
 * Main thread only.
 */
#ifndef POLYVISOR_DEVD_NET_WIRE_H
#define POLYVISOR_DEVD_NET_WIRE_H

#include "devd/net/backend.h"
#include "devd/net/offload.h"

struct wire {
    struct net_backend backend; /* first: what embeds a wire is a backend */
    int fd;                     /* -1: none now */
    struct event *readable, *writable, *patience;
    bool impatient;                    /* its other end does not read: what is sent is lost */
    bool has_pending;                  /* `pending` is read, but the guest had no room for it */
    size_t pending_bytes;              /* of the frame */
    void (*broken)(struct wire *wire); /* reading or writing failed for good */
    struct {
        struct virtio_net_hdr_v1 header;
        uint8_t frame[NET_FRAME_MAX];
    } __attribute__((packed)) pending;
};

/* Set up an allocated, zeroed wire without descriptor. 0 or -ENOMEM. */
int wire_open(struct wire *wire, const struct net_backend_operations *operations,
              struct event_base *base, const struct net_port *port);
/* Take `fd`, non-blocking, instead of the present one, which is closed; -1: none. */
void wire_attach(struct wire *wire, int fd);
void wire_close(struct wire *wire); /* does not free it */

/* For a backend's operations. */
int wire_send(struct net_backend *backend, const struct virtio_net_hdr_v1 *header,
              const struct iovec *parts, unsigned count, size_t length);
void wire_resume(struct net_backend *backend);

#endif
