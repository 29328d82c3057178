/*
 * Where a device's requests pass its limits: lines (line.h) with the host's clock and a timer. A
 * request that may not begin yet waits here, without anybody spinning or polling for it.
 *
 * Main thread only. The device owns the gate and the requests; both callbacks may come from
 * gate_run, `ran` only from the timer.
 */
#ifndef POLYVISOR_DEVD_LIMIT_GATE_H
#define POLYVISOR_DEVD_LIMIT_GATE_H

#include "devd/limit/line.h"
#include <event2/event.h>
#include <stdbool.h>

struct gate_port {
    void (*begin)(struct line_entry *entry, void *context); /* it may begin now */
    void (*ran)(void *context);                             /* after one or more of them */
    void *context;
};

struct gate {
    struct limiter limiter;
    struct lines lines;
    struct event *timer;
    struct gate_port port;
    bool shut;
};

/* `kept` as for limiter_open. 0 or -ENOMEM. */
int gate_open(struct gate *gate, uint64_t *kept, struct event_base *base,
              const struct gate_port *port);
void gate_close(struct gate *gate);
/* New limits; what waits for the old ones goes on by these. */
void gate_set(struct gate *gate, const struct limits *limits);
/* True: it may begin at once. False: it waits for `begin`. */
bool gate_pass(struct gate *gate, struct line_entry *entry);
/* Begin what may. After the last of several gate_pass; never necessary otherwise. */
void gate_run(struct gate *gate);
/* Let nothing through, or again. */
void gate_shut(struct gate *gate, bool shut);
/* As lines_leave. */
struct line_entry *gate_leave(struct gate *gate, bool (*is_over)(const struct line_entry *entry));

static inline unsigned gate_waiting(const struct gate *gate)
{
    return gate->lines.waiting;
}

#endif
