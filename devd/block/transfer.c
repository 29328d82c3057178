/* One request on a file or block device, by system calls that wait. */
#include "devd/block/file.h"
#include "libshared/base/vectors.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#define ZEROES_BYTES (64u << 10)

static _Alignas(4096) uint8_t zeroes[ZEROES_BYTES];

/* ---- Plain transfers ---- */

void transfer_advance(struct block_request *request, size_t done)
{
    request->left_offset += done;
    request->vector_count = vectors_skip(&request->vectors, request->vector_count, done);
}

static ssize_t transfer_some(int fd, const struct iovec *vectors, unsigned count, uint64_t offset,
                             bool write, int flags)
{
    ssize_t done;

    do {
        done = write ? pwritev2(fd, vectors, (int)count, (off_t)offset, flags)
                     : preadv2(fd, vectors, (int)count, (off_t)offset, flags);
    } while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

static int transfer_plain(struct file *file, struct block_request *request, bool write, int flags)
{
    while (request->vector_count) {
        ssize_t done = transfer_some(file->fd, request->vectors, request->vector_count,
                                     request->left_offset, write, flags);
        if (done <= 0) {
            return done < 0 ? (int)done : -EIO; /* 0: the file became shorter */
        }
        transfer_advance(request, (size_t)done);
    }
    return 0;
}

/* ---- Direct transfers of what is not aligned: by way of a buffer that is ---- */

static uint64_t bytes_left(const struct block_request *request)
{
    return request->offset + request->length - request->left_offset;
}

static int transfer_bounced(struct file *file, struct block_request *request, bool write, int flags)
{
    uint8_t *buffer = direct_io_buffer();
    ssize_t done = buffer ? 1 : -ENOMEM;

    while (bytes_left(request) && done > 0) {
        done = direct_io_part(file->fd, &file->alignment, buffer, request->vectors,
                              request->vector_count, 0, bytes_left(request), request->left_offset,
                              write, flags);
        if (done > 0) {
            transfer_advance(request, (size_t)done);
        }
    }
    free(buffer);
    return done < 0 ? (int)done : done == 0 ? -EIO : 0; /* 0: the file became shorter */
}

int transfer_all(struct file *file, struct block_request *request, bool write, int flags)
{
    if (!file->direct) {
        return transfer_plain(file, request, write, flags);
    }
    bool aligned = direct_io_is_aligned(&file->alignment, request->vectors, request->vector_count,
                                        request->left_offset);
    bool around =
        !aligned && ((request->left_offset | request->length) & (file->alignment.offset - 1));
    if (!write) {
        return aligned ? transfer_plain(file, request, write, flags)
                       : transfer_bounced(file, request, write, flags);
    }
    /* Nobody may write to a block between its being read and its being written back. */
    if (around) {
        pthread_rwlock_wrlock(&file->direct_lock);
    } else {
        pthread_rwlock_rdlock(&file->direct_lock);
    }
    int status = aligned ? transfer_plain(file, request, write, flags)
                         : transfer_bounced(file, request, write, flags);
    pthread_rwlock_unlock(&file->direct_lock);
    return status;
}

/* ---- The other operations ---- */

static int fallocate_all(int fd, int how, uint64_t offset, uint64_t length)
{
    int status;

    do {
        status = fallocate(fd, how | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
    } while (status < 0 && errno == EINTR);
    return status < 0 ? -errno : 0;
}

/* The file system or the device cannot, or not at such a position. */
static bool cannot_allocate(int status)
{
    return status == -EOPNOTSUPP || status == -EINVAL || status == -ENOSYS;
}

static int write_zeroes(struct file *file, const struct block_request *request)
{
    uint64_t offset = request->offset, left = request->length;
    int status = 0;

    while (status == 0 && left) {
        uint64_t part = left < ZEROES_BYTES ? left : ZEROES_BYTES;
        struct iovec vector = {zeroes, (size_t)part};
        struct block_request write = {
            .operation = BLOCK_WRITE,
            .offset = offset,
            .left_offset = offset,
            .length = part,
            .vectors = &vector,
            .vector_count = 1,
        };
        status = transfer_all(file, &write, true, 0);
        offset += part;
        left -= part;
    }
    return status;
}

static int perform_read(struct file *file, struct block_request *request)
{
    return transfer_all(file, request, false, 0);
}

static int perform_write(struct file *file, struct block_request *request)
{
    return transfer_all(file, request, true, request->durable ? RWF_DSYNC : 0);
}

static int perform_flush(struct file *file, struct block_request *request)
{
    (void)request;
    return fdatasync(file->fd) < 0 ? -errno : 0;
}

static int perform_discard(struct file *file, struct block_request *request)
{
    int status = fallocate_all(file->fd, FALLOC_FL_PUNCH_HOLE, request->offset, request->length);
    return status == -EINVAL ? 0 : status; /* too small a part: nothing is owed */
}

static int perform_write_zeroes(struct file *file, struct block_request *request)
{
    int how = request->unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int status = fallocate_all(file->fd, how, request->offset, request->length);

    if (cannot_allocate(status)) {
        status = write_zeroes(file, request);
    }
    return status == 0 && request->durable ? perform_flush(file, request) : status;
}

static int perform_resize(struct file *file, struct block_request *request)
{
    if (file->is_device || ftruncate(file->fd, (off_t)request->length) < 0) {
        return file->is_device ? -EOPNOTSUPP : -errno;
    }
    return fsync(file->fd) < 0 ? -errno : 0;
}

int transfer_perform(struct file *file, struct block_request *request)
{
    static int (*const perform[BLOCK_OPERATIONS])(struct file *, struct block_request *) = {
        [BLOCK_READ] = perform_read,
        [BLOCK_WRITE] = perform_write,
        [BLOCK_FLUSH] = perform_flush,
        [BLOCK_DISCARD] = perform_discard,
        [BLOCK_WRITE_ZEROES] = perform_write_zeroes,
        [BLOCK_RESIZE] = perform_resize,
    };
    return perform[request->operation](file, request);
}
