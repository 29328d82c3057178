/* Host time. Guest clocks derive from the monotonic clock, never from wall time. */
#ifndef POLYVISOR_BASE_CLOCK_H
#define POLYVISOR_BASE_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t clock_monotonic_ns(void);
/* CLOCK_REALTIME in nanoseconds since 1970. */
uint64_t clock_realtime_ns(void);

#endif
