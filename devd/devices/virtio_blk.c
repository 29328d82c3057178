/*
 * virtio block device (Virtual I/O Device 1.2, section 5.2): requests of its queues become those of
 * an image (devd/block/block.h), which does them in any order.
 *
 * All queues are served by the main thread: what takes time is the image's, so a thread for each
 * would only add wake-ups. A flush starts after it was taken, so it covers every write that was
 * completed before; with the cache in write-through mode, or a driver without the flush feature,
 * each write is durable before it completes.
 *
 * With limits (devd/limit) a request that was checked passes a gate before the image gets it. What
 * waits there has not begun: a reset lets it go, a resize need not wait for it.
 *
 * A restarted process does requests again: all of them are repeatable. What the driver set besides
 * (the mode of the cache) is in the shared state.
 */
#include "devd/disk/disk.h"
#include "devd/virtio.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/base/vectors.h"
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE      256
#define DISCARD_SECTORS (1u << 21)      /* 1 GiB */
#define ZEROES_SECTORS  (1u << 16)      /* 32 MiB: bounded time even when zeroes must be written */
#define NOTICE_NS       (10 * NS_PER_S) /* between two notices of the same error */
#define SAVED_MAGIC     0x424c4b31u     /* "1KLB" */

/* Requests that wait for the backend to get well are tried again so often. */
static const struct timeval retry_time = {.tv_usec = 500000};

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define FEATURES                                                                                   \
    (FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_BLK_SIZE) |                              \
     FEATURE(VIRTIO_BLK_F_TOPOLOGY) | FEATURE(VIRTIO_BLK_F_FLUSH) |                                \
     FEATURE(VIRTIO_BLK_F_CONFIG_WCE))

/* ---- Completion ---- */

/* Publish; the status byte is the last writable one. */
static void request_finish(struct blk_request *request, uint8_t status)
{
    struct device *device = request->device;
    struct blk *blk = device->own;
    uint64_t last = request->chain.writable_bytes - 1;

    virtqueue_chain_write(&request->chain, last, &status, sizeof(status));
    virtio_request_complete(device, request->queue, &request->chain, (uint32_t)(last + 1));
    blk->signals |= 1u << request->queue;
    blk->busy--;
    request->next = blk->free;
    blk->free = request;
}

/* ---- Trouble with the backend ---- */

static void blk_tell_error(struct device *device, const struct block_request *work)
{
    static const char *const names[BLOCK_OPERATIONS] = {"read",    "write",        "flush",
                                                        "discard", "write zeroes", "resize"};
    struct blk *blk = device->own;
    uint64_t now = clock_monotonic_ns();
    char text[DEVICE_NOTICE_MAX];

    if (device_may_complain(device)) {
        log_warning("%s at byte %llu failed: %s", names[work->operation],
                    (unsigned long long)work->left_offset, strerror(-work->status));
    }
    if (blk->error == work->status && now - blk->notice_ns < NOTICE_NS) {
        return;
    }
    blk->error = work->status;
    blk->notice_ns = now;
    snprintf(text, sizeof(text), "%s at byte %llu: %s", names[work->operation],
             (unsigned long long)work->left_offset, strerror(-work->status));
    device_notice(device, DEVICE_NOTICE_BACKEND_ERROR, text);
}

static void blk_tell_well(struct device *device)
{
    struct blk *blk = device->own;

    blk->error = 0;
    device_notice(device, DEVICE_NOTICE_BACKEND_WELL, "writes succeed again");
}

/* The image's own word. */
static void blk_told(void *context, bool well, const char *text)
{
    struct device *device = context;

    if (device_may_complain(device)) {
        log_warning("%s", text);
    }
    device_notice(device, well ? DEVICE_NOTICE_BACKEND_WELL : DEVICE_NOTICE_BACKEND_ERROR, text);
}

static bool blk_changes(const struct block_request *work)
{
    return work->operation == BLOCK_WRITE || work->operation == BLOCK_WRITE_ZEROES ||
           work->operation == BLOCK_DISCARD;
}

