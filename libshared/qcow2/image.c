/* An image's life. */
#include "libshared/base/log.h"
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

const struct qcow2_header *qcow2_header(const struct qcow2 *image)
{
    return &image->header;
}

uint64_t qcow2_size(const struct qcow2 *image)
{
    return image->header.size & ~(uint64_t)(QCOW2_SECTOR - 1);
}

uint32_t qcow2_cluster_bytes(const struct qcow2 *image)
{
    return image->cluster_bytes;
}

bool qcow2_is_corrupt(const struct qcow2 *image)
{
    return atomic_load(&image->corrupt);
}

void qcow2_set_backing(struct qcow2 *image, const struct qcow2_backing *backing)
{
    image->backing = *backing;
    image->has_backing = true;
}

int qcow2_header_write(struct qcow2 *image, size_t at, const void *bytes, size_t size)
{
    int status = qcow2_io_write(&image->io, bytes, size, at);
    return status < 0 ? status : qcow2_io_barrier(&image->io);
}

int qcow2_features_write(struct qcow2 *image)
{
    uint8_t disk[8];

    qcow2_put64(disk, image->header.incompatible);
    return qcow2_header_write(image, offsetof(struct qcow2_disk_header, incompatible), disk,
                              sizeof(disk));
}

int qcow2_damaged_locked(struct qcow2 *image, const char *what, uint64_t offset)
{
    if (atomic_exchange(&image->corrupt, true)) {
        return -EIO;
    }
    log_error("qcow2 image '%s' is damaged: %s (at %#llx)%s", image->name, what,
              (unsigned long long)offset, image->read_only ? "" : "; it is not written any more");
    if (!image->read_only && image->header.version >= 3) {
        image->header.incompatible |= QCOW2_CORRUPT;
        qcow2_features_write(image);
    }
    return -EIO;
}

/* ---- Open ---- */

static int file_inspect(struct qcow2 *image, struct error *err)
{
    int64_t bytes = qcow2_file_size(image->io.fd);
    struct stat info;

    if (bytes < 0 || fstat(image->io.fd, &info) < 0) {
        return error_set(err, ERROR_IO, bytes < 0 ? (int)-bytes : errno,
                         "cannot find the size of '%s'", image->name);
    }
    image->is_device = S_ISBLK(info.st_mode);
    image->can_punch = !image->is_device;
    image->file_clusters = image->bound_clusters = qcow2_clusters_of(image, (uint64_t)bytes);
    if (image->is_device) {
        image->bound_clusters = (uint64_t)bytes >> image->cluster_bits;
    }
    return 0;
}

/* Of a block device: what is behind the last cluster that is used, is free. */
static int device_find_end(struct qcow2 *image)
{
    uint64_t entries = qcow2_refcount_block_entries(image), count = 0;
    uint64_t block = image->reftable_size;

    while (block && !image->reftable[block - 1]) {
        block--;
    }
    uint64_t at = block * entries, stop = block ? (block - 1) * entries : 0;
    while (at > stop) {
        int status = qcow2_refcount_get_locked(image, at - 1, &count);
        if (status < 0 || count) {
            break;
        }
        at--;
    }
    image->file_clusters = at < image->bound_clusters ? at : image->bound_clusters;
    return 0;
}

struct qcow2 *qcow2_new(int fd, const char *name, bool read_only, struct error *err)
{
    struct qcow2 *image = calloc(1, sizeof(*image));

