/*
 * A boot image (kernel, initrd, firmware) behind a descriptor, read with bounds.
 *
 * The contents are hostile, and the file may shrink or change while it is read: every read is
 * checked against the size taken at open, and a short read is an error. The descriptor stays the
 * caller's; nothing here moves its file offset.
 */
#ifndef POLYVISOR_VCPU_BOOT_IMAGE_H
#define POLYVISOR_VCPU_BOOT_IMAGE_H

#include "libshared/base/error.h"
#include "libshared/mem/memory.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOT_IMAGE_MAX (64ull << 30) /* larger files are refused unread */

struct boot_image {
    int fd;
    uint64_t size;    /* bytes, at least 1 */
    const char *what; /* "kernel", "initrd", "firmware": for messages */
};

/* Take stock of a descriptor: it must be a regular, non-empty file. Errors are ERROR_KERNEL. */
int boot_image_open(struct boot_image *image, int fd, const char *what, struct error *err);
/* Read exactly [offset, offset + size), which must lie in the image. 0 or ERROR_KERNEL, ERROR_IO.
 */
int boot_image_read(const struct boot_image *image, uint64_t offset, void *buffer, size_t size,
                    struct error *err);
/* Whether each of these words, ended by a zero, occurs in the image. False also when it cannot be
 * read. */
bool boot_image_mentions(const struct boot_image *image, const char *const *words, size_t count);
/* Read [offset, offset + size) to guest address `address`; code translated from there is marked as
 * overwritten. ERROR_MEMORY when that is not all RAM. */
int boot_image_load(const struct boot_image *image, uint64_t offset, uint64_t size,
                    struct memory *memory, uint64_t address, struct error *err);

/* Copy bytes, or zeros when `bytes` is NULL, into guest memory with the same care for translated
 * code. ERROR_MEMORY when the range is not all RAM. */
int boot_memory_write(struct memory *memory, uint64_t address, const void *bytes, uint64_t size,
                      struct error *err);

#endif
