/* Descriptors that go along with a message over a Unix packet socket (unix(7), SCM_RIGHTS). */
#ifndef POLYVISOR_IPC_RIGHTS_H
#define POLYVISOR_IPC_RIGHTS_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define RIGHTS_MAX 253u /* descriptors in one message: the kernel's limit */

/* Send one message with `count` descriptors (0: none), which stay the caller's. Never waits. 0,
 * -E2BIG (more than RIGHTS_MAX), -EAGAIN (the receiver has not taken the last ones) or another
 * negative errno. */
int rights_send(int socket, const struct iovec *body, size_t pieces, const int *fds, size_t count);

/* Take one message; its descriptors, close-on-exec, are the caller's. `flags`: MSG_PEEK or 0. Never
 * waits. `*count` is how many descriptors there is room for (0: none are wanted, any that come are
 * dropped), then how many came. Returns the bytes, 0 at the end, -EAGAIN (there is none), -EBADMSG
 * (more bytes or descriptors than there is room for, of which none are kept) or another negative
 * errno. */
ssize_t rights_receive(int socket, int flags, const struct iovec *body, size_t pieces, int *fds,
                       size_t *count);

#endif
