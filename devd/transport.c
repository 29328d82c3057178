#include "devd/transport.h"
#include "devd/virtio.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "proto/transport.pb-c.h"
#include <errno.h>
#include <nanomsg/pair.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* vcpud waits for its answer, so there always is room for it. */
#define REPLY_TIMEOUT_MS 100

struct transport {
    struct device *device;
    struct channel *channel;
    struct event *readable;
    uint64_t reset_id; /* to answer when the reset is done */
    uint64_t queue_reset_ids[VIRTIO_QUEUES_MAX];
};

static void transport_reply(struct transport *transport, uint64_t id, int status)
{
    Polyvisor__TransportReply reply = POLYVISOR__TRANSPORT_REPLY__INIT;

    reply.id = id;
    reply.status = status;
    status = channel_send(transport->channel, &reply.base, REPLY_TIMEOUT_MS);
    if (status < 0) {
        log_warning("cannot answer vcpud: %s", strerror(-status));
    }
}

static void transport_reset_done(void *context)
{
    struct transport *transport = context;
    transport_reply(transport, transport->reset_id, 0);
}

static void transport_queue_reset_done(void *context, unsigned queue)
{
    struct transport *transport = context;
    transport_reply(transport, transport->queue_reset_ids[queue % VIRTIO_QUEUES_MAX], 0);
}

static void transport_serve(struct transport *transport, const Polyvisor__TransportRequest *request)
{
    struct device *device = transport->device;
    int status = -EOPNOTSUPP;

    switch (request->body_case) {
    case POLYVISOR__TRANSPORT_REQUEST__BODY_ACTIVATE:
        status = virtio_device_activate(device);
        break;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_RESET:
        /* A repeated one takes the place of the first, whose asker has given up. */
        transport->reset_id = request->id;
        virtio_device_reset(device, transport_reset_done, transport);
        return;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_CONFIG_WRITE:
        status = virtio_device_config_write(device, request->config_write->offset,
                                            request->config_write->data.data,
                                            request->config_write->data.len);
        break;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_QUEUE_RESET: {
        uint32_t queue = request->queue_reset->queue;
        transport->queue_reset_ids[queue % VIRTIO_QUEUES_MAX] = request->id;
        virtio_queue_reset(device, queue, transport_queue_reset_done, transport);
        return;
    }
    case POLYVISOR__TRANSPORT_REQUEST__BODY_QUEUE_ENABLE:
        status = virtio_queue_enable(device, request->queue_enable->queue);
        break;
    default:
        break;
    }
    transport_reply(transport, request->id, status);
}

static void transport_readable(evutil_socket_t fd, short what, void *context)
{
    struct transport *transport = context;

    (void)fd;
    (void)what;
    for (;;) {
        ProtobufCMessage *message;
        int status = channel_receive(transport->channel, &polyvisor__transport_request__descriptor,
                                     &message, 0);
        if (status == -EBADMSG) {
            log_warning("vcpud sent something that is no request");
            continue;
        }
        if (status < 0) {
            return;
        }
        transport_serve(transport, (const Polyvisor__TransportRequest *)message);
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

struct transport *transport_open(struct device *device, const char *path, struct error *err)
{
    struct transport *transport = calloc(1, sizeof(*transport));

    if (!transport) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
        return NULL;
    }
    transport->device = device;
    transport->channel = channel_connect(CHANNEL_TRANSPORT, NN_PAIR, path);
    if (!transport->channel) {
        error_set(err, ERROR_INTERNAL, errno, "cannot connect device %s to %s", device->id, path);
        transport_close(transport);
        return NULL;
    }
    transport->readable = event_new(device->base, channel_receive_fd(transport->channel),
                                    EV_READ | EV_PERSIST, transport_readable, transport);
    if (!transport->readable || event_add(transport->readable, NULL) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
        transport_close(transport);
        return NULL;
    }
    return transport;
}

int transport_await(struct transport *transport, int timeout_ms, struct error *err)
{
    struct pollfd connected = {.fd = channel_send_fd(transport->channel), .events = POLLIN};
    int count;

    do {
        count = poll(&connected, 1, timeout_ms);
    } while (count < 0 && errno == EINTR);
    return count == 1 ? 0
                      : error_set(err, ERROR_TIMEOUT, 0, "device %s: vcpud does not answer",
                                  transport->device->id);
}

void transport_close(struct transport *transport)
{
    if (!transport) {
        return;
    }
    if (transport->readable) {
        event_free(transport->readable);
    }
    channel_close(transport->channel);
    free(transport);
}
