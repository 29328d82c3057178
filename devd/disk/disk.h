/*
 * The virtio block device between its driver (devd/devices/virtio_blk.c) and the change of its size
 * (size.c). Main thread only.
 */
#ifndef POLYVISOR_DEVD_DISK_DISK_H
#define POLYVISOR_DEVD_DISK_DISK_H

#include "devd/block/block.h"
#include "devd/device.h"
#include "devd/limit/gate.h"
#include "devd/virtio.h"
#include <linux/virtio_blk.h>

#define SECTOR_SHIFT 9
#define RANGES_MAX   16u /* of one discard or write-zeroes request */

struct blk_request {
    struct block_request work;
    struct device *device;
    struct line_entry line;   /* where it waits for its limits */
    struct blk_request *next; /* of those that are free, or that are held */
    uint8_t queue;
    uint8_t range, range_count; /* which range is being worked on */
    struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
    struct iovec vectors[VIRTIO_QUEUE_SIZE_MAX];
    struct virtqueue_chain chain;
};

/* In the shared state. */
struct blk_saved {
    uint32_t magic;
    uint8_t write_back;
};

/* The shared state begins with it; what the image's backend keeps is there: */
#define BLK_SAVED_KEPT 64
_Static_assert(BLK_SAVED_KEPT + sizeof(struct block_kept) <= VIRTIO_SAVED_MAX, "fits");

/* A smaller image must have no request under way, which might make it larger again. */
enum blk_resizing { BLK_KEEPS_SIZE, BLK_DRAINS, BLK_RESIZES };

struct blk {
    struct device *device;
    struct block *block;
    uint64_t sectors; /* that the driver may use */
    bool write_back;  /* the driver flushes when it wants something durable */
    uint32_t signals; /* queues with something completed that were not interrupted yet */
    unsigned busy;    /* requests of the driver */
    struct blk_request *free;
    struct gate gate;         /* of those that limits hold up */
    struct blk_request *held; /* failed, and to be tried again */
    struct event *retry;
    int error;          /* of the backend, that was told; 0: it is well */
    uint64_t notice_ns; /* when */
    enum blk_resizing resizing;
    struct block_request resize;
    device_resized_fn *resized;
    void *resized_context;
    unsigned fresh; /* requests from here on were never used: their memory is not touched yet */
    unsigned request_count;
    struct blk_request requests[];
};

/* Publish the configuration; `announce`: the driver is told, else it waits for that. */
void blk_publish(struct device *device, bool announce);

/* ---- size.c ---- */

/* The driver may use what the image has now. */
void blk_take_size(struct device *device);
/* As device_model.resize. */
int blk_resize(struct device *device, uint64_t bytes, bool shrink, device_resized_fn *resized,
               void *context, struct error *err);
/* Requests have ended: a resize that waited for that goes on. */
void blk_resize_step(struct blk *blk);

#endif
