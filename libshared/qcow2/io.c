/* The image's file: whole transfers, through a buffer where direct access wants it, and barriers
 * that threads share. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int qcow2_io_open(struct qcow2_io *io, int fd)
{
    io->fd = fd;
    io->direct = direct_io_wanted(fd);
    if (io->direct) {
        direct_io_alignment(fd, &io->alignment);
    }
    int status = pthread_mutex_init(&io->lock, NULL);
    status = status ? status : pthread_mutex_init(&io->around, NULL);
    return status ? -status : -pthread_cond_init(&io->finished, NULL);
}

void qcow2_io_close(struct qcow2_io *io)
{
    pthread_mutex_destroy(&io->lock);
    pthread_mutex_destroy(&io->around);
    pthread_cond_destroy(&io->finished);
}

/* As much as one call takes, the end of the file as zeroes. Bytes or negative errno. */
static ssize_t transfer_some(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                             uint64_t size, uint64_t offset, bool write)
{
    unsigned some = count < 1024 ? count : 1024; /* IOV_MAX */
    ssize_t done;

    do {
        done = write ? pwritev(io->fd, vectors, (int)some, (off_t)offset)
                     : preadv(io->fd, vectors, (int)some, (off_t)offset);
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        return -errno;
    }
    bool end = done == 0 || (io->direct && done % io->alignment.offset);
    if (end && write) {
        return -EIO;
    }
    if (end) {
        vectors_clear(vectors, count, (uint64_t)done, size - (uint64_t)done);
        return (ssize_t)size;
    }
    return done;
}

static int transfer_plain(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                          uint64_t size, uint64_t offset, bool write)
{
    struct iovec copy[QCOW2_TRANSFER_MAX], *left = copy;

    memcpy(copy, vectors, count * sizeof(copy[0]));
    while (count && size) {
        ssize_t done = transfer_some(io, left, count, size, offset, write);
        if (done < 0) {
            return (int)done;
        }
        offset += (size_t)done;
        size -= (size_t)done < size ? (size_t)done : size;
        count = vectors_skip(&left, count, (size_t)done);
    }
    return 0;
}

/* Direct access to what is not aligned. */
static int transfer_around(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                           uint64_t size, uint64_t offset, bool write)
{
    uint8_t *buffer = direct_io_buffer();
    uint64_t at = 0;
    ssize_t done = buffer ? 1 : -ENOMEM;

    while (at < size && done > 0) {
        done = direct_io_part(io->fd, &io->alignment, buffer, vectors, count, at, size - at,
                              offset + at, write, 0);
        at += done > 0 ? (uint64_t)done : 0;
    }
    free(buffer);
    if (done == 0) { /* the end of the file */
        vectors_clear(vectors, count, at, size - at);
    }
    return done < 0 ? (int)done : 0;
}

static int transfer(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                    uint64_t size, uint64_t offset, bool write)
{
    return !io->direct || direct_io_is_aligned(&io->alignment, vectors, count, offset)
               ? transfer_plain(io, vectors, count, size, offset, write)
               : transfer_around(io, vectors, count, size, offset, write);
}

int qcow2_io_readv(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                   uint64_t size, uint64_t offset)
{
    return transfer(io, vectors, count, size, offset, false);
}

int qcow2_io_writev(struct qcow2_io *io, const struct iovec *vectors, unsigned count, uint64_t size,
                    uint64_t offset)
{
    bool around = io->direct && ((offset | size) & (io->alignment.offset - 1));

    if (!around) {
        return transfer(io, vectors, count, size, offset, true);
    }
    pthread_mutex_lock(&io->around);
    int status = transfer(io, vectors, count, size, offset, true);
    pthread_mutex_unlock(&io->around);
    return status;
}

int qcow2_io_read(const struct qcow2_io *io, void *buffer, size_t size, uint64_t offset)
{
    const struct iovec vector = {buffer, size};
    return qcow2_io_readv(io, &vector, 1, size, offset);
}

int qcow2_io_write(struct qcow2_io *io, const void *buffer, size_t size, uint64_t offset)
{
    const struct iovec vector = {(void *)buffer, size};
    return qcow2_io_writev(io, &vector, 1, size, offset);
}

int qcow2_io_barrier(struct qcow2_io *io)
{
    pthread_mutex_lock(&io->lock);
    uint64_t failures = io->failures;
    uint64_t wanted = io->begun + 1; /* one that is under way began too early */
    while (io->done < wanted) {
        if (io->running) {
            pthread_cond_wait(&io->finished, &io->lock);
            continue;
        }
        uint64_t mine = ++io->begun;
        io->running = true;
        pthread_mutex_unlock(&io->lock);
        int status = fdatasync(io->fd);
        pthread_mutex_lock(&io->lock);
        io->running = false;
        io->done = mine;
        io->failures += status < 0;
        pthread_cond_broadcast(&io->finished);
    }
    int result = io->failures == failures ? 0 : -EIO;
    pthread_mutex_unlock(&io->lock);
    return result;
}
