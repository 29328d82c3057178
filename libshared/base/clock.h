/* Host time. Guest clocks derive from the monotonic clock, never from wall time. */
#ifndef POLYVISOR_BASE_CLOCK_H
#define POLYVISOR_BASE_CLOCK_H

#include <stdint.h>
#include <sys/time.h>

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t clock_monotonic_ns(void);
/* CLOCK_REALTIME in nanoseconds since 1970. */
uint64_t clock_realtime_ns(void);

/* For a timer that must not come before `ns` have passed. */
static inline struct timeval clock_timeval(uint64_t ns)
{
    const uint64_t micros = ns / 1000 + (ns != 0);
    return (struct timeval){(time_t)(micros / 1000000), (suseconds_t)(micros % 1000000)};
}

#endif