    if (!image) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    snprintf(image->name, sizeof(image->name), "%s", name);
    image->read_only = read_only;
    pthread_mutex_init(&image->lock, NULL);
    pthread_mutex_init(&image->unpack_lock, NULL);
    pthread_cond_init(&image->changed, NULL);
    qcow2_io_open(&image->io, fd);
    int status = qcow2_header_read(fd, name, &image->header, err);
    if (status == 0) {
        image->cluster_bits = image->header.cluster_bits;
        image->cluster_bytes = 1u << image->cluster_bits;
        image->l2_bits = image->cluster_bits - 3;
        image->slice_bytes =
            image->cluster_bytes < QCOW2_SLICE_BYTES ? image->cluster_bytes : QCOW2_SLICE_BYTES;
        status = file_inspect(image, err);
    }
    if (status == 0 && image->io.direct && image->cluster_bytes < image->io.alignment.offset) {
        error_set(err, ERROR_UNSUPPORTED, 0,
                  "the clusters of '%s' are smaller than blocks of direct access", image->name);
        error_hint(err, "use cache=writeback, or convert it to larger clusters");
        status = -ERROR_UNSUPPORTED;
    }
    if (status == 0 &&
        (qcow2_slices_open(&image->l2_cache, &image->io, image->slice_bytes, QCOW2_L2_SLICES) < 0 ||
         qcow2_slices_open(&image->refcount_cache, &image->io, image->slice_bytes,
                           QCOW2_REFCOUNT_SLICES) < 0)) {
        status = error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    status = status ? status : qcow2_snapshots_load(image, err);
    if (status < 0) {
        qcow2_delete(image);
        return NULL;
    }
    return image;
}

void qcow2_delete(struct qcow2 *image)
{
    qcow2_slices_close(&image->l2_cache);
    qcow2_slices_close(&image->refcount_cache);
    qcow2_places_close(&image->tables);
    qcow2_unpack_close(image);
    qcow2_io_close(&image->io);
    pthread_mutex_destroy(&image->lock);
    pthread_mutex_destroy(&image->unpack_lock);
    pthread_cond_destroy(&image->changed);
    free(image->l1);
    free(image->reftable);
    free(image->snapshots);
    free(image->freed.items);
    free(image->parting.items);
    free(image);
}

/* Somebody who wrote reference counts late did not come to it. */
static int repair_dirty(int fd, const char *name, struct error *err)
{
    struct qcow2_report report;
    int status = qcow2_check(fd, name, QCOW2_REPAIR_ALL, &report, err);

    if (status == 0 && report.errors > report.errors_repaired) {
        error_set(err, ERROR_DISK, 0, "qcow2 image '%.100s' was not closed and is damaged: %s",
                  name, report.first);
        error_hint(err, "'vmctl disk check' shows what is wrong; it may still be read (readonly)");
        status = -ERROR_DISK;
    } else if (status == 0) {
        log_warning("qcow2 image '%s' was not closed: %llu reference counts were repaired", name,
                    (unsigned long long)(report.errors_repaired + report.leaks_repaired));
    }
    return status;
}

static int writable_prepare(struct qcow2 *image, struct error *err)
{
    const uint8_t none[8] = {0};
    int status = 0;

    if (image->header.version >= 3 && image->header.autoclear) {
        status = qcow2_header_write(image, offsetof(struct qcow2_disk_header, autoclear), none,
                                    sizeof(none));
        if (status < 0) {
            return error_set(err, ERROR_IO, -status, "cannot write '%s': %s", image->name,
                             strerror(-status));
        }
        if (image->header.autoclear & QCOW2_BITMAPS) {
            log_warning("the dirty bitmaps of '%s' are not kept up and invalid from now on",
                        image->name);
        }
        image->header.autoclear = 0;
    }
    return image->is_device ? device_find_end(image) : 0;
}

static int refuse_corrupt(const struct qcow2 *image, struct error *err)
{
    error_set(err, ERROR_DISK, 0, "qcow2 image '%s' is marked as damaged", image->name);
    error_hint(err, "'vmctl disk check --repair all' may mend it; it can be read (readonly)");
    return -ERROR_DISK;
}

struct qcow2 *qcow2_open(int fd, const char *name, bool read_only, struct error *err)
{
    struct qcow2 *image = qcow2_new(fd, name, read_only, err);

    if (image && !read_only && (image->header.incompatible & QCOW2_DIRTY) &&
        !(image->header.incompatible & QCOW2_CORRUPT)) {
        qcow2_delete(image);
        image = repair_dirty(fd, name, err) == 0 ? qcow2_new(fd, name, read_only, err) : NULL;
    }
    if (!image) {
        return NULL;
    }
    int status = !read_only && (image->header.incompatible & QCOW2_CORRUPT)
                     ? refuse_corrupt(image, err)
                     : qcow2_tables_load(image, err);
    if (status == 0 && !read_only) {
        status = writable_prepare(image, err);
    }
    if (status < 0) {
        qcow2_delete(image);
        return NULL;
    }
    return image;
}

void qcow2_close(struct qcow2 *image)
{
    if (!image) {
        return;
    }
    if (!image->read_only && !atomic_load(&image->corrupt)) {
        /* Twice: what was freed in this epoch goes in the next one. */
        if (image->freed.count || image->parting.count) {
            qcow2_flush(image);
            qcow2_flush(image);
        }
        pthread_mutex_lock(&image->lock);
        qcow2_unreserve_locked(image);
        pthread_mutex_unlock(&image->lock);
        qcow2_io_barrier(&image->io);
    }
    qcow2_delete(image);
}
