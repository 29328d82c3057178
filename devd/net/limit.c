/*
 * A card's limits (devd/limit): frames that may not pass yet stay where they are, the guest's in
 * its transmit queues, others with the backend, which is told to go on when the time has come.
 *
 * Transmit queues that wait take turns, a frame each. A frame that has paid and was then refused
 * for another reason does not pay again.
 */
#include "devd/net/card.h"
#include "devd/virtio.h"
#include "libshared/base/clock.h"
#include <errno.h>
#include <string.h>

#define TURNS_AT_ONCE 64 /* frames of waiting queues in one turn of the event loop */

static void limit_wake_in(struct net_limit *limit, uint64_t wait_ns)
{
    const struct timeval time = clock_timeval(wait_ns);
    uint64_t at = clock_monotonic_ns() + wait_ns;

    if (!limit->wake_ns || at < limit->wake_ns) {
        limit->wake_ns = at;
        evtimer_add(limit->timer, &time);
    }
}

/* The frame that is the first of one line: true when it may pass, and has paid. */
static bool limit_pass(struct net_limit *limit, struct net_limit_line *line,
                       enum limit_direction direction, uint64_t bytes)
{
    uint64_t now = clock_monotonic_ns();

    if (!line->since_ns) {
        line->since_ns = now;
    }
    uint64_t wait = limiter_wait(&limit->limiter, direction, bytes, line->since_ns, now);
    if (wait) {
        line->waits = true;
        limit_wake_in(limit, wait);
        return false;
    }
    limiter_take(&limit->limiter, direction, bytes, now);
    limit->passed++;
    line->paid = true;
    line->waits = false;
    line->since_ns = 0;
    return true;
}

static bool limit_others_wait(const struct net_limit *limit, unsigned pair)
{
    for (unsigned other = 0; other < NET_QUEUES_MAX; other++) {
        if (other != pair && limit->transmit[other].waits) {
            return true;
        }
    }
    return false;
}

bool net_limit_transmit(struct net_card *card, unsigned pair, uint64_t bytes)
{
    struct net_limit *limit = &card->limit;
    struct net_limit_line *line = &limit->transmit[pair];

    if (!limit->limiter.any || line->paid) {
        return true;
    }
    if (limit->granted != (int)pair && limit_others_wait(limit, pair)) {
        line->waits = true; /* its turn comes; who waits has set the timer */
        return false;
    }
    limit->granted = -1;
    return limit_pass(limit, line, LIMIT_OUT, bytes);
}

void net_limit_transmitted(struct net_card *card, unsigned pair)
{
    card->limit.transmit[pair].paid = false;
}

bool net_limit_receive(struct net_card *card, uint64_t bytes)
{
    struct net_limit *limit = &card->limit;

    return !limit->limiter.any || limit->receive.paid ||
           limit_pass(limit, &limit->receive, LIMIT_IN, bytes);
}

void net_limit_received(struct net_card *card)
{
    card->limit.receive.paid = false;
}

/* The next queue in its turn that waits, or -1. */
static int limit_next(const struct net_limit *limit)
{
    for (unsigned i = 0; i < NET_QUEUES_MAX; i++) {
        unsigned pair = (limit->turn + i) % NET_QUEUES_MAX;
        if (limit->transmit[pair].waits) {
            return (int)pair;
        }
    }
    return -1;
}

/* Queues in their turns, until one has to wait on. */
static void limit_transmit_again(struct net_card *card)
{
    struct net_limit *limit = &card->limit;
    int pair = limit_next(limit);

    for (unsigned i = 0; pair >= 0 && i < TURNS_AT_ONCE; i++) {
        uint64_t passed = limit->passed;
        limit->granted = pair;
        limit->transmit[pair].waits = false;
        virtio_queue_pump(card->device, net_transmit_queue((unsigned)pair));
        limit->granted = -1;
        if (limit->transmit[pair].waits && limit->passed == passed) {
            return; /* nothing there for it yet: it stays the first */
        }
        limit->turn = ((unsigned)pair + 1) % NET_QUEUES_MAX;
        pair = limit_next(limit);
    }
    if (pair >= 0) {
        limit_wake_in(limit, 0);
    }
}

static void limit_timer(evutil_socket_t fd, short what, void *context)
{
    struct net_card *card = context;

    (void)fd;
    (void)what;
    card->limit.wake_ns = 0;
    if (card->limit.receive.waits) {
        card->limit.receive.waits = false;
        card->operations->resume(card->backend);
        net_card_received(card);
    }
    limit_transmit_again(card);
}

void net_limit_set(struct net_card *card, const struct limits *limits)
{
    limiter_set(&card->limit.limiter, limits, clock_monotonic_ns());
    if (card->limit.receive.waits || limit_next(&card->limit) >= 0) {
        limit_wake_in(&card->limit, 0); /* who waits for the old ones goes on by these */
    }
}

void net_limit_reset(struct net_card *card)
{
    memset(card->limit.transmit, 0, sizeof(card->limit.transmit));
}

int net_limit_open(struct net_card *card)
{
    struct device *device = card->device;

    limiter_open(&card->limit.limiter, device->virtio->state->limits);
    card->limit.granted = -1;
    card->limit.timer = evtimer_new(device->base, limit_timer, card);
    return card->limit.timer ? 0 : -ENOMEM;
}

void net_limit_close(struct net_card *card)
{
    if (card->limit.timer) {
        event_free(card->limit.timer);
    }
}
