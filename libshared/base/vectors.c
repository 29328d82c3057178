#include "libshared/base/vectors.h"

#include <stdbool.h>
#include <string.h>

/* The part of a piece that belongs to `size` bytes from byte *skip on, which is then that of the
 * next piece. False: none. */
static bool piece_cut(const struct iovec *piece, uint64_t *skip, uint64_t size, struct iovec *cut)
{
    if (*skip >= piece->iov_len) {
        *skip -= piece->iov_len;
        return false;
    }
    size_t length = piece->iov_len - (size_t)*skip;
    cut->iov_base = (uint8_t *)piece->iov_base + *skip;
    cut->iov_len = length < size ? length : (size_t)size;
    *skip = 0;
    return true;
}

unsigned vectors_cut(const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size,
                     struct iovec *cut, unsigned room)
{
    unsigned used = 0;

    for (unsigned i = 0; i < count && size && used < room; i++) {
        struct iovec piece;
        if (piece_cut(&vectors[i], &skip, size, &piece)) {
            size -= piece.iov_len;
            if (cut) {
                cut[used] = piece;
            }
            used++;
        }
    }
    return used;
}

unsigned vectors_skip(struct iovec **vectors, unsigned count, size_t skip)
{
    struct iovec *at = *vectors;

    while (count && skip >= at->iov_len) {
        skip -= at->iov_len;
        at++;
        count--;
    }
    if (count) {
        at->iov_base = (uint8_t *)at->iov_base + skip;
        at->iov_len -= skip;
    }
    *vectors = at;
    return count;
}

size_t vectors_get(const struct iovec *vectors, unsigned count, uint64_t skip, void *to,
                   size_t size)
{
    struct iovec piece;
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        if (piece_cut(&vectors[i], &skip, size - done, &piece)) {
            memcpy((uint8_t *)to + done, piece.iov_base, piece.iov_len);
            done += piece.iov_len;
        }
    }
    return done;
}

size_t vectors_put(const struct iovec *vectors, unsigned count, uint64_t skip, const void *from,
                   size_t size)
{
    struct iovec piece;
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        if (piece_cut(&vectors[i], &skip, size - done, &piece)) {
            memcpy(piece.iov_base, (const uint8_t *)from + done, piece.iov_len);
            done += piece.iov_len;
        }
    }
    return done;
}

void vectors_clear(const struct iovec *vectors, unsigned count, uint64_t skip, uint64_t size)
{
    struct iovec piece;

    for (unsigned i = 0; i < count && size; i++) {
        if (piece_cut(&vectors[i], &skip, size, &piece)) {
            memset(piece.iov_base, 0, piece.iov_len);
            size -= piece.iov_len;
        }
    }
}
