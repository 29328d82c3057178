/*
 * virtio socket device (Virtual I/O Device 1.2, section 5.10): streams between processes of the
 * guest and Unix sockets of the host; libshared/vsock/setting.h says how they find each other.
 *
 * Receive and transmit queues are streams (libshared/virtio/ring.h). Connections are in this
 * process: when it dies they end, and the next one says so to the driver by an event
 * (TRANSPORT_RESET), so that the guest's side ends as well. The listening socket stays.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include "devd/vsock/connection.h"
#include "libshared/base/log.h"
#include "libshared/base/vectors.h"
#include "libshared/vsock/setting.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_RECEIVE   0u
#define QUEUE_TRANSMIT  1u
#define QUEUE_EVENT     2u
#define QUEUES          3u
#define QUEUE_SIZE      128u
#define HEADER_BYTES    sizeof(struct virtio_vsock_hdr)
#define CONNECTIONS_MAX 1000u
#define STRAYS_MAX      64u /* resets for connections that do not exist; more are left out */
#define PACKETS_A_TURN  128u
#define ACCEPTS_A_TURN  16u
#define HOST_PORT_FIRST (UINT32_C(1) << 30)

/* A packet that belongs to nobody: what its answer needs. */
struct stray {
    uint32_t guest_port, host_port;
    uint16_t type;
};

struct vsock {
    struct device *device;
    struct vsock_setting setting;
    struct vsock_port port;
    int listener;
    struct event *listening, *turn;
    struct vsock_connection *connections;
    unsigned count;
    struct vsock_connection *first_waiting, **last_waiting;
    uint32_t last_host_port;
    struct stray strays[STRAYS_MAX];
    unsigned stray_count;
    bool reset_due; /* the driver has not been told of the end of an earlier process */
    struct virtqueue_chain receiving, sending;
};

/* ---- Connections ---- */

static struct vsock_connection *find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_connection *connection = vsock->connections;

    while (connection &&
           (connection->phase == VSOCK_GREETING || connection->phase == VSOCK_DEAD ||
            connection->guest_port != guest_port || connection->host_port != host_port)) {
        connection = connection->next;
    }
    return connection;
}

static void add(struct vsock *vsock, struct vsock_connection *connection)
{
    connection->next = vsock->connections;
    vsock->connections = connection;
    vsock->count++;
}

static void wait_in_line(struct vsock *vsock, struct vsock_connection *connection)
{
    connection->waiting = true;
    connection->next_waiting = NULL;
    *vsock->last_waiting = connection;
    vsock->last_waiting = &connection->next_waiting;
}

static struct vsock_connection *leave_line(struct vsock *vsock)
{
    struct vsock_connection *connection = vsock->first_waiting;

    vsock->first_waiting = connection->next_waiting;
    if (!vsock->first_waiting) {
        vsock->last_waiting = &vsock->first_waiting;
    }
    connection->waiting = false;
    return connection;
}

static void rebuild_line(struct vsock *vsock, const struct vsock_connection *without)
{
    struct vsock_connection *connection = vsock->first_waiting;

    vsock->first_waiting = NULL;
    vsock->last_waiting = &vsock->first_waiting;
    while (connection) {
        struct vsock_connection *next = connection->next_waiting;
        connection->waiting = false;
        if (connection != without) {
            wait_in_line(vsock, connection);
        }
        connection = next;
    }
}

static void discard(struct vsock *vsock, struct vsock_connection *connection)
{
    struct vsock_connection **place = &vsock->connections;

    if (connection->waiting) {
        rebuild_line(vsock, connection);
    }
    while (*place != connection) {
        place = &(*place)->next;
    }
    *place = connection->next;
    vsock->count--;
    vsock_connection_free(connection);
}

