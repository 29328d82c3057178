/*
 * The qcow2 format as it is on disk: numbers are big-endian. After "Qcow2 Image File Format" of
 * QEMU's documentation (docs/interop/qcow2). Limits are ours where the text leaves them open.
 */
#ifndef POLYVISOR_QCOW2_FORMAT_H
#define POLYVISOR_QCOW2_FORMAT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define QCOW2_MAGIC              0x514649fbu /* "QFI\xfb" */
#define QCOW2_CLUSTER_BITS_MIN   9u
#define QCOW2_CLUSTER_BITS_MAX   21u
#define QCOW2_REFCOUNT_ORDER_V2  4u
#define QCOW2_REFCOUNT_ORDER_MAX 6u
#define QCOW2_L1_BYTES_MAX       (32u << 20)
#define QCOW2_REFTABLE_BYTES_MAX (8u << 20)
#define QCOW2_NAME_MAX           1023u
#define QCOW2_SNAPSHOTS_MAX      65536u
#define QCOW2_SNAPSHOT_TABLE_MAX (64u << 20)

/* header.incompatible */
#define QCOW2_DIRTY         (UINT64_C(1) << 0)
#define QCOW2_CORRUPT       (UINT64_C(1) << 1)
#define QCOW2_EXTERNAL_DATA (UINT64_C(1) << 2)
#define QCOW2_COMPRESSION   (UINT64_C(1) << 3)
#define QCOW2_EXTENDED_L2   (UINT64_C(1) << 4)
/* header.compatible */
#define QCOW2_LAZY_REFCOUNTS (UINT64_C(1) << 0)
/* header.autoclear */
#define QCOW2_BITMAPS (UINT64_C(1) << 0)

/* Header extensions. */
#define QCOW2_EXTENSION_END            0u
#define QCOW2_EXTENSION_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXTENSION_BITMAPS        0x23852875u

#define QCOW2_COMPRESSION_DEFLATE 0u
#define QCOW2_COMPRESSION_ZSTD    1u

/* Entries of L1 and L2 tables. */
#define QCOW2_COPIED        (UINT64_C(1) << 63) /* refcount is exactly one: may be written in place */
#define QCOW2_COMPRESSED    (UINT64_C(1) << 62)
#define QCOW2_ZERO          (UINT64_C(1) << 0) /* version 3: reads as zeroes */
#define QCOW2_OFFSET_MASK   UINT64_C(0x00fffffffffffe00)
#define QCOW2_REFTABLE_MASK UINT64_C(0xfffffffffffffe00)

struct qcow2_disk_header {
    uint32_t magic, version;
    uint64_t backing_offset;
    uint32_t backing_bytes, cluster_bits;
    uint64_t size;
    uint32_t crypt_method, l1_size;
    uint64_t l1_offset, refcount_table_offset;
    uint32_t refcount_table_clusters, snapshot_count;
    uint64_t snapshots_offset;
    /* From version 3 on. */
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order, header_length;
    uint8_t compression, padding[7];
};
#define QCOW2_HEADER_V2_BYTES 72u
#define QCOW2_HEADER_V3_BYTES 104u
_Static_assert(offsetof(struct qcow2_disk_header, incompatible) == QCOW2_HEADER_V2_BYTES, "v2");
_Static_assert(offsetof(struct qcow2_disk_header, compression) == QCOW2_HEADER_V3_BYTES, "v3");
_Static_assert(offsetof(struct qcow2_disk_header, l1_offset) == 40, "L1");
_Static_assert(sizeof(struct qcow2_disk_header) == 112, "whole header");

/* An entry of the snapshot table; extra data, id and name follow, padded to 8 bytes. */
struct qcow2_disk_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint16_t id_bytes, name_bytes;
    uint32_t seconds, nanoseconds;
    uint64_t guest_nanoseconds;
    uint32_t state_bytes, extra_bytes;
};
_Static_assert(sizeof(struct qcow2_disk_snapshot) == 40, "snapshot");

static inline uint64_t qcow2_get64(const void *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return be64toh(value);
}

static inline uint32_t qcow2_get32(const void *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

static inline void qcow2_put64(void *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof(value));
}

static inline void qcow2_put32(void *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof(value));
}

/* How many entries an L1 table has for a disk of `size` bytes. */
static inline uint64_t qcow2_l1_entries(unsigned cluster_bits, uint64_t size)
{
    unsigned bits = 2 * cluster_bits - 3; /* bytes of the disk below one L2 table */
    return (size >> bits) + !!(size & ((UINT64_C(1) << bits) - 1));
}

#endif
