/*
 * The settings of a disk besides its file: how it is cached, what it is called, how many queues it
 * has, what becomes of errors. vmctl passes the words on; here they are checked and get their
 * meaning.
 */
#ifndef POLYVISOR_VMMD_DISK_H
#define POLYVISOR_VMMD_DISK_H

#include "libshared/base/error.h"
#include "proto/control.pb-c.h"
#include "proto/device.pb-c.h"
#include <stdbool.h>

#define DISK_QUEUES_MAX 8
#define DISK_SERIAL_MAX 20 /* bytes: virtio 1.2, section 5.2.6.1 */

#define DISK_TIMEOUT_DEFAULT_S 30
#define DISK_TIMEOUT_MAX_S     86400

/* Whether it is a network disk. */
bool disk_is_network(const Polyvisor__DiskConfig *disk);
/* Check the words, and put what they stand for in the place of empty ones (`disk` must be unpacked
 * or a copy). 0 or a negative code. */
int disk_complete(Polyvisor__DiskConfig *disk, struct error *err);
/* Whether the host's cache is passed by. Of a checked setting, like the others. */
bool disk_is_direct(const Polyvisor__DiskConfig *disk);
unsigned disk_queue_count(const Polyvisor__DiskConfig *disk, uint32_t cpus);
/* What its process is told. */
void disk_describe(const Polyvisor__DiskConfig *disk, Polyvisor__DeviceDisk *message);

#endif
