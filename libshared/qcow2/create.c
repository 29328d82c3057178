/* A new, empty image: header, refcount table, refcount blocks, L1 table, in this order. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* In clusters. */
struct layout {
    unsigned bits, order, version;
    uint64_t size, l1_size, l1_clusters, table_clusters, blocks, all;
};

static uint64_t parts(uint64_t whole, uint64_t part)
{
    return whole / part + !!(whole % part);
}

static void layout_plan(struct layout *layout)
{
    uint64_t cluster = UINT64_C(1) << layout->bits;
    uint64_t entries = cluster * 8 >> layout->order, before;

    layout->l1_clusters = layout->l1_size ? parts(layout->l1_size * 8, cluster) : 1;
    layout->blocks = layout->table_clusters = 1;
    do {
        before = layout->blocks + layout->table_clusters;
        layout->all = 1 + before + layout->l1_clusters;
        layout->blocks = parts(layout->all, entries);
        layout->table_clusters = parts(layout->blocks * 8, cluster);
    } while (layout->blocks + layout->table_clusters != before);
}

static int create_refuse(const char *name, const char *what, struct error *err)
{
    return error_set(err, ERROR_CONFIG, 0, "cannot make '%.120s': %s", name, what);
}

static int creation_check(const struct qcow2_creation *creation, const char *name,
                          struct layout *layout, struct error *err)
{
    layout->version = creation->version ? creation->version : 3;
    layout->bits = creation->cluster_bits ? creation->cluster_bits : 16;
    layout->order = creation->refcount_order_given ? creation->refcount_order : 4;
    if (layout->version != 2 && layout->version != 3) {
        return create_refuse(name, "the version must be 2 or 3", err);
    }
    if (layout->bits < QCOW2_CLUSTER_BITS_MIN || layout->bits > QCOW2_CLUSTER_BITS_MAX) {
        return create_refuse(name, "a cluster has 512 bytes to 2 MiB, a power of two", err);
    }
    if (layout->order > QCOW2_REFCOUNT_ORDER_MAX || (layout->version == 2 && layout->order != 4)) {
        return create_refuse(name, "this width of reference counts is impossible", err);
    }
    if (creation->size > INT64_MAX - QCOW2_SECTOR) {
        return create_refuse(name, "the size is too large", err);
    }
    layout->size = parts(creation->size, QCOW2_SECTOR) * QCOW2_SECTOR;
    layout->l1_size = qcow2_l1_entries(layout->bits, layout->size);
    if (layout->l1_size > QCOW2_L1_BYTES_MAX / 8) {
        create_refuse(name, "the size is too large for clusters of this size", err);
        error_hint(err, "larger clusters allow larger disks");
        return -ERROR_CONFIG;
    }
    if (creation->backing) {
        size_t header = QCOW2_HEADER_V3_BYTES + 8 + 8 + 16; /* with extensions */
        size_t room = ((size_t)1 << layout->bits) - header;
        size_t bytes = strlen(creation->backing);
        if (!bytes || bytes > QCOW2_NAME_MAX || bytes > room) {
            return create_refuse(name, "the name of the backing file is too long", err);
        }
    }
    layout_plan(layout);
    return 0;
}

static void header_fill(const struct qcow2_creation *creation, const struct layout *layout,
                        uint8_t *cluster)
{
    struct qcow2_disk_header disk = {
        .magic = htobe32(QCOW2_MAGIC),
        .version = htobe32(layout->version),
        .cluster_bits = htobe32(layout->bits),
        .size = htobe64(layout->size),
        .l1_size = htobe32((uint32_t)layout->l1_size),
        .l1_offset = htobe64((1 + layout->table_clusters + layout->blocks) << layout->bits),
        .refcount_table_offset = htobe64(UINT64_C(1) << layout->bits),
        .refcount_table_clusters = htobe32((uint32_t)layout->table_clusters),
        .refcount_order = htobe32(layout->order),
        .header_length = htobe32(QCOW2_HEADER_V3_BYTES),
    };
    size_t at = layout->version == 2 ? QCOW2_HEADER_V2_BYTES : QCOW2_HEADER_V3_BYTES;

    if (creation->backing && creation->backing_format) {
        size_t bytes = strlen(creation->backing_format);
        qcow2_put32(cluster + at, QCOW2_EXTENSION_BACKING_FORMAT);
        qcow2_put32(cluster + at + 4, (uint32_t)bytes);
        memcpy(cluster + at + 8, creation->backing_format, bytes);
        at += 8 + ((bytes + 7) & ~(size_t)7);
    }
    at += 8; /* the end of extensions: zeroes */
    if (creation->backing) {
        disk.backing_offset = htobe64(at);
        disk.backing_bytes = htobe32((uint32_t)strlen(creation->backing));
        memcpy(cluster + at, creation->backing, strlen(creation->backing));
    }
    memcpy(cluster, &disk, layout->version == 2 ? QCOW2_HEADER_V2_BYTES : QCOW2_HEADER_V3_BYTES);
}

/* Counts of one for what there is. */
static void block_fill(const struct layout *layout, uint64_t block, uint8_t *cluster)
{
    uint64_t entries = (UINT64_C(8) << layout->bits) >> layout->order;

    for (uint64_t i = 0; i < entries && block * entries + i < layout->all; i++) {
        qcow2_count_put(cluster, i, layout->order, 1);
    }
}

static int create_write(int fd, const struct qcow2_creation *creation, const struct layout *layout)
{
    struct qcow2_io io = {.fd = fd};
    size_t bytes = (size_t)1 << layout->bits, table = layout->table_clusters << layout->bits;
    uint8_t *buffer = calloc(1, table > bytes ? table : bytes);
    int status = buffer ? 0 : -ENOMEM;

    if (status == 0 && ftruncate(fd, (off_t)(layout->all << layout->bits)) < 0) {
        status = -errno;
    }
    for (uint64_t i = 0; i < layout->blocks && status == 0; i++) {
        memset(buffer, 0, bytes);
        block_fill(layout, i, buffer);
        status =
            qcow2_io_write(&io, buffer, bytes, (1 + layout->table_clusters + i) << layout->bits);
    }
    if (status == 0) {
        memset(buffer, 0, table);
        for (uint64_t i = 0; i < layout->blocks; i++) {
            qcow2_put64(buffer + 8 * i, (1 + layout->table_clusters + i) << layout->bits);
        }
        status = qcow2_io_write(&io, buffer, table, bytes);
    }
    if (status == 0) {
        memset(buffer, 0, bytes);
        header_fill(creation, layout, buffer);
        status = qcow2_io_write(&io, buffer, bytes, 0);
    }
    if (status == 0 && fsync(fd) < 0) {
        status = -errno;
    }
    free(buffer);
    return status;
}

int qcow2_create(int fd, const char *name, const struct qcow2_creation *creation, struct error *err)
{
    struct layout layout = {0};
    int status = creation_check(creation, name, &layout, err);

    if (status < 0) {
        return status;
    }
    status = create_write(fd, creation, &layout);
    return status < 0 ? error_set(err, ERROR_IO, -status, "cannot write '%.120s': %s", name,
                                  strerror(-status))
                      : 0;
}
