#include "libshared/base/direct_io.h"

#include "libshared/base/vectors.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u
#define PAGE   4096u

bool direct_io_wanted(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT);
}

uint32_t direct_io_usable(uint32_t bytes)
{
    bool good = bytes >= SECTOR && bytes <= DIRECT_ALIGNMENT_MAX && !(bytes & (bytes - 1));
    return good ? bytes : PAGE;
}

/* The kernel says so since 6.1. */
void direct_io_alignment(int fd, struct direct_alignment *alignment)
{
    struct statx info = {0};
    struct stat status;
    int sector = 0;

    *alignment = (struct direct_alignment){PAGE, PAGE};
    if (fstat(fd, &status) == 0 && S_ISBLK(status.st_mode) && ioctl(fd, BLKSSZGET, &sector) == 0) {
        alignment->offset = alignment->memory = direct_io_usable((uint32_t)sector);
    }
#ifdef STATX_DIOALIGN
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
        (info.stx_mask & STATX_DIOALIGN) && info.stx_dio_offset_align) {
        alignment->offset = direct_io_usable(info.stx_dio_offset_align);
        alignment->memory = direct_io_usable(info.stx_dio_mem_align);
    }
#else
    (void)info;
#endif
}

bool direct_io_is_aligned(const struct direct_alignment *alignment, const struct iovec *vectors,
                          unsigned count, uint64_t offset)
{
    const uint32_t mask = alignment->offset - 1, memory = alignment->memory - 1;
    bool aligned = !(offset & mask);

    for (unsigned i = 0; i < count && aligned; i++) {
        aligned = !((uintptr_t)vectors[i].iov_base & memory) && !(vectors[i].iov_len & mask);
    }
    return aligned;
}

uint8_t *direct_io_buffer(void)
{
    return aligned_alloc(DIRECT_ALIGNMENT_MAX, DIRECT_BUFFER);
}

static int blocks_write(int fd, const uint8_t *buffer, size_t size, uint64_t offset, int flags)
{
    while (size) {
        const struct iovec vector = {(void *)buffer, size};
        ssize_t done = pwritev2(fd, &vector, 1, (off_t)offset, flags);
        if (done == 0 || (done < 0 && errno != EINTR)) {
            return done < 0 ? -errno : -EIO;
        }
        done = done < 0 ? 0 : done;
        buffer += done;
        offset += (uint64_t)done;
        size -= (size_t)done;
    }
    return 0;
}

/* Up to the end of the file; what is behind it, as zeroes. How many bytes there were. */
static ssize_t blocks_read(int fd, const struct direct_alignment *alignment, uint8_t *buffer,
                           size_t size, uint64_t offset)
{
    size_t there = 0;

    while (there < size && there % alignment->offset == 0) {
        ssize_t done = pread(fd, buffer + there, size - there, (off_t)(offset + there));
        if (done == 0 || (done < 0 && errno != EINTR)) {
            if (done < 0) {
                return -errno;
            }
            break;
        }
        there += done < 0 ? 0 : (size_t)done;
    }
    memset(buffer + there, 0, size - there);
    return (ssize_t)there;
}

ssize_t direct_io_part(int fd, const struct direct_alignment *alignment, uint8_t *buffer,
                       const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size,
                       uint64_t offset, bool write, int flags)
{
    const uint64_t mask = alignment->offset - 1;
    size_t before = (size_t)(offset & mask), most = DIRECT_BUFFER - before;
    size_t part = size < most ? (size_t)size : most;
    size_t whole = (before + part + (size_t)mask) & ~(size_t)mask;
    ssize_t there = 0;

    if (!write || whole != part) {
        there = blocks_read(fd, alignment, buffer, whole, offset - before);
        if (there < 0) {
            return there;
        }
    }
    if (!write) {
        size_t useful = (size_t)there > before ? (size_t)there - before : 0;
        return (ssize_t)vectors_put(vectors, count, skip, buffer + before,
                                    useful < part ? useful : part);
    }
    vectors_get(vectors, count, skip, buffer + before, part);
    int status = blocks_write(fd, buffer, whole, offset - before, flags);
    return status < 0 ? status : (ssize_t)part;
}

ssize_t direct_io_pread(int fd, void *buffer, size_t size, uint64_t offset)
{
    const struct iovec vector = {buffer, size};
    struct direct_alignment alignment;

    if (!direct_io_wanted(fd)) {
        ssize_t done = pread(fd, buffer, size, (off_t)offset);
        return done < 0 ? -errno : done;
    }
    uint8_t *blocks = direct_io_buffer();
    if (!blocks) {
        return -ENOMEM;
    }
    direct_io_alignment(fd, &alignment);
    ssize_t done = direct_io_part(fd, &alignment, blocks, &vector, 1, 0, size, offset, false, 0);
    free(blocks);
    return done;
}
