/*
 * Listening Unix sockets at paths that people chose. They belong to vmmd, so that they stay when a
 * device's process is replaced; nothing here waits.
 */
#ifndef POLYVISOR_VMMD_UNIX_SOCKET_H
#define POLYVISOR_VMMD_UNIX_SOCKET_H

#include "libshared/base/error.h"

/* Make the socket `path` (absolute, fits in sun_path), for `what` in messages ("vsock"). One that
 * an earlier life left is replaced. The descriptor, or a negative code (BUSY, CONFIG, PERMISSION,
 * IO).
 */
int unix_socket_listen(const char *what, const char *path, int backlog, struct error *err);

#endif
