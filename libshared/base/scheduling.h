/*
 * How soon a thread gets a processor when there are fewer than want one. It gets no more of them
 * for it: only the order changes.
 *
 * What is asked for here is the length of a time slice (struct sched_attr, sched_setattr(2)): since
 * Linux 6.12 a thread that asks for short ones is run as soon as it wakes, ahead of threads that
 * have long ones, and anybody may ask. Older kernels take no notice. Threads and processes that are
 * started inherit it.
 */
#ifndef POLYVISOR_BASE_SCHEDULING_H
#define POLYVISOR_BASE_SCHEDULING_H

enum scheduling {
    SCHEDULING_ORDINARY, /* as the host does it; of threads that compute */
    SCHEDULING_PROMPT,   /* short slices; of threads that are waited for and soon wait again */
};

/* Of the calling thread. Where the kernel does not take it, nothing changes. */
void scheduling_set(enum scheduling scheduling);

#endif
