/*
 * virtio entropy device (Virtual I/O Device 1.2, section 5.4): one queue of buffers to fill.
 *
 * A guest may ask without end, so bytes are rationed: a bucket of RATION_BYTES is filled up every
 * RATION_MS. A request that finds it empty waits in the queue, not in the device.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define QUEUE_REQUESTS 0
#define QUEUE_SIZE     64
#define REQUEST_BYTES  4096u /* at most filled of one buffer; the driver asks again */
#define RATION_BYTES   (64u << 10)
#define RATION_MS      10

struct rng {
    size_t ration; /* bytes left */
    struct event *refill;
};

static void rng_refill(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    struct rng *rng = device->own;

    (void)fd;
    (void)what;
    rng->ration = RATION_BYTES;
    virtio_queue_pump(device, QUEUE_REQUESTS);
}

static bool rng_ready(const struct device *device, unsigned queue)
{
    const struct rng *rng = device->own;

    (void)queue;
    return rng->ration >= REQUEST_BYTES;
}

static void rng_request(struct device *device, unsigned queue, const struct virtqueue_chain *chain)
{
    struct rng *rng = device->own;
    uint8_t bytes[REQUEST_BYTES];
    size_t wanted =
        chain->writable_bytes < sizeof(bytes) ? (size_t)chain->writable_bytes : sizeof(bytes);
    /* Up to 256 bytes come at once, more may be interrupted: then it is fewer. */
    ssize_t got = wanted ? getrandom(bytes, wanted, 0) : 0;
    size_t written = got > 0 ? virtqueue_chain_write(chain, 0, bytes, (size_t)got) : 0;

    if (!event_pending(rng->refill, EV_TIMEOUT, NULL)) {
        struct timeval soon = {.tv_usec = RATION_MS * 1000};
        event_add(rng->refill, &soon);
    }
    rng->ration -= written < rng->ration ? written : rng->ration;
    virtio_request_complete(device, queue, chain, (uint32_t)written);
    explicit_bzero(bytes, sizeof(bytes));
}

static int rng_init(struct device *device, struct error *err)
{
    struct rng *rng = calloc(1, sizeof(*rng));

    if (!rng) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = rng;
    rng->ration = RATION_BYTES;
    rng->refill = event_new(device->base, -1, 0, rng_refill, device);
    if (!rng->refill) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return 0;
}

static void rng_destroy(struct device *device)
{
    struct rng *rng = device->own;

    if (rng) {
        if (rng->refill) {
            event_free(rng->refill);
        }
        free(rng);
    }
}

DEVICE_MODEL(virtio_rng) = {
    .kind = "virtio-rng",
    .device_class = DEVICE_VIRTIO,
    .init = rng_init,
    .destroy = rng_destroy,
    .virtio =
        {
            .device_id = VIRTIO_ID_RNG,
            .queue_count = 1,
            .queue_size = QUEUE_SIZE,
            .ready = rng_ready,
            .request = rng_request,
        },
};
