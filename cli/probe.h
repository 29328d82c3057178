/*
 * Is a vmmd there? nanomsg connects in the background and says nothing when nobody listens, or
 * when somebody else does. So a socket is first tried by hand: a plain connection, and the eight
 * bytes both sides of a nanomsg connection greet with (scalability protocols, TCP/IPC mapping,
 * section "Handshake"). The connection is then kept: the kernel closes it when vmmd ends,
 * however it ends.
 */
#ifndef POLYVISOR_CLI_PROBE_H
#define POLYVISOR_CLI_PROBE_H

#include "libshared/base/error.h"
#include <stdint.h>

/* Connect to the Unix socket `directory`/`name` and greet as nanomsg protocol `own` (NN_REQ); the
 * other side must be `peer` (NN_REP). Returns a descriptor that becomes readable (end of file) when
 * the other side goes away, or a negative code (CONNECT, PROTOCOL, PERMISSION, CONFIG) with *err
 * set. Waits at most timeout_ms. When `interrupt_fd` (or -1) becomes readable: -ERROR_CANCELLED. */
int probe_open(const char *directory, const char *name, int own, int peer, uint32_t timeout_ms,
               int interrupt_fd, struct error *err);

/* True when the other side of a probe has gone. Throws away what it sent. */
bool probe_gone(int probe);

#endif
