/*
 * One end of a link between the cards of two machines (libshared/net/link.h): vmmd makes the
 * connection, here or to another vmmd, makes it again when the other machine ended, and hands it to
 * the card's process.
 *
 * Beside the socket FILE is FILE.lock, of which each end locks one byte: the first end listens, the
 * second connects, a third is told that there is no place. Event loop's thread only.
 */
#ifndef POLYVISOR_VMMD_LINK_H
#define POLYVISOR_VMMD_LINK_H

#include "libshared/base/error.h"
#include <event2/event.h>

struct link;

/* Take an end of the link at `path` (absolute) and look for the other from now on. NULL with *err
 * set (BUSY, PERMISSION, CONFIG, IO, INTERNAL). */
struct link *link_create(const char *path, struct event_base *base, struct error *err);
/* The card's process takes the connection from this descriptor (LINK_...). It stays the link's. */
int link_device_fd(const struct link *link);
/* A new process will read it: say again what holds. */
void link_repeat(struct link *link);
void link_destroy(struct link *link);

#endif
