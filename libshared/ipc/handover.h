/*
 * Descriptors for a process that already runs: what a device that is plugged in later shares with
 * vcpud comes over a Unix packet socket that both have had from the start (vcpud's descriptor
 * `handover`), under the names that it would have been inherited by (fdlist.h).
 *
 * One message is one device: its number, 8 bytes; then the names, each ended by a zero byte, and as
 * many descriptors in the same order. It is sent before the request that makes use of it, which
 * names the number: requests may be under way for several devices, or have failed on their way.
 */
#ifndef POLYVISOR_IPC_HANDOVER_H
#define POLYVISOR_IPC_HANDOVER_H

#include "libshared/ipc/fdlist.h"
#include <stdint.h>

#define HANDOVER_MAX 128 /* descriptors in one message; the kernel takes 253 */

/* Make the two ends, close-on-exec and non-blocking. 0 or negative errno. */
int handover_pair(int ends[2]);
/* Send all of a list, whose descriptors stay the caller's, as what `number` stands for. 0, -E2BIG
 * (more than HANDOVER_MAX, or none), -EAGAIN (nobody has taken the last ones), or another negative
 * errno. */
int handover_send(int socket, uint64_t number, const struct fdlist *list);
/* Take one message into `list`, which is overwritten; its descriptors are the caller's
 * (fdlist_close). 0 with its number, -EAGAIN (there is none), -EBADMSG (it is malformed, and
 * nothing of it is kept) or another negative errno. */
int handover_receive(int socket, uint64_t *number, struct fdlist *list);

#endif
