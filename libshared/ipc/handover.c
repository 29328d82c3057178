#include "libshared/ipc/handover.h"

#include "libshared/ipc/rights.h"
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME_ROOM (sizeof(((struct fdlist_entry *)0)->name))

int handover_pair(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0 ? -errno
                                                                                           : 0;
}

int handover_send(int socket, uint64_t number, const struct fdlist *list)
{
    char names[HANDOVER_MAX * NAME_ROOM];
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
    const struct iovec body[] = {
        {.iov_base = &number, .iov_len = sizeof(number)},
        {.iov_base = names, .iov_len = length},
    };
    return rights_send(socket, body, 2, fds, list->count);
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
    const struct iovec body[] = {
        {.iov_base = number, .iov_len = sizeof(*number)},
        {.iov_base = names, .iov_len = sizeof(names)},
    };
    int fds[HANDOVER_MAX];
    size_t count = HANDOVER_MAX;

    *number = 0;
    list->count = 0;
    ssize_t length = rights_receive(socket, 0, body, 2, fds, &count);
    if (length < 0) {
        return (int)length;
    }
    if (length == 0 && count == 0) {
        return -EPIPE;
    }
    bool good = count > 0 && (size_t)length > sizeof(*number) &&
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
