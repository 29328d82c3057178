/*
 * Files that a machine is given: boot images and disks. They are opened here, before anything is
 * started, so that each mistake is reported as what it is; the processes inherit descriptors.
 *
 * A disk is locked (libshared/disk/image_lock.h): readers share it, who writes is alone. With a
 * cache mode that says so its descriptor is O_DIRECT.
 */
#ifndef POLYVISOR_VMMD_STORAGE_H
#define POLYVISOR_VMMD_STORAGE_H

#include "libshared/base/error.h"
#include "libshared/disk/chain.h"
#include "proto/control.pb-c.h"
#include <stdint.h>

#define STORAGE_SECTOR 512

/* Open a boot image for reading. `what` names it in messages ("kernel"). The descriptor, with its
 * size in bytes in *size; or a negative error code (KERNEL, PERMISSION, IO). */
int storage_open_image(const char *what, const char *path, uint64_t *size, struct error *err);
/* What a disk's format is: as said, else by the name of its file ("*.qcow2"), never by what is in
 * it. */
const char *storage_disk_format(const Polyvisor__DiskConfig *disk);
/* Open and lock a disk image or block device, and what lies under it: in *chain, which is empty for
 * a raw disk and to be closed before the descriptor. The descriptor, or a negative error code
 * (DISK, BUSY, UNSUPPORTED, PERMISSION, IO). */
int storage_open_disk(const Polyvisor__DiskConfig *disk, struct disk_chain *chain,
                      struct error *err);

#endif
