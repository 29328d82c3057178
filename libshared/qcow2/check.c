/*
 * Checking an image: every reference to every cluster is counted, then compared with the counts in
 * the file. Nothing that is found may stop it but what makes the file unreadable.
 *
 * Each table is read once, however many there are that refer to it (each snapshot does to most):
 * what it refers to is counted as often as it is referred to itself.
 */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CLUSTERS_MOST (UINT64_C(1) << 28) /* a byte would be too small a counter: 1 GiB of them */

/* Tables of snapshots and bitmaps that are read in all: enough for 250,000 snapshots of a disk of 1
 * TiB; holes of a file could be any number of them. */
#define TABLES_MOST (UINT64_C(4) << 30)

#define TABLE_ACTIVE UINT32_C(0x80000000) /* see check.tables: the disk's own L1 table, too */

struct check {
    struct qcow2 *image;
    struct qcow2_report *report;
    enum qcow2_repair repair;
    uint32_t *counts; /* of each cluster of the file */
    uint32_t *tables; /* of each cluster: how many L1 entries say that it is an L2 table */
    uint64_t tables_read;
    uint64_t clusters;
    uint8_t *buffer;       /* a cluster */
    uint64_t unrepairable; /* of the errors: of the structure */
};

static void found(struct check *check, const char *what, uint64_t at)
{
    struct qcow2_report *report = check->report;

    if (!report->errors++) {
        snprintf(report->first, sizeof(report->first), "%s (at %#llx)", what,
                 (unsigned long long)at);
    }
}

static void found_structure(struct check *check, const char *what, uint64_t at)
{
    found(check, what, at);
    check->unrepairable++;
}

/* Count references to each cluster of an area. False when it is not in the file. */
static bool mark_times(struct check *check, uint64_t offset, uint64_t bytes, uint32_t times,
                       const char *what)
{
    uint64_t first = offset >> check->image->cluster_bits;
    uint64_t end = bytes ? ((offset + bytes - 1) >> check->image->cluster_bits) + 1 : first;

    if (bytes > INT64_MAX || offset > INT64_MAX || end > check->clusters) {
        found_structure(check, what, offset);
        return false;
    }
    for (uint64_t i = first; i < end; i++) {
        uint32_t room = UINT32_MAX - check->counts[i];
        check->counts[i] += times < room ? times : room;
    }
    return true;
}

static bool mark(struct check *check, uint64_t offset, uint64_t bytes, const char *what)
{
    return mark_times(check, offset, bytes, 1, what);
}

/* Count a reference to a table that nothing else refers to, and allow for it to be read. 1; 0: it
 * is not in the file, or not alone; or -EFBIG. */
static int mark_table(struct check *check, uint64_t offset, uint64_t bytes, const char *beyond,
                      const char *shared)
{
    uint64_t first = offset >> check->image->cluster_bits;

    if (!bytes || !mark(check, offset, bytes, beyond)) {
        return 0;
    }
    for (uint64_t i = first; i <= (offset + bytes - 1) >> check->image->cluster_bits; i++) {
        if (check->counts[i] > 1) {
            found_structure(check, shared, offset);
            return 0;
        }
    }
    check->tables_read += bytes;
    return check->tables_read > TABLES_MOST ? -EFBIG : 1;
}

static bool aligned(const struct check *check, uint64_t offset)
{
    return !(offset & (check->image->cluster_bytes - 1));
}

/* ---- The tables of reference counts ---- */

/* What cannot be used is left out, so that nothing is read from there later. */
static void check_reftable(struct check *check)
{
    struct qcow2 *image = check->image;
    const struct qcow2_header *header = &image->header;

    mark(check, header->refcount_table_offset,
         (uint64_t)header->refcount_table_clusters << image->cluster_bits,
         "the refcount table is beyond the file");
    for (uint64_t i = 0; i < image->reftable_size; i++) {
        uint64_t offset = image->reftable[i];
        if (!offset) {
            continue;
        }
        if ((offset & ~QCOW2_REFTABLE_MASK) || !aligned(check, offset)) {
            found_structure(check, "an entry of the refcount table is impossible", offset);
            image->reftable[i] = 0;
        } else if (!mark(check, offset, image->cluster_bytes,
                         "a refcount block is beyond the file")) {
            image->reftable[i] = 0;
        } else if (check->counts[offset >> image->cluster_bits] > 1) {
            found_structure(check, "a refcount block is used for something else", offset);
        }
    }
}

/* ---- L1 and L2 tables ---- */

