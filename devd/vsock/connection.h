/*
 * One stream between a process of the host and one of the guest: its state, its credit
 * (Virtio 1.2, 5.10.6.3), the bytes on their way to the host. Both ends are hostile.
 *
 * A connection never touches a queue. It says that it has something for the guest, and the device
 * (devd/devices/virtio_vsock.c) asks for one packet after the other as the guest has room. Main
 * thread only.
 */
#ifndef POLYVISOR_DEVD_VSOCK_CONNECTION_H
#define POLYVISOR_DEVD_VSOCK_CONNECTION_H

#include <event2/event.h>
#include <linux/virtio_vsock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define VSOCK_BUFFER_BYTES (256u << 10) /* of one stream to the host: the credit a guest gets */
#define VSOCK_GREETING_MAX 20           /* "CONNECT 4294967295\n" and a zero */

enum vsock_phase {
    VSOCK_GREETING, /* the host's process has not said which port it wants */
    VSOCK_ASKING,   /* the guest was asked, or is about to be */
    VSOCK_OPEN,
    VSOCK_DEAD, /* at most a reset is still to be sent */
};

/* Packets that are owed to the guest, a bit each. */
enum vsock_owed {
    VSOCK_OWES_RESET = 1,
    VSOCK_OWES_REQUEST = 2,
    VSOCK_OWES_RESPONSE = 4,
    VSOCK_OWES_CREDIT = 8,
    VSOCK_OWES_SHUTDOWN = 16, /* after all data */
};

struct vsock_connection;

/* What the device does for its connections. */
struct vsock_port {
    /* There is something for the guest, or the connection is over: look at it in another turn of
     * the event loop. */
    void (*look)(void *context, struct vsock_connection *connection);
    /* A port of the host for a new connection to that port of the guest. */
    uint32_t (*host_port)(void *context, uint32_t guest_port);
    void *context;
    struct event_base *base;
};

struct vsock_connection {
    const struct vsock_port *port;
    struct vsock_connection *next;         /* of all */
    struct vsock_connection *next_waiting; /* of those to be looked at */
    bool waiting;
    enum vsock_phase phase;
    uint32_t guest_port, host_port;
    unsigned owed; /* enum vsock_owed */
    int fd;        /* of the host's process, -1 once dead */
    struct event *readable, *writable, *deadline;
    char greeting[VSOCK_GREETING_MAX];
    unsigned greeting_length;
    bool has_data;        /* the host's process wrote something, or ended; nobody waits for it */
    bool guest_ended;     /* the guest sends no more */
    bool guest_reads_not; /* the guest receives no more */
    /* Credit. All counters wrap. */
    uint32_t guest_room, guest_taken, sent; /* buf_alloc, fwd_cnt; bytes sent to the guest */
    uint32_t received, taken, told;         /* bytes from the guest; taken by the host; so told */
    uint8_t *buffer;                        /* a ring of VSOCK_BUFFER_BYTES, once it is needed */
    uint32_t head, length;
};

/* A process of the host has connected on `fd`, which is taken. NULL when memory is short. */
struct vsock_connection *vsock_connection_accept(const struct vsock_port *port, int fd);
/* The guest asked for a connection: make it to the Unix socket at `path`. When nobody listens there
 * it owes a reset. NULL when memory or descriptors are short. */
struct vsock_connection *vsock_connection_reach(const struct vsock_port *port, const char *path,
                                                const struct virtio_vsock_hdr *request);
void vsock_connection_free(struct vsock_connection *connection);
/* Dead, and nothing is owed: to be freed. */
bool vsock_connection_over(const struct vsock_connection *connection);

/* A packet of the guest for this connection. Its payload, header->len bytes in `pieces`, may change
 * meanwhile. */
void vsock_connection_packet(struct vsock_connection *connection,
                             const struct virtio_vsock_hdr *header, const struct iovec *payload,
                             unsigned pieces);
/* Whether there is something to send now. */
bool vsock_connection_ready(const struct vsock_connection *connection);
/* The next packet: fill in the header but for context ids and type, and the payload's `pieces`.
 * False: there is none after all. */
bool vsock_connection_next(struct vsock_connection *connection, struct virtio_vsock_hdr *header,
                           const struct iovec *pieces, unsigned count);

#endif
