/* Limits of the traffic of a device, and the time that they are about (fuzz_clock.h). */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_LIMIT_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_LIMIT_H

#include "tests/fuzz/fuzz_clock.h"
#include "tests/fuzz/fuzz_device.h"

/* Limits of traffic, few and many, tight and wide. */
static inline struct limits fuzz_limits(struct fuzz_input *input)
{
    struct limits limits = {0};
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    for (unsigned i = 0; i < LIMIT_KINDS * LIMIT_DIRECTIONS; i++) {
        struct limit *limit = &limits.of[i / LIMIT_DIRECTIONS][i % LIMIT_DIRECTIONS];
        if (how >> i & 1) {
            limit->rate = fuzz_number(input) % (LIMIT_RATE_MAX + 1);
            limit->burst = limit->rate && how & 0x80 ? fuzz_number(input) % LIMIT_BURST_MAX : 0;
        }
    }
    return limits;
}

/* Traffic is limited from now on, or time passes. */
static inline void fuzz_limit(struct fuzz_host *host, struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct limits limits = {0};
    struct error err;

    if (how < 128) {
        limits = how ? fuzz_limits(input) : limits;
        device_set_limits(host->device, &limits, &err);
    } else {
        fuzz_pass_ms((int)(fuzz_number(input) % 100000));
        fuzz_late(host);
    }
}

#endif
