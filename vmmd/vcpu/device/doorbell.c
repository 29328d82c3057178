#include "vmmd/vcpu/device/doorbell.h"
#include <errno.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

int doorbell_take(int fd)
{
    uint64_t count;
    const struct iovec into = {.iov_base = &count, .iov_len = sizeof(count)};
    /* RWF_NOWAIT belongs to this one call, unlike O_NONBLOCK. */
    ssize_t result = preadv2(fd, &into, 1, -1, RWF_NOWAIT);
    if (result < 0) {
        return errno == EINTR ? -EAGAIN : -errno;
    }
    return 0;
}

int doorbell_ring(int fd)
{
    const uint64_t one = 1;
    return write(fd, &one, sizeof(one)) < 0 ? -errno : 0;
}
