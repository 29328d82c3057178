/* Malformed qcow2 images, after the classes that were published as faults of other programs: each
 * is refused or read with a clear error, none is made worse. */
#include "libshared/qcow2/format.h"
#include "tests/unit/qcow2_image.h"
#include "tests/unit/suite.h"
#include <errno.h>
#include <sys/stat.h>
#include <zstd.h>

#define DISK_BYTES (UINT64_C(1) << 20)
#define CLUSTER    4096u

static struct qcow2_creation creation = {.size = DISK_BYTES, .cluster_bits = 12};
static int fd;

static void setup(void)
{
    fd = image_make(&creation);
}

static void teardown(void)
{
    close(fd);
}

static void put(uint64_t at, uint64_t value, unsigned bytes)
{
    uint8_t disk[8];

    qcow2_put64(disk, value);
    ck_assert_int_eq(pwrite(fd, disk + 8 - bytes, bytes, (off_t)at), bytes);
}

static uint64_t get(uint64_t at)
{
    uint8_t disk[8];

    ck_assert_int_eq(pread(fd, disk, 8, (off_t)at), 8);
    return qcow2_get64(disk);
}

#define FIELD(name) offsetof(struct qcow2_disk_header, name)

/* Neither opened nor checked, and left as it is. */
static void refused(enum error_code code, const char *words)
{
    struct stat before, after;
    struct qcow2_report report;
    struct error err;

    fstat(fd, &before);
    for (int read_only = 0; read_only < 2; read_only++) {
        error_clear(&err);
        ck_assert_ptr_eq(qcow2_open(fd, "test", read_only, &err), NULL);
        ck_assert_msg(err.code == code, "%s [%s]", err.message, error_code_text(err.code));
        ck_assert_msg(strstr(err.message, words) != NULL, "%s", err.message);
    }
    ck_assert_int_eq(qcow2_check(fd, "test", QCOW2_REPAIR_ALL, &report, &err), -(int)code);
    fstat(fd, &after);
    ck_assert_int_eq(before.st_size, after.st_size);
}

/* ---- Headers ---- */

static const struct {
    size_t at;
    unsigned bytes;
    uint64_t value;
    enum error_code code;
    const char *words;
} headers[] = {
    {FIELD(magic), 4, 0x12345678, ERROR_DISK, "no qcow2 image"},
    {FIELD(version), 4, 1, ERROR_UNSUPPORTED, "version"},
    {FIELD(version), 4, 4, ERROR_UNSUPPORTED, "version"},
    {FIELD(cluster_bits), 4, 8, ERROR_DISK, "clusters"},
    {FIELD(cluster_bits), 4, 22, ERROR_DISK, "clusters"},
    {FIELD(cluster_bits), 4, 0xffffffff, ERROR_DISK, "clusters"},
    {FIELD(size), 8, UINT64_MAX, ERROR_DISK, "L1"},
    {FIELD(size), 8, UINT64_C(1) << 62, ERROR_DISK, "L1"},
    {FIELD(size), 8, UINT64_C(1) << 30, ERROR_DISK, "too small"},
    {FIELD(crypt_method), 4, 1, ERROR_UNSUPPORTED, "encryption"},
    {FIELD(crypt_method), 4, 2, ERROR_UNSUPPORTED, "encryption"},
    {FIELD(l1_size), 4, 0xffffffff, ERROR_DISK, "too large"},
    {FIELD(l1_size), 4, 0x20000001, ERROR_DISK, "too large"},
    {FIELD(l1_size), 4, 0x400000, ERROR_DISK, "not where"},
    {FIELD(l1_size), 4, 0, ERROR_DISK, "too small"},
    {FIELD(l1_offset), 8, 0, ERROR_DISK, "not where"},
    {FIELD(l1_offset), 8, 0x3001, ERROR_DISK, "not where"},
    {FIELD(l1_offset), 8, UINT64_C(0xfffffffffffff000), ERROR_DISK, "not where"},
    {FIELD(l1_offset), 8, CLUSTER, ERROR_DISK, "overlap"},
    {FIELD(refcount_table_offset), 8, 0, ERROR_DISK, "refcount table"},
    {FIELD(refcount_table_offset), 8, 0x1234, ERROR_DISK, "refcount table"},
    {FIELD(refcount_table_offset), 8, UINT64_C(1) << 63, ERROR_DISK, "refcount table"},
    {FIELD(refcount_table_clusters), 4, 0, ERROR_DISK, "refcount table"},
    {FIELD(refcount_table_clusters), 4, 0xffffffff, ERROR_DISK, "refcount table"},
    {FIELD(snapshot_count), 4, 0xffffffff, ERROR_DISK, "snapshot"},
    {FIELD(snapshot_count), 4, 1, ERROR_DISK, "snapshot"},
    {FIELD(refcount_order), 4, 7, ERROR_DISK, "width"},
    {FIELD(refcount_order), 4, 0xffffffff, ERROR_DISK, "width"},
    {FIELD(header_length), 4, 0, ERROR_DISK, "header"},
    {FIELD(header_length), 4, 103, ERROR_DISK, "header"},
    {FIELD(header_length), 4, 0xfffffff8, ERROR_DISK, "header"},
    {FIELD(incompatible), 8, QCOW2_EXTERNAL_DATA, ERROR_UNSUPPORTED, "external"},
    {FIELD(incompatible), 8, QCOW2_EXTENDED_L2, ERROR_UNSUPPORTED, "extended L2"},
    {FIELD(incompatible), 8, QCOW2_COMPRESSION, ERROR_DISK, "compression"},
    {FIELD(incompatible), 8, UINT64_C(1) << 40, ERROR_UNSUPPORTED, "later version"},
};

