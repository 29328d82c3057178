/* Host time. Guest clocks derive from the monotonic clock, never from wall time. */
#ifndef POLYVISOR_BASE_CLOCK_H
#define POLYVISOR_BASE_CLOCK_H

#include <limits.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

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

/* The same number of nanoseconds, as a length of time or a point in it. */
static inline struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
}

/* How long poll(2) is to wait for `end_ns` of clock_monotonic_ns: milliseconds, rounded up; 0 once
 * it is past. */
static inline int clock_poll_ms(uint64_t end_ns)
{
    const uint64_t now_ns = clock_monotonic_ns();
    const uint64_t left_ms = end_ns > now_ns ? (end_ns - now_ns - 1) / NS_PER_MS + 1 : 0;
    return left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

#endif
