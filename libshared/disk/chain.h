/*
 * The files of a disk: an image, and those that it is laid over. A device process has no file
 * system, so whoever starts it opens all of them by name and hands the descriptors over.
 *
 * The name of a backing file is in the image, so it is hostile: an image from somebody else could
 * name any file of the host, whose contents the guest would then read. Therefore a backing file
 * must be below the image's own folder, or below one that the user names; links that lead out of
 * it are not followed. It must be a regular file or a block device, and what its format is must be
 * said, in the image or by the user: guessing would let a guest that wrote a header into a raw disk
 * choose what is opened next. It is opened for reading and locked like any reader's.
 */
#ifndef POLYVISOR_DISK_CHAIN_H
#define POLYVISOR_DISK_CHAIN_H

#include "libshared/base/error.h"
#include <stdbool.h>

#define DISK_LAYERS_MAX 16 /* the image included */

struct disk_layer {
    int fd;
    bool qcow2; /* else raw */
    char *path; /* from the root on */
};

struct disk_chain {
    unsigned count;
    struct disk_layer layers[DISK_LAYERS_MAX];
};

struct disk_chain_settings {
    const char *folder;         /* where backing files may be, too; NULL or "": nowhere */
    const char *backing_format; /* of those whose image does not say; NULL or "": none */
};

/* Open what lies under the qcow2 image `fd`, which is at `path` (absolute) and becomes the first
 * layer; it stays the caller's. 0 or a negative code (DISK, BUSY, PERMISSION, UNSUPPORTED, IO) with
 * nothing left open. */
int disk_chain_open(struct disk_chain *chain, int fd, const char *path,
                    const struct disk_chain_settings *settings, struct error *err);
/* Close all but the first descriptor; harmless on a cleared chain. */
void disk_chain_close(struct disk_chain *chain);

/* Whether a file's name says that it is a qcow2 image. */
bool disk_is_qcow2_name(const char *path);
/* `name` from the folder of `path` on, without "." and ".."; allocated, NULL without memory. */
char *disk_path_from(const char *path, const char *name);

#endif
