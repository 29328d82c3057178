#include "devd/limit/gate.h"

#include "libshared/base/clock.h"
#include <errno.h>
#include <string.h>

#define AT_ONCE_MAX 256 /* requests let through in one turn of the event loop */

static void gate_arm(struct gate *gate, uint64_t wait_ns)
{
    const struct timeval time = clock_timeval(wait_ns);

    if (wait_ns == LINES_NOTHING_WAITS) {
        evtimer_del(gate->timer);
    } else {
        evtimer_add(gate->timer, &time);
    }
}

void gate_run(struct gate *gate)
{
    if (gate->lines.waiting && !gate->shut) {
        gate_arm(gate, lines_run(&gate->lines, clock_monotonic_ns(), AT_ONCE_MAX, gate->port.begin,
                                 gate->port.context));
    }
}

static void gate_timer(evutil_socket_t fd, short what, void *context)
{
    struct gate *gate = context;

    (void)fd;
    (void)what;
    gate_run(gate);
    gate->port.ran(gate->port.context);
}

int gate_open(struct gate *gate, uint64_t *kept, struct event_base *base,
              const struct gate_port *port)
{
    memset(gate, 0, sizeof(*gate));
    limiter_open(&gate->limiter, kept);
    gate->lines.limiter = &gate->limiter;
    gate->port = *port;
    gate->timer = evtimer_new(base, gate_timer, gate);
    return gate->timer ? 0 : -ENOMEM;
}

void gate_close(struct gate *gate)
{
    if (gate->timer) {
        event_free(gate->timer);
    }
}

void gate_set(struct gate *gate, const struct limits *limits)
{
    const struct timeval now = {0, 0};

    limiter_set(&gate->limiter, limits, clock_monotonic_ns());
    if (gate->lines.waiting) {
        evtimer_add(gate->timer, &now);
    }
}

bool gate_pass(struct gate *gate, struct line_entry *entry)
{
    if (!gate->limiter.any && !gate->lines.waiting) {
        return true;
    }
    return lines_enter(&gate->lines, entry, clock_monotonic_ns());
}

void gate_shut(struct gate *gate, bool shut)
{
    const struct timeval now = {0, 0};

    gate->shut = shut;
    if (shut) {
        evtimer_del(gate->timer);
    } else if (gate->lines.waiting) {
        evtimer_add(gate->timer, &now);
    }
}

struct line_entry *gate_leave(struct gate *gate, bool (*is_over)(const struct line_entry *entry))
{
    struct line_entry *left = lines_leave(&gate->lines, is_over, clock_monotonic_ns());

    if (!gate->lines.waiting) {
        evtimer_del(gate->timer);
    }
    return left;
}
