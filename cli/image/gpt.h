/*
 * The GUID partition table of a disk image (UEFI 2.10, chapter 5.3), read only. The image is
 * hostile: every number is checked against the image's own size before it is used.
 */
#ifndef POLYVISOR_CLI_IMAGE_GPT_H
#define POLYVISOR_CLI_IMAGE_GPT_H

#include "libshared/base/error.h"
#include <stdint.h>

#define GPT_SECTOR      512u
#define GPT_GUID_BYTES  16
#define GPT_ENTRIES_MAX 1024u

/* As it stands on disk: C12A7328-F81F-11D2-BA4B-00A0C93EC93B, the EFI system partition. */
extern const uint8_t gpt_type_efi[GPT_GUID_BYTES];

struct gpt_partition {
    uint64_t start, size; /* bytes; within the image */
};

/* Find the first partition of a type in an image of `bytes` bytes. 0, -ERROR_NOT_FOUND when the
 * image has no partition table or no such partition, -ERROR_DISK when the table is damaged,
 * -ERROR_IO. */
int gpt_find(int fd, uint64_t bytes, const uint8_t type[GPT_GUID_BYTES],
             struct gpt_partition *partition, struct error *err);

/* CRC-32 as the table uses it (ISO 3309), of `size` bytes after those that gave `before` (0 at the
 * start). */
uint32_t gpt_crc(uint32_t before, const uint8_t *bytes, size_t size);

#endif
