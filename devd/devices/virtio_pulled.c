/*
 * What is left of a device that was pulled out while its driver had it (`vmctl device detach
 * --force`): it takes the place of the device's own process until the driver has let go.
 *
 * It has no backend. Every request is answered, with an error, because drivers wait for answers
 * before they let go: Linux does not remove a disk with a request in flight. The last byte of what
 * a request may write is its status, for disks (virtio 1.2, section 5.2.6) as for the control queue
 * of network cards (5.1.6.5); VIRTIO_BLK_S_IOERR and VIRTIO_NET_ERR are the same number. What is
 * sent (in streams, the queues with odd numbers) is dropped. Buffers that are only there to be
 * filled stay as they are: a reset takes them back.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

_Static_assert(VIRTIO_BLK_S_IOERR == VIRTIO_NET_ERR, "one answer for both");

static int pulled_init(struct device *device, struct error *err)
{
    (void)err;
    /* What the driver has chosen was offered once. */
    device->virtio->features |= device->virtio->state->device_features;
    return 0;
}

static void pulled_destroy(struct device *device)
{
    (void)device;
}

static void pulled_request(struct device *device, unsigned queue,
                           const struct virtqueue_chain *chain)
{
    const uint8_t failed = VIRTIO_BLK_S_IOERR;
    uint64_t size = chain->writable_bytes;

    if (chain->readable_count == 0) {
        return;
    }
    if (size > 0) {
        virtqueue_chain_write(chain, size - 1, &failed, sizeof(failed));
    }
    virtio_request_complete(device, queue, chain, (uint32_t)size);
}

static void pulled_batch(struct device *device)
{
    for (unsigned queue = 0; queue < device->virtio->queue_count; queue++) {
        virtio_queue_signal(device, queue);
    }
}

/* All but the control queue: behind the pairs that the driver knows of. */
static bool card_is_stream(const struct device *device, unsigned queue)
{
    const struct virtio_device *virtio = device->virtio;
    bool several = virtio->driver_features >> VIRTIO_NET_F_MQ & 1;
    return queue != (several ? virtio->queue_count - 1 : 2);
}

/* All but the event queue, the last. */
static bool vsock_is_stream(const struct device *device, unsigned queue)
{
    return queue + 1 < device->virtio->queue_count;
}

/* What is sent is dropped. */
static enum virtio_stream pulled_stream(struct device *device, unsigned queue)
{
    struct virtqueue *ring = virtio_queue_ring(device, queue);
    const uint32_t nothing_written = 0;

    for (unsigned count = 0; ring && queue % 2 == 1 && count < VIRTIO_QUEUE_SIZE_MAX; count++) {
        int status = virtqueue_peek(ring, 0, &device->virtio->chain);
        if (status < 0) {
            virtio_device_fail(device, ring->fault);
        }
        if (status <= 0) {
            return status < 0 ? VIRTIO_STREAM_BLOCKED : VIRTIO_STREAM_EMPTY;
        }
        virtqueue_publish(ring, &nothing_written, 1);
    }
    return ring && queue % 2 == 1 ? VIRTIO_STREAM_MORE : VIRTIO_STREAM_BLOCKED;
}

#define PULLED_MODEL(name, text, type, streams)                                                    \
    DEVICE_MODEL(name) = {                                                                         \
        .kind = text,                                                                              \
        .device_class = DEVICE_VIRTIO,                                                             \
        .init = pulled_init,                                                                       \
        .destroy = pulled_destroy,                                                                 \
        .virtio =                                                                                  \
            {                                                                                      \
                .device_id = type,                                                                 \
                .queue_size = VIRTIO_QUEUE_SIZE_MAX,                                               \
                .request = pulled_request,                                                         \
                .batch = pulled_batch,                                                             \
                .is_stream = streams,                                                              \
                .stream = pulled_stream,                                                           \
            },                                                                                     \
    }

PULLED_MODEL(virtio_blk_pulled, "virtio-blk-pulled", VIRTIO_ID_BLOCK, NULL);
PULLED_MODEL(virtio_net_pulled, "virtio-net-pulled", VIRTIO_ID_NET, card_is_stream);
PULLED_MODEL(virtio_vsock_pulled, "virtio-vsock-pulled", VIRTIO_ID_VSOCK, vsock_is_stream);
