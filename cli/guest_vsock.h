/* Where a machine's vsock is: the Unix socket by which the host reaches its guest. */
#ifndef POLYVISOR_CLI_GUEST_VSOCK_H
#define POLYVISOR_CLI_GUEST_VSOCK_H

#include "cli/command.h"

/* The path of the vsock of a running machine: what `vsock` names, or of the machine `name`. 0 or a
 * negative code with *err set. */
int guest_vsock_path(const struct invocation *invocation, const char *name, const char *vsock,
                     char *path, size_t size, struct error *err);

#endif
