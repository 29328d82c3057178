/* Clusters that are emptied: by writing zeroes, by discarding, by making the disk smaller. */
#include "libshared/qcow2/internal.h"

#include <errno.h>

#define ZEROES_BYTES (64u << 10)

static _Alignas(4096) uint8_t zeroes[ZEROES_BYTES]; /* only read */

/* What a cluster's entry becomes. False: that cannot be said by an entry, zeroes must be written.
 */
static bool entry_emptied(const struct qcow2 *image, uint64_t cluster, uint64_t entry,
                          enum qcow2_emptying how, uint64_t *emptied)
{
    bool under = image->has_backing && cluster << image->cluster_bits < image->backing.size;
    bool flags = image->header.version >= 3;
    bool keeps =
        how == QCOW2_EMPTY_ZEROES && flags && !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_COPIED);

    *emptied = entry;
    if (how == QCOW2_EMPTY_FORGET) {
        *emptied = 0;
        return true;
    }
    if (qcow2_entry_kind(image, entry) == QCOW2_HOLE && (!under || how == QCOW2_EMPTY_DISCARD)) {
        return true;
    }
    if (keeps) {
        *emptied = entry | QCOW2_ZERO;
        return true;
    }
    if (!flags && under) {
        return how == QCOW2_EMPTY_DISCARD; /* it stays: what is below must not appear */
    }
    *emptied = flags && image->has_backing ? QCOW2_ZERO : 0;
    return true;
}

/* Write zeroes as data, where there is anything else. */
static int write_as_data(struct qcow2 *image, uint64_t offset, uint64_t length)
{
    struct iovec vectors[(1u << QCOW2_CLUSTER_BITS_MAX) / ZEROES_BYTES];
    bool done;
    int status = qcow2_reads_as_zeroes(image, offset, length, &done);

    if (status < 0 || done) {
        return status;
    }
    unsigned count = 0;
    for (uint64_t left = length; left; count++) {
        size_t part = left < ZEROES_BYTES ? (size_t)left : ZEROES_BYTES;
        vectors[count] = (struct iovec){zeroes, part};
        left -= part;
    }
    return qcow2_write(image, offset, length, vectors, count, false);
}

/* Those of one slice, `*count` at most; how many were looked at. 1: the first one needs data. */
static int empty_some_locked(struct qcow2 *image, uint64_t first, uint64_t *count,
                             enum qcow2_emptying how)
{
    uint64_t old[QCOW2_SLICE_BYTES / 8], new[QCOW2_SLICE_BYTES / 8];
    uint64_t used = 0;
    bool differs = false;
    int status = 0;

    for (; used < *count && status == 0; used++) {
        status = qcow2_entry_locked(image, first + used, &old[used]);
        if (status == 0 && !entry_emptied(image, first + used, old[used], how, &new[used])) {
            break;
        }
        differs = differs || (status == 0 && new[used] != old[used]);
    }
    if (status < 0 || !used) {
        return status < 0 ? status : 1;
    }
    *count = used;
    if (!differs) {
        return 0;
    }
    status = qcow2_l2_own_locked(image, first);
    status = status < 0 ? status : qcow2_entries_put_locked(image, first, new, used);
    for (uint64_t i = 0; i < used && status == 0; i++) {
        if (new[i] != old[i] && !(new[i] & QCOW2_OFFSET_MASK)) {
            qcow2_entry_free_locked(image, old[i]);
        }
    }
    return status;
}

int qcow2_empty(struct qcow2 *image, uint64_t first, uint64_t last, enum qcow2_emptying how)
{
    int status = 0;

    while (first <= last && status >= 0) {
        uint64_t left = qcow2_slice_left(image, first), count = last - first + 1;
        struct qcow2_change change;

        count = count < left ? count : left;
        pthread_mutex_lock(&image->lock);
        qcow2_change_begin_locked(image, &change, first, first + count - 1);
        status = atomic_load(&image->corrupt) ? -EIO : empty_some_locked(image, first, &count, how);
        qcow2_change_end_locked(image, &change);
        pthread_mutex_unlock(&image->lock);
        if (status == 1) {
            uint64_t offset = first << image->cluster_bits, size = qcow2_size(image);
            uint64_t bytes = size - offset;
            bytes = bytes < image->cluster_bytes ? bytes : image->cluster_bytes;
            status = offset < size ? write_as_data(image, offset, bytes) : 0;
            count = 1;
        }
        first += count;
        qcow2_free_bound(image);
    }
    return status;
}

/* The whole clusters in a range: those from *first to before *end. The disk's last one is whole
 * when the range goes to its end. */
static void whole_clusters(const struct qcow2 *image, uint64_t offset, uint64_t length,
                           uint64_t *first, uint64_t *end)
{
    uint64_t size = qcow2_size(image);

    *first = qcow2_clusters_of(image, offset);
    *end = offset + length == size ? qcow2_clusters_of(image, size)
                                   : (offset + length) >> image->cluster_bits;
}

int qcow2_discard(struct qcow2 *image, uint64_t offset, uint64_t length)
{
    uint64_t first, end;

    if (image->read_only) {
        return -EROFS;
    }
    whole_clusters(image, offset, length, &first, &end);
    return first < end ? qcow2_empty(image, first, end - 1, QCOW2_EMPTY_DISCARD) : 0;
}

int qcow2_write_zeroes(struct qcow2 *image, uint64_t offset, uint64_t length, bool unmap,
                       bool durable)
{
    uint64_t first, end, behind = offset + length;
    int status = 0;

    if (image->read_only) {
        return -EROFS;
    }
    whole_clusters(image, offset, length, &first, &end);
    if (first >= end) { /* in one cluster, or in the ends of two */
        uint64_t border = first << image->cluster_bits;
        uint64_t split = border > offset && border < behind ? border : behind;
        status = write_as_data(image, offset, split - offset);
        if (status == 0 && split < behind) {
            status = write_as_data(image, split, behind - split);
        }
    } else {
        uint64_t begin = first << image->cluster_bits, stop = end << image->cluster_bits;
        status = begin > offset ? write_as_data(image, offset, begin - offset) : 0;
        if (status == 0) {
            status =
                qcow2_empty(image, first, end - 1, unmap ? QCOW2_EMPTY_UNMAP : QCOW2_EMPTY_ZEROES);
        }
        if (status == 0 && stop < behind) {
            status = write_as_data(image, stop, behind - stop);
        }
    }
    return status == 0 && durable ? qcow2_io_barrier(&image->io) : status;
}
