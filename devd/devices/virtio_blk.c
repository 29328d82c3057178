/*
 * virtio block device (Virtual I/O Device 1.2, section 5.2) on a raw file or a block device.
 *
 * The main thread checks a request and tries to do it without waiting (what is in the page cache
 * needs no other thread); worker threads do the rest. Requests may finish in any order. A flush is
 * a fdatasync that starts after it was taken, so it covers every write that was completed before;
 * a driver without the flush feature gets each write durable before it completes.
 *
 * A restarted process does requests again: reads and writes with the same data are repeatable.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include "devd/workers.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUEUE_REQUESTS  0
#define QUEUE_SIZE      256
#define SECTOR_SHIFT    9
#define SECTOR_SIZE     512u
#define WORKER_THREADS  4
#define RANGES_MAX      16u        /* of one discard or write-zeroes request */
#define RANGE_SECTORS   (1u << 16) /* 32 MiB: bounded time even when zeroes must be written */
#define RANGE_ALIGNMENT 8u         /* sectors */
#define ZEROES_SIZE     (64u << 10)

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define FEATURES                                                                                   \
    (FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_BLK_SIZE) |                              \
     FEATURE(VIRTIO_BLK_F_TOPOLOGY) | FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_MQ))

struct blk_request {
    struct work work;
    struct device *device;
    struct blk_request *next_free;
    int (*perform)(struct blk_request *request); /* on a worker: 0, 1 (unsupported) or -errno */
    uint8_t status;                              /* VIRTIO_BLK_S_... */
    uint64_t position;                           /* in bytes, of what is left to transfer */
    unsigned first, count;                       /* vectors left to transfer */
    unsigned range_count;
    struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
    struct iovec vectors[VIRTIO_QUEUE_SIZE_MAX];
    struct virtqueue_chain chain;
};

struct blk {
    uint64_t sectors;
    bool read_only;
    bool instant; /* the backend can say "not without waiting" */
    unsigned busy;
    struct workers *workers;
    struct blk_request *free;
    unsigned fresh; /* requests from here on were never used: their memory is not touched yet */
    struct blk_request requests[QUEUE_SIZE];
};

static const uint8_t zeroes[ZEROES_SIZE];

/* ---- On any thread: the backend ---- */

/* Transfer what is left of the request. 0 when all is done, or -errno. */
static int transfer(struct blk_request *request, bool write, int flags)
{
    int fd = request->device->backend;

    while (request->count) {
        const struct iovec *vectors = request->vectors + request->first;
        ssize_t done =
            write ? pwritev2(fd, vectors, (int)request->count, (off_t)request->position, flags)
                  : preadv2(fd, vectors, (int)request->count, (off_t)request->position, flags);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? -errno : -EIO; /* 0: the file became shorter */
        }
        request->position += (uint64_t)done;
        for (size_t left = (size_t)done; left;) {
            struct iovec *vector = &request->vectors[request->first];
            size_t part = left < vector->iov_len ? left : vector->iov_len;
            vector->iov_base = (uint8_t *)vector->iov_base + part;
            vector->iov_len -= part;
            left -= part;
            if (vector->iov_len == 0) {
                request->first++;
                request->count--;
            }
        }
    }
    return 0;
}

static int perform_read(struct blk_request *request)
{
    return transfer(request, false, 0);
}

static int perform_write(struct blk_request *request)
{
    return transfer(request, true, 0);
}

static int perform_durable_write(struct blk_request *request)
{
    return transfer(request, true, RWF_DSYNC);
}

static int perform_flush(struct blk_request *request)
{
    return fdatasync(request->device->backend) < 0 ? -errno : 0;
}

static int punch(int fd, int how, uint64_t position, uint64_t length)
{
    int status;
    do {
        status = fallocate(fd, how | FALLOC_FL_KEEP_SIZE, (off_t)position, (off_t)length);
    } while (status < 0 && errno == EINTR);
    return status < 0 ? -errno : 0;
}

static int perform_discard(struct blk_request *request)
{
    int status = 0;

    for (unsigned i = 0; status == 0 && i < request->range_count; i++) {
        uint64_t length = (uint64_t)request->ranges[i].num_sectors << SECTOR_SHIFT;
        if (length) {
            status = punch(request->device->backend, FALLOC_FL_PUNCH_HOLE,
                           request->ranges[i].sector << SECTOR_SHIFT, length);
        }
    }
    return status == -EOPNOTSUPP ? 1 : status;
}

