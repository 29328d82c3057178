#include "libshared/nbd/channel.h"

#include <errno.h>
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
    if (bytes <= 0) {
        return bytes < 0 ? -errno : -EPIPE;
    }
    const struct cmsghdr *first = CMSG_FIRSTHDR(&head);
    if (first && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_RIGHTS &&
        first->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(fd, CMSG_DATA(first), sizeof(int));
    }
    if (bytes != (ssize_t)sizeof(*message) || (message->kind == NBD_CONNECTED) != (*fd >= 0)) {
        if (*fd >= 0) {
            close(*fd);
            *fd = -1;
        }
        return -EBADMSG;
    }
    message->text[sizeof(message->text) - 1] = '\0';
    return 0;
}
