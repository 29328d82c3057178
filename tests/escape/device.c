/*
 * A device that tries to get out: a virtio-rng whose random numbers tell how that went. It is
 * linked into a devd of its own (tools/check.mk), which the real vmmd starts and which confines
 * itself as any other; the first request of the guest's driver makes it try everything.
 *
 * Each buffer then gets one line of 64 bytes, "escape NUMBER of COUNT: ERRNO WHAT", filled up with
 * blanks: one attempt after the other, again and again.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include "tests/escape/escapes.h"
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>

#define LINE        64u
#define RESULTS_MAX 256u

struct escapist {
    bool tried;
    int results[RESULTS_MAX];
    size_t next;
};

static void try_all(struct escapist *own)
{
    for (size_t i = 0; i < escape_count && i < RESULTS_MAX; i++) {
        own->results[i] = escape_attempts[i].try();
    }
    own->tried = true;
}

static void escape_request(struct device *device, unsigned queue,
                           const struct virtqueue_chain *chain)
{
    struct escapist *own = device->own;
    char line[LINE + 1], text[LINE];

    if (!own->tried) {
        try_all(own);
    }
    size_t number = own->next++ % escape_count;
    snprintf(text, sizeof(text), "escape %zu of %zu: %d %s", number, escape_count,
             own->results[number], escape_attempts[number].what);
    snprintf(line, sizeof(line), "%-63s\n", text);
    size_t written = virtqueue_chain_write(chain, 0, line, LINE);
    virtio_request_complete(device, queue, chain, (uint32_t)written);
}

static int escape_init(struct device *device, struct error *err)
{
    device->own = calloc(1, sizeof(struct escapist));
    return device->own ? 0 : error_set(err, ERROR_INTERNAL, 0, "no memory");
}

static void escape_destroy(struct device *device)
{
    free(device->own);
}

DEVICE_MODEL(escape) = {
    .kind = "virtio-rng",
    .device_class = DEVICE_VIRTIO,
    .init = escape_init,
    .destroy = escape_destroy,
    .virtio =
        {
            .device_id = VIRTIO_ID_RNG,
            .queue_count = 1,
            .queue_size = 8,
            .request = escape_request,
        },
};
