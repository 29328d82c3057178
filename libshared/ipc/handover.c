#include "libshared/ipc/handover.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME_ROOM (sizeof(((struct fdlist_entry *)0)->name))

union handover_control {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int) * HANDOVER_MAX)];
};

int handover_pair(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0 ? -errno
                                                                                           : 0;
}

int handover_send(int socket, uint64_t number, const struct fdlist *list)
{
    char names[HANDOVER_MAX * NAME_ROOM];
    union handover_control control;
    int fds[HANDOVER_MAX];
    size_t length = 0;

    if (list->count == 0 || list->count > HANDOVER_MAX) {
        return -E2BIG;
    }
    for (size_t i = 0; i < list->count; i++) {
        size_t size = strlen(list->entries[i].name) + 1;
        memcpy(names + length, list->entries[i].name, size);
        length += size;
        fds[i] = list->entries[i].fd;
    }
    struct iovec body[] = {
        {.iov_base = &number, .iov_len = sizeof(number)},
        {.iov_base = names, .iov_len = length},
    };
    struct msghdr message = {
        .msg_iov = body,
        .msg_iovlen = 2,
        .msg_control = control.room,
        .msg_controllen = CMSG_SPACE(sizeof(int) * list->count),
    };
    memset(&control, 0, sizeof(control));
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(int) * list->count);
    memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * list->count);
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Names for `count` descriptors out of `length` bytes. False: they do not match. */
static bool names_take(struct fdlist *list, const char *names, size_t length, size_t count)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++) {
        size_t size = strnlen(names + at, length - at) + 1;
        if (size > length - at || size == 1 || size > NAME_ROOM) {
            return false;
        }
        memcpy(list->entries[i].name, names + at, size);
        at += size;
    }
    return at == length;
}

int handover_receive(int socket, uint64_t *number, struct fdlist *list)
{
    char names[HANDOVER_MAX * NAME_ROOM];
    union handover_control control;
    struct iovec body[] = {
        {.iov_base = number, .iov_len = sizeof(*number)},
        {.iov_base = names, .iov_len = sizeof(names)},
    };
    struct msghdr message = {
        .msg_iov = body,
        .msg_iovlen = 2,
        .msg_control = control.room,
        .msg_controllen = sizeof(control.room),
    };
    int fds[HANDOVER_MAX];
    size_t count = 0;

    *number = 0;
    list->count = 0;
    ssize_t length = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0) {
        return -errno;
    }
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(head), count * sizeof(int)); /* no more than there was room for */
    }
    if (length == 0 && count == 0) {
        return -EPIPE;
    }
    bool good = count > 0 && (size_t)length > sizeof(*number) &&
                !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
                names_take(list, names, (size_t)length - sizeof(*number), count);
    for (size_t i = 0; i < count; i++) {
        list->entries[i].fd = fds[i];
    }
    list->count = count;
    if (!good) {
        fdlist_close(list);
        return -EBADMSG;
    }
    return 0;
}
