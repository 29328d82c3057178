/*
 * Direct access to files and block devices (O_DIRECT, open(2)): what must be aligned, and transfers
 * of what is not.
 */
#ifndef POLYVISOR_BASE_DIRECT_IO_H
#define POLYVISOR_BASE_DIRECT_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define DIRECT_ALIGNMENT_MAX (64u << 10)

struct direct_alignment {
    uint32_t offset; /* of places in the file, and of lengths; bytes, a power of two >= 512 */
    uint32_t memory; /* of buffers */
};

/* Whether the descriptor was opened for direct access. */
bool direct_io_wanted(int fd);
/* A power of two of 512 to DIRECT_ALIGNMENT_MAX: `bytes` if it is one, else a page. */
uint32_t direct_io_usable(uint32_t bytes);
/* What its transfers must be aligned to; a page where the host does not say. */
void direct_io_alignment(int fd, struct direct_alignment *alignment);
bool direct_io_is_aligned(const struct direct_alignment *alignment, const struct iovec *vectors,
                          unsigned count, uint64_t offset);

/* One pread(2), whatever the descriptor was opened for: some bytes, 0 at the end of the file, or
 * negative errno. Slow when it is direct. */
ssize_t direct_io_pread(int fd, void *buffer, size_t size, uint64_t offset);

#endif
