#include "libshared/ipc/rights.h"

#include "libshared/base/descriptor.h"
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

union rights_control {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int) * RIGHTS_MAX)];
};

int rights_send(int socket, const struct iovec *body, size_t pieces, const int *fds, size_t count)
{
    union rights_control control;
    struct msghdr message = {.msg_iov = (struct iovec *)body, .msg_iovlen = pieces};
    ssize_t sent;

    if (count > RIGHTS_MAX) {
        return -E2BIG;
    }
    if (count) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * count);
    }
    do {
        sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* The descriptors that came. Those for which there is no room are closed, and it is false: the
 * kernel hands over as many as the room takes with its padding. */
static bool rights_take(struct msghdr *message, int *fds, size_t *count)
{
    size_t room = *count, came = 0;

    *count = 0;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (size_t at = CMSG_LEN(0); at + sizeof(int) <= one->cmsg_len; at += sizeof(int)) {
            int fd;
            memcpy(&fd, (const char *)one + at, sizeof(fd));
            if (came++ < room) {
                fds[(*count)++] = fd;
            } else {
                close(fd);
            }
        }
    }
    return came <= room;
}

ssize_t rights_receive(int socket, int flags, const struct iovec *body, size_t pieces, int *fds,
                       size_t *count)
{
    union rights_control control;
    const size_t room = *count < RIGHTS_MAX ? *count : RIGHTS_MAX;
    struct msghdr message = {.msg_iov = (struct iovec *)body,
                             .msg_iovlen = pieces,
                             .msg_control = room ? control.room : NULL,
                             .msg_controllen = room ? CMSG_SPACE(sizeof(int) * room) : 0};
    ssize_t bytes;

    *count = 0;
    do {
        bytes = recvmsg(socket, &message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0) {
        return -errno;
    }
    *count = room;
    if (!rights_take(&message, fds, count) || (message.msg_flags & MSG_TRUNC) ||
        (room && (message.msg_flags & MSG_CTRUNC))) {
        while (*count) {
            descriptor_close(&fds[--*count]);
        }
        return -EBADMSG;
    }
    return bytes;
}
