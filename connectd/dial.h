/* Connect to the server of a network block device. */
#ifndef POLYVISOR_CONNECTD_DIAL_H
#define POLYVISOR_CONNECTD_DIAL_H

#include "libshared/base/error.h"
#include "libshared/nbd/uri.h"

/* A connected, non-blocking stream socket, or a negative code with *err set. Waits, for each
 * address of a host at most `timeout_ms`. */
int dial(const struct nbd_uri *uri, int timeout_ms, struct error *err);

#endif
