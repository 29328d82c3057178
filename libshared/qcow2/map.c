/*
 * From places of the disk to places of the file: the L1 table, which is in memory, and L2 tables,
 * of which pieces are cached. Entries are hostile until they are checked here.
 */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- L1 ---- */

/* Where the L2 table of `index` is; 0: there is none. */
static int l2_offset(struct qcow2 *image, uint64_t index, uint64_t *offset)
{
    uint64_t entry = index < image->l1_size ? image->l1[index] : 0;

    *offset = entry & QCOW2_OFFSET_MASK;
    if (entry & ~(QCOW2_COPIED | QCOW2_OFFSET_MASK)) {
        return qcow2_damaged_locked(image, "an L1 entry has unknown bits", index);
    }
    if ((*offset & (image->cluster_bytes - 1)) ||
        *offset >> image->cluster_bits >= image->bound_clusters) {
        return qcow2_damaged_locked(image, "an L2 table is not where it can be", *offset);
    }
    return 0;
}

static int tables_refuse(const struct qcow2 *image, const char *what, int status, struct error *err)
{
    if (status == -ENOMEM) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    error_set(err, ERROR_DISK, 0, "qcow2 image '%s' is damaged: %s", image->name, what);
    error_hint(err, "'vmctl disk check' shows what is wrong; it may still be read (readonly)");
    return -ERROR_DISK;
}

/* Remember an area of the file as tables. */
static int tables_add(struct qcow2 *image, uint64_t offset, uint64_t bytes, const char *what,
                      struct error *err)
{
    uint64_t first = offset >> image->cluster_bits, count = qcow2_clusters_of(image, bytes);

    if ((offset & (image->cluster_bytes - 1)) || first >= image->bound_clusters ||
        count > image->bound_clusters - first) {
        return tables_refuse(image, what, 0, err);
    }
    int status = qcow2_places_add(&image->tables, first, count);
    return status < 0 ? tables_refuse(image, "tables overlap", status, err) : 0;
}

static int tables_learn(struct qcow2 *image, struct error *err)
{
    const struct qcow2_header *header = &image->header;
    int status = qcow2_places_add(&image->tables, 0, 1);

    status = status < 0 ? tables_refuse(image, "tables overlap", status, err) : 0;
    if (status == 0 && header->l1_size) {
        status = tables_add(image, header->l1_offset, (uint64_t)header->l1_size * 8,
                            "its L1 table is not where it can be", err);
    }
    status = status ? status
                    : tables_add(image, header->refcount_table_offset,
                                 (uint64_t)header->refcount_table_clusters << image->cluster_bits,
                                 "its refcount table is not where it can be", err);
    if (status == 0 && image->snapshot_count) {
        status = tables_add(image, header->snapshots_offset, image->snapshot_bytes,
                            "its snapshot table is not where it can be", err);
    }
    for (unsigned i = 0; i < image->snapshot_count && status == 0; i++) {
        const struct qcow2_snapshot *snapshot = &image->snapshots[i];
        if (snapshot->l1_size) {
            status = tables_add(image, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8,
                                "the L1 table of a snapshot is not where it can be", err);
        }
    }
    for (uint64_t i = 0; i < image->reftable_size && status == 0; i++) {
        uint64_t offset = image->reftable[i];
        if (offset & ~QCOW2_REFTABLE_MASK) {
            status = tables_refuse(image, "its refcount table has unknown bits", 0, err);
        } else if (offset) {
            status = tables_add(image, offset, image->cluster_bytes,
                                "a refcount block is not where it can be", err);
        }
    }
    for (uint32_t i = 0; i < image->l1_size && status == 0; i++) {
        uint64_t offset = image->l1[i] & QCOW2_OFFSET_MASK;
        if (image->l1[i] & ~(QCOW2_COPIED | QCOW2_OFFSET_MASK)) {
            status = tables_refuse(image, "its L1 table has unknown bits", 0, err);
        } else if (offset) {
            status = tables_add(image, offset, image->cluster_bytes,
                                "an L2 table is not where it can be", err);
        }
    }
    return status;
}

int qcow2_tables_load(struct qcow2 *image, struct error *err)
{
    const struct qcow2_header *header = &image->header;
    int status = qcow2_table_load(image, header->l1_offset, header->l1_size, &image->l1, err);

    image->l1_size = header->l1_size;
    if (status == 0 && !image->read_only) {
        status = qcow2_refcounts_load(image, err);
        status = status ? status : tables_learn(image, err);
    }
    return status;
}

/* ---- Entries ---- */

uint64_t qcow2_slice_left(const struct qcow2 *image, uint64_t cluster)
{
    uint64_t in_slice = image->slice_bytes / 8;
    return in_slice - (cluster & (in_slice - 1));
}

