#include "devd/fs/keep.h"

#include "libshared/ipc/rights.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN_ALWAYS 64u /* up to so many messages the queue is turned for a single one */

void keep_open(struct keep *keep, int in, int out)
{
    *keep = (struct keep){.in = in, .out = out};
}

void keep_close(struct keep *keep)
{
    if (keep->in >= 0) {
        close(keep->in);
    }
    if (keep->out >= 0) {
        close(keep->out);
    }
    keep->in = keep->out = -1;
}

static int message_send(const struct keep *keep, const struct keep_name *name, int fd)
{
    const struct iovec body = {.iov_base = (void *)name, .iov_len = sizeof(*name)};

    return rights_send(keep->in, &body, 1, &fd, 1);
}

/* The first message, or with a peek offset another: 0 with its name, and in *fd (if wanted) its
 * descriptor or -1; or negative errno. */
static int message_receive(const struct keep *keep, int flags, struct keep_name *name, int *fd)
{
    const struct iovec body = {.iov_base = name, .iov_len = sizeof(*name)};
    int came = -1;
    size_t count = fd ? 1 : 0;
    ssize_t got = rights_receive(keep->out, flags, &body, 1, &came, &count);

    if (got < 0 && got != -EBADMSG) {
        return (int)got;
    }
    if (fd) {
        *fd = came;
    }
    if (got != (ssize_t)sizeof(*name)) {
        memset(name, 0, sizeof(*name));
    }
    return 0;
}

static void peek_from(const struct keep *keep, int offset)
{
    setsockopt(keep->out, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset));
}

void keep_recover(struct keep *keep, keep_found_fn *found, void *context)
{
    struct keep_name name;
    int fd;

    if (keep->out < 0) {
        return;
    }
    keep->count = 0;
    for (;;) {
        peek_from(keep, (int)(keep->count * sizeof(name)));
        if (message_receive(keep, MSG_PEEK, &name, &fd) < 0) {
            break;
        }
        keep->count++;
        if (fd >= 0) {
            found(context, &name, fd);
        }
    }
    peek_from(keep, -1);
}

static void turn(struct keep *keep, keep_needed_fn *needed, void *context)
{
    struct keep_name name;
    unsigned left = 0;

    keep->garbage = 0;
    for (unsigned i = keep->count; i > 0; i--) {
        if (message_receive(keep, MSG_PEEK, &name, NULL) < 0) {
            break;
        }
        int fd = needed(context, &name);
        if (fd >= 0 && message_send(keep, &name, fd) < 0) {
            left += i; /* no room to turn in: another time */
            break;
        }
        left += fd >= 0;
        message_receive(keep, 0, &name, NULL);
    }
    keep->count = left;
}

int keep_add(struct keep *keep, const struct keep_name *name, int fd, keep_needed_fn *needed,
             void *context)
{
    if (keep->in < 0) {
        return -ENOSPC;
    }
    int status = message_send(keep, name, fd);
    if (status < 0 && keep->garbage) {
        turn(keep, needed, context);
        status = message_send(keep, name, fd);
    }
    keep->count += status == 0;
    return status < 0 ? -ENOSPC : 0;
}

void keep_drop(struct keep *keep, keep_needed_fn *needed, void *context)
{
    keep->garbage++;
    if (keep->count <= TURN_ALWAYS || keep->garbage >= keep->count / 4) {
        turn(keep, needed, context);
    }
}

void keep_clear(struct keep *keep)
{
    struct keep_name name;

    while (keep->out >= 0 && message_receive(keep, 0, &name, NULL) == 0) {
    }
    keep->count = keep->garbage = 0;
}
