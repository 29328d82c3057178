#include "libshared/qcow2/header.h"

#include "libshared/base/direct_io.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* An image while its header is looked at. */
struct header_source {
    int fd;
    const char *name;
    uint64_t file_bytes;
    uint8_t *cluster; /* the first one, as far as it is there */
    size_t cluster_bytes;
    struct error *err;
};

static int damaged(const struct header_source *source, const char *what)
{
    error_set(source->err, ERROR_DISK, 0, "qcow2 image '%.120s' is damaged: %s", source->name,
              what);
    error_hint(source->err, "restore it from a copy; 'vmctl disk check' says more where it can");
    return -ERROR_DISK;
}

static int unsupported(const struct header_source *source, const char *what)
{
    error_set(source->err, ERROR_UNSUPPORTED, 0, "qcow2 image '%.120s' uses %s", source->name,
              what);
    error_hint(source->err, "convert it: qemu-img convert -O qcow2 OLD NEW");
    return -ERROR_UNSUPPORTED;
}

bool qcow2_is_magic(const void *bytes, size_t size)
{
    return size >= sizeof(uint32_t) && qcow2_get32(bytes) == QCOW2_MAGIC;
}

int64_t qcow2_file_size(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    return end < 0 ? -errno : (int64_t)end;
}

static int read_some(int fd, void *buffer, size_t size, uint64_t offset, size_t *done)
{
    *done = 0;
    while (*done < size) {
        ssize_t part = direct_io_pread(fd, (uint8_t *)buffer + *done, size - *done, offset + *done);
        if (part == -EINTR) {
            continue;
        }
        if (part < 0) {
            return (int)part;
        }
        if (part == 0) {
            break;
        }
        *done += (size_t)part;
    }
    return 0;
}

static int check_features(const struct header_source *source, const struct qcow2_header *header)
{
    static const struct {
        uint64_t bit;
        const char *what;
    } absent[] = {
        {QCOW2_EXTERNAL_DATA, "an external data file, which is not supported"},
        {QCOW2_EXTENDED_L2, "extended L2 entries (subclusters), which are not supported"},
    };
    const uint64_t known =
        QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_EXTERNAL_DATA | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2;

    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        if (header->incompatible & absent[i].bit) {
            return unsupported(source, absent[i].what);
        }
    }
    if (header->incompatible & ~known) {
        return unsupported(source, "a feature of a later version of the format");
    }
    bool other = header->incompatible & QCOW2_COMPRESSION;
    if (other != (header->compression != QCOW2_COMPRESSION_DEFLATE)) {
        return damaged(source, "its compression type contradicts its features");
    }
    if (header->compression > QCOW2_COMPRESSION_ZSTD) {
        return unsupported(source, "an unknown compression");
    }
    return 0;
}

/* Version 3's fields; version 2 has fixed values. */
static int take_version(const struct header_source *source, const struct qcow2_disk_header *disk,
                        struct qcow2_header *header)
{
    header->version = be32toh(disk->version);
    if (header->version == 2) {
        header->header_length = QCOW2_HEADER_V2_BYTES;
        header->refcount_order = QCOW2_REFCOUNT_ORDER_V2;
        return 0;
    }
    if (header->version != 3) {
        return unsupported(source, "another version of the format than 2 or 3");
    }
    header->incompatible = be64toh(disk->incompatible);
    header->compatible = be64toh(disk->compatible);
    header->autoclear = be64toh(disk->autoclear);
    header->refcount_order = be32toh(disk->refcount_order);
    header->header_length = be32toh(disk->header_length);
    if (header->header_length < QCOW2_HEADER_V3_BYTES || header->header_length % 8 ||
        header->header_length > (1u << header->cluster_bits)) {
        return damaged(source, "the length of its header is impossible");
    }
    header->compression = header->header_length > QCOW2_HEADER_V3_BYTES ? disk->compression : 0;
    if (header->refcount_order > QCOW2_REFCOUNT_ORDER_MAX) {
        return damaged(source, "its reference counts have an impossible width");
    }
    return check_features(source, header);
}

