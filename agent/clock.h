/*
 * The guest's wall clock, held to its real-time clock, which is the host's. The two part when the
 * host sleeps, or when its clock is set: the guest's time counter does not see that. The real-time
 * clock is a register that the guest reads: nothing that anybody sends is believed.
 *
 * What the guest does to its clock itself is left alone: a difference that is there after somebody
 * set the clock is taken for meant. One thread.
 */
#ifndef POLYVISOR_AGENT_CLOCK_H
#define POLYVISOR_AGENT_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_INTERVAL_DEFAULT 5 /* seconds between looks */

struct clock {
    time_t interval; /* seconds between looks; 0: off */
    int watch;       /* a timer that tells when somebody sets the clock, or -1 */
    time_t next;     /* look then, monotonic seconds */
    bool begun;
    bool touched;     /* somebody set the wall clock since the last look */
    int64_t meant_ns; /* real-time clock minus wall clock, as the guest wants it */
    unsigned steps;   /* how often it was set */
};

/* Off when `interval` is 0. */
void clock_open(struct clock *clock, time_t interval);
/* Look, when it is time to. */
void clock_turn(struct clock *clock);
/* The real-time clock minus the wall clock in nanoseconds, half a second to either side. False: it
 * cannot be read, or not at once. */
bool clock_difference(int64_t *difference_ns);

#endif
