/*
 * Writing, waiting. Data that may be overwritten is; everything else gets clusters of its own: they
 * are written whole (around the new bytes goes what was read there before), then the L2 entries
 * point to them, then what the entries pointed to before is given up.
 */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

#define STEP_BYTES (UINT64_C(4) << 20) /* most that is allocated at once */
#define PAGE_BYTES 4096u

/* One allocation on its way. */
struct allocation {
    struct qcow2_change change;
    uint64_t first, count; /* clusters of the disk */
    uint64_t host;         /* in the file, bytes */
    uint64_t skip, length; /* the new bytes in them */
    bool fresh;            /* the file has zeroes there */
    bool own;              /* kept for these clusters before: nothing to give back */
    uint8_t *around;       /* what goes before and behind the new bytes; or NULL */
};

static uint64_t allocation_bytes(const struct qcow2 *image, const struct allocation *allocation)
{
    return allocation->count << image->cluster_bits;
}

/* The entry of a cluster that has a place of its own, which reads as zeroes. */
static bool entry_is_kept(uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_COPIED) && (entry & QCOW2_ZERO) &&
           (entry & QCOW2_OFFSET_MASK);
}

static bool entry_is_plain(uint64_t entry)
{
    return !(entry & (QCOW2_COMPRESSED | QCOW2_ZERO)) && (entry & QCOW2_COPIED) &&
           (entry & QCOW2_OFFSET_MASK);
}

/* How many clusters from the first one on need a place. */
static int count_wanting(struct qcow2 *image, struct allocation *allocation, uint64_t most)
{
    int status = 0;

    allocation->count = 1;
    while (allocation->count < most) {
        uint64_t entry;
        status = qcow2_entry_locked(image, allocation->first + allocation->count, &entry);
        if (status < 0 || entry_is_kept(entry) || entry_is_plain(entry)) {
            break;
        }
        allocation->count++;
    }
    return status;
}

/* Find a place for the clusters from `offset` on. 1: there is nothing to allocate any more. */
static int allocation_begin(struct qcow2 *image, uint64_t offset, uint64_t length,
                            struct allocation *allocation)
{
    uint64_t first = offset >> image->cluster_bits;
    uint64_t skip = offset & (image->cluster_bytes - 1);
    uint64_t most = qcow2_clusters_of(image, skip + length), left = qcow2_slice_left(image, first);
    uint64_t step = STEP_BYTES >> image->cluster_bits;
    struct qcow2_run run;
    uint64_t entry;

    most = most < left ? most : left;
    most = most < step ? most : step;
    *allocation = (struct allocation){.first = first, .count = most, .skip = skip};
    qcow2_change_begin_locked(image, &allocation->change, first, first + most - 1);
    int status = qcow2_l2_own_locked(image, first);
    status = status < 0 ? status : qcow2_entry_locked(image, first, &entry);
    if (status == 0 && entry_is_plain(entry)) {
        status = 1;
    } else if (status == 0 && entry_is_kept(entry)) {
        allocation->own = true;
        allocation->count = 1;
        allocation->host = entry & QCOW2_OFFSET_MASK;
        if ((allocation->host & (image->cluster_bytes - 1)) ||
            allocation->host >> image->cluster_bits >= image->bound_clusters ||
            qcow2_places_have(&image->tables, allocation->host >> image->cluster_bits)) {
            status =
                qcow2_damaged_locked(image, "a cluster is not where it can be", allocation->host);
        }
    } else if (status == 0) {
        status = count_wanting(image, allocation, most);
        status = status < 0
                     ? status
                     : qcow2_allocate_locked(image, allocation->count, &run, &allocation->fresh);
        if (status == 0) {
            allocation->count = run.count;
            allocation->host = run.first << image->cluster_bits;
        }
    }
    if (status != 0) {
        qcow2_change_end_locked(image, &allocation->change);
        return status;
    }
    qcow2_change_narrow_locked(image, &allocation->change, first + allocation->count - 1);
    uint64_t room = allocation_bytes(image, allocation) - skip;
    allocation->length = length < room ? length : room;
    return 0;
}

int qcow2_reads_as_zeroes(struct qcow2 *image, uint64_t offset, uint64_t length, bool *zeroes)
{
    int status = 0;

    *zeroes = true;
    while (length && *zeroes && status == 0) {
        struct qcow2_extent extent = {0};
        pthread_mutex_lock(&image->lock);
        status = qcow2_map_locked(image, offset, length, false, true, &extent);
        pthread_mutex_unlock(&image->lock);
        bool under = image->has_backing && offset < image->backing.size;
        *zeroes =
            status == 0 && (extent.kind == QCOW2_ZEROES || (extent.kind == QCOW2_HOLE && !under));
        offset += extent.length;
        length -= extent.length;
    }
    return status;
}

/* Read what was at `offset` of the disk; beyond its end there are zeroes. */
static int read_around(struct qcow2 *image, uint64_t offset, uint64_t length, uint8_t *buffer)
{
    uint64_t size = qcow2_size(image);
    uint64_t there = offset < size ? size - offset : 0;
    const struct iovec vector = {buffer, length < there ? length : there};

    memset(buffer, 0, length);
    return vector.iov_len ? qcow2_read(image, offset, vector.iov_len, &vector, 1) : 0;
}