/* Whether nobody will wait for it any more: the driver resets its queue or all, or the machine
 * stops. */
static bool request_is_over(const struct blk_request *request)
{
    const struct device *device = request->device;
    const struct virtio_device *virtio = device->virtio;

    return device->stopping || virtio->reset_done || virtio->queues[request->queue].reset_done;
}

/* Whether the guest is to wait until the backend is well again. */
static bool request_waits(const struct blk_request *request)
{
    const struct device *device = request->device;
    const struct block_request *work = &request->work;
    bool space = work->status == -ENOSPC || work->status == -EDQUOT;

    if (!blk_changes(work) || request_is_over(request)) {
        return false;
    }
    return device->disk.write_error == DEVICE_WRITE_ERROR_WAIT ||
           (device->disk.write_error == DEVICE_WRITE_ERROR_ENOSPC && space);
}

static void request_hold(struct blk_request *request)
{
    struct blk *blk = request->device->own;

    request->next = blk->held;
    blk->held = request;
    event_add(blk->retry, &retry_time);
}

static void blk_settle(void *context);

/* Try again what is left of them; or give them up when the driver or the machine will not wait. */
static void blk_retry(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    struct blk *blk = device->own;
    struct blk_request *request = blk->held;

    (void)fd;
    (void)what;
    blk->held = NULL;
    while (request) {
        struct blk_request *next = request->next;
        if (request_is_over(request)) {
            request_finish(request, VIRTIO_BLK_S_IOERR);
        } else {
            block_resume(blk->block, &request->work);
        }
        request = next;
    }
    blk_settle(device);
}

/* ---- The image's answers ---- */

static bool range_valid(const struct blk *blk, uint64_t sector, uint64_t count)
{
    return sector <= blk->sectors && count <= blk->sectors - sector;
}

static bool request_in_size(const struct blk_request *request)
{
    const struct blk *blk = request->device->own;
    const struct block_request *work = &request->work;

    for (unsigned i = 0; i < request->range_count; i++) {
        if (!range_valid(blk, request->ranges[i].sector, request->ranges[i].num_sectors)) {
            return false;
        }
    }
    return request->range_count ||
           range_valid(blk, work->offset >> SECTOR_SHIFT, work->length >> SECTOR_SHIFT);
}

static void request_submit_range(struct blk_request *request)
{
    struct blk *blk = request->device->own;
    const struct virtio_blk_discard_write_zeroes *range = &request->ranges[request->range];

    request->work.offset = range->sector << SECTOR_SHIFT;
    request->work.length = (uint64_t)range->num_sectors << SECTOR_SHIFT;
    request->work.unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    block_submit(blk->block, &request->work);
}

