/* Small disks for tests: a partition table with one boot partition, FAT16 or FAT32, with some
 * files. */
#ifndef POLYVISOR_TESTS_IMAGE_DISK_H
#define POLYVISOR_TESTS_IMAGE_DISK_H

#include "cli/image/gpt.h"

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DISK_BYTES     (5u << 19)
#define DISK_START     (64u << 10) /* of the partition */
#define DISK_SIZE      (DISK_BYTES - 2 * DISK_START)
#define FAT_RESERVED   32u /* sectors */
#define FAT_SECTORS    64u /* of the one table */
#define FAT_ROOT_SLOTS 64u

struct disk {
    uint8_t bytes[DISK_BYTES];
    bool is_32;
    uint32_t next_cluster; /* of a file that is added */
    unsigned slots;        /* of the root directory that are taken */
};

static inline uint8_t *disk_at(struct disk *disk, uint64_t offset)
{
    return disk->bytes + DISK_START + offset;
}

static inline void put16(uint8_t *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
}

static inline void put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}

static inline void put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static inline uint8_t *disk_table(struct disk *disk)
{
    return disk_at(disk, FAT_RESERVED * 512);
}

static inline void disk_link(struct disk *disk, uint32_t cluster, uint32_t next)
{
    if (disk->is_32) {
        put32(disk_table(disk) + cluster * 4, next);
    } else {
        put16(disk_table(disk) + cluster * 2, (uint16_t)next);
    }
}

static inline uint8_t *disk_cluster(struct disk *disk, uint32_t cluster)
{
    uint32_t root = disk->is_32 ? 0 : FAT_ROOT_SLOTS * 32;
    return disk_at(disk, (FAT_RESERVED + FAT_SECTORS) * 512 + root + (cluster - 2) * 512);
}

/* The checksums of the partition table, after it was changed. */
static inline void disk_seal(struct disk *disk)
{
    uint8_t *header = disk->bytes + 512;

    put32(header + 88, gpt_crc(0, disk->bytes + 1024, 128 * 128));
    put32(header + 16, 0);
    put32(header + 16, gpt_crc(0, header, 92));
}

static inline void disk_make(struct disk *disk, bool is_32)
{
    uint8_t *header = disk->bytes + 512, *entry = disk->bytes + 1024, *boot;

    memset(disk, 0, sizeof(*disk));
    disk->is_32 = is_32;
    memcpy(header, "EFI PART", 8);
    put32(header + 8, 0x10000);
    put32(header + 12, 92);
    put64(header + 72, 2);
    put32(header + 80, 128);
    put32(header + 84, 128);
    memcpy(entry + 128, gpt_type_efi, GPT_GUID_BYTES); /* the second of them */
    put64(entry + 128 + 32, DISK_START / 512);
    put64(entry + 128 + 40, (DISK_START + DISK_SIZE) / 512 - 1);
    disk_seal(disk);
    boot = disk_at(disk, 0);
    put16(boot + 11, 512);
    boot[13] = 1;
    put16(boot + 14, FAT_RESERVED);
    boot[16] = 1;
    put16(boot + 17, is_32 ? 0 : FAT_ROOT_SLOTS);
    put16(boot + 19, is_32 ? 0 : DISK_SIZE / 512);
    put16(boot + 22, is_32 ? 0 : FAT_SECTORS);
    put32(boot + 32, is_32 ? DISK_SIZE / 512 : 0);
    put32(boot + 36, is_32 ? FAT_SECTORS : 0);
    put32(boot + 44, is_32 ? 2 : 0);
    disk->next_cluster = 2;
    if (is_32) {
        disk_link(disk, 2, 0x0fffffff); /* the root directory */
        disk->next_cluster = 3;
    }
}

/* `name` as it stands in a directory: "VMLINUX    ". */
static inline uint8_t *disk_add_entry(struct disk *disk, const char *name, uint32_t cluster,
                                      uint32_t size)
{
    uint8_t *root =
        disk->is_32 ? disk_cluster(disk, 2) : disk_at(disk, (FAT_RESERVED + FAT_SECTORS) * 512);
    uint8_t *entry = root + 32 * disk->slots++;

    memcpy(entry, name, 11);
    put16(entry + 20, (uint16_t)(cluster >> 16));
    put16(entry + 26, (uint16_t)cluster);
    put32(entry + 28, size);
    return entry;
}

/* Every other cluster is left free, so that the file lies in pieces. */
static inline void disk_add(struct disk *disk, const char *name, const void *bytes, uint32_t size)
{
    uint32_t cluster = disk->next_cluster;

    disk_add_entry(disk, name, size ? cluster : 0, size);
    for (uint32_t done = 0; done < size; done += 512, cluster += 2) {
        uint32_t part = size - done < 512 ? size - done : 512;
        memcpy(disk_cluster(disk, cluster), (const uint8_t *)bytes + done, part);
        disk_link(disk, cluster, done + part < size ? cluster + 2 : 0x0fffffff);
        disk->next_cluster = cluster + 2;
    }
}

/* Write the disk to `fd`, from its start. */
static inline bool disk_write(const struct disk *disk, int fd)
{
    return pwrite(fd, disk->bytes, DISK_BYTES, 0) == (ssize_t)DISK_BYTES;
}

#endif