static int write_zeroes(int fd, uint64_t position, uint64_t length)
{
    while (length) {
        size_t part = length < sizeof(zeroes) ? (size_t)length : sizeof(zeroes);
        ssize_t done = pwrite(fd, zeroes, part, (off_t)position);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? -errno : -EIO;
        }
        position += (uint64_t)done;
        length -= (uint64_t)done;
    }
    return 0;
}

static int perform_write_zeroes(struct blk_request *request)
{
    int fd = request->device->backend;
    int status = 0;

    for (unsigned i = 0; status == 0 && i < request->range_count; i++) {
        const struct virtio_blk_discard_write_zeroes *range = &request->ranges[i];
        uint64_t position = range->sector << SECTOR_SHIFT;
        uint64_t length = (uint64_t)range->num_sectors << SECTOR_SHIFT;
        bool unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

        if (length == 0) {
            continue;
        }
        status = punch(fd, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, position, length);
        if (status == -EOPNOTSUPP) {
            status = write_zeroes(fd, position, length);
        }
    }
    return status;
}

static uint8_t status_of(const struct blk_request *request, int result)
{
    if (result == 0) {
        return VIRTIO_BLK_S_OK;
    }
    if (result > 0) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (device_may_complain(request->device)) {
        log_warning("request at byte %llu failed: %s", (unsigned long long)request->position,
                    strerror(-result));
    }
    return VIRTIO_BLK_S_IOERR;
}

static void request_run(struct work *work)
{
    struct blk_request *request = (struct blk_request *)work;
    request->status = status_of(request, request->perform(request));
}

/* ---- Main thread: completion ---- */

/* Publish; the status byte is the last writable one. */
static void request_finish(struct blk_request *request, uint8_t status)
{
    struct device *device = request->device;
    struct blk *blk = device->own;
    uint64_t last = request->chain.writable_bytes - 1;

    virtqueue_chain_write(&request->chain, last, &status, sizeof(status));
    virtio_request_complete(device, QUEUE_REQUESTS, &request->chain, (uint32_t)(last + 1));
    request->next_free = blk->free;
    blk->free = request;
}

static void request_done(struct work *work)
{
    struct blk_request *request = (struct blk_request *)work;
    struct blk *blk = request->device->own;

    blk->busy--;
    request_finish(request, request->status);
}

static void requests_done(void *context)
{
    struct device *device = context;

    virtio_queue_signal(device, QUEUE_REQUESTS);
    device_settled(device);
}

static void request_submit(struct blk_request *request, int (*perform)(struct blk_request *))
{
    struct blk *blk = request->device->own;

    request->perform = perform;
    request->work.run = request_run;
    request->work.done = request_done;
    blk->busy++;
    workers_submit(blk->workers, &request->work);
}

/* ---- Main thread: checking ---- */

static bool range_valid(const struct blk *blk, uint64_t sector, uint64_t count)
{
    return sector <= blk->sectors && count <= blk->sectors - sector;
}

