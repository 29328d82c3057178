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
#define DIRECT_BUFFER        (1u << 20) /* a multiple of every alignment */

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

/* The first part of a transfer that is not aligned, by way of a buffer that is: DIRECT_BUFFER
 * bytes, aligned to DIRECT_ALIGNMENT_MAX. `size` bytes from byte `skip` of the vectors on are read
 * from, or written to, `offset`; blocks that are written a part of are read first, so others must
 * not write there meanwhile. `flags` are those of pwritev2(2). How many bytes were done; 0 at the
 * end of the file; or negative errno. */
ssize_t direct_io_part(int fd, const struct direct_alignment *alignment, uint8_t *buffer,
                       const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size,
                       uint64_t offset, bool write, int flags);
/* Such a buffer, to be freed; or NULL. */
uint8_t *direct_io_buffer(void);

/* One pread(2), whatever the descriptor was opened for: some bytes, 0 at the end of the file, or
 * negative errno. Slow when it is direct. */
ssize_t direct_io_pread(int fd, void *buffer, size_t size, uint64_t offset);

#endif
