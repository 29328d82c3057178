/*
 * Lists of pieces of memory, like a guest's buffers: parts of them, and copies out of and into
 * them. Bytes are counted from the beginning of the first piece; what a list does not have is left
 * out.
 */
#ifndef POLYVISOR_BASE_VECTORS_H
#define POLYVISOR_BASE_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The pieces that make up `size` bytes from byte `skip` on, at most `room` of them: how many. `cut`
 * may be the list itself, or NULL: they are only counted. */
unsigned vectors_cut(const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size,
                     struct iovec *cut, unsigned room);
/* Take the first `skip` bytes off, in place: *vectors goes on. How many pieces are left. */
unsigned vectors_skip(struct iovec **vectors, unsigned count, size_t skip);

/* Copy from byte `skip` on, out of the pieces or into them. How many bytes, at most `size`. */
size_t vectors_get(const struct iovec *vectors, unsigned count, uint64_t skip, void *to,
                   size_t size);
size_t vectors_put(const struct iovec *vectors, unsigned count, uint64_t skip, const void *from,
                   size_t size);
void vectors_clear(const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size);

#endif