/* The vectors of `size` bytes from byte `skip` of the given segments. */
static void vectors_cut(struct blk_request *request, const struct iovec *segments, unsigned count,
                        uint64_t skip, uint64_t size)
{
    request->first = request->count = 0;
    for (unsigned i = 0; i < count && size; i++) {
        size_t length = segments[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        struct iovec *vector = &request->vectors[request->count++];
        vector->iov_base = (uint8_t *)segments[i].iov_base + skip;
        vector->iov_len = length - skip < size ? length - skip : size;
        size -= vector->iov_len;
        skip = 0;
    }
}

/* Try without waiting; true when the request is finished or failed for good. */
static bool transfer_at_once(struct blk_request *request, bool write)
{
    struct blk *blk = request->device->own;

    if (!blk->instant) {
        return false;
    }
    int result = transfer(request, write, RWF_NOWAIT);
    if (result == -EOPNOTSUPP) {
        blk->instant = false;
    }
    if (result == 0) {
        request_finish(request, VIRTIO_BLK_S_OK);
    }
    return result == 0; /* anything else is looked at again by a worker */
}

static void request_transfer(struct blk_request *request, uint64_t sector, bool write)
{
    struct device *device = request->device;
    struct blk *blk = device->own;
    const struct virtqueue_chain *chain = &request->chain;
    const uint64_t head = sizeof(struct virtio_blk_outhdr);
    uint64_t size = write ? chain->readable_bytes - head : chain->writable_bytes - 1;

    if (size % SECTOR_SIZE || !range_valid(blk, sector, size >> SECTOR_SHIFT) ||
        (write && blk->read_only)) {
        request_finish(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    request->position = sector << SECTOR_SHIFT;
    if (write) {
        vectors_cut(request, chain->segments, chain->readable_count, head, size);
    } else {
        vectors_cut(request, chain->segments + chain->readable_count, chain->writable_count, 0,
                    size);
    }
    bool durable = write && !(device->virtio->driver_features & FEATURE(VIRTIO_BLK_F_FLUSH));
    if (durable) {
        request_submit(request, perform_durable_write);
    } else if (!transfer_at_once(request, write)) {
        request_submit(request, write ? perform_write : perform_read);
    }
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
    request->position = 0;
    request_submit(request, perform_flush);
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

/* Copy and check the ranges of a discard or write-zeroes request: the status if it ends here. */
static uint8_t ranges_check(struct blk_request *request, uint32_t flags_allowed)
{
    struct blk *blk = request->device->own;
    const size_t head = sizeof(struct virtio_blk_outhdr);
    uint64_t size = request->chain.readable_bytes - head;

    if (blk->read_only || size == 0 || size % sizeof(request->ranges[0]) ||
        size > sizeof(request->ranges)) {
        return VIRTIO_BLK_S_IOERR;
    }
    virtqueue_chain_read(&request->chain, head, request->ranges, (size_t)size);
    request->range_count = (unsigned)(size / sizeof(request->ranges[0]));
    for (unsigned i = 0; i < request->range_count; i++) {
        const struct virtio_blk_discard_write_zeroes *range = &request->ranges[i];
        if (range->flags & ~flags_allowed) {
            return VIRTIO_BLK_S_UNSUPP;
        }
        if (range->num_sectors > RANGE_SECTORS ||
            !range_valid(blk, range->sector, range->num_sectors)) {
            return VIRTIO_BLK_S_IOERR;
        }
    }
    request->position = request->ranges[0].sector << SECTOR_SHIFT;
    return VIRTIO_BLK_S_OK;
}

static void request_ranges(struct blk_request *request, unsigned feature, uint32_t flags_allowed,
                           int (*perform)(struct blk_request *))
{
    uint8_t status = request->device->virtio->driver_features & FEATURE(feature)
                         ? ranges_check(request, flags_allowed)
                         : VIRTIO_BLK_S_UNSUPP;
    if (status == VIRTIO_BLK_S_OK) {
        request_submit(request, perform);
    } else {
        request_finish(request, status);
    }
}

static void request_discard(struct blk_request *request, uint64_t sector)
{
    (void)sector;
    request_ranges(request, VIRTIO_BLK_F_DISCARD, 0, perform_discard);
}

static void request_write_zeroes(struct blk_request *request, uint64_t sector)
{
    (void)sector;
    request_ranges(request, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
                   perform_write_zeroes);
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
        blk->free = request->next_free;
    } else if (blk->fresh < QUEUE_SIZE) {
        request = &blk->requests[blk->fresh++];
        request->device = device;
    }
    return request;
}

static void blk_request(struct device *device, unsigned queue, const struct virtqueue_chain *chain)
{
    struct virtio_blk_outhdr header;

    (void)queue;
    if (virtqueue_chain_read(chain, 0, &header, sizeof(header)) < sizeof(header) ||
        chain->writable_bytes == 0) {
        virtio_device_fail(device, "request without header or status byte");
        return;
    }
    struct blk_request *request = request_allocate(device);
    if (!request) {
        /* Heads are distinct and fewer than requests: only a damaged log gets here. */
        virtio_device_fail(device, "more requests than the queue holds");
        return;
    }
    virtqueue_chain_copy(&request->chain, chain);
    for (unsigned i = 0; i < sizeof(request_types) / sizeof(request_types[0]); i++) {
        if (request_types[i].type == header.type) {
            request_types[i].start(request, header.sector);
            return;
        }
    }
    request_finish(request, VIRTIO_BLK_S_UNSUPP);
}

/* ---- Device ---- */

static bool blk_busy(const struct device *device)
{
    const struct blk *blk = device->own;
    return blk->busy;
}

static int blk_flush(struct device *device)
{
    struct blk *blk = device->own;
    return blk->read_only || fdatasync(device->backend) == 0 ? 0 : -errno;
}

/* Find out size and abilities of the backend. */
static int backend_inspect(struct device *device, struct error *err)
{
    struct blk *blk = device->own;
    struct stat info;
    uint64_t bytes;
    int flags = fcntl(device->backend, F_GETFL);

    if (flags < 0 || fstat(device->backend, &info) < 0) {
        return error_set(err, ERROR_DISK, errno, "cannot use the backend of device %s", device->id);
    }
    if (S_ISBLK(info.st_mode)) {
        if (ioctl(device->backend, BLKGETSIZE64, &bytes) < 0) {
            return error_set(err, ERROR_DISK, errno, "cannot find the size of device %s's backend",
                             device->id);
        }
    } else if (S_ISREG(info.st_mode)) {
        bytes = (uint64_t)info.st_size;
    } else {
        return error_set(err, ERROR_DISK, 0,
                         "the backend of device %s is neither a file nor a block device",
                         device->id);
    }
    if (bytes % SECTOR_SIZE) {
        log_warning("the last %u bytes of the disk are no whole sector and not visible",
                    (unsigned)(bytes % SECTOR_SIZE));
    }
    blk->sectors = bytes >> SECTOR_SHIFT;
    blk->read_only = device->read_only || (flags & O_ACCMODE) == O_RDONLY;
    blk->instant = true;
    if (blk->read_only) {
        device->virtio->features |= FEATURE(VIRTIO_BLK_F_RO);
        return 0;
    }
    device->virtio->features |= FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
    /* Punching beyond the end of a file changes nothing and tells whether it works. */
    if (S_ISBLK(info.st_mode) || punch(device->backend, FALLOC_FL_PUNCH_HOLE,
                                       (bytes + 0xffff) & ~UINT64_C(0xffff), 0x10000) == 0) {
        device->virtio->features |= FEATURE(VIRTIO_BLK_F_DISCARD);
    }
    return 0;
}

static void config_publish(struct device *device)
{
    struct blk *blk = device->own;
    struct virtio_blk_config config = {
        .capacity = blk->sectors,
        .seg_max = QUEUE_SIZE - 2,
        .blk_size = SECTOR_SIZE,
        .physical_block_exp = 3, /* pages of the host's cache */
        .min_io_size = 8,
        .wce = 1,
        .num_queues = 1,
        .max_discard_sectors = RANGE_SECTORS,
        .max_discard_seg = RANGES_MAX,
        .discard_sector_alignment = RANGE_ALIGNMENT,
        .max_write_zeroes_sectors = RANGE_SECTORS,
        .max_write_zeroes_seg = RANGES_MAX,
        .write_zeroes_may_unmap = 1,
    };
    virtio_config_set(device, 0, &config, sizeof(config));
}

static int blk_init(struct device *device, struct error *err)
{
    struct blk *blk = calloc(1, sizeof(*blk));

    if (!blk) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = blk;
    int status = backend_inspect(device, err);
    if (status < 0) {
        return status;
    }
    config_publish(device);
    blk->workers = workers_create(device->base, WORKER_THREADS, requests_done, device);
    if (!blk->workers) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot start threads for device %s",
                         device->id);
    }
    return 0;
}

static void blk_destroy(struct device *device)
{
    struct blk *blk = device->own;

    if (blk) {
        workers_destroy(blk->workers);
        free(blk);
    }
}

DEVICE_MODEL(virtio_blk) = {
    .kind = "virtio-blk",
    .device_class = DEVICE_VIRTIO,
    .needs_backend = true,
    .init = blk_init,
    .destroy = blk_destroy,
    .busy = blk_busy,
    .flush = blk_flush,
    .virtio =
        {
            .device_id = VIRTIO_ID_BLOCK,
            .queue_count = 1,
            .queue_size = QUEUE_SIZE,
            .features = FEATURES,
            .request = blk_request,
        },
};