static uint64_t entry_offset(const struct qcow2 *image, uint64_t table, uint64_t cluster)
{
    return table + 8 * (cluster & ((UINT64_C(1) << image->l2_bits) - 1));
}

/* The entries from `cluster` on, in their slice; NULL where there is no L2 table. */
static int entries_find(struct qcow2 *image, uint64_t cluster, bool wait, uint8_t **entries)
{
    uint64_t table;
    int status = l2_offset(image, cluster >> image->l2_bits, &table);

    *entries = NULL;
    if (status < 0 || !table) {
        return status;
    }
    return qcow2_slice_get(&image->l2_cache, entry_offset(image, table, cluster), wait, entries);
}

int qcow2_entry_locked(struct qcow2 *image, uint64_t cluster, uint64_t *entry)
{
    uint8_t *entries;
    int status = entries_find(image, cluster, true, &entries);

    *entry = status == 0 && entries ? qcow2_get64(entries) : 0;
    return status;
}

enum qcow2_kind qcow2_entry_kind(const struct qcow2 *image, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED) {
        return QCOW2_PACKED;
    }
    if (image->header.version >= 3 && (entry & QCOW2_ZERO)) {
        return QCOW2_ZEROES;
    }
    return entry & QCOW2_OFFSET_MASK ? QCOW2_DATA : QCOW2_HOLE;
}

static int data_check(struct qcow2 *image, uint64_t entry, bool write)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK, cluster = offset >> image->cluster_bits;

    if (offset & (image->cluster_bytes - 1)) {
        return qcow2_damaged_locked(image, "a cluster is not aligned", offset);
    }
    if (cluster >= image->bound_clusters) {
        return qcow2_damaged_locked(image, "a cluster is beyond the end of the file", offset);
    }
    if (write && qcow2_places_have(&image->tables, cluster)) {
        return qcow2_damaged_locked(image, "a cluster of the disk is a table", offset);
    }
    return 0;
}

/* Whether `next` goes on where an extent of kind and host ends after `count` clusters. */
static bool entry_continues(const struct qcow2 *image, const struct qcow2_extent *extent,
                            uint64_t host, uint64_t count, uint64_t next)
{
    if (qcow2_entry_kind(image, next) != extent->kind || extent->kind == QCOW2_PACKED) {
        return false;
    }
    return extent->kind != QCOW2_DATA ||
           ((next & QCOW2_OFFSET_MASK) == host + (count << image->cluster_bits) &&
            extent->writable == !!(next & QCOW2_COPIED));
}

int qcow2_map_locked(struct qcow2 *image, uint64_t offset, uint64_t length, bool write, bool wait,
                     struct qcow2_extent *extent)
{
    uint64_t cluster = offset >> image->cluster_bits;
    uint64_t inside = offset & (image->cluster_bytes - 1);
    uint64_t wanted = qcow2_clusters_of(image, inside + length);
    uint64_t left = qcow2_slice_left(image, cluster), count = 1;
    uint8_t *entries;
    int status = entries_find(image, cluster, wait, &entries);

    if (status < 0) {
        return status;
    }
    wanted = wanted < left ? wanted : left;
    *extent = (struct qcow2_extent){.kind = QCOW2_HOLE};
    if (entries) {
        uint64_t first = qcow2_get64(entries), host = first & QCOW2_OFFSET_MASK;
        extent->kind = qcow2_entry_kind(image, first);
        extent->writable = extent->kind == QCOW2_DATA && (first & QCOW2_COPIED);
        extent->host = extent->kind == QCOW2_PACKED ? first : host + inside;
        status = extent->kind == QCOW2_DATA ? data_check(image, first, write) : 0;
        while (status == 0 && count < wanted) {
            uint64_t next = qcow2_get64(entries + 8 * count);
            if (!entry_continues(image, extent, host, count, next)) {
                break;
            }
            status = extent->kind == QCOW2_DATA ? data_check(image, next, write) : 0;
            count++;
        }
    } else {
        count = wanted;
    }
    extent->length = (count << image->cluster_bits) - inside;
    extent->length = extent->length < length ? extent->length : length;
    return status;
}

int qcow2_map_cached(struct qcow2 *image, uint64_t offset, uint64_t length, bool write,
                     struct qcow2_extent *extent, qcow2_use *use)
{
    if (pthread_mutex_trylock(&image->lock) != 0) {
        return -EAGAIN;
    }
    int status = write && atomic_load(&image->corrupt)
                     ? -EIO
                     : qcow2_map_locked(image, offset, length, write, false, extent);
    if (status == 0) {
        *use = qcow2_use_locked(image);
    }
    pthread_mutex_unlock(&image->lock);
    return status;
}

/* ---- Changing them ---- */

/* Write a copy of the old table, or an empty one, to a cluster of its own. What is fresh is empty
 * already, and its size is durable. */
