/* Tap interfaces of the host. They are made and configured by whoever runs the host; vmmd only
 * opens one for a machine, and the device process inherits the descriptor. */
#ifndef POLYVISOR_VMMD_TAP_H
#define POLYVISOR_VMMD_TAP_H

#include "libshared/base/error.h"

/* Open interface `name` for frames behind a virtio_net_hdr_v1, with checksum and segmentation
 * offload. The descriptor, non-blocking, or a negative code (CONFIG, BUSY, PERMISSION,
 * UNSUPPORTED, IO). */
int tap_open(const char *name, struct error *err);

#endif
