/*
 * Unpacking a tree that a guest sends, as a tar archive. The guest is hostile, and so is what
 * earlier copies left in the folder: nothing is made, written or linked to outside of the folder,
 * whatever links are in it. Owners, set-id bits and devices do not come along.
 */
#ifndef POLYVISOR_CLI_UNPACK_H
#define POLYVISOR_CLI_UNPACK_H

#include "libshared/base/error.h"
#include <sys/types.h>

/* Start a process that unpacks into `folder`, which is there. The descriptor that takes the
 * archive, the caller's to close, with *child to be waited for: it ends with 0 when all was made,
 * and has told the rest on standard error. Negative with *err set on failure. */
int unpack_start(const char *folder, pid_t *child, struct error *err);

#endif