static int l2_copy(struct qcow2 *image, uint64_t old, uint64_t table, bool fresh)
{
    if (!old && fresh) {
        return 0;
    }
    uint8_t *buffer = calloc(1, image->cluster_bytes);
    int status = buffer ? 0 : -ENOMEM;

    if (status == 0 && old) {
        status = qcow2_io_read(&image->io, buffer, image->cluster_bytes, old);
    }
    status = status < 0 ? status : qcow2_io_write(&image->io, buffer, image->cluster_bytes, table);
    free(buffer);
    return status < 0 ? status : qcow2_io_barrier(&image->io);
}

static int l1_put(struct qcow2 *image, uint64_t index, uint64_t entry)
{
    uint8_t disk[8];

    qcow2_put64(disk, entry);
    int status =
        qcow2_io_write(&image->io, disk, sizeof(disk), image->header.l1_offset + 8 * index);
    if (status == 0) {
        image->l1[index] = entry;
    }
    return status;
}

int qcow2_l2_own_locked(struct qcow2 *image, uint64_t cluster)
{
    uint64_t index = cluster >> image->l2_bits, old;
    struct qcow2_run run;
    bool fresh;

    if (index >= image->l1_size) {
        return -EINVAL;
    }
    int status = l2_offset(image, index, &old);
    if (status < 0 || (old && (image->l1[index] & QCOW2_COPIED))) {
        return status;
    }
    status = qcow2_allocate_locked(image, 1, &run, &fresh);
    if (status < 0) {
        return status;
    }
    status = l2_offset(image, index, &old); /* the lock was open */
    bool done = status == 0 && old && (image->l1[index] & QCOW2_COPIED);
    uint64_t table = run.first << image->cluster_bits;
    if (status == 0 && !done) {
        status = l2_copy(image, old, table, fresh);
        qcow2_slices_drop(&image->l2_cache, table, image->cluster_bytes);
    }
    if (status == 0 && !done) {
        status = qcow2_places_add(&image->tables, run.first, 1);
    }
    if (status < 0 || done) {
        qcow2_free_locked(image, run.first, 1);
        return status;
    }
    status = l1_put(image, index, table | QCOW2_COPIED);
    if (status < 0) { /* it may have been written: then the new table is the right one */
        return status;
    }
    if (old) {
        qcow2_places_remove(&image->tables, old >> image->cluster_bits, 1);
        qcow2_free_locked(image, old >> image->cluster_bits, 1);
    }
    return 0;
}

int qcow2_entries_put_locked(struct qcow2 *image, uint64_t cluster, const uint64_t *entries,
                             uint64_t count)
{
    uint64_t table;
    uint8_t *data;
    int status = l2_offset(image, cluster >> image->l2_bits, &table);

    if (status < 0 || !table) {
        return status < 0 ? status : -EINVAL;
    }
    uint64_t offset = entry_offset(image, table, cluster);
    status = qcow2_slice_get(&image->l2_cache, offset, true, &data);
    if (status < 0) {
        return status;
    }
    for (uint64_t i = 0; i < count; i++) {
        qcow2_put64(data + 8 * i, entries[i]);
    }
    return qcow2_slice_write(&image->l2_cache, offset, 8 * count);
}

void qcow2_entry_free_locked(struct qcow2 *image, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK, bytes = image->cluster_bytes;

    if (entry & QCOW2_COMPRESSED) {
        qcow2_packed_place(image, entry, &offset, &bytes);
    } else if (!offset) {
        return;
    }
    uint64_t first = offset >> image->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> image->cluster_bits;
    qcow2_free_locked(image, first, last - first + 1);
}

/* ---- Who changes what ---- */

static bool change_meets(const struct qcow2 *image, uint64_t first, uint64_t last)
{
    for (const struct qcow2_change *other = image->changes; other; other = other->next) {
        if (first <= other->last && other->first <= last) {
            return true;
        }
    }
    return false;
}

void qcow2_change_begin_locked(struct qcow2 *image, struct qcow2_change *change, uint64_t first,
                               uint64_t last)
{
    while (change_meets(image, first, last)) {
        pthread_cond_wait(&image->changed, &image->lock);
    }
    *change = (struct qcow2_change){.first = first, .last = last, .next = image->changes};
    image->changes = change;
}

void qcow2_change_narrow_locked(struct qcow2 *image, struct qcow2_change *change, uint64_t last)
{
    if (last < change->last) {
        change->last = last;
        pthread_cond_broadcast(&image->changed);
    }
}

void qcow2_change_end_locked(struct qcow2 *image, struct qcow2_change *change)
{
    struct qcow2_change **at = &image->changes;

    while (*at != change) {
        at = &(*at)->next;
    }
    *at = change->next;
    pthread_cond_broadcast(&image->changed);
}