/* Whether `bytes` at `offset` begin at a cluster and are in the file. */
static bool area_valid(const struct header_source *source, const struct qcow2_header *header,
                       uint64_t offset, uint64_t bytes)
{
    uint64_t mask = (UINT64_C(1) << header->cluster_bits) - 1;

    return offset && !(offset & mask) && offset < source->file_bytes &&
           bytes <= source->file_bytes - offset;
}

static bool areas_apart(uint64_t offset, uint64_t bytes, uint64_t other, uint64_t other_bytes)
{
    return offset + bytes <= other || other + other_bytes <= offset;
}

static int check_tables(const struct header_source *source, const struct qcow2_header *header)
{
    const uint64_t cluster = UINT64_C(1) << header->cluster_bits;
    uint64_t l1_bytes = (uint64_t)header->l1_size * sizeof(uint64_t);
    uint64_t table_bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;
    uint64_t needed = qcow2_l1_entries(header->cluster_bits, header->size);

    if (l1_bytes > QCOW2_L1_BYTES_MAX || needed > QCOW2_L1_BYTES_MAX / sizeof(uint64_t)) {
        return damaged(source, "its L1 table is too large");
    }
    if (header->l1_size < needed) {
        return damaged(source, "its L1 table is too small for its size");
    }
    if (header->l1_size && !area_valid(source, header, header->l1_offset, l1_bytes)) {
        return damaged(source, "its L1 table is not where it can be");
    }
    if (!header->refcount_table_clusters || table_bytes > QCOW2_REFTABLE_BYTES_MAX) {
        return damaged(source, "the size of its refcount table is impossible");
    }
    if (!area_valid(source, header, header->refcount_table_offset, cluster)) {
        return damaged(source, "its refcount table is not where it can be");
    }
    if (header->l1_size &&
        !areas_apart(header->l1_offset, l1_bytes, header->refcount_table_offset, table_bytes)) {
        return damaged(source, "its L1 table and its refcount table overlap");
    }
    if (header->snapshot_count > QCOW2_SNAPSHOTS_MAX ||
        (header->snapshot_count && !area_valid(source, header, header->snapshots_offset,
                                               sizeof(struct qcow2_disk_snapshot)))) {
        return damaged(source, "its snapshot table is not where it can be");
    }
    return 0;
}

static int take_backing(const struct header_source *source, uint64_t offset, uint32_t bytes,
                        struct qcow2_header *header)
{
    if (!offset || !bytes) {
        return 0;
    }
    if (bytes > QCOW2_NAME_MAX || offset < header->header_length ||
        offset > source->cluster_bytes || bytes > source->cluster_bytes - offset) {
        return damaged(source, "the name of its backing file is not where it can be");
    }
    memcpy(header->backing, source->cluster + offset, bytes);
    if (memchr(header->backing, '\0', bytes)) {
        return damaged(source, "the name of its backing file is no name");
    }
    return 0;
}

static int take_bitmaps(const struct header_source *source, const uint8_t *data, uint32_t bytes,
                        struct qcow2_header *header)
{
    if (bytes < 24) {
        return damaged(source, "its bitmaps extension is too short");
    }
    header->has_bitmaps = true;
    header->bitmap_count = qcow2_get32(data);
    header->bitmaps_bytes = qcow2_get64(data + 8);
    header->bitmaps_offset = qcow2_get64(data + 16);
    return 0;
}

static int take_extensions(const struct header_source *source, uint64_t backing_offset,
                           struct qcow2_header *header)
{
    size_t end = backing_offset && backing_offset < source->cluster_bytes ? (size_t)backing_offset
                                                                          : source->cluster_bytes;
    size_t at = header->header_length;