START_TEST(impossible_headers_are_refused)
{
    put(headers[_i].at, headers[_i].value, headers[_i].bytes);
    refused(headers[_i].code, headers[_i].words);
}
END_TEST

START_TEST(names_and_extensions_stay_in_their_cluster)
{
    put(FIELD(backing_offset), 4000, 8);
    put(FIELD(backing_bytes), 200, 4);
    refused(ERROR_DISK, "backing file");
    put(FIELD(backing_offset), UINT64_MAX - 10, 8);
    refused(ERROR_DISK, "backing file");
    put(FIELD(backing_offset), 8, 8); /* in the header */
    refused(ERROR_DISK, "backing file");
    put(FIELD(backing_offset), 200, 8);
    put(FIELD(backing_bytes), 1024, 4);
    refused(ERROR_DISK, "backing file");
    put(FIELD(backing_bytes), 4, 4); /* zeroes are no name */
    refused(ERROR_DISK, "backing file");
    put(FIELD(backing_offset), 0, 8);
    put(QCOW2_HEADER_V3_BYTES, 0x12345678, 4);
    put(QCOW2_HEADER_V3_BYTES + 4, 0xfffffff0, 4);
    refused(ERROR_DISK, "extension");
    put(QCOW2_HEADER_V3_BYTES, QCOW2_EXTENSION_BACKING_FORMAT, 4);
    put(QCOW2_HEADER_V3_BYTES + 4, 16, 4);
    refused(ERROR_DISK, "format");
}
END_TEST

START_TEST(a_short_file_is_no_image)
{
    for (off_t size = 0; size < 3 * (off_t)CLUSTER; size = size * 2 + 5) {
        struct error err;
        ck_assert_int_eq(ftruncate(fd, size), 0);
        ck_assert_ptr_eq(qcow2_open(fd, "test", true, &err), NULL);
        ck_assert_ptr_eq(qcow2_open(fd, "test", false, &err), NULL);
    }
}
END_TEST

/* ---- Tables ---- */

/* Write the first cluster of the disk; where its L2 entry is. */
static uint64_t fill_first(void)
{
    uint8_t bytes[CLUSTER];
    struct qcow2 *image = image_open(fd, false);

    memset(bytes, 7, sizeof(bytes));
    ck_assert_int_eq(image_write(image, 0, bytes, sizeof(bytes)), 0);
    qcow2_close(image);
    return get(get(FIELD(l1_offset))) & QCOW2_OFFSET_MASK;
}

