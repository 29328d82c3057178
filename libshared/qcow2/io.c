/* The image's file: whole transfers, and barriers that threads share. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <unistd.h>

int qcow2_io_open(struct qcow2_io *io, int fd)
{
    io->fd = fd;
    int status = pthread_mutex_init(&io->lock, NULL);
    return status ? -status : -pthread_cond_init(&io->finished, NULL);
}

void qcow2_io_close(struct qcow2_io *io)
{
    pthread_mutex_destroy(&io->lock);
    pthread_cond_destroy(&io->finished);
}

static int transfer(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                    uint64_t size, uint64_t offset, bool write)
{
    struct iovec copy[QCOW2_TRANSFER_MAX], *left = copy;

    memcpy(copy, vectors, count * sizeof(copy[0]));
    while (count && size) {
        unsigned some = count < 1024 ? count : 1024; /* IOV_MAX */
        ssize_t done = write ? pwritev(io->fd, left, (int)some, (off_t)offset)
                             : preadv(io->fd, left, (int)some, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return -errno;
        }
        if (done == 0 && write) {
            return -EIO;
        }
        if (done == 0) { /* the end of the file */
            vectors_clear(left, count, 0, size);
            return 0;
        }
        offset += (size_t)done;
        size -= (size_t)done < size ? (size_t)done : size;
        count = vectors_skip(&left, count, (size_t)done);
    }
    return 0;
}

int qcow2_io_readv(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                   uint64_t size, uint64_t offset)
{
    return transfer(io, vectors, count, size, offset, false);
}

int qcow2_io_writev(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                    uint64_t size, uint64_t offset)
{
    return transfer(io, vectors, count, size, offset, true);
}

int qcow2_io_read(const struct qcow2_io *io, void *buffer, size_t size, uint64_t offset)
{
    const struct iovec vector = {buffer, size};
    return transfer(io, &vector, 1, size, offset, false);
}

int qcow2_io_write(const struct qcow2_io *io, const void *buffer, size_t size, uint64_t offset)
{
    const struct iovec vector = {(void *)buffer, size};
    return transfer(io, &vector, 1, size, offset, true);
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