/* Those that wait for nothing but to be freed. */
static void discard_over(struct vsock *vsock)
{
    struct vsock_connection *connection = vsock->first_waiting;

    while (connection) {
        struct vsock_connection *next = connection->next_waiting;
        if (vsock_connection_over(connection)) {
            discard(vsock, connection);
        }
        connection = next;
    }
}

static void discard_all(struct vsock *vsock)
{
    while (vsock->connections) {
        discard(vsock, vsock->connections);
    }
    vsock->stray_count = 0;
}

/* The port's `look`. */
static void vsock_look(void *context, struct vsock_connection *connection)
{
    struct vsock *vsock = context;

    if (!connection->waiting) {
        wait_in_line(vsock, connection);
    }
    event_active(vsock->turn, EV_TIMEOUT, 0);
}

/* The port's `host_port`. */
static uint32_t vsock_host_port(void *context, uint32_t guest_port)
{
    struct vsock *vsock = context;

    do {
        vsock->last_host_port++;
        if (vsock->last_host_port < HOST_PORT_FIRST || vsock->last_host_port == UINT32_MAX) {
            vsock->last_host_port = HOST_PORT_FIRST;
        }
    } while (find(vsock, guest_port, vsock->last_host_port));
    return vsock->last_host_port;
}

static void vsock_accept(evutil_socket_t fd, short what, void *context)
{
    struct vsock *vsock = context;

    (void)what;
    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0) {
            return;
        }
        if (!vsock->device->virtio->active || vsock->count >= CONNECTIONS_MAX) {
            close(client); /* no driver, or too many */
            continue;
        }
        struct vsock_connection *connection = vsock_connection_accept(&vsock->port, client);
        if (connection) {
            add(vsock, connection);
        }
    }
}

/* ---- To the guest ---- */

static void vsock_turn(evutil_socket_t fd, short what, void *context)
{
    struct vsock *vsock = context;

    (void)fd, (void)what;
    discard_over(vsock);
    virtio_queue_pump(vsock->device, QUEUE_RECEIVE);
}

/* The next packet into the chain in vsock->receiving. False: there is none. */
static bool fill_packet(struct vsock *vsock, struct virtio_vsock_hdr *header)
{
    struct virtqueue_chain *chain = &vsock->receiving;

    if (vsock->stray_count) {
        const struct stray *stray = &vsock->strays[--vsock->stray_count];
        *header = (struct virtio_vsock_hdr){
            .op = VIRTIO_VSOCK_OP_RST,
            .type = stray->type,
            .src_port = stray->host_port,
            .dst_port = stray->guest_port,
        };
        return true;
    }
    while (vsock->first_waiting) {
        struct vsock_connection *connection = leave_line(vsock);
        struct iovec pieces[VIRTIO_QUEUE_SIZE_MAX];
        unsigned count = vectors_cut(chain->segments + chain->readable_count, chain->writable_count,
                                     HEADER_BYTES, UINT64_MAX, pieces, VIRTIO_QUEUE_SIZE_MAX);
        bool any = vsock_connection_next(connection, header, pieces, count);
        if (vsock_connection_over(connection)) {
            discard(vsock, connection);
        } else if (vsock_connection_ready(connection) && !connection->waiting) {
            wait_in_line(vsock, connection); /* behind the others */
        }
        if (any) {
            header->type = VIRTIO_VSOCK_TYPE_STREAM;
            return true;
        }
    }
    return false;
}

static enum virtio_stream vsock_receive(struct vsock *vsock)
{
    struct device *device = vsock->device;
    struct virtqueue *ring = virtio_queue_ring(device, QUEUE_RECEIVE);
    struct virtqueue_chain *chain = &vsock->receiving;
    struct virtio_vsock_hdr header;

