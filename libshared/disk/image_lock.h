/*
 * Locks of disk images: who writes is alone, readers share.
 *
 * They are open-file-description locks (fcntl(2)), so a lock lasts as long as vmmd, vmctl or a
 * device process has that descriptor open: a device process that dies does not let go of it, and
 * the last of them to end does, however it ends. The bytes are those that QEMU locks (its
 * block/file-posix.c): whoever uses a file in a way holds a shared lock on one byte for it, and
 * another on one byte for each use that he does not suffer from others; both are looked for in
 * everybody else's. So either program notices the other.
 */
#ifndef POLYVISOR_DISK_IMAGE_LOCK_H
#define POLYVISOR_DISK_IMAGE_LOCK_H

#include "libshared/base/error.h"
#include <stdbool.h>

/* Lock what `fd` refers to. `path` is for messages. 0, or a negative code (BUSY, IO). */
int image_lock(int fd, const char *path, bool read_only, struct error *err);
/* Let go of it at once, for all who share the descriptor: nobody may use the image by it any more.
 * Without that it stays locked until the kernel has let go of the last of them, which for one that
 * an io_uring had registered is some time after the end of its process. */
void image_unlock(int fd);

#endif