static const struct {
    uint64_t entry;
    bool reads, writes; /* whether that succeeds */
} entries[] = {
    {QCOW2_COPIED | (UINT64_C(1) << 40), false, false},          /* beyond the file */
    {QCOW2_COPIED | UINT64_C(0x00fffffffffff000), false, false}, /* far beyond */
    {QCOW2_COPIED | 0x4200, false, false},                       /* not aligned */
    {QCOW2_COPIED | (1 * CLUSTER), true, false},                 /* the refcount table */
    {QCOW2_COPIED | (2 * CLUSTER), true, false},                 /* a refcount block */
    {QCOW2_COPIED | (3 * CLUSTER), true, false},                 /* the L1 table */
    {QCOW2_COMPRESSED | (UINT64_C(1) << 40), false, false},      /* beyond the file */
    {QCOW2_COMPRESSED | UINT64_C(0x3fffffffffffffff), false, false},
    {QCOW2_COMPRESSED | (2 * CLUSTER), false, false}, /* no compressed data */
};

START_TEST(impossible_entries_do_no_harm)
{
    uint64_t table = fill_first();
    uint8_t bytes[512] = {0}, before[4 * CLUSTER], after[4 * CLUSTER];

    put(table, entries[_i].entry, 8);
    ck_assert_int_eq(pread(fd, before, sizeof(before), 0), sizeof(before));
    struct qcow2 *image = image_open(fd, true);
    ck_assert_int_eq(image_read(image, 0, bytes, sizeof(bytes)), entries[_i].reads ? 0 : -EIO);
    ck_assert_int_eq(image_write(image, 0, bytes, sizeof(bytes)), -EROFS);
    qcow2_close(image);
    image = image_open(fd, false);
    ck_assert_int_eq(image_write(image, 0, bytes, sizeof(bytes)) == 0, entries[_i].writes);
    qcow2_close(image);
    /* But for the mark in the header, no table was written. */
    ck_assert_int_eq(pread(fd, after, sizeof(after), 0), sizeof(after));
    ck_assert_mem_eq(before + CLUSTER, after + CLUSTER, CLUSTER);
    ck_assert_mem_eq(before + 3 * CLUSTER, after + 3 * CLUSTER, CLUSTER);
    ck_assert_uint_gt(image_check(fd, QCOW2_REPAIR_NOTHING).errors, 0);
}
END_TEST

START_TEST(damage_is_marked_and_stops_writing)
{
    uint64_t table = fill_first();
    uint8_t bytes[512] = {0};
    struct error err;

    put(table, QCOW2_COPIED | (3 * CLUSTER), 8); /* the L1 table */
    struct qcow2 *image = image_open(fd, false);
    ck_assert_int_eq(image_write(image, 0, bytes, sizeof(bytes)), -EIO);
    ck_assert(qcow2_is_corrupt(image));
    ck_assert_int_eq(image_write(image, 8 * CLUSTER, bytes, sizeof(bytes)), -EIO);
    ck_assert_int_eq(qcow2_discard(image, 0, DISK_BYTES), -EIO);
    ck_assert_int_eq(image_read(image, 8 * CLUSTER, bytes, sizeof(bytes)), 0);
    qcow2_close(image);
    ck_assert_uint_eq(get(FIELD(incompatible)) & QCOW2_CORRUPT, QCOW2_CORRUPT);
    error_clear(&err);
    ck_assert_ptr_eq(qcow2_open(fd, "test", false, &err), NULL);
    ck_assert_int_eq(err.code, ERROR_DISK);
    ck_assert(strstr(err.message, "marked as damaged") != NULL);
    image = image_open(fd, true);
    ck_assert_int_eq(image_read(image, 8 * CLUSTER, bytes, sizeof(bytes)), 0);
    qcow2_close(image);
    put(table, 0, 8);
    struct qcow2_report report = image_check(fd, QCOW2_REPAIR_ALL);
    ck_assert_uint_eq(report.errors, report.errors_repaired);
    image_is_sound(fd);
    image = image_open(fd, false);
    qcow2_close(image);
}
END_TEST

