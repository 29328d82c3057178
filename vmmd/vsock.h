/*
 * The listening socket of a machine's vsock (libshared/vsock/setting.h). It belongs to vmmd, so
 * that it stays when the device process is replaced; nothing here waits.
 */
#ifndef POLYVISOR_VMMD_VSOCK_H
#define POLYVISOR_VMMD_VSOCK_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stddef.h>

/* Check the setting of a machine's configuration. 0 or a negative code (CONFIG). */
int vsock_check(const char *text, struct error *err);
/* Make the socket that `text` names. One that an earlier life left is replaced. The descriptor, or
 * a negative code (BUSY, CONFIG, PERMISSION, IO). */
int vsock_listen(const char *text, struct error *err);
/* The folder it is in, where the Unix sockets for the guest's connections are as well. */
bool vsock_folder(const char *text, char *folder, size_t size);
/* Close it and remove its file. */
void vsock_close(const char *text, int fd);

#endif