static void check_l2_entry(struct check *check, uint64_t entry, uint32_t times, bool active)
{
    struct qcow2 *image = check->image;
    uint64_t offset = entry & QCOW2_OFFSET_MASK, bytes = image->cluster_bytes;
    bool packed = entry & QCOW2_COMPRESSED;

    if (packed) {
        qcow2_packed_place(image, entry, &offset, &bytes);
        if (entry & QCOW2_COPIED) {
            found_structure(check, "a compressed cluster is marked as writable", offset);
        }
        /* Its last sector may reach beyond the end of the file. */
        uint64_t end = check->clusters << image->cluster_bits;
        bytes = offset < end && bytes > end - offset ? end - offset : bytes;
    } else if (!offset) {
        return;
    } else if (!aligned(check, offset)) {
        found_structure(check, "a cluster is not aligned", offset);
        return;
    }
    if (mark_times(check, offset, bytes, times, "a cluster is beyond the end of the file") &&
        active) {
        check->report->allocated++;
        check->report->compressed += packed;
    }
}

static int check_l2(struct check *check, uint64_t offset, uint32_t times, bool active)
{
    struct qcow2 *image = check->image;
    int status = qcow2_io_read(&image->io, check->buffer, image->cluster_bytes, offset);

    for (uint32_t i = 0; i < 1u << image->l2_bits && status == 0; i++) {
        uint64_t entry = qcow2_get64(check->buffer + 8 * i);
        if (entry) {
            check_l2_entry(check, entry, times, active);
        }
    }
    return status;
}

/* The L2 tables that were found, each once. */
static int check_tables(struct check *check)
{
    int status = 0;

    for (uint64_t i = 0; i < check->clusters && status == 0; i++) {
        uint32_t times = check->tables[i] & ~TABLE_ACTIVE;
        if (times) {
            status = check_l2(check, i << check->image->cluster_bits, times,
                              check->tables[i] & TABLE_ACTIVE);
        }
    }
    return status;
}

static void check_l1(struct check *check, const uint64_t *l1, uint32_t size, bool active)
{
    for (uint32_t i = 0; i < size; i++) {
        uint64_t offset = l1[i] & QCOW2_OFFSET_MASK;
        if (l1[i] & ~(QCOW2_COPIED | QCOW2_OFFSET_MASK)) {
            found_structure(check, "an entry of the L1 table has unknown bits", l1[i]);
        }
        if (!offset) {
            continue;
        }
        if (!aligned(check, offset)) {
            found_structure(check, "an L2 table is not aligned", offset);
        } else if (mark(check, offset, check->image->cluster_bytes,
                        "an L2 table is beyond the file")) {
            uint32_t *table = &check->tables[offset >> check->image->cluster_bits];
            *table += (*table & ~TABLE_ACTIVE) < (TABLE_ACTIVE - 1);
            *table |= active ? TABLE_ACTIVE : 0;
        }
    }
}

static int check_snapshot(struct check *check, const struct qcow2_snapshot *snapshot)
{
    int status = mark_table(check, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8,
                            "the L1 table of a snapshot is beyond the file",
                            "the L1 table of a snapshot is used for something else");

    if (status <= 0) {
        return status;
    }
    uint64_t *l1;
    status = qcow2_table_read(&check->image->io, snapshot->l1_offset, snapshot->l1_size, &l1);
    if (status == 0) {
        check_l1(check, l1, snapshot->l1_size, false);
    }
    free(l1);
    return status;
}

/* ---- Dirty bitmaps: only what they take ---- */

static int check_bitmap(struct check *check, const uint8_t *entry)
{
    struct qcow2 *image = check->image;
    uint64_t offset = qcow2_get64(entry);
    uint32_t size = qcow2_get32(entry + 8);

    if (!aligned(check, offset) || size > QCOW2_L1_BYTES_MAX / 8) {
        return 0;
    }
    int status = mark_table(check, offset, (uint64_t)size * 8, "a bitmap is beyond the file",
                            "the table of a bitmap is used for something else");
    if (status <= 0) {
        return status;
    }
    uint64_t *table;
    status = qcow2_table_read(&image->io, offset, size, &table);
    for (uint32_t i = 0; i < size && status == 0; i++) {
        uint64_t place = table[i] & QCOW2_OFFSET_MASK;
        if (place) {
            mark(check, place, image->cluster_bytes, "a bitmap is beyond the file");
        }
    }
    free(table);
    return status;
}

