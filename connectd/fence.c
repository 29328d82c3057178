#include "connectd/fence.h"

#include "libshared/base/clock.h"
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>

bool fence_wait(int socket, int timeout_ms)
{
    uint64_t end = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    static char dropped[65536];

    shutdown(socket, SHUT_WR); /* fails when it has ended already; reading tells */
    for (;;) {
        int wait_ms = clock_poll_ms(end);
        struct pollfd readable = {.fd = socket, .events = POLLIN};
        if (wait_ms == 0 || (poll(&readable, 1, wait_ms) < 0 && errno != EINTR)) {
            return false;
        }
        ssize_t bytes = recv(socket, dropped, sizeof(dropped), MSG_DONTWAIT);
        if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR)) {
            return true;
        }
    }
}
