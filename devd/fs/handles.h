/*
 * What the guest has open. A handle's number is an index and a generation; which file it is of and
 * how it was opened is in the state that outlives the process. In this process it has a descriptor,
 * made when it is first used: a new process opens the file again. What could not be opened again so
 * (a file that was made read-only while it was open for writing) is kept (keep.h).
 *
 * Functions without a remark want fs->lock.
 */
#ifndef POLYVISOR_DEVD_FS_HANDLES_H
#define POLYVISOR_DEVD_FS_HANDLES_H

#include "devd/fs/nodes.h"

struct handle_pin {
    uint32_t index, node;
    int fd;
    uint32_t flags; /* of open(2) */
};

int handles_create(struct fs *fs);
void handles_destroy(struct fs *fs);
void handles_clear(struct fs *fs);

/* A new handle of a node for an open descriptor, which is taken in any case. Takes the lock. 0 with
 * its number, or -ENFILE. One that an earlier process made for the same request goes. */
int handle_open(struct fs *fs, const struct fs_message *message, uint32_t node, int fd, int flags,
                enum share_handle_kind kind, uint64_t *number);
/* Take it into use; of that kind and, unless `node` is 0, of the file of that number. Takes the
 * lock. 0, -EBADF, or what opening again met. */
int handle_get(struct fs *fs, uint64_t number, uint64_t node, enum share_handle_kind kind,
               struct handle_pin *pin);
void handle_put(struct fs *fs, const struct handle_pin *pin);
/* Close it. Takes the lock. One that is closed already is no error: requests are repeated. */
void handle_close(struct fs *fs, uint64_t number);

/* Keep those of a node that could not be opened again once its mode is `mode`. */
void handles_keep(struct fs *fs, uint32_t node, const struct statx *status, mode_t mode);
/* For keep.h: both kinds. */
int handle_kept(void *context, const struct keep_name *name);
void handle_found(void *context, const struct keep_name *name, int fd);

#endif