START_TEST(tables_that_overlap_are_not_written)
{
    struct error err;
    uint64_t l1;

    fill_first();
    l1 = get(FIELD(l1_offset));
    static const uint64_t places[] = {0x4000000000, 1 * CLUSTER, 2 * CLUSTER, 3 * CLUSTER, 0x200};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        uint64_t kept = get(l1);
        put(l1, QCOW2_COPIED | places[i], 8);
        error_clear(&err);
        ck_assert_ptr_eq(qcow2_open(fd, "test", false, &err), NULL);
        ck_assert_int_eq(err.code, ERROR_DISK);
        ck_assert_uint_gt(image_check(fd, QCOW2_REPAIR_NOTHING).errors, 0);
        put(l1, kept, 8);
    }
    image_is_sound(fd);
    put(get(FIELD(refcount_table_offset)), 1 * CLUSTER, 8); /* a block in its own table */
    ck_assert_ptr_eq(qcow2_open(fd, "test", false, &err), NULL);
    ck_assert_uint_gt(image_check(fd, QCOW2_REPAIR_NOTHING).errors, 0);
}
END_TEST

START_TEST(a_free_table_is_noticed_before_it_is_given_away)
{
    uint8_t bytes[CLUSTER] = {1};
    uint64_t block = get(get(FIELD(refcount_table_offset)));

    put(block, 0, 8); /* the first four clusters are free, it says */
    struct qcow2 *image = image_open(fd, false);
    ck_assert_int_eq(image_write(image, 0, bytes, sizeof(bytes)), -EIO);
    ck_assert(qcow2_is_corrupt(image));
    qcow2_close(image);
    struct qcow2_report report = image_check(fd, QCOW2_REPAIR_ALL);
    ck_assert_uint_eq(report.errors, 4);
    ck_assert_uint_eq(report.errors_repaired, 4);
    image_is_sound(fd);
}
END_TEST

/* A block of one bit each counts millions of clusters: to look for the first free one behind the
 * end would take for ever, and a file of terabytes. */
START_TEST(counts_without_end_are_given_up)
{
    const struct qcow2_creation creation_bits = {
        .size = 64 << 20, .cluster_bits = 21, .refcount_order_given = true, .refcount_order = 0};
    const uint64_t cluster = 1 << 21;
    int file = image_make(&creation_bits);
    uint8_t *ones = malloc(cluster), byte = 1;

    memset(ones, 0xff, cluster);
    ck_assert_int_eq(pwrite(file, ones, cluster, 2 * (off_t)cluster), (ssize_t)cluster);
    struct qcow2 *image = image_open(file, false);
    ck_assert_int_eq(image_write(image, 0, &byte, 1), -EIO);
    ck_assert(qcow2_is_corrupt(image));
    qcow2_close(image);
    ck_assert_int_lt(lseek(file, 0, SEEK_END), INT64_C(1) << 38);
    free(ones);
    close(file);
}
END_TEST

/* ---- What takes time and memory ---- */

#define MANY (QCOW2_L1_BYTES_MAX / 8)

/* One whose clusters are the largest, with a snapshot table that says so often the same: an L1
 * table as long as one can be, all of whose entries are one L2 table. */
static int make_repeating(unsigned snapshots)
{
    const struct qcow2_creation wide = {.size = 64 << 20, .cluster_bits = 21};
    const uint64_t cluster = 1 << 21, l1_at = 16 * cluster, table_at = 8 * cluster;
    int file = image_make(&wide);
    uint8_t byte = 1, disk[sizeof(struct qcow2_disk_snapshot)] = {0}, *l1 = malloc(8 * MANY);
    struct qcow2 *image = image_open(file, false);

    ck_assert_int_eq(image_write(image, 0, &byte, 1), 0);
    qcow2_close(image);
    fd = file;
    uint64_t l2 = get(get(FIELD(l1_offset)));
    for (size_t i = 0; i < MANY; i++) {
        qcow2_put64(l1 + 8 * i, l2 & QCOW2_OFFSET_MASK);
    }
    ck_assert_int_eq(pwrite(file, l1, 8 * MANY, (off_t)l1_at), 8 * MANY);
    qcow2_put64(disk, l1_at);
    qcow2_put32(disk + 8, MANY);
    for (unsigned i = 0; i < snapshots; i++) {
        ck_assert_int_eq(pwrite(file, disk, sizeof(disk), (off_t)(table_at + i * sizeof(disk))),
                         sizeof(disk));
    }
    put(FIELD(snapshots_offset), table_at, 8);
    put(FIELD(snapshot_count), snapshots, 4);
    free(l1);
    return file;
}

