/* Pieces of lists of buffers. */
#include "libshared/qcow2/internal.h"

unsigned qcow2_vectors_cut(const struct iovec *vectors, unsigned count, uint64_t skip,
                           uint64_t size, struct iovec *cut)
{
    unsigned used = 0;

    for (unsigned i = 0; i < count && size && used < QCOW2_VECTORS_MAX - 2; i++) {
        size_t length = vectors[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        cut[used].iov_base = (uint8_t *)vectors[i].iov_base + skip;
        cut[used].iov_len = length - skip < size ? length - (size_t)skip : (size_t)size;
        size -= cut[used].iov_len;
        skip = 0;
        used++;
    }
    return used;
}

void qcow2_vectors_clear(const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size)
{
    struct iovec cut[QCOW2_VECTORS_MAX];
    unsigned used = qcow2_vectors_cut(vectors, count, skip, size, cut);

    for (unsigned i = 0; i < used; i++) {
        memset(cut[i].iov_base, 0, cut[i].iov_len);
    }
}

void qcow2_vectors_fill(const struct iovec *vectors, unsigned count, uint64_t skip,
                        const uint8_t *from, uint64_t size)
{
    struct iovec cut[QCOW2_VECTORS_MAX];
    unsigned used = qcow2_vectors_cut(vectors, count, skip, size, cut);

    for (unsigned i = 0; i < used; i++) {
        memcpy(cut[i].iov_base, from, cut[i].iov_len);
        from += cut[i].iov_len;
    }
}
