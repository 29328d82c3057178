/*
 * The backend that is a raw file or a block device.
 *
 * Through the host's cache, reads, writes and flushes go to io_uring where the host has it; else
 * reads are tried without waiting, and what would wait goes to threads. Small writes to a local
 * file are done at once: no file system has a way to try them, and handing them to another thread
 * takes ten times as long. As soon as one is held up, they are handed over for a while.
 *
 * Everything else, and all direct transfers, go to threads in any case: a thread that is killed in
 * a direct transfer does not end before the transfer has, so once a device process has ended
 * nothing of it reaches guest memory or the disk any more, and its successor may do the same
 * requests again. io_uring makes no such promise: its direct transfers outlive the process.
 */
#include "devd/block/file.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define THREADS        4  /* through the cache */
#define THREADS_DIRECT 16 /* each request waits for the disk in one */
#define PAGE_BYTES     4096u

/* Of writes that are done at once. */
#define QUICK_BYTES    (64u << 10)
#define QUICK_TURN_NS  UINT64_C(500000)  /* in one turn of the event loop */
#define QUICK_LATE_NS  UINT64_C(2000000) /* one that took so long was held up */
#define QUICK_PAUSE_NS NS_PER_S          /* after that */

static struct file *file_of(struct block *block)
{
    return (struct file *)block;
}

/* ---- Requests ---- */

static void file_work_run(struct work *work)
{
    struct block_request *request =
        (struct block_request *)((char *)work - offsetof(struct block_request, work));
    request->status = transfer_perform(file_of(request->block), request);
}

static void file_work_done(struct work *work)
{
    struct block_request *request =
        (struct block_request *)((char *)work - offsetof(struct block_request, work));
    block_finish(request, request->status);
}

static void file_to_worker(struct file *file, struct block_request *request)
{
    request->work.run = file_work_run;
    request->work.done = file_work_done;
    workers_submit(file->workers, &request->work);
}

static void file_ring_completed(void *context, struct block_request *request, int result)
{
    struct file *file = context;

    if (result > 0) {
        transfer_advance(request, (size_t)result);
    }
    bool part = result > 0 && request->vector_count;
    if (part || result == -EAGAIN || result == -EINTR) {
        file_to_worker(file, request); /* the rest of it */
    } else if (result == 0 && request->operation != BLOCK_FLUSH) {
        block_finish(request, -EIO); /* the file became shorter */
    } else {
        block_finish(request, result < 0 ? result : 0);
    }
}

static void file_settled(void *context)
{
    struct file *file = context;
    file->block.settled(file->block.context);
}

/* A read that needs no waiting. True when it is done. */
static bool file_read_at_once(struct file *file, struct block_request *request)
{
    if (!file->instant || request->operation != BLOCK_READ) {
        return false;
    }
    int status = transfer_all(file, request, false, RWF_NOWAIT);
    if (status == 0) {
        block_finish(request, 0);
    } else if (status == -EOPNOTSUPP) {
        file->instant = false;
    }
    return status == 0; /* anything else is looked at again by a worker */
}

/* Whole pages, so that nothing must be read first. */
static bool file_is_quick(const struct file *file, const struct block_request *request)
{
    return file->quick && request->operation == BLOCK_WRITE && !request->durable &&
           request->length <= QUICK_BYTES &&
           !((request->left_offset | request->length) & (PAGE_BYTES - 1));
}

/* A write that ends in the cache. True when it is done. */
static bool file_write_at_once(struct file *file, struct block_request *request, uint64_t began)
{
    if (!file_is_quick(file, request)) {
        return false;
    }
    uint64_t now = clock_monotonic_ns();
    if (now < file->slow_until || now - began > QUICK_TURN_NS) {
        return false;
    }
    int status = transfer_all(file, request, true, 0);
    uint64_t end = clock_monotonic_ns();
    if (end - now > QUICK_LATE_NS) {
        file->slow_until = end + QUICK_PAUSE_NS;
    }
    block_finish(request, status);
    return true;
}

static void file_submit(struct block *block, struct block_request *request)
{
    struct file *file = file_of(block);

    request->next = NULL;
    *file->last = request;
    file->last = &request->next;
}

static struct block_request *file_next(struct file *file)
{
    struct block_request *request = file->first;

    if (request) {
        file->first = request->next;
        if (!file->first) {
            file->last = &file->first;
        }
    }
    return request;
}

/* Have the ring or a worker do it. */
static void file_hand_over(struct file *file, struct block_request *request)
{
    bool ring = file->uring && request->operation <= BLOCK_FLUSH;

    if (ring && !uring_take(file->uring, request)) {
        uring_start(file->uring); /* it is full */
        ring = uring_take(file->uring, request);
    }
    if (!ring && !file_read_at_once(file, request)) {
        file_to_worker(file, request);
    }
}

static void file_start(struct block *block)
{
    struct file *file = file_of(block);
    struct block_request *request;

    if (file->starting || !file->first) {
        return; /* from a request's end: the loop below takes it */
    }
    uint64_t began = clock_monotonic_ns();
    file->starting = true;
    do {
        while ((request = file_next(file))) {
            if (!file_write_at_once(file, request, began)) {
                file_hand_over(file, request);
            }
        }
        if (file->uring) {
            uring_start(file->uring);
        }
    } while (file->first);
    file->starting = false;
}

