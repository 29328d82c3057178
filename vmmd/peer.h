/*
 * The connection of a network disk: vmmd has the connector (connectd) make it when the disk's
 * process asks (libshared/nbd/channel.h), keeps it and hands it on. It outlives the process, so
 * that the next one's connector can wait until the server has done with it.
 *
 * Event loop's thread only.
 */
#ifndef POLYVISOR_VMMD_PEER_H
#define POLYVISOR_VMMD_PEER_H

#include "libshared/base/error.h"
#include <event2/event.h>

struct peer;

/* `uri` (checked), the folder with the programs and the machine's are copied. NULL with *err set.
 */
struct peer *peer_create(const char *uri, const char *programs, const char *folder,
                         struct event_base *base, struct error *err);
/* The device's end of the channel. It stays the connection's. */
int peer_device_fd(const struct peer *peer);
void peer_destroy(struct peer *peer);

#endif
