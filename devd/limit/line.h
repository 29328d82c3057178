/*
 * Requests that wait for a limiter, in lines: one for each queue and direction, first come, first
 * served. The queues take turns; who is first in its turn is not overtaken by requests that need
 * the same bucket, however small. So neither a queue nor a large request starves, and reads that
 * have to wait do not hold up writes that need not.
 *
 * The caller embeds a `struct line_entry` in its requests, and runs the lines when something was
 * added, when limits have changed and when the time has come that the last run told. Main thread
 * only; no clock and no timer of its own.
 */
#ifndef POLYVISOR_DEVD_LIMIT_LINE_H
#define POLYVISOR_DEVD_LIMIT_LINE_H

#include "devd/limit/limiter.h"
#include "libshared/virtio/state.h"

struct line_entry {
    struct line_entry *next;
    uint64_t bytes;
    uint64_t since_ns; /* first in its line; 0: it is not yet */
    uint8_t queue;
    uint8_t direction; /* LIMIT_IN or LIMIT_OUT */
};

struct line {
    struct line_entry *first, *last;
};

struct lines {
    struct limiter *limiter;
    struct line of[LIMIT_BOTH][VIRTIO_QUEUES_MAX]; /* by direction, queue */
    unsigned turn[LIMIT_BOTH];                     /* the queue that is looked at first */
    unsigned direction;                            /* and the direction */
    unsigned waiting;
};

#define LINES_NOTHING_WAITS UINT64_MAX

/* True: it may begin at once (nothing is before it, and it has paid). False: it waits now. */
bool lines_enter(struct lines *lines, struct line_entry *entry, uint64_t now_ns);
/* Let begin what may, at most `most`. How long until there is more to do, in ns: 0 when `most`
 * was the reason to stop, LINES_NOTHING_WAITS when no time will help. */
uint64_t lines_run(struct lines *lines, uint64_t now_ns, unsigned most,
                   void (*begin)(struct line_entry *entry, void *context), void *context);
/* Take out those of which `is_over` says so; they are handed over in a list (`next`). */
struct line_entry *lines_leave(struct lines *lines, bool (*is_over)(const struct line_entry *entry),
                               uint64_t now_ns);

#endif
