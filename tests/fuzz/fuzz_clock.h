/*
 * Time, played: it passes where somebody looks at it, a microsecond each time, and where somebody
 * waits. Defines the functions of libshared/base/clock.h: include it once in a program.
 */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_CLOCK_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_CLOCK_H

#include "libshared/base/clock.h"
#include <stdatomic.h>

static _Atomic uint64_t fuzz_now_ns = 1000000000;

static inline void fuzz_pass_ms(int milliseconds)
{
    atomic_fetch_add(&fuzz_now_ns, (uint64_t)(milliseconds > 0 ? milliseconds : 0) * 1000000);
}

uint64_t clock_monotonic_ns(void)
{
    return atomic_fetch_add(&fuzz_now_ns, 1000);
}

uint64_t clock_realtime_ns(void)
{
    return clock_monotonic_ns();
}

#endif
