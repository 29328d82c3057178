/*
 * Files in the root directory of a FAT16 or FAT32 file system, read only ("FAT: General Overview of
 * On-Disk Format", 1.03). It is what firmware and vmctl both can read of a disk. The file system is
 * hostile: numbers are checked against the partition's size, chains are followed no longer than
 * there are clusters.
 */
#ifndef POLYVISOR_CLI_IMAGE_FAT_H
#define POLYVISOR_CLI_IMAGE_FAT_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fat {
    int fd;         /* borrowed */
    uint64_t start; /* of the file system, bytes in fd */
    bool is_32;
    uint32_t cluster_bytes;
    uint32_t clusters;                 /* numbered from 2 on */
    uint64_t table, table_bytes, data; /* offsets from `start` */
    uint64_t root;                     /* FAT16: offset of the root directory */
    uint32_t root_entries;             /* FAT16 */
    uint32_t root_cluster;             /* FAT32 */
    uint8_t window[4096];              /* of the table */
    uint64_t window_at;                /* UINT64_MAX: nothing */
};

struct fat_file {
    uint32_t cluster; /* 0: an empty file */
    uint32_t size;    /* bytes */
};

/* Look at the file system of `size` bytes at `start` of `fd`. 0 or a negative code with *err set.
 */
int fat_open(struct fat *fat, int fd, uint64_t start, uint64_t size, struct error *err);
/* Find a file by its short name ("CMDLINE.TXT", any case). 0, -ERROR_NOT_FOUND or another negative
 * code with *err set. */
int fat_find(struct fat *fat, const char *name, struct fat_file *file, struct error *err);
/* Hand the bytes of a file to `take` in order, in pieces; it returns 0 or a negative code, which
 * ends it. 0 or a negative code with *err set. */
int fat_read(struct fat *fat, const struct fat_file *file,
             int (*take)(void *context, const uint8_t *bytes, size_t size, struct error *err),
             void *context, struct error *err);

#endif
