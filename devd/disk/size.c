/* The size of a disk: changed on request, and told to the driver. */
#include "devd/disk/disk.h"
#include <stddef.h>
#include <string.h>

void blk_take_size(struct device *device)
{
    struct blk *blk = device->own;

    blk->sectors = blk->block->size >> SECTOR_SHIFT;
    blk_publish(device, true);
}

static void blk_resize_done(struct block_request *work)
{
    struct blk *blk = (struct blk *)((char *)work - offsetof(struct blk, resize));
    struct device *device = blk->device;
    struct error err;

    blk->resizing = BLK_KEEPS_SIZE;
    gate_shut(&blk->gate, false);
    int status = block_measure(blk->block);
    blk_take_size(device);
    status = work->status < 0 ? work->status : status;
    if (status < 0) {
        error_set(&err, ERROR_IO, -status, "cannot resize %s: %s", device->id, strerror(-status));
    }
    blk->resized(blk->resized_context, status < 0 ? &err : NULL);
    for (unsigned i = 0; i < device->virtio->queue_count; i++) {
        virtio_queue_pump(device, i);
    }
}

void blk_resize_step(struct blk *blk)
{
    if (blk->resizing == BLK_DRAINS && blk->busy == gate_waiting(&blk->gate)) {
        blk->resizing = BLK_RESIZES;
        block_submit(blk->block, &blk->resize);
        block_start(blk->block);
    }
}

/* The host changed the size already. */
static int blk_follow_size(struct device *device, uint64_t bytes, struct error *err)
{
    struct blk *blk = device->own;
    int status = block_measure(blk->block);

    if (status < 0) {
        return error_set(err, ERROR_IO, -status, "cannot find the size of %s: %s", device->id,
                         strerror(-status));
    }
    if (blk->block->size != bytes) {
        error_set(err, ERROR_CONFIG, 0, "the block device of %s has %llu bytes, not %llu",
                  device->id, (unsigned long long)blk->block->size, (unsigned long long)bytes);
        error_hint(err, "resize the block device on the host first");
        return -ERROR_CONFIG;
    }
    blk_take_size(device);
    return 0;
}

int blk_resize(struct device *device, uint64_t bytes, bool shrink, device_resized_fn *resized,
               void *context, struct error *err)
{
    struct blk *blk = device->own;
    struct block *block = blk->block;

    if (block->read_only) {
        return error_set(err, ERROR_STATE, 0, "%s is read-only", device->id);
    }
    if (blk->resizing || blk->held) {
        return error_set(err, ERROR_STATE, 0, "%s is %s", device->id,
                         blk->held ? "waiting for its backend" : "being resized");
    }
    if (bytes == 0 || bytes % block->logical_bytes || bytes > INT64_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "a size must be a multiple of %u bytes",
                         block->logical_bytes);
    }
    if (bytes < blk->sectors << SECTOR_SHIFT && !shrink) {
        error_set(err, ERROR_CONFIG, 0, "%s has %llu bytes: what lies beyond %llu would be lost",
                  device->id, (unsigned long long)blk->sectors << SECTOR_SHIFT,
                  (unsigned long long)bytes);
        error_hint(err, "make the guest's file systems smaller first, then add --shrink");
        return -ERROR_CONFIG;
    }
    if (!block->can_resize) {
        int status = blk_follow_size(device, bytes, err);
        if (status == 0) {
            resized(context, NULL);
        }
        return status;
    }
    blk->resized = resized;
    blk->resized_context = context;
    blk->resize =
        (struct block_request){.operation = BLOCK_RESIZE, .length = bytes, .done = blk_resize_done};
    blk->resizing = BLK_DRAINS;
    gate_shut(&blk->gate, true);
    if (bytes < blk->sectors << SECTOR_SHIFT) {
        blk->sectors = bytes >> SECTOR_SHIFT;
    }
    blk_resize_step(blk);
    return 0;
}