    for (unsigned i = 0; ring && i < PACKETS_A_TURN; i++) {
        if (!vsock->first_waiting && !vsock->stray_count) {
            return VIRTIO_STREAM_BLOCKED; /* buffers alone are no reason to look */
        }
        int status = virtqueue_peek(ring, 0, chain);
        if (status < 0 || (status > 0 && chain->writable_bytes <= HEADER_BYTES)) {
            virtio_device_fail(device, status < 0 ? ring->fault : "receive buffer too small");
            return VIRTIO_STREAM_BLOCKED;
        }
        if (status == 0) {
            return VIRTIO_STREAM_EMPTY;
        }
        if (!fill_packet(vsock, &header)) {
            return VIRTIO_STREAM_BLOCKED;
        }
        header.src_cid = VSOCK_CID_HOST;
        header.dst_cid = vsock->setting.cid;
        virtqueue_chain_write(chain, 0, &header, HEADER_BYTES);
        virtqueue_wrote(ring, chain, HEADER_BYTES + header.len);
        const uint32_t written = (uint32_t)HEADER_BYTES + header.len;
        virtqueue_publish(ring, &written, 1);
    }
    return ring ? VIRTIO_STREAM_MORE : VIRTIO_STREAM_BLOCKED;
}

/* ---- From the guest ---- */

static void answer_stray(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
    if (header->op != VIRTIO_VSOCK_OP_RST && vsock->stray_count < STRAYS_MAX) {
        vsock->strays[vsock->stray_count++] = (struct stray){
            .guest_port = header->src_port, .host_port = header->dst_port, .type = header->type};
        event_active(vsock->turn, EV_TIMEOUT, 0);
    }
}

static void take_request(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
    char path[VSOCK_PATH_MAX + VSOCK_PORT_CHARS + 1];
    struct vsock_connection *connection = NULL;

    snprintf(path, sizeof(path), "%s_%u", vsock->setting.path, header->dst_port);
    if (vsock->count < CONNECTIONS_MAX) {
        connection = vsock_connection_reach(&vsock->port, path, header);
    }
    if (connection) {
        add(vsock, connection);
    } else {
        answer_stray(vsock, header);
    }
}

/* The chain in vsock->sending. */
static void take_packet(struct vsock *vsock)
{
    struct virtqueue_chain *chain = &vsock->sending;
    struct virtio_vsock_hdr header;

    if (virtqueue_chain_read(chain, 0, &header, HEADER_BYTES) != HEADER_BYTES ||
        header.len > chain->readable_bytes - HEADER_BYTES || header.src_cid != vsock->setting.cid ||
        header.dst_cid != VSOCK_CID_HOST) {
        if (device_may_complain(vsock->device)) {
            log_warning("the driver sent a packet that makes no sense: dropped");
        }
        return;
    }
    struct vsock_connection *connection = find(vsock, header.src_port, header.dst_port);
    if (header.type != VIRTIO_VSOCK_TYPE_STREAM ||
        (!connection == (header.op != VIRTIO_VSOCK_OP_REQUEST))) {
        answer_stray(vsock, &header);
    } else if (!connection) {
        take_request(vsock, &header);
    } else {
        struct iovec *pieces = chain->segments;
        uint32_t bytes = header.op == VIRTIO_VSOCK_OP_RW ? header.len : 0;
        unsigned count = vectors_cut(pieces, chain->readable_count, HEADER_BYTES, bytes, pieces,
                                     VIRTIO_QUEUE_SIZE_MAX);
        vsock_connection_packet(connection, &header, pieces, count);
    }
}

static enum virtio_stream vsock_transmit(struct vsock *vsock)
{
    struct device *device = vsock->device;
    struct virtqueue *ring = virtio_queue_ring(device, QUEUE_TRANSMIT);

    for (unsigned i = 0; ring && i < PACKETS_A_TURN; i++) {
        int status = virtqueue_peek(ring, 0, &vsock->sending);
        if (status < 0) {
            virtio_device_fail(device, ring->fault);
        }
        if (status <= 0) {
            return VIRTIO_STREAM_EMPTY;
        }
        take_packet(vsock);
        const uint32_t nothing_written = 0;
        virtqueue_publish(ring, &nothing_written, 1);
    }
    return ring ? VIRTIO_STREAM_MORE : VIRTIO_STREAM_BLOCKED;
}