static void request_done(struct block_request *work)
{
    struct blk_request *request = (struct blk_request *)work;
    struct device *device = request->device;
    struct blk *blk = device->own;

    if (work->status == -EOPNOTSUPP && request->range_count) {
        request_finish(request, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (work->status == -ECANCELED) { /* let go: nobody need know */
        request_finish(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (work->status < 0) {
        blk_tell_error(device, work);
        if (request_waits(request)) {
            request_hold(request);
        } else {
            request_finish(request, VIRTIO_BLK_S_IOERR);
        }
        return;
    }
    if (blk->error && blk_changes(work)) {
        blk_tell_well(device);
    }
    if (request->range + 1 < request->range_count) {
        request->range++;
        request_submit_range(request);
        return;
    }
    request_finish(request, VIRTIO_BLK_S_OK);
}

static struct blk_request *request_in_line(const struct line_entry *entry)
{
    return (struct blk_request *)((char *)entry - offsetof(struct blk_request, line));
}

/* It has passed the gate. Meanwhile the disk may have become smaller. */
static void request_begin(struct line_entry *entry, void *context)
{
    struct blk_request *request = request_in_line(entry);
    struct device *device = context;
    struct blk *blk = device->own;

    if (!request_in_size(request)) {
        request_finish(request, VIRTIO_BLK_S_IOERR);
    } else if (request->range_count) {
        request_submit_range(request);
    } else {
        block_submit(blk->block, &request->work);
    }
}

/* Discarding costs no bytes. */
static uint64_t request_cost(const struct blk_request *request)
{
    uint64_t bytes = request->range_count ? 0 : request->work.length;

    for (unsigned i = 0; i < request->range_count; i++) {
        bytes += (uint64_t)request->ranges[i].num_sectors << SECTOR_SHIFT;
    }
    return request->work.operation == BLOCK_DISCARD ? 0 : bytes;
}

static void request_submit(struct blk_request *request, enum block_operation operation)
{
    struct blk *blk = request->device->own;

    request->work.operation = operation;
    request->work.durable = !blk->write_back;
    request->work.done = request_done;
    request->line.queue = request->queue;
    request->line.direction = operation == BLOCK_READ ? LIMIT_IN : LIMIT_OUT;
    request->line.bytes = request_cost(request);
    if (gate_pass(&blk->gate, &request->line)) {
        request_begin(&request->line, request->device);
    }
}

/* ---- Checking what the driver asks for ---- */

static void request_transfer(struct blk_request *request, uint64_t sector, bool write)
{
    struct blk *blk = request->device->own;
    const struct virtqueue_chain *chain = &request->chain;
    const uint64_t head = sizeof(struct virtio_blk_outhdr);
    uint64_t size = write ? chain->readable_bytes - head : chain->writable_bytes - 1;

    if (size % BLOCK_SECTOR || !range_valid(blk, sector, size >> SECTOR_SHIFT) ||
        (write && blk->block->read_only)) {
        request_finish(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (size == 0) {
        request_finish(request, VIRTIO_BLK_S_OK);
        return;
    }
    request->work.offset = sector << SECTOR_SHIFT;
    request->work.length = size;
    request->work.vectors = request->vectors;
    request->work.vector_count =
        write ? vectors_cut(chain->segments, chain->readable_count, head, size, request->vectors,
                            VIRTIO_QUEUE_SIZE_MAX)
              : vectors_cut(chain->segments + chain->readable_count, chain->writable_count, 0, size,
                            request->vectors, VIRTIO_QUEUE_SIZE_MAX);
    request_submit(request, write ? BLOCK_WRITE : BLOCK_READ);
}

static void request_read(struct blk_request *request, uint64_t sector)
{
    request_transfer(request, sector, false);
}

static void request_write(struct blk_request *request, uint64_t sector)
{
    request_transfer(request, sector, true);
}

static void request_flush(struct blk_request *request, uint64_t sector)
{
    (void)sector;
    request->work.offset = request->work.length = 0;
    request_submit(request, BLOCK_FLUSH);
}

static void request_identify(struct blk_request *request, uint64_t sector)
{
    char id[VIRTIO_BLK_ID_BYTES] = {0};
    uint64_t size = request->chain.writable_bytes - 1;

    (void)sector;
    memcpy(id, request->device->serial, strnlen(request->device->serial, sizeof(id)));
    virtqueue_chain_write(&request->chain, 0, id, size < sizeof(id) ? (size_t)size : sizeof(id));
    request_finish(request, VIRTIO_BLK_S_OK);
}

/* Copy and check the ranges of a discard or write-zeroes request: the status if it ends here. Empty
 * ranges are left out. */
static uint8_t ranges_check(struct blk_request *request, uint32_t sectors_max,
                            uint32_t flags_allowed)
{
    struct blk *blk = request->device->own;
    struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
    const size_t head = sizeof(struct virtio_blk_outhdr);
    uint64_t size = request->chain.readable_bytes - head;

    if (size == 0 || size % sizeof(ranges[0]) || size > sizeof(ranges)) {
        return VIRTIO_BLK_S_IOERR;
    }
    virtqueue_chain_read(&request->chain, head, ranges, (size_t)size);
    for (unsigned i = 0; i < size / sizeof(ranges[0]); i++) {
        if (ranges[i].flags & ~flags_allowed) {
            return VIRTIO_BLK_S_UNSUPP;
        }
        if (ranges[i].num_sectors > sectors_max ||
            !range_valid(blk, ranges[i].sector, ranges[i].num_sectors)) {
            return VIRTIO_BLK_S_IOERR;
        }
        if (ranges[i].num_sectors) {
            request->ranges[request->range_count++] = ranges[i];
        }
    }
    return VIRTIO_BLK_S_OK;
}

static void request_ranges(struct blk_request *request, unsigned feature, uint32_t sectors_max,
                           uint32_t flags_allowed, enum block_operation operation)
{
    uint8_t status = request->device->virtio->driver_features & FEATURE(feature)
                         ? ranges_check(request, sectors_max, flags_allowed)
                         : VIRTIO_BLK_S_UNSUPP;
    if (status == VIRTIO_BLK_S_OK && request->range_count) {
        request_submit(request, operation);
    } else {
        request_finish(request, status);
    }
}

static void request_discard(struct blk_request *request, uint64_t sector)
{
    (void)sector;
    request_ranges(request, VIRTIO_BLK_F_DISCARD, DISCARD_SECTORS, 0, BLOCK_DISCARD);
}

static void request_write_zeroes(struct blk_request *request, uint64_t sector)
{
    (void)sector;
    request_ranges(request, VIRTIO_BLK_F_WRITE_ZEROES, ZEROES_SECTORS,
                   VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, BLOCK_WRITE_ZEROES);
}

static const struct {
    uint32_t type;
    void (*start)(struct blk_request *request, uint64_t sector);
} request_types[] = {
    {VIRTIO_BLK_T_IN, request_read},         {VIRTIO_BLK_T_OUT, request_write},
    {VIRTIO_BLK_T_FLUSH, request_flush},     {VIRTIO_BLK_T_GET_ID, request_identify},
    {VIRTIO_BLK_T_DISCARD, request_discard}, {VIRTIO_BLK_T_WRITE_ZEROES, request_write_zeroes},
};

/* A request's memory, or NULL when all are in use. */
static struct blk_request *request_allocate(struct device *device)
{
    struct blk *blk = device->own;
    struct blk_request *request = blk->free;

    if (request) {
        blk->free = request->next;
    } else if (blk->fresh < blk->request_count) {
        request = &blk->requests[blk->fresh++];
        request->device = device;
    }
    return request;
}

static void blk_request(struct device *device, unsigned queue, const struct virtqueue_chain *chain)
{
    struct blk *blk = device->own;
    struct virtio_blk_outhdr header;

    if (virtqueue_chain_read(chain, 0, &header, sizeof(header)) < sizeof(header) ||
        chain->writable_bytes == 0) {
        virtio_device_fail(device, "request without header or status byte");
        return;
    }
    struct blk_request *request = request_allocate(device);
    if (!request) {
        /* Heads are distinct and fewer than requests: only a damaged log gets here. */
        virtio_device_fail(device, "more requests than the queues hold");
        return;
    }
    blk->busy++;
    request->queue = (uint8_t)queue;
    request->range = request->range_count = 0;
    virtqueue_chain_copy(&request->chain, chain);
    for (unsigned i = 0; i < sizeof(request_types) / sizeof(request_types[0]); i++) {
        if (request_types[i].type == header.type) {
            request_types[i].start(request, header.sector);
            return;
        }
    }
    request_finish(request, VIRTIO_BLK_S_UNSUPP);
}

/* Requests were handed over: begin them. */
static void blk_batch(struct device *device)
{
    struct blk *blk = device->own;

    gate_run(&blk->gate);
    block_start(blk->block);
    virtio_queues_signal(device, &blk->signals);
}

static bool blk_ready(const struct device *device, unsigned queue)
{
    const struct blk *blk = device->own;
    (void)queue;
    return blk->resizing != BLK_DRAINS;
}

/* ---- Configuration ---- */

void blk_publish(struct device *device, bool announce)
{
    struct blk *blk = device->own;
    const struct block *block = blk->block;
    uint32_t physical = block->physical_bytes / BLOCK_SECTOR;
    struct virtio_blk_config config = {
        .capacity = blk->sectors,
        .seg_max = QUEUE_SIZE - 2,
        .blk_size = BLOCK_SECTOR,
        .physical_block_exp = (uint8_t)__builtin_ctz(physical),
        .min_io_size = (uint16_t)physical,
        .wce = blk->write_back,
        .num_queues = (uint16_t)device->virtio->queue_count,
        .max_discard_sectors = DISCARD_SECTORS,
        .max_discard_seg = RANGES_MAX,
        .discard_sector_alignment = block->discard_bytes / BLOCK_SECTOR,
        .max_write_zeroes_sectors = ZEROES_SECTORS,
        .max_write_zeroes_seg = RANGES_MAX,
        .write_zeroes_may_unmap = 1,
    };
    if (announce) {
        virtio_config_set(device, 0, &config, sizeof(config));
    } else {
        virtio_config_answer(device, 0, &config, sizeof(config));
    }
}

static void blk_set_write_back(struct device *device, bool write_back)
{
    struct blk *blk = device->own;
    const struct blk_saved saved = {.magic = SAVED_MAGIC, .write_back = write_back};

    blk->write_back = write_back;
    memcpy(device->virtio->state->saved, &saved, sizeof(saved));
}

/* Section 5.2.5: the driver chooses the cache's mode, where it has the feature. */
static int blk_config_write(struct device *device, uint32_t offset, const uint8_t *data,
                            unsigned size)
{
    const struct virtio_device *virtio = device->virtio;

    if (offset != offsetof(struct virtio_blk_config, wce) || size != 1 || data[0] > 1 ||
        !virtio->active || !(virtio->driver_features & FEATURE(VIRTIO_BLK_F_CONFIG_WCE))) {
        return -EINVAL;
    }
    blk_set_write_back(device, data[0]);
    blk_publish(device, false);
    return 0;
}

/* Without flushes nothing could ever be made durable otherwise. */
static void blk_activated(struct device *device, bool resumed)
{
    uint64_t features = device->virtio->driver_features;

    (void)resumed;
    if (!(features & FEATURE(VIRTIO_BLK_F_FLUSH))) {
        blk_set_write_back(device, false);
        blk_publish(device, false);
    }
}

static void blk_reset(struct device *device)
{
    blk_set_write_back(device, !device->disk.write_through);
    blk_publish(device, false);
}

/* ---- Device ---- */

/* What was begun is done: tell the driver, and whoever waits for that. */
static void blk_settle(void *context)
{
    struct device *device = context;
    struct blk *blk = device->own;

    block_start(blk->block);
    virtio_queues_signal(device, &blk->signals);
    if (!blk->resizing && blk->block->size >> SECTOR_SHIFT != blk->sectors) {
        blk_take_size(device); /* somebody else has changed it */
    }
    blk_resize_step(blk);
    device_settled(device);
}

static bool entry_is_over(const struct line_entry *entry)
{
    return request_is_over(request_in_line(entry));
}

static bool work_is_over(const struct block_request *work)
{
    return work->done == request_done && request_is_over((const struct blk_request *)work);
}

/* Nobody wants to wait for these any more: what limits hold up, and what was to be tried again. */
static void blk_let_go(struct device *device)
{
    struct blk *blk = device->own;
    struct line_entry *entry = gate_leave(&blk->gate, entry_is_over), *next;

    for (; entry; entry = next) {
        next = entry->next;
        request_finish(request_in_line(entry), VIRTIO_BLK_S_IOERR);
    }
    block_let_go(blk->block, work_is_over);
    blk_retry(-1, 0, device);
}

static void blk_limit(struct device *device, const struct limits *limits)
{
    struct blk *blk = device->own;
    gate_set(&blk->gate, limits);
}

static bool blk_busy(const struct device *device)
{
    const struct blk *blk = device->own;
    return blk->busy || blk->resizing;
}

static int blk_flush(struct device *device)
{
    const struct blk *blk = device->own;
    return block_flush(blk->block);
}

/* Say what the image can do; go on with what the driver had set. */
static void blk_describe(struct device *device)
{
    struct blk *blk = device->own;
    const struct virtio_state *state = device->virtio->state;
    const struct block *block = blk->block;
    struct blk_saved saved;

    device->virtio->features |= block->read_only ? FEATURE(VIRTIO_BLK_F_RO) : 0;
    device->virtio->features |= block->can_zero ? FEATURE(VIRTIO_BLK_F_WRITE_ZEROES) : 0;
    device->virtio->features |= block->can_discard ? FEATURE(VIRTIO_BLK_F_DISCARD) : 0;
    device->virtio->features |= device->virtio->queue_count > 1 ? FEATURE(VIRTIO_BLK_F_MQ) : 0;
    blk->sectors = block->size >> SECTOR_SHIFT;
    memcpy(&saved, state->saved, sizeof(saved));
    bool resumes = atomic_load(&state->status) && saved.magic == SAVED_MAGIC;
    blk->write_back = resumes ? saved.write_back : !device->disk.write_through;
    blk_publish(device, false);
    snprintf(device->described, sizeof(device->described), "%s, %u queue%s, %s", block->described,
             device->virtio->queue_count, device->virtio->queue_count == 1 ? "" : "s",
             block->read_only             ? "read-only"
             : device->disk.write_through ? "write-through"
                                          : "write-back");
}

static int blk_init(struct device *device, struct error *err)
{
    const struct block_settings settings = {
        .read_only = device->read_only,
        .threads = device->disk.threads,
        .format = device->disk.format,
        .backings = device->disk.backings,
        .backing_count = device->disk.backing_count,
        .nbd = device->disk.nbd,
        .timeout_s = device->disk.timeout_s,
        .kept = (struct block_kept *)(device->virtio->state->saved + BLK_SAVED_KEPT),
    };
    unsigned count = device->virtio->queue_count * QUEUE_SIZE;
    struct blk *blk = calloc(1, sizeof(*blk) + count * sizeof(struct blk_request));

    if (!blk) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = blk;
    blk->device = device;
    blk->request_count = count;
    blk->retry = evtimer_new(device->base, blk_retry, device);
    const struct gate_port port = {request_begin, blk_settle, device};
    if (!blk->retry ||
        gate_open(&blk->gate, device->virtio->state->limits, device->base, &port) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    blk->block = block_open(device->backend, &settings, device->base, blk_settle, device, err);
    if (!blk->block) {
        return -(int)(err->code ? err->code : ERROR_INTERNAL);
    }
    blk->block->told = blk_told;
    blk_describe(device);
    return 0;
}

static void blk_destroy(struct device *device)
{
    struct blk *blk = device->own;

    if (blk) {
        block_close(blk->block);
        gate_close(&blk->gate);
        if (blk->retry) {
            event_free(blk->retry);
        }
        free(blk);
    }
}

/* The same disk with two backends' needs: what a server has comes over a socket that vmmd sends. */
#define BLK_MODEL                                                                                  \
    .device_class = DEVICE_VIRTIO, .needs_backend = true, .init = blk_init,                        \
    .destroy = blk_destroy, .busy = blk_busy, .flush = blk_flush, .resize = blk_resize,            \
    .limit = blk_limit,                                                                            \
    .virtio = {                                                                                    \
        .device_id = VIRTIO_ID_BLOCK,                                                              \
        .queue_size = QUEUE_SIZE,                                                                  \
        .features = FEATURES,                                                                      \
        .ready = blk_ready,                                                                        \
        .request = blk_request,                                                                    \
        .batch = blk_batch,                                                                        \
        .activated = blk_activated,                                                                \
        .reset = blk_reset,                                                                        \
        .let_go = blk_let_go,                                                                      \
        .config_write = blk_config_write,                                                          \
    }

DEVICE_MODEL(virtio_blk) = {
    .kind = "virtio-blk",
    BLK_MODEL,
};

DEVICE_MODEL(virtio_blk_nbd) = {
    .kind = "virtio-blk-nbd",
    .peer = true,
    BLK_MODEL,
};