static int file_flush(struct block *block)
{
    return block->read_only || fdatasync(file_of(block)->fd) == 0 ? 0 : -errno;
}

/* ---- What it is ---- */

static int file_measure(struct block *block)
{
    struct file *file = file_of(block);
    off_t end = lseek(file->fd, 0, SEEK_END); /* of block devices, too */

    if (end < 0) {
        return -errno;
    }
    block->size = (uint64_t)end & ~(uint64_t)(block->logical_bytes - 1);
    return 0;
}

/* Punching beyond the end of a file changes nothing and tells whether it works. */
static bool file_can_punch(const struct file *file)
{
    off_t end = lseek(file->fd, 0, SEEK_END);
    return end >= 0 && fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 (end + 0xffff) & ~(off_t)0xffff, 0x10000) == 0;
}

/* Where a write to the cache waits for no other computer. */
static bool file_is_local(const struct file *file)
{
    static const unsigned long local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
                                          TMPFS_MAGIC, F2FS_SUPER_MAGIC};
    struct statfs info;

    if (file->is_device || fstatfs(file->fd, &info) < 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
        if ((unsigned long)info.f_type == local[i]) {
            return true;
        }
    }
    return false;
}

static int file_inspect(struct file *file, const struct block_settings *settings, struct error *err)
{
    struct block *block = &file->block;
    struct stat info;
    int flags = fcntl(file->fd, F_GETFL);

    if (flags < 0 || fstat(file->fd, &info) < 0) {
        return error_set(err, ERROR_DISK, errno, "cannot use the disk's backend: %s",
                         strerror(errno));
    }
    if (!S_ISBLK(info.st_mode) && !S_ISREG(info.st_mode)) {
        return error_set(err, ERROR_DISK, 0,
                         "the disk's backend is neither a file nor a block device");
    }
    file->is_device = S_ISBLK(info.st_mode);
    file->direct = direct_io_wanted(file->fd);
    file->instant = !file->direct;
    file->quick = !file->direct && file_is_local(file);
    direct_io_alignment(file->fd, &file->alignment);
    block->logical_bytes = file->direct ? file->alignment.offset : BLOCK_SECTOR;
    block->physical_bytes =
        PAGE_BYTES > file->alignment.offset ? PAGE_BYTES : file->alignment.offset;
    block->discard_bytes = direct_io_usable((uint32_t)info.st_blksize);
    block->read_only = settings->read_only || (flags & O_ACCMODE) == O_RDONLY;
    block->can_zero = !block->read_only;
    block->can_resize = !block->read_only && !file->is_device;
    block->can_discard = !block->read_only && (file->is_device || file_can_punch(file));
    int status = file_measure(block);
    if (status < 0) {
        return error_set(err, ERROR_DISK, -status, "cannot find the size of the disk: %s",
                         strerror(-status));
    }
    off_t end = lseek(file->fd, 0, SEEK_END);
    if ((uint64_t)end != block->size && settings->format == BLOCK_FORMAT_RAW) {
        log_warning("the last %u bytes of the disk are no whole block and not visible",
                    (unsigned)((uint64_t)end - block->size));
    }
    return 0;
}

/* ---- Open and close ---- */

static void file_close(struct block *block)
{
    struct file *file = file_of(block);

    uring_close(file->uring);
    workers_destroy(file->workers);
    pthread_rwlock_destroy(&file->direct_lock);
    free(file);
}

static const struct block_operations file_operations = {
    .submit = file_submit,
    .start = file_start,
    .measure = file_measure,
    .flush = file_flush,
    .close = file_close,
};

static int file_start_engine(struct file *file, const struct block_settings *settings,
                             struct event_base *base, struct error *err)
{
    const struct uring_port port = {file_ring_completed, file_settled, file};

    file->workers =
        workers_create(base, file->direct ? THREADS_DIRECT : THREADS, file_settled, file);
    if (!file->workers) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot start threads: %s", strerror(errno));
    }
    if (!file->direct && !settings->threads) {
        file->uring = uring_open(file->fd, base, &port);
        if (!file->uring) {
            log_info("io_uring is not to be had (%s): threads do its work", strerror(errno));
        }
    }
    snprintf(file->block.described, sizeof(file->block.described), "%s, %s%s",
             file->is_device ? "block device" : "file", file->uring ? "io_uring" : "threads",
             file->direct ? ", direct" : "");
    return 0;
}

struct block *block_file_open(int fd, const struct block_settings *settings,
                              struct event_base *base, struct error *err)
{
    struct file *file = calloc(1, sizeof(*file));

    if (!file) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the disk");
        return NULL;
    }
    file->block.operations = &file_operations;
    file->fd = fd;
    file->last = &file->first;
    pthread_rwlock_init(&file->direct_lock, NULL);
    int status = file_inspect(file, settings, err);
    status = status < 0 ? status : file_start_engine(file, settings, base, err);
    if (status < 0) {
        file_close(&file->block);
        return NULL;
    }
    return &file->block;
}