/* To read what is said again would be terabytes. */
START_TEST(what_is_referred_to_often_is_read_once)
{
    int own = fd;
    int file = make_repeating(_i ? 20000 : 1);
    struct qcow2_report report = image_check(file, QCOW2_REPAIR_NOTHING);

    ck_assert_uint_gt(report.errors, 0);
    ck_assert_uint_eq(report.allocated, 1);
    if (_i) {
        ck_assert_msg(strstr(report.first, "L1 table of a snapshot") != NULL, "%s", report.first);
    }
    close(file);
    fd = own;
}
END_TEST

/* The length of a compressed frame that has its decoder remember so many bytes (2 to the power). */
static size_t compress_wide(uint8_t *to, size_t room, const uint8_t *bytes, size_t size, int window)
{
    ZSTD_CCtx *stream = ZSTD_createCCtx();
    ZSTD_outBuffer output = {to, room, 0};
    ZSTD_inBuffer input = {bytes, size, 0};

    ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(stream, ZSTD_c_windowLog, window)));
    ck_assert(!ZSTD_isError(ZSTD_compressStream2(stream, &output, &input, ZSTD_e_continue)));
    ck_assert_uint_eq(ZSTD_compressStream2(stream, &output, &input, ZSTD_e_end), 0);
    ZSTD_freeCCtx(stream);
    return output.pos;
}

/* A frame may ask for 128 MiB, and each of an image's threads would have them. */
START_TEST(a_frame_takes_no_more_memory_than_a_cluster_needs)
{
    uint64_t table = fill_first();
    uint8_t bytes[CLUSTER], packed[CLUSTER] = {0};
    const uint64_t place = 32 * CLUSTER;

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i % 7);
    }
    compress_wide(packed, sizeof(packed), bytes, sizeof(bytes), _i ? 27 : 21);
    ck_assert_int_eq(pwrite(fd, packed, sizeof(packed), (off_t)place), sizeof(packed));
    put(FIELD(incompatible), QCOW2_COMPRESSION, 8);
    put(FIELD(compression), QCOW2_COMPRESSION_ZSTD, 1);
    put(FIELD(header_length), sizeof(struct qcow2_disk_header), 4);
    put(table, QCOW2_COMPRESSED | UINT64_C(7) << (62 - 4) | place, 8);
    struct qcow2 *image = image_open(fd, true);
    ck_assert_int_eq(image_read(image, 0, packed, sizeof(packed)), _i ? -EIO : 0);
    ck_assert(_i || memcmp(packed, bytes, sizeof(bytes)) == 0);
    qcow2_close(image);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2: hostile images");
    TCase *tests = tcase_create("all");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, impossible_headers_are_refused, 0,
                        (int)(sizeof(headers) / sizeof(headers[0])));
    tcase_add_test(tests, counts_without_end_are_given_up);
    tcase_add_loop_test(tests, what_is_referred_to_often_is_read_once, 0, 2);
    tcase_add_loop_test(tests, a_frame_takes_no_more_memory_than_a_cluster_needs, 0, 2);
    tcase_add_test(tests, names_and_extensions_stay_in_their_cluster);
    tcase_add_test(tests, a_short_file_is_no_image);
    tcase_add_loop_test(tests, impossible_entries_do_no_harm, 0,
                        (int)(sizeof(entries) / sizeof(entries[0])));
    tcase_add_test(tests, damage_is_marked_and_stops_writing);
    tcase_add_test(tests, tables_that_overlap_are_not_written);
    tcase_add_test(tests, a_free_table_is_noticed_before_it_is_given_away);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