static int check_bitmaps(struct check *check)
{
    const struct qcow2_header *header = &check->image->header;
    uint64_t at = 0, bytes = header->bitmaps_bytes;

    /* Where their mark is gone so is their content, and others give back their clusters. */
    if (!header->has_bitmaps || !(header->autoclear & QCOW2_BITMAPS)) {
        return 0;
    }
    if (!aligned(check, header->bitmaps_offset) || bytes > QCOW2_SNAPSHOT_TABLE_MAX ||
        !mark(check, header->bitmaps_offset, bytes, "the bitmap directory is beyond the file")) {
        return 0;
    }
    uint8_t *directory = malloc(bytes ? bytes : 1);
    if (!directory) {
        return -ENOMEM;
    }
    int status = qcow2_io_read(&check->image->io, directory, bytes, header->bitmaps_offset);
    for (uint32_t i = 0; i < header->bitmap_count && status == 0 && bytes - at >= 24; i++) {
        uint64_t extra = qcow2_get32(directory + at + 20);
        uint64_t name = (uint64_t)directory[at + 18] << 8 | directory[at + 19];
        status = check_bitmap(check, directory + at);
        uint64_t used = (24 + extra + name + 7) & ~UINT64_C(7);
        if (used > bytes - at) {
            break;
        }
        at += used;
    }
    free(directory);
    return status;
}

static int count_all(struct check *check)
{
    struct qcow2 *image = check->image;
    const struct qcow2_header *header = &image->header;

    mark(check, 0, image->cluster_bytes, "the header is beyond the file");
    check_reftable(check);
    if (header->l1_size) {
        mark(check, header->l1_offset, (uint64_t)header->l1_size * 8,
             "the L1 table is beyond the file");
        check_l1(check, image->l1, image->l1_size, true);
    }
    if (image->snapshot_count) {
        mark(check, header->snapshots_offset, image->snapshot_bytes,
             "the snapshot table is beyond the file");
    }
    int status = 0;
    for (unsigned i = 0; i < image->snapshot_count && status == 0; i++) {
        status = check_snapshot(check, &image->snapshots[i]);
    }
    status = status < 0 ? status : check_tables(check);
    return status < 0 ? status : check_bitmaps(check);
}

/* ---- Comparing ---- */

/* One too low is repaired here, one too high later. */
static int compare(struct check *check, uint64_t cluster)
{
    struct qcow2 *image = check->image;
    uint64_t stored, counted = check->counts[cluster];
    int status = qcow2_refcount_get_locked(image, cluster, &stored);

    if (status < 0 || stored == counted) {
        return status;
    }
    if (stored > counted) {
        check->report->leaks++;
        return 0;
    }
    found(check, "a cluster in use is counted too few times", cluster << image->cluster_bits);
    if (check->repair != QCOW2_REPAIR_ALL || counted > qcow2_refcount_most(image)) {
        return 0;
    }
    status = qcow2_refcount_block_locked(image, cluster);
    status = status < 0 ? status : qcow2_refcount_set_locked(image, cluster, counted);
    check->report->errors_repaired += status == 0;
    return status;
}

static int compare_all(struct check *check)
{
    int status = 0;

    for (uint64_t i = 0; i < check->clusters && status == 0; i++) {
        status = compare(check, i);
    }
    return status;
}

/* Whether a mark agrees with the count; a repaired entry in *entry. */
static bool mark_agrees(struct check *check, uint64_t *entry)
{
    uint64_t offset = *entry & QCOW2_OFFSET_MASK, cluster = offset >> check->image->cluster_bits;

    if (!offset || !aligned(check, offset) || cluster >= check->clusters) {
        return true;
    }
    bool once = check->counts[cluster] == 1;
    if (once == !!(*entry & QCOW2_COPIED)) {
        return true;
    }
    found(check,
          once ? "a cluster that is used once is not marked so"
               : "a cluster that is shared is marked as writable",
          offset);
    *entry ^= QCOW2_COPIED;
    return false;
}

static int write_entry(struct check *check, uint64_t offset, uint64_t entry)
{
    uint8_t disk[8];

    if (check->repair != QCOW2_REPAIR_ALL) {
        return 0;
    }
    qcow2_put64(disk, entry);
    int status = qcow2_io_write(&check->image->io, disk, sizeof(disk), offset);
    check->report->errors_repaired += status == 0;
    return status;
}

