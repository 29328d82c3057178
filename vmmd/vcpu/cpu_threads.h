/*
 * The host threads of the guest's CPUs, one each, named "cpu0", "cpu1", ...
 *
 * All functions are called on the main thread. Threads are born parked. A parked thread is outside
 * guest code, so the machine may be changed (reset, load) while all are.
 */
#ifndef POLYVISOR_VCPU_CPU_THREADS_H
#define POLYVISOR_VCPU_CPU_THREADS_H

#include "vmmd/vcpu/machine/machine.h"
#include <pthread.h>

struct cpu_threads {
    struct machine *machine;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    bool open;     /* CPUs may run */
    bool stopping; /* for good */
    unsigned count, parked;
    struct cpu_thread {
        struct cpu_threads *all;
        unsigned index;
        pthread_t thread;
    } threads[MACHINE_CPUS_MAX];
};

/* Start a parked thread for each CPU of the machine. 0, or an error with *err set. */
int cpu_threads_create(struct cpu_threads *threads, struct machine *machine, struct error *err);
void cpu_threads_resume(struct cpu_threads *threads);
/* Have all CPUs park, and wait for that at most `wait_ms`. False: not all are parked yet, because
 * one waits for a device; they will be, unless cpu_threads_resume follows. May be called again. */
bool cpu_threads_pause(struct cpu_threads *threads, unsigned wait_ms);
/* End and join all threads. May be called again, or without cpu_threads_create. */
void cpu_threads_stop(struct cpu_threads *threads);

#endif
