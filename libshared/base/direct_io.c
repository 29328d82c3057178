#include "libshared/base/direct_io.h"

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
#define WINDOW (64u << 10) /* of reads that are not aligned; at least DIRECT_ALIGNMENT_MAX */

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

ssize_t direct_io_pread(int fd, void *buffer, size_t size, uint64_t offset)
{
    struct direct_alignment alignment;

    if (!direct_io_wanted(fd)) {
        ssize_t done = pread(fd, buffer, size, (off_t)offset);
        return done < 0 ? -errno : done;
    }
    direct_io_alignment(fd, &alignment);
    size_t skip = offset & (alignment.offset - 1);
    size_t most = WINDOW - skip;
    uint8_t *window = aligned_alloc(DIRECT_ALIGNMENT_MAX, WINDOW);
    if (!window) {
        return -ENOMEM;
    }
    size = size < most ? size : most;
    size_t whole = (skip + size + alignment.offset - 1) & ~(size_t)(alignment.offset - 1);
    ssize_t done = pread(fd, window, whole, (off_t)(offset - skip));
    ssize_t result = done < 0 ? -errno : 0;
    if (done > (ssize_t)skip) {
        size_t there = (size_t)done - skip;
        result = (ssize_t)(there < size ? there : size);
        memcpy(buffer, window + skip, (size_t)result);
    }
    free(window);
    return result;
}
