/*
 * The qcow2 images of a chain (chain.h), each over what lies under it, for who reads and writes the
 * disk themselves; a device process opens them by descriptors that it is given.
 */
#ifndef POLYVISOR_DISK_IMAGES_H
#define POLYVISOR_DISK_IMAGES_H

#include "libshared/disk/chain.h"
#include "libshared/qcow2/qcow2.h"

/* Open them: images[0] is the disk; those of raw layers are NULL. All but the first are only read. 0
 * or a negative code with none open. The chain must stay open as long as they are. */
int disk_images_open(const struct disk_chain *chain, bool read_only,
                     struct qcow2 *images[DISK_LAYERS_MAX], struct error *err);
void disk_images_close(struct qcow2 *images[DISK_LAYERS_MAX]);

#endif