/* Get what goes around the new bytes. Without any, or when the file has it already, none. */
static int allocation_surround(struct qcow2 *image, struct allocation *allocation)
{
    uint64_t begin = allocation->first << image->cluster_bits;
    uint64_t behind = allocation->skip + allocation->length;
    uint64_t tail = allocation_bytes(image, allocation) - behind;
    uint64_t size = qcow2_size(image);
    bool zeroes_before = true, zeroes_behind = true;

    if (!allocation->skip && !tail) {
        return 0;
    }
    int status = qcow2_reads_as_zeroes(image, begin, allocation->skip, &zeroes_before);
    if (status == 0 && begin + behind < size) {
        uint64_t there = size - begin - behind;
        status = qcow2_reads_as_zeroes(image, begin + behind, tail < there ? tail : there,
                                       &zeroes_behind);
    }
    if (status < 0 || (zeroes_before && zeroes_behind && allocation->fresh)) {
        return status;
    }
    /* Whole pages, so that direct access can take them as they are. */
    uint64_t bytes = (allocation->skip + tail + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
    allocation->around = aligned_alloc(PAGE_BYTES, bytes);
    if (!allocation->around) {
        return -ENOMEM;
    }
    status = read_around(image, begin, allocation->skip, allocation->around);
    return status < 0
               ? status
               : read_around(image, begin + behind, tail, allocation->around + allocation->skip);
}

static int allocation_fill(struct qcow2 *image, const struct allocation *allocation,
                           const struct iovec *vectors, unsigned count, uint64_t done)
{
    uint64_t tail = allocation_bytes(image, allocation) - allocation->skip - allocation->length;
    struct iovec all[QCOW2_TRANSFER_MAX];
    unsigned used = 0;
    uint64_t host = allocation->host + allocation->skip, bytes = allocation->length;

    if (allocation->around && allocation->skip) {
        all[used++] = (struct iovec){allocation->around, allocation->skip};
        host -= allocation->skip;
        bytes += allocation->skip;
    }
    used += vectors_cut(vectors, count, done, allocation->length, all + used, QCOW2_VECTORS_MAX);
    if (allocation->around && tail) {
        all[used++] = (struct iovec){allocation->around + allocation->skip, tail};
        bytes += tail;
    }
    return qcow2_io_writev(&image->io, all, used, bytes, host);
}

static int allocation_link_locked(struct qcow2 *image, const struct allocation *allocation)
{
    uint64_t old[QCOW2_SLICE_BYTES / 8], new[QCOW2_SLICE_BYTES / 8];
    int status = 0;

    for (uint64_t i = 0; i < allocation->count && status == 0; i++) {
        status = qcow2_entry_locked(image, allocation->first + i, &old[i]);
        new[i] = (allocation->host + (i << image->cluster_bits)) | QCOW2_COPIED;
    }
    status = status < 0
                 ? status
                 : qcow2_entries_put_locked(image, allocation->first, new, allocation->count);
    for (uint64_t i = 0; i < allocation->count && status == 0 && !allocation->own; i++) {
        qcow2_entry_free_locked(image, old[i]);
    }
    return status;
}

static void allocation_end_locked(struct qcow2 *image, struct allocation *allocation, int status,
                                  bool linking)
{
    /* One that may have been linked is not given back: at worst it is leaked. */
    if (status < 0 && !linking && !allocation->own) {
        qcow2_free_locked(image, allocation->host >> image->cluster_bits, allocation->count);
    }
    qcow2_change_end_locked(image, &allocation->change);
    free(allocation->around);
}

/* Write the beginning of what is left to clusters of its own; *done goes on. */
static int write_allocating(struct qcow2 *image, uint64_t offset, uint64_t length,
                            const struct iovec *vectors, unsigned count, uint64_t *done)
{
    struct allocation allocation;
    bool linking = false;

    pthread_mutex_lock(&image->lock);
    int status = allocation_begin(image, offset + *done, length - *done, &allocation);
    pthread_mutex_unlock(&image->lock);
    if (status != 0) {
        return status < 0 ? status : 0; /* somebody else did it */
    }
    status = allocation_surround(image, &allocation);
    status = status < 0 ? status : allocation_fill(image, &allocation, vectors, count, *done);
    if (status == 0 && (allocation.around || allocation.own)) { /* old data, if the power fails */
        status = qcow2_io_barrier(&image->io);
    }
    pthread_mutex_lock(&image->lock);
    if (status == 0) {
        linking = true;
        status = allocation_link_locked(image, &allocation);
    }
    allocation_end_locked(image, &allocation, status, linking);
    pthread_mutex_unlock(&image->lock);
    *done += status == 0 ? allocation.length : 0;
    return status;
}

int qcow2_write(struct qcow2 *image, uint64_t offset, uint64_t length, const struct iovec *vectors,
                unsigned count, bool durable)
{
    struct iovec cut[QCOW2_VECTORS_MAX];
    uint64_t done = 0;
    int status = 0;

    qcow2_free_bound(image);
    while (done < length && status == 0) {
        struct qcow2_extent extent = {0};
        if (image->read_only || atomic_load(&image->corrupt)) {
            return image->read_only ? -EROFS : -EIO;
        }
        pthread_mutex_lock(&image->lock);
        status = qcow2_map_locked(image, offset + done, length - done, true, true, &extent);
        qcow2_use use = qcow2_use_locked(image);
        pthread_mutex_unlock(&image->lock);
        if (status == 0 && extent.writable) {
            unsigned used =
                vectors_cut(vectors, count, done, extent.length, cut, QCOW2_VECTORS_MAX);
            status = qcow2_io_writev(&image->io, cut, used, extent.length, extent.host);
            done += status == 0 ? extent.length : 0;
        } else if (status == 0) {
            status = write_allocating(image, offset, length, vectors, count, &done);
        }
        qcow2_release(image, use);
    }
    return status == 0 && durable ? qcow2_io_barrier(&image->io) : status;
}
