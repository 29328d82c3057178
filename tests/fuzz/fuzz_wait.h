/*
 * Waiting, played: what is there is there, and the rest of the time passes at once (fuzz_clock.h).
 * Only for code under test that runs in one thread: a thread that waits for another would spin.
 * Defines poll and nanosleep: include it once in a program.
 */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_WAIT_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_WAIT_H

#include "tests/fuzz/fuzz_clock.h"
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct timespec none = {0};
    int ready = (int)syscall(SYS_ppoll, fds, count, &none, NULL, 0);

    if (ready == 0) {
        fuzz_pass_ms(timeout_ms);
    }
    return ready;
}

int nanosleep(const struct timespec *time, struct timespec *left)
{
    (void)left;
    atomic_fetch_add(&fuzz_now_ns, (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec);
    return 0;
}

#endif
