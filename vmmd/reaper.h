/*
 * Collects processes that have ended, a moment later than their end.
 *
 * To collect a process (waitid) is to take down what /proc shows of it, and the kernel has whoever
 * does so turn in circles while one of the process's threads does the same on its way out. On a
 * busy host such a thread may wait a tenth of a second for its processor, and vmmd with it. Until
 * its successor serves the guest nobody needs that done, so it is done when the threads are long
 * gone.
 *
 * Of the event loop's thread.
 */
#ifndef POLYVISOR_VMMD_REAPER_H
#define POLYVISOR_VMMD_REAPER_H

#include <event2/event.h>

#define REAPER_DELAY_MS 1000

struct reaper;

/* NULL when there is no memory. */
struct reaper *reaper_open(struct event_base *base);
/* Collect our child `pidfd`, which has ended, in REAPER_DELAY_MS; at once when `reaper` is NULL or
 * too many wait already. Closes the descriptor. */
void reaper_take(struct reaper *reaper, int pidfd);
/* Collects all. */
void reaper_close(struct reaper *reaper);

#endif