    while (at < end && end - at >= 8) {
        uint32_t type = qcow2_get32(source->cluster + at);
        uint32_t bytes = qcow2_get32(source->cluster + at + 4);
        const uint8_t *data = source->cluster + at + 8;
        int status = 0;

        if (type == QCOW2_EXTENSION_END) {
            break;
        }
        if (bytes > end - at - 8) {
            return damaged(source, "a header extension is longer than there is room");
        }
        if (type == QCOW2_EXTENSION_BACKING_FORMAT) {
            if (bytes >= sizeof(header->backing_format) || memchr(data, '\0', bytes)) {
                return damaged(source, "the format of its backing file is no word");
            }
            memset(header->backing_format, 0, sizeof(header->backing_format));
            memcpy(header->backing_format, data, bytes);
        } else if (type == QCOW2_EXTENSION_BITMAPS) {
            status = take_bitmaps(source, data, bytes, header);
        }
        if (status < 0) {
            return status;
        }
        at += 8 + (((size_t)bytes + 7) & ~(size_t)7);
    }
    return 0;
}

static int header_take(struct header_source *source, struct qcow2_header *header)
{
    struct qcow2_disk_header disk = {0};
    size_t done;
    int status = read_some(source->fd, &disk, sizeof(disk), 0, &done);

    if (status < 0) {
        return error_set(source->err, ERROR_IO, -status, "cannot read '%.120s': %s", source->name,
                         strerror(-status));
    }
    if (done < QCOW2_HEADER_V2_BYTES || !qcow2_is_magic(&disk, done)) {
        error_set(source->err, ERROR_DISK, 0, "'%.120s' is no qcow2 image", source->name);
        error_hint(source->err, "a disk without a format is 'raw'");
        return -ERROR_DISK;
    }
    header->cluster_bits = be32toh(disk.cluster_bits);
    if (header->cluster_bits < QCOW2_CLUSTER_BITS_MIN ||
        header->cluster_bits > QCOW2_CLUSTER_BITS_MAX) {
        return damaged(source, "its clusters have an impossible size");
    }
    if (disk.crypt_method) {
        return unsupported(source, "encryption, which is not supported");
    }
    status = take_version(source, &disk, header);
    if (status < 0) {
        return status;
    }
    header->size = be64toh(disk.size);
    header->l1_size = be32toh(disk.l1_size);
    header->l1_offset = be64toh(disk.l1_offset);
    header->refcount_table_offset = be64toh(disk.refcount_table_offset);
    header->refcount_table_clusters = be32toh(disk.refcount_table_clusters);
    header->snapshot_count = be32toh(disk.snapshot_count);
    header->snapshots_offset = be64toh(disk.snapshots_offset);
    status = check_tables(source, header);
    if (status < 0) {
        return status;
    }
    source->cluster = calloc(1, (size_t)1 << header->cluster_bits);
    if (!source->cluster) {
        return error_set(source->err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    status = read_some(source->fd, source->cluster, (size_t)1 << header->cluster_bits, 0,
                       &source->cluster_bytes);
    if (status < 0) {
        return error_set(source->err, ERROR_IO, -status, "cannot read '%.120s': %s", source->name,
                         strerror(-status));
    }
    status =
        take_backing(source, be64toh(disk.backing_offset), be32toh(disk.backing_bytes), header);
    return status < 0 ? status : take_extensions(source, be64toh(disk.backing_offset), header);
}

int qcow2_header_read(int fd, const char *name, struct qcow2_header *header, struct error *err)
{
    struct header_source source = {.fd = fd, .name = name, .err = err};
    int64_t bytes = qcow2_file_size(fd);

    memset(header, 0, sizeof(*header));
    if (bytes < 0) {
        return error_set(err, ERROR_IO, (int)-bytes, "cannot find the size of '%.120s': %s", name,
                         strerror((int)-bytes));
    }
    source.file_bytes = (uint64_t)bytes;
    int status = header_take(&source, header);
    free(source.cluster);
    return status;
}
