/*
 * Comparators against the guest clock: each drives an interrupt line that is up while the clock is
 * at or past its deadline.
 *
 * One thread ("timer") waits for the earliest deadline and raises lines; deadlines are absolute, so
 * there is no drift. With a clock that has a source of its own there is no thread, and timers_poll
 * raises them. Any thread may set a deadline. Lines are driven with the timers' lock held:
 * their `set` must not call back.
 */
#ifndef POLYVISOR_VCPU_IRQCHIP_TIMERS_H
#define POLYVISOR_VCPU_IRQCHIP_TIMERS_H

#include "vmmd/vcpu/irqchip/guest_clock.h"
#include "vmmd/vcpu/machine/bus.h"

#define TIMERS_MAX  16
#define TIMER_NEVER UINT64_MAX

struct timers;

/* Start the thread, if the clock needs one, for `count` (1 to TIMERS_MAX) comparators, all at
 * TIMER_NEVER. `lines` is copied; `clock` must outlive the timers. NULL when there is no memory or
 * no thread. */
struct timers *timers_create(struct guest_clock *clock, unsigned count,
                             const struct irq_line *lines);
/* Stops the thread; no line is driven any more when it returns. NULL is allowed. */
void timers_destroy(struct timers *timers);

/* Set the deadline of comparator `index` in guest ticks (TIMER_NEVER = none). The line is up at
 * once when it has passed, and down otherwise. An index out of range is ignored. */
void timers_set(struct timers *timers, unsigned index, uint64_t deadline);
/* All comparators to TIMER_NEVER, all lines down. */
void timers_reset(struct timers *timers);
/* Raise the lines whose deadlines have passed. The earliest deadline that has not, in guest ticks,
 * or TIMER_NEVER. For clocks with a source of their own; any thread. */
uint64_t timers_poll(struct timers *timers);
/* The guest clock was set: look at all deadlines again. */
void timers_clock_changed(struct timers *timers);

#endif
