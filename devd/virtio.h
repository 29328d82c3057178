/*
 * What all virtio devices share: the state in shared memory, activation and reset on the
 * transport's word, kicks, interrupts, and going on where an earlier process stopped.
 *
 * A driver that breaks a rule puts the device in needs-reset and stops its queues; nothing a guest
 * does ends the process. Main thread only.
 */
#ifndef POLYVISOR_DEVD_VIRTIO_H
#define POLYVISOR_DEVD_VIRTIO_H

#include "devd/device.h"

struct virtio_device {
    struct virtio_state *state; /* shared with the transport and with the next process */
    uint64_t features;          /* offered; init may add */
    uint64_t driver_features;   /* negotiated, valid while active */
    unsigned queue_count;
    bool active;
    void (*reset_done)(void *context);
    void *reset_context;
    int config_call; /* eventfd */
    struct virtio_queue {
        struct device *device;
        unsigned index;
        bool open; /* configured and enabled in this activation */
        void (*reset_done)(void *context, unsigned queue); /* not NULL: waits for that */
        void *reset_context;
        int kick_fd, call_fd;
        struct event *kick;  /* the driver said there is something */
        struct event *again; /* more to do than one turn of the loop should take */
        struct virtqueue ring;
    } queues[VIRTIO_QUEUES_MAX];
    struct virtqueue_chain chain; /* being handed to the model */
};

/* Called by device_create: take the descriptors and map the state; then, after the model's init,
 * publish it, or with `restart` go on. */
int virtio_device_open(struct device *device, struct device_descriptors *descriptors,
                       struct error *err);
int virtio_device_start(struct device *device, bool restart, struct error *err);
void virtio_device_close(struct device *device);

/* The transport's requests. Activation is idempotent. 0 or negative errno. */
int virtio_device_activate(struct device *device);
/* Calls `done` once no request is in flight any more, perhaps before this returns. */
void virtio_device_reset(struct device *device, void (*done)(void *context), void *context);
/* The same for one queue; and its use after that, being set up anew: 0 or negative errno. */
void virtio_queue_reset(struct device *device, unsigned queue,
                        void (*done)(void *context, unsigned queue), void *context);
int virtio_queue_enable(struct device *device, unsigned queue);
int virtio_device_config_write(struct device *device, uint32_t offset, const uint8_t *data,
                               size_t size);
/* From device_settled: a reset may go on. */
void virtio_device_settled(struct device *device);
/* Nobody wants to wait for what is held up any more: the model ends that. */
void virtio_device_let_go(struct device *device);

/* For models. Give the device requests while it is ready for them. */
void virtio_queue_pump(struct device *device, unsigned queue);
/* Publish; the interrupt waits for virtio_queue_signal, so that several share one. */
void virtio_request_complete(struct device *device, unsigned queue,
                             const struct virtqueue_chain *chain, uint32_t written);
void virtio_queue_signal(struct device *device, unsigned queue);
/* The same for a set of queues, one bit each, which is then empty. */
void virtio_queues_signal(struct device *device, uint32_t *queues);
/* A queue to peek at and publish to, for streams; NULL while it is not to be touched. */
struct virtqueue *virtio_queue_ring(struct device *device, unsigned queue);
/* The driver broke a rule: needs-reset, and no more work until it does. */
void virtio_device_fail(struct device *device, const char *fault);
/* Set configuration bytes during init, or later (then the driver is told). */
void virtio_config_set(struct device *device, size_t offset, const void *bytes, size_t size);
/* The same in answer to a write of the driver, which waits for it, or before its device is active:
 * no interrupt tells it. What differs from what the driver was told by the process before this one
 * is told once the device goes on. */
void virtio_config_answer(struct device *device, size_t offset, const void *bytes, size_t size);

#endif
