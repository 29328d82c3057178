/* Another size of the disk. Nothing is under way meanwhile. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

/* The header's new L1 table, beside the old size. */
static int l1_announce(struct qcow2 *image, uint64_t count, uint64_t offset)
{
    uint8_t disk[12];

    qcow2_put32(disk, (uint32_t)count);
    qcow2_put64(disk + 4, offset);
    return qcow2_header_write(image, offsetof(struct qcow2_disk_header, l1_size), disk,
                              sizeof(disk));
}

/* A longer L1 table, at another place. */
static int l1_grow(struct qcow2 *image, uint64_t count)
{
    uint64_t old = image->header.l1_offset >> image->cluster_bits;
    uint64_t old_clusters = qcow2_clusters_of(image, (uint64_t)image->l1_size * 8);
    uint64_t clusters = qcow2_clusters_of(image, count * 8), first;
    uint64_t *l1 = calloc(count, sizeof(l1[0]));

    if (!l1) {
        return -ENOMEM;
    }
    memcpy(l1, image->l1, image->l1_size * sizeof(l1[0]));
    int status = qcow2_allocate_area_locked(image, clusters, &first);
    status =
        status < 0 ? status : qcow2_table_write(image, first << image->cluster_bits, count, l1);
    status = status < 0 ? status : l1_announce(image, count, first << image->cluster_bits);
    if (status < 0) {
        free(l1);
        return status;
    }
    free(image->l1);
    image->l1 = l1;
    qcow2_places_remove(&image->tables, old, old_clusters);
    if (image->l1_size) {
        qcow2_free_locked(image, old, old_clusters);
    }
    image->l1_size = image->header.l1_size = (uint32_t)count;
    image->header.l1_offset = first << image->cluster_bits;
    return qcow2_places_add(&image->tables, first, clusters);
}

static int size_write(struct qcow2 *image, uint64_t size)
{
    uint8_t disk[8];

    qcow2_put64(disk, size);
    int status =
        qcow2_header_write(image, offsetof(struct qcow2_disk_header, size), disk, sizeof(disk));
    if (status == 0) {
        image->header.size = size;
    }
    return status;
}

/* What appears is zeroes, whatever was there: of a disk that was larger before, or below. */
static int grow(struct qcow2 *image, uint64_t size)
{
    uint64_t old = qcow2_size(image), needed = qcow2_l1_entries(image->cluster_bits, size);

    if (needed > QCOW2_L1_BYTES_MAX / 8) {
        return -EFBIG;
    }
    pthread_mutex_lock(&image->lock);
    int status = needed > image->l1_size ? l1_grow(image, needed) : 0;
    pthread_mutex_unlock(&image->lock);
    if (status < 0) {
        return status;
    }
    image->header.size = size;
    status = qcow2_write_zeroes(image, old, size - old, true, true);
    status = status < 0 ? status : size_write(image, size);
    image->header.size = status < 0 ? old : size;
    return status;
}

static int shrink(struct qcow2 *image, uint64_t size)
{
    uint64_t first = qcow2_clusters_of(image, size), old = qcow2_size(image);
    uint64_t end = first << image->cluster_bits;
    int status = 0;

    if (end > size) {
        end = end < old ? end : old;
        status = qcow2_write_zeroes(image, size, end - size, false, false);
    }
    if (status == 0 && qcow2_clusters_of(image, old) > first) {
        status = qcow2_empty(image, first, qcow2_clusters_of(image, old) - 1, QCOW2_EMPTY_FORGET);
    }
    status = status < 0 ? status : qcow2_flush(image);
    status = status < 0 ? status : size_write(image, size);
    return status < 0 ? status : qcow2_flush(image);
}

int qcow2_resize(struct qcow2 *image, uint64_t size, struct error *err)
{
    uint64_t old = qcow2_size(image);
    int status;

    if (image->read_only || atomic_load(&image->corrupt)) {
        return error_set(err, ERROR_DISK, image->read_only ? EROFS : EIO, "'%s' cannot be written",
                         image->name);
    }
    if (size % QCOW2_SECTOR || !size) {
        return error_set(err, ERROR_CONFIG, EINVAL, "a size must be a multiple of %u bytes",
                         QCOW2_SECTOR);
    }
    if (image->snapshot_count && (size < old || image->header.version < 3)) {
        error_set(err, ERROR_UNSUPPORTED, EOPNOTSUPP,
                  "'%s' has snapshots: it cannot become smaller%s", image->name,
                  image->header.version < 3 ? " or larger" : "");
        error_hint(err, "qemu-img snapshot -d removes them");
        return -ERROR_UNSUPPORTED;
    }
    status = size > old ? grow(image, size) : size < old ? shrink(image, size) : 0;
    if (status == -EFBIG) {
        error_set(err, ERROR_CONFIG, EFBIG, "'%s' cannot become so large with clusters of %u bytes",
                  image->name, image->cluster_bytes);
        return -ERROR_CONFIG;
    }
    return status < 0 ? error_set(err, ERROR_IO, -status, "cannot resize '%s': %s", image->name,
                                  strerror(-status))
                      : 0;
}