/* ---- Queues ---- */

static bool vsock_is_stream(const struct device *device, unsigned queue)
{
    (void)device;
    return queue != QUEUE_EVENT;
}

static enum virtio_stream vsock_stream(struct device *device, unsigned queue)
{
    return queue == QUEUE_RECEIVE ? vsock_receive(device->own) : vsock_transmit(device->own);
}

static bool vsock_ready(const struct device *device, unsigned queue)
{
    const struct vsock *vsock = device->own;
    return queue != QUEUE_EVENT || vsock->reset_due;
}

/* A buffer for an event, wanted only when there is one. */
static void vsock_request(struct device *device, unsigned queue,
                          const struct virtqueue_chain *chain)
{
    struct vsock *vsock = device->own;
    const struct virtio_vsock_event event = {.id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
    size_t written = virtqueue_chain_write(chain, 0, &event, sizeof(event));

    vsock->reset_due = false;
    virtio_request_complete(device, queue, chain, (uint32_t)written);
}

static void vsock_activated(struct device *device, bool resumed)
{
    struct vsock *vsock = device->own;

    vsock->reset_due = resumed;
}

static void vsock_reset(struct device *device)
{
    struct vsock *vsock = device->own;

    vsock->reset_due = false;
    discard_all(vsock);
}

/* ---- Device ---- */

static int vsock_init(struct device *device, struct error *err)
{
    struct vsock *vsock = calloc(1, sizeof(*vsock));

    if (!vsock) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = vsock;
    vsock->device = device;
    vsock->listener = device->backend;
    device->backend = -1;
    vsock->last_waiting = &vsock->first_waiting;
    vsock->port = (struct vsock_port){
        .look = vsock_look, .host_port = vsock_host_port, .context = vsock, .base = device->base};
    int status = vsock_setting_parse(device->vsock, ERROR_CONFIG, &vsock->setting, err);
    if (status < 0) {
        return status;
    }
    if (fcntl(vsock->listener, F_SETFL, O_RDWR | O_NONBLOCK) < 0) {
        return error_set(err, ERROR_CONFIG, errno, "got no socket for device %s", device->id);
    }
    vsock->listening =
        event_new(device->base, vsock->listener, EV_READ | EV_PERSIST, vsock_accept, vsock);
    vsock->turn = event_new(device->base, -1, 0, vsock_turn, vsock);
    if (!vsock->listening || !vsock->turn || event_add(vsock->listening, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    const struct virtio_vsock_config config = {.guest_cid = vsock->setting.cid};
    virtio_config_set(device, 0, &config, sizeof(config));
    return 0;
}

static void vsock_destroy(struct device *device)
{
    struct vsock *vsock = device->own;

    if (!vsock) {
        return;
    }
    discard_all(vsock);
    if (vsock->listening) {
        event_free(vsock->listening);
    }
    if (vsock->turn) {
        event_free(vsock->turn);
    }
    if (vsock->listener >= 0) {
        close(vsock->listener);
    }
    free(vsock);
}

DEVICE_MODEL(virtio_vsock) = {
    .kind = "virtio-vsock",
    .device_class = DEVICE_VIRTIO,
    .needs_backend = true,
    .unix_sockets = true,
    .open_files = CONNECTIONS_MAX + 64,
    .init = vsock_init,
    .destroy = vsock_destroy,
    .virtio =
        {
            .device_id = VIRTIO_ID_VSOCK,
            .queue_count = QUEUES,
            .queue_size = QUEUE_SIZE,
            .is_stream = vsock_is_stream,
            .stream = vsock_stream,
            .ready = vsock_ready,
            .request = vsock_request,
            .activated = vsock_activated,
            .reset = vsock_reset,
        },
};
