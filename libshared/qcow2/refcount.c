/*
 * Reference counts: a table of blocks of counts, 1 to 64 bits wide. A block is written before the
 * table points to it, a larger table before the header does.
 */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

uint64_t qcow2_refcount_most(const struct qcow2 *image)
{
    unsigned bits = 1u << image->header.refcount_order;
    return bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

uint64_t qcow2_refcount_block_entries(const struct qcow2 *image)
{
    return (uint64_t)image->cluster_bytes * 8 >> image->header.refcount_order;
}

/* ---- Counts in a buffer ---- */

static uint64_t count_get(const uint8_t *buffer, uint64_t index, unsigned order)
{
    if (order >= 3) {
        const uint8_t *at = buffer + (index << (order - 3));
        uint64_t value = 0;
        for (unsigned i = 0; i < 1u << (order - 3); i++) {
            value = value << 8 | at[i];
        }
        return value;
    }
    unsigned in_byte = 8u >> order, bits = 1u << order;
    return (buffer[index / in_byte] >> (index % in_byte * bits)) & ((1u << bits) - 1);
}

void qcow2_count_put(uint8_t *buffer, uint64_t index, unsigned order, uint64_t value)
{
    if (order >= 3) {
        uint8_t *at = buffer + (index << (order - 3));
        for (unsigned i = 1u << (order - 3); i-- > 0;) {
            at[i] = (uint8_t)value;
            value >>= 8;
        }
        return;
    }
    unsigned in_byte = 8u >> order, bits = 1u << order;
    unsigned shift = (unsigned)(index % in_byte) * bits;
    uint8_t mask = (uint8_t)(((1u << bits) - 1) << shift);
    buffer[index / in_byte] =
        (uint8_t)((buffer[index / in_byte] & ~mask) | ((unsigned)value << shift & mask));
}

/* ---- The file's end ---- */

void qcow2_end_locked(struct qcow2 *image, uint64_t clusters)
{
    image->file_clusters = clusters;
    if (!image->is_device) {
        image->bound_clusters = clusters;
    }
}

int qcow2_extend_locked(struct qcow2 *image, uint64_t clusters)
{
    if (image->is_device) {
        if (clusters > image->bound_clusters) {
            return -ENOSPC;
        }
    } else if (clusters > (uint64_t)INT64_MAX >> image->cluster_bits) {
        return -EFBIG;
    } else if (ftruncate(image->io.fd, (off_t)(clusters << image->cluster_bits)) < 0) {
        return -errno;
    }
    if (clusters > image->file_clusters) {
        qcow2_end_locked(image, clusters);
    }
    return 0;
}

/* ---- Counts in the file ---- */

bool qcow2_refcount_has_block(const struct qcow2 *image, uint64_t cluster)
{
    uint64_t block = cluster / qcow2_refcount_block_entries(image);
    return block < image->reftable_size && image->reftable[block];
}

/* Where a count begins in the file; its block is there. */
static uint64_t count_offset(const struct qcow2 *image, uint64_t cluster)
{
    uint64_t entries = qcow2_refcount_block_entries(image);
    return image->reftable[cluster / entries] +
           ((cluster % entries << image->header.refcount_order) >> 3);
}

/* The slice that holds it: its data, its place in the file, the count's index in it, and how many
 * counts follow from there. */
struct count_place {
    uint8_t *data;
    uint64_t offset, index, left;
};

static int count_find(struct qcow2 *image, uint64_t cluster, struct count_place *place)
{
    unsigned order = image->header.refcount_order;
    uint64_t in_slice = (uint64_t)image->slice_bytes * 8 >> order;

    place->offset = count_offset(image, cluster) & ~(uint64_t)(image->slice_bytes - 1);
    place->index = cluster % in_slice;
    place->left = in_slice - place->index;
    return qcow2_slice_get(&image->refcount_cache, place->offset, true, &place->data);
}

int qcow2_refcount_get_locked(struct qcow2 *image, uint64_t cluster, uint64_t *count)
{
    struct count_place place;

    *count = 0;
    if (!qcow2_refcount_has_block(image, cluster)) {
        return 0;
    }
    int status = count_find(image, cluster, &place);
    if (status == 0) {
        *count = count_get(place.data, place.index, image->header.refcount_order);
    }
    return status;
}

static int place_write(struct qcow2 *image, const struct count_place *place, uint64_t count)
{
    unsigned order = image->header.refcount_order;
    uint64_t begin = (place->index << order) >> 3;
    uint64_t end = (((place->index + count) << order) + 7) >> 3;

    return qcow2_slice_write(&image->refcount_cache, place->offset + begin, end - begin);
}

int qcow2_refcount_set_locked(struct qcow2 *image, uint64_t cluster, uint64_t count)
{
    struct count_place place;
    int status = qcow2_refcount_has_block(image, cluster) ? 0 : -EINVAL;

    status = status < 0 ? status : count_find(image, cluster, &place);
    if (status == 0) {
        qcow2_count_put(place.data, place.index, image->header.refcount_order, count);
        status = place_write(image, &place, 1);
    }
    return status;
}

/* Those of one slice. */
static int add_some(struct qcow2 *image, uint64_t first, uint64_t *count, int delta)
{
    unsigned order = image->header.refcount_order;
    struct count_place place;
    int status = qcow2_refcount_has_block(image, first) ? 0 : -ERANGE;

    status = status < 0 ? status : count_find(image, first, &place);
    if (status < 0) {
        return status == -ERANGE ? qcow2_damaged_locked(image, "a cluster in use has no count",
                                                        first << image->cluster_bits)
                                 : status;
    }
    *count = *count < place.left ? *count : place.left;
    for (uint64_t i = 0; i < *count; i++) {
        uint64_t value = count_get(place.data, place.index + i, order);
        bool wrong = delta < 0 ? value == 0 : value == qcow2_refcount_most(image);
        if (wrong) {
            qcow2_slices_drop(&image->refcount_cache, place.offset, 1);
            return qcow2_damaged_locked(image, "a reference count is wrong",
                                        (first + i) << image->cluster_bits);
        }
        qcow2_count_put(place.data, place.index + i, order, value + (uint64_t)delta);
    }
    return place_write(image, &place, *count);
}

int qcow2_refcount_add_locked(struct qcow2 *image, uint64_t first, uint64_t count, int delta)
{
    while (count) {
        uint64_t some = count;
        int status = add_some(image, first, &some, delta);
        if (status < 0) {
            return status;
        }
        first += some;
        count -= some;
    }
    return 0;
}

/* ---- Blocks and table ---- */

static int block_write(struct qcow2 *image, uint64_t block, uint64_t at, uint64_t used_first,
                       uint64_t used_last)
{
    uint64_t entries = qcow2_refcount_block_entries(image);
    uint8_t *buffer = calloc(1, image->cluster_bytes);

    if (!buffer) {
        return -ENOMEM;
    }
    for (uint64_t cluster = used_first; cluster <= used_last; cluster++) {
        if (cluster / entries == block) {
            qcow2_count_put(buffer, cluster % entries, image->header.refcount_order, 1);
        }
    }
    int status =
        qcow2_io_write(&image->io, buffer, image->cluster_bytes, at << image->cluster_bits);
    qcow2_slices_drop(&image->refcount_cache, at << image->cluster_bits, image->cluster_bytes);
    free(buffer);
    return status;
}

/* A larger table behind the end of the file, and the blocks that count it all. */
struct table_growth {
    uint64_t first, table_clusters, block_clusters, entries;
    uint64_t *table;
};

static void growth_plan(const struct qcow2 *image, uint64_t block, struct table_growth *growth)
{
    uint64_t per_block = qcow2_refcount_block_entries(image),
             per_cluster = image->cluster_bytes / 8;
    uint64_t wanted = block + 1 > 2 * image->reftable_size ? block + 1 : 2 * image->reftable_size;
    uint64_t before;

    growth->first = image->file_clusters;
    growth->block_clusters = 0;
    do {
        before = growth->block_clusters;
        growth->table_clusters = (wanted + per_cluster - 1) / per_cluster;
        growth->entries = growth->table_clusters * per_cluster;
        uint64_t last = growth->first + growth->table_clusters + before - 1;
        wanted = wanted > last / per_block + 1 ? wanted : last / per_block + 1;
        growth->block_clusters = 0;
        for (uint64_t i = growth->first / per_block; i <= last / per_block; i++) {
            growth->block_clusters += i >= image->reftable_size || !image->reftable[i];
        }
    } while (growth->block_clusters > before || wanted > growth->entries);
}

static int growth_write(struct qcow2 *image, struct table_growth *growth)
{
    uint64_t per_block = qcow2_refcount_block_entries(image);
    uint64_t last = growth->first + growth->table_clusters + growth->block_clusters - 1;
    uint64_t at = growth->first + growth->table_clusters;
    int status = qcow2_extend_locked(image, last + 1);

    for (uint64_t i = growth->first / per_block; i <= last / per_block && status == 0; i++) {
        if (i < image->reftable_size && image->reftable[i]) {
            for (uint64_t c = growth->first; c <= last && status == 0; c++) {
                status = c / per_block == i ? qcow2_refcount_set_locked(image, c, 1) : 0;
            }
        } else {
            status = block_write(image, i, at, growth->first, last);
            growth->table[i] = at++ << image->cluster_bits;
        }
    }
    return status < 0 ? status
                      : qcow2_table_write(image, growth->first << image->cluster_bits,
                                          growth->entries, growth->table);
}

static int table_grow(struct qcow2 *image, uint64_t block)
{
    struct qcow2_header *header = &image->header;
    uint64_t old = header->refcount_table_offset >> image->cluster_bits;
    uint64_t old_clusters = header->refcount_table_clusters;
    struct table_growth growth;
    uint8_t place[12];

    growth_plan(image, block, &growth);
    if (growth.entries * 8 > QCOW2_REFTABLE_BYTES_MAX) {
        return -EFBIG;
    }
    growth.table = calloc(growth.entries, sizeof(growth.table[0]));
    if (!growth.table) {
        return -ENOMEM;
    }
    memcpy(growth.table, image->reftable, image->reftable_size * sizeof(growth.table[0]));
    int status = growth_write(image, &growth);
    if (status == 0) {
        qcow2_put64(place, growth.first << image->cluster_bits);
        qcow2_put32(place + 8, (uint32_t)growth.table_clusters);
        status = qcow2_header_write(
            image, offsetof(struct qcow2_disk_header, refcount_table_offset), place, sizeof(place));
    }
    if (status < 0) {
        free(growth.table);
        return status;
    }
    free(image->reftable);
    image->reftable = growth.table;
    image->reftable_size = growth.entries;
    header->refcount_table_offset = growth.first << image->cluster_bits;
    header->refcount_table_clusters = (uint32_t)growth.table_clusters;
    qcow2_places_remove(&image->tables, old, old_clusters);
    qcow2_free_locked(image, old, old_clusters);
    return qcow2_places_add(&image->tables, growth.first,
                            growth.table_clusters + growth.block_clusters);
}

/* Put block `block` at the end of the file, where it counts itself or another block counts it. */
static int block_make(struct qcow2 *image, uint64_t block)
{
    uint64_t entries = qcow2_refcount_block_entries(image);
    uint64_t at = image->file_clusters;
    bool own = at / entries == block;
    uint8_t entry[8];

    int status = qcow2_extend_locked(image, at + 1);
    status = status < 0 ? status : block_write(image, block, at, own ? at : 1, own ? at : 0);
    if (status == 0 && !own) {
        status = qcow2_refcount_set_locked(image, at, 1);
    }
    status = status < 0 ? status : qcow2_io_barrier(&image->io);
    if (status == 0) {
        qcow2_put64(entry, at << image->cluster_bits);
        status = qcow2_io_write(&image->io, entry, sizeof(entry),
                                image->header.refcount_table_offset + 8 * block);
    }
    if (status == 0) {
        image->reftable[block] = at << image->cluster_bits;
        status = qcow2_places_add(&image->tables, at, 1);
    }
    return status;
}

int qcow2_refcount_block_locked(struct qcow2 *image, uint64_t cluster)
{
    uint64_t entries = qcow2_refcount_block_entries(image);

    while (!qcow2_refcount_has_block(image, cluster)) {
        uint64_t block = cluster / entries, end = image->file_clusters / entries;
        int status;

        if (block >= image->reftable_size || end >= image->reftable_size) {
            status = table_grow(image, block > end ? block : end);
        } else {
            /* First that of the file's end, which can count itself. */
            status = block_make(image, image->reftable[end] ? block : end);
        }
        if (status < 0) {
            return status;
        }
    }
    return 0;
}

int qcow2_refcounts_load(struct qcow2 *image, struct error *err)
{
    const struct qcow2_header *header = &image->header;

    image->reftable_size = ((uint64_t)header->refcount_table_clusters << image->cluster_bits) / 8;
    return qcow2_table_load(image, header->refcount_table_offset, image->reftable_size,
                            &image->reftable, err);
}
