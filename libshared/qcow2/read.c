/* Reading, waiting: from the image, or through its holes from what lies under it. */
#include "libshared/qcow2/internal.h"

static int read_backing(struct qcow2 *image, uint64_t offset, uint64_t length,
                        const struct iovec *vectors, unsigned count)
{
    const struct qcow2_backing *backing = &image->backing;
    uint64_t there = offset < backing->size ? backing->size - offset : 0;
    struct iovec cut[QCOW2_VECTORS_MAX];
    int status = 0;

    there = image->has_backing ? there < length ? there : length : 0;
    if (there) {
        unsigned used = vectors_cut(vectors, count, 0, there, cut, QCOW2_VECTORS_MAX);
        const struct qcow2_io raw = {.fd = backing->fd};
        status = backing->image ? qcow2_read(backing->image, offset, there, cut, used)
                                : qcow2_io_readv(&raw, cut, used, there, offset);
    }
    if (there < length) {
        vectors_clear(vectors, count, there, length - there);
    }
    return status;
}

static int read_extent(struct qcow2 *image, const struct qcow2_extent *extent, uint64_t offset,
                       const struct iovec *vectors, unsigned count)
{
    switch (extent->kind) {
    case QCOW2_DATA:
        return qcow2_io_readv(&image->io, vectors, count, extent->length, extent->host);
    case QCOW2_PACKED:
        return qcow2_unpack(image, extent->host, offset & (image->cluster_bytes - 1),
                            extent->length, vectors, count);
    case QCOW2_ZEROES:
        vectors_clear(vectors, count, 0, extent->length);
        return 0;
    case QCOW2_HOLE:
        break;
    }
    return read_backing(image, offset, extent->length, vectors, count);
}

int qcow2_read(struct qcow2 *image, uint64_t offset, uint64_t length, const struct iovec *vectors,
               unsigned count)
{
    struct iovec cut[QCOW2_VECTORS_MAX];
    uint64_t done = 0;
    int status = 0;

    while (done < length && status == 0) {
        struct qcow2_extent extent = {0};
        pthread_mutex_lock(&image->lock);
        status = qcow2_map_locked(image, offset + done, length - done, false, true, &extent);
        qcow2_use use = qcow2_use_locked(image);
        pthread_mutex_unlock(&image->lock);
        if (status == 0) {
            unsigned used =
                vectors_cut(vectors, count, done, extent.length, cut, QCOW2_VECTORS_MAX);
            status = read_extent(image, &extent, offset + done, cut, used);
        }
        qcow2_release(image, use);
        done += extent.length;
    }
    return status;
}
