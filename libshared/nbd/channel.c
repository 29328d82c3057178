#include "libshared/nbd/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
};

int nbd_message_send(int socket, const struct nbd_message *message, int fd)
{
    union control control = {.room = {0}};
    struct iovec body = {.iov_base = (void *)message, .iov_len = sizeof(*message)};
    struct msghdr head = {.msg_iov = &body, .msg_iovlen = 1};

    if (fd >= 0) {
        head.msg_control = control.room;
        head.msg_controllen = sizeof(control.room);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &head, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* *fd is the one descriptor that came, or -1. False: there were more, which are closed: who sends
 * them wants to fill our table. (The kernel hands over as many as the padded room takes.) */
static bool take_descriptor(struct msghdr *head, int *fd)
{
    unsigned count = 0;

    for (struct cmsghdr *one = CMSG_FIRSTHDR(head); one; one = CMSG_NXTHDR(head, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (size_t at = CMSG_LEN(0); at + sizeof(*fd) <= one->cmsg_len; at += sizeof(*fd)) {
            if (count++) {
                close(*fd);
            }
            memcpy(fd, (const char *)one + at, sizeof(*fd));
        }
    }
    return count <= 1 && !(head->msg_flags & MSG_CTRUNC);
}

int nbd_message_receive(int socket, struct nbd_message *message, int *fd)
{
    union control control;
    struct iovec body = {.iov_base = message, .iov_len = sizeof(*message)};
    struct msghdr head = {.msg_iov = &body,
                          .msg_iovlen = 1,
                          .msg_control = control.room,
                          .msg_controllen = sizeof(control.room)};
    ssize_t bytes;

    *fd = -1;
    do {
        bytes = recvmsg(socket, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0) {
        return -errno;
    }
    if (!take_descriptor(&head, fd) || bytes != (ssize_t)sizeof(*message) ||
        (message->kind == NBD_CONNECTED) != (*fd >= 0)) {
        if (*fd >= 0) {
            close(*fd);
            *fd = -1;
        }
        return bytes == 0 ? -EPIPE : -EBADMSG;
    }
    message->text[sizeof(message->text) - 1] = '\0';
    for (char *c = message->text; *c; c++) { /* a name server's words may be among them */
        *c = *c >= ' ' && *c < 0x7f ? *c : '?';
    }
    return 0;
}