static int check_marks_of(struct check *check, uint64_t table)
{
    struct qcow2 *image = check->image;
    int status = qcow2_io_read(&image->io, check->buffer, image->cluster_bytes, table);

    for (uint32_t i = 0; i < 1u << image->l2_bits && status == 0; i++) {
        uint64_t entry = qcow2_get64(check->buffer + 8 * i);
        if (!(entry & QCOW2_COMPRESSED) && !mark_agrees(check, &entry)) {
            status = write_entry(check, table + 8 * (uint64_t)i, entry);
        }
    }
    return status;
}

static int check_marks(struct check *check)
{
    struct qcow2 *image = check->image;
    int status = 0;

    for (uint32_t i = 0; i < image->l1_size && status == 0; i++) {
        uint64_t table = image->l1[i] & QCOW2_OFFSET_MASK;
        if (!mark_agrees(check, &image->l1[i])) {
            status = write_entry(check, image->header.l1_offset + 8 * (uint64_t)i, image->l1[i]);
        }
        uint64_t cluster = table >> image->cluster_bits;
        if (status == 0 && table && aligned(check, table) && cluster < check->clusters &&
            check->tables[cluster] & TABLE_ACTIVE) {
            check->tables[cluster] &= ~TABLE_ACTIVE; /* once */
            status = check_marks_of(check, table);
        }
    }
    return status;
}

static int repair_leaks(struct check *check)
{
    struct qcow2 *image = check->image;
    int status = 0;

    for (uint64_t i = 0; i < check->clusters && status == 0; i++) {
        uint64_t stored;
        status = qcow2_refcount_get_locked(image, i, &stored);
        if (status == 0 && stored > check->counts[i]) {
            status = qcow2_refcount_set_locked(image, i, check->counts[i]);
            check->report->leaks_repaired += status == 0;
        }
    }
    return status;
}

/* Nothing is wrong any more: say so. */
static int clear_marks(struct check *check)
{
    struct qcow2 *image = check->image;
    uint64_t wrong = QCOW2_DIRTY | QCOW2_CORRUPT;

    if (image->header.version < 3 || !(image->header.incompatible & wrong)) {
        return 0;
    }
    image->header.incompatible &= ~wrong;
    return qcow2_features_write(image);
}

static int check_repair(struct check *check)
{
    const struct qcow2_report *report = check->report;
    bool sound = report->errors == report->errors_repaired;
    int status = qcow2_io_barrier(&check->image->io);

    /* While anything may refer to what we do not know of, nothing is given back. */
    if (status == 0 && sound) {
        status = repair_leaks(check);
        status = status < 0 ? status : qcow2_io_barrier(&check->image->io);
    }
    return status == 0 && sound && check->repair == QCOW2_REPAIR_ALL ? clear_marks(check) : status;
}

static int check_image(struct check *check, struct error *err)
{
    struct qcow2 *image = check->image;

    check->clusters = image->file_clusters;
    check->report->clusters = check->clusters;
    check->report->l1_entries = image->l1_size;
    if (check->clusters > CLUSTERS_MOST) {
        return error_set(err, ERROR_UNSUPPORTED, EFBIG, "'%s' is too large to be checked",
                         image->name);
    }
    check->counts = calloc(check->clusters, sizeof(check->counts[0]));
    check->tables = calloc(check->clusters, sizeof(check->tables[0]));
    check->buffer = malloc(image->cluster_bytes);
    int status = check->counts && check->tables && check->buffer ? 0 : -ENOMEM;
    status = status < 0 ? status : count_all(check);
    if (status == -EFBIG) {
        return error_set(err, ERROR_UNSUPPORTED, EFBIG, "'%s' has too many tables to be checked",
                         image->name);
    }
    status = status < 0 ? status : compare_all(check);
    status = status < 0 ? status : check_marks(check);
    if (status == 0 && check->repair != QCOW2_REPAIR_NOTHING) {
        status = check_repair(check);
    }
    return status < 0 ? error_set(err, ERROR_IO, -status, "cannot check '%s': %s", image->name,
                                  strerror(-status))
                      : 0;
}

int qcow2_check(int fd, const char *name, enum qcow2_repair repair, struct qcow2_report *report,
                struct error *err)
{
    struct check check = {.report = report, .repair = repair};

    memset(report, 0, sizeof(*report));
    check.image = qcow2_new(fd, name, true, err);
    if (!check.image) {
        return err ? -(int)err->code : -ERROR_DISK;
    }
    int status = qcow2_tables_load(check.image, err); /* L1 only: it is read-only */
    status = status ? status : qcow2_refcounts_load(check.image, err);
    status = status ? status : check_image(&check, err);
    free(check.counts);
    free(check.tables);
    free(check.buffer);
    qcow2_delete(check.image);
    return status;
}
