/*
 * The guest's clock: the host's monotonic clock in ticks of the machine's timebase, plus an offset.
 * Instead of the host's clock somebody may give another source, so that guest time is what he says
 * (lockstep tests: a function of the instructions executed). Nobody then waits for deadlines: who
 * moves the source calls timers_poll.
 *
 * Reading needs no lock. Any thread may read or set it; whoever sets it tells the timers
 * (timers_clock_changed), because deadlines are in guest ticks.
 */
#ifndef POLYVISOR_VCPU_IRQCHIP_GUEST_CLOCK_H
#define POLYVISOR_VCPU_IRQCHIP_GUEST_CLOCK_H

#include "libshared/base/clock.h"
#include <stdatomic.h>
#include <stdint.h>

#define GUEST_CLOCK_HZ      10000000u
#define GUEST_CLOCK_TICK_NS (1000000000u / GUEST_CLOCK_HZ)

struct guest_clock {
    _Atomic uint64_t offset; /* guest ticks = host ticks + offset, modulo 2^64 */
    /* NULL: the host's clock. Otherwise ticks, never going back; any thread. Set before use. */
    uint64_t (*source)(void *context);
    void *source_context;
};

/* Ticks of what the clock goes by, without the offset. */
static inline uint64_t guest_clock_source_ticks(const struct guest_clock *clock)
{
    return clock->source ? clock->source(clock->source_context)
                         : clock_monotonic_ns() / GUEST_CLOCK_TICK_NS;
}

/* Guest ticks now. */
static inline uint64_t guest_clock_ticks(struct guest_clock *clock)
{
    return guest_clock_source_ticks(clock) +
           atomic_load_explicit(&clock->offset, memory_order_relaxed);
}

/* Make it read `ticks` now. */
static inline void guest_clock_set(struct guest_clock *clock, uint64_t ticks)
{
    atomic_store_explicit(&clock->offset, ticks - guest_clock_source_ticks(clock),
                          memory_order_relaxed);
}

#endif
