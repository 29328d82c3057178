#include "vmmd/vcpu/irqchip/timers.h"
#include "libshared/base/clock.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

struct timers {
    struct guest_clock *clock;
    unsigned count;
    struct irq_line lines[TIMERS_MAX];
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    uint64_t deadlines[TIMERS_MAX];
    bool levels[TIMERS_MAX];
    uint64_t armed_ns; /* host time the thread sleeps until; UINT64_MAX = until told */
    bool has_thread, ready;
    bool stop;
};

static void drive(struct timers *timers, unsigned index, bool level)
{
    if (timers->levels[index] != level) {
        timers->levels[index] = level;
        irq_line_set(&timers->lines[index], level);
    }
}

/* Host nanoseconds at which the guest clock reaches `deadline`, which it has not yet. Saturates:
 * what is further away than the host's clock can say never comes. */
static uint64_t deadline_to_host_ns(struct guest_clock *clock, uint64_t now, uint64_t deadline)
{
    uint64_t offset = atomic_load_explicit(&clock->offset, memory_order_relaxed);
    uint64_t remaining = deadline - now;
    uint64_t host_ticks = now - offset;
    uint64_t limit = INT64_MAX / GUEST_CLOCK_TICK_NS;
    if (deadline == TIMER_NEVER || remaining > limit || host_ticks > limit - remaining) {
        return UINT64_MAX;
    }
    return (host_ticks + remaining) * GUEST_CLOCK_TICK_NS;
}

/* Raise every line whose deadline has passed at `now`; the earliest deadline that has not. */
static uint64_t expire(struct timers *timers, uint64_t now)
{
    uint64_t earliest = TIMER_NEVER;
    for (unsigned i = 0; i < timers->count; i++) {
        if (timers->levels[i] || timers->deadlines[i] == TIMER_NEVER) {
            continue;
        }
        if (now >= timers->deadlines[i]) {
            drive(timers, i, true);
            continue;
        }
        earliest = timers->deadlines[i] < earliest ? timers->deadlines[i] : earliest;
    }
    return earliest;
}

static void *timer_thread(void *argument)
{
    struct timers *timers = argument;
    /* Wake at the deadline itself, not the usual 50 us around it. */
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    pthread_setname_np(pthread_self(), "timer");
    pthread_mutex_lock(&timers->lock);
    timers->ready = true;
    pthread_cond_broadcast(&timers->changed);
    while (!timers->stop) {
        uint64_t now = guest_clock_ticks(timers->clock);
        timers->armed_ns = deadline_to_host_ns(timers->clock, now, expire(timers, now));
        if (timers->armed_ns == UINT64_MAX) {
            pthread_cond_wait(&timers->changed, &timers->lock);
            continue;
        }
        const struct timespec until = clock_timespec(timers->armed_ns);
        pthread_cond_timedwait(&timers->changed, &timers->lock, &until);
    }
    pthread_mutex_unlock(&timers->lock);
    return NULL;
}

static int start_thread(struct timers *timers)
{
    pthread_condattr_t attributes;
    int status = pthread_condattr_init(&attributes);
    if (status != 0) {
        return -status;
    }
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    status = pthread_cond_init(&timers->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (status != 0) {
        return -status;
    }
    status = pthread_create(&timers->thread, NULL, timer_thread, timers);
    if (status != 0) {
        pthread_cond_destroy(&timers->changed);
        return -status;
    }
    /* The thread sets itself up with system calls that a confined process may not make later. */
    pthread_mutex_lock(&timers->lock);
    while (!timers->ready) {
        pthread_cond_wait(&timers->changed, &timers->lock);
    }
    pthread_mutex_unlock(&timers->lock);
    return 0;
}

static void stop_thread(struct timers *timers)
{
    pthread_mutex_lock(&timers->lock);
    timers->stop = true;
    pthread_cond_signal(&timers->changed);
    pthread_mutex_unlock(&timers->lock);
    pthread_join(timers->thread, NULL);
    pthread_cond_destroy(&timers->changed);
}

static void wake_thread(struct timers *timers)
{
    if (timers->has_thread) {
        pthread_cond_signal(&timers->changed);
    }
}

struct timers *timers_create(struct guest_clock *clock, unsigned count,
                             const struct irq_line *lines)
{
    if (count == 0 || count > TIMERS_MAX) {
        return NULL;
    }
    struct timers *timers = calloc(1, sizeof(*timers));
    if (!timers) {
        return NULL;
    }
    timers->clock = clock;
    timers->count = count;
    timers->armed_ns = UINT64_MAX;
    memcpy(timers->lines, lines, count * sizeof(*lines));
    for (unsigned i = 0; i < count; i++) {
        timers->deadlines[i] = TIMER_NEVER;
    }
    if (pthread_mutex_init(&timers->lock, NULL) != 0) {
        free(timers);
        return NULL;
    }
    timers->has_thread = clock->source == NULL;
    if (timers->has_thread && start_thread(timers) != 0) {
        pthread_mutex_destroy(&timers->lock);
        free(timers);
        return NULL;
    }
    return timers;
}

void timers_destroy(struct timers *timers)
{
    if (!timers) {
        return;
    }
    if (timers->has_thread) {
        stop_thread(timers);
    }
    pthread_mutex_destroy(&timers->lock);
    free(timers);
}

void timers_set(struct timers *timers, unsigned index, uint64_t deadline)
{
    if (index >= timers->count) {
        return;
    }
    pthread_mutex_lock(&timers->lock);
    uint64_t now = guest_clock_ticks(timers->clock);
    bool passed = deadline != TIMER_NEVER && now >= deadline;
    timers->deadlines[index] = deadline;
    /* Driven even when it did not change: a CPU may have moved its own comparator's line. */
    timers->levels[index] = passed;
    irq_line_set(&timers->lines[index], passed);
    if (!passed && deadline != TIMER_NEVER) {
        /* A deadline that moved later costs one early wake-up instead of a signal each time. */
        uint64_t when = deadline_to_host_ns(timers->clock, now, deadline);
        if (when < timers->armed_ns) {
            timers->armed_ns = when;
            wake_thread(timers);
        }
    }
    pthread_mutex_unlock(&timers->lock);
}

void timers_reset(struct timers *timers)
{
    for (unsigned i = 0; i < timers->count; i++) {
        timers_set(timers, i, TIMER_NEVER);
    }
}

void timers_clock_changed(struct timers *timers)
{
    pthread_mutex_lock(&timers->lock);
    uint64_t now = guest_clock_ticks(timers->clock);
    for (unsigned i = 0; i < timers->count; i++) {
        drive(timers, i, timers->deadlines[i] != TIMER_NEVER && now >= timers->deadlines[i]);
    }
    wake_thread(timers);
    pthread_mutex_unlock(&timers->lock);
}

uint64_t timers_poll(struct timers *timers)
{
    pthread_mutex_lock(&timers->lock);
    uint64_t next = expire(timers, guest_clock_ticks(timers->clock));
    pthread_mutex_unlock(&timers->lock);
    return next;
}
