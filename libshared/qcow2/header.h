/*
 * The header of a qcow2 image: read and checked. An image is hostile input: whatever passes here
 * has offsets that are aligned, inside the file and apart. Any thread; nothing is kept.
 */
#ifndef POLYVISOR_QCOW2_HEADER_H
#define POLYVISOR_QCOW2_HEADER_H

#include "libshared/base/error.h"
#include "libshared/qcow2/format.h"
#include <stdbool.h>

struct qcow2_header {
    uint32_t version, cluster_bits, refcount_order, header_length;
    uint32_t l1_size, refcount_table_clusters, snapshot_count;
    uint64_t size; /* of the disk in bytes, as it stands there */
    uint64_t l1_offset, refcount_table_offset, snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint8_t compression;
    bool has_bitmaps; /* their directory: */
    uint32_t bitmap_count;
    uint64_t bitmaps_offset, bitmaps_bytes;
    char backing[QCOW2_NAME_MAX + 1]; /* "": none */
    char backing_format[16];          /* "": not said */
};

/* Whether these bytes, of the beginning of a file, are those of a qcow2 image. */
bool qcow2_is_magic(const void *bytes, size_t size);
/* Read and check the header of `fd`. `name` is for messages. 0, or a negative code: DISK when it is
 * damaged or none, UNSUPPORTED when it uses something that is not here, IO. */
int qcow2_header_read(int fd, const char *name, struct qcow2_header *header, struct error *err);
/* The size of a file or block device; negative errno. */
int64_t qcow2_file_size(int fd);

#endif
