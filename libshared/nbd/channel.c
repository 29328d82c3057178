#include "libshared/nbd/channel.h"

#include "libshared/base/descriptor.h"
#include "libshared/ipc/rights.h"
#include <errno.h>

int nbd_message_send(int socket, const struct nbd_message *message, int fd)
{
    const struct iovec body = {.iov_base = (void *)message, .iov_len = sizeof(*message)};

    return rights_send(socket, &body, 1, &fd, fd >= 0 ? 1 : 0);
}

int nbd_message_receive(int socket, struct nbd_message *message, int *fd)
{
    const struct iovec body = {.iov_base = message, .iov_len = sizeof(*message)};
    size_t count = 1;

    *fd = -1;
    ssize_t bytes = rights_receive(socket, 0, &body, 1, fd, &count);
    if (bytes < 0) {
        return (int)bytes;
    }
    if (bytes != (ssize_t)sizeof(*message) || (message->kind == NBD_CONNECTED) != (count == 1)) {
        descriptor_close(fd);
        return bytes == 0 && count == 0 ? -EPIPE : -EBADMSG;
    }
    message->text[sizeof(message->text) - 1] = '\0';
    for (char *c = message->text; *c; c++) { /* a name server's words may be among them */
        *c = *c >= ' ' && *c < 0x7f ? *c : '?';
    }
    return 0;
}
