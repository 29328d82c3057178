/*
 * A few threads that do what would block the main thread (file I/O), in the order submitted.
 *
 * Work is submitted and its `done` called on the main thread; `run` is called on a worker. The
 * submitter owns the struct and leaves it alone in between.
 */
#ifndef POLYVISOR_DEVD_WORKERS_H
#define POLYVISOR_DEVD_WORKERS_H

#include <event2/event.h>

struct workers;

struct work {
    struct work *next;               /* the pool's */
    void (*run)(struct work *work);  /* on a worker thread */
    void (*done)(struct work *work); /* on the main thread */
};

/* At most `threads`, started when there is work for them. `batch_done` is called after one or more
 * `done`, once a turn of the loop. NULL with errno set. */
struct workers *workers_create(struct event_base *base, unsigned threads,
                               void (*batch_done)(void *context), void *context);
/* Waits for work that has started; what waits in the queue is dropped without a call. */
void workers_destroy(struct workers *workers);
void workers_submit(struct workers *workers, struct work *work);

#endif
