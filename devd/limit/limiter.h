/*
 * The limits of one device (libshared/limit/setting.h): token buckets for bytes and operations, of
 * each direction and of both. Something passes when all buckets that it concerns have enough, and
 * then takes from all of them.
 *
 * How full they are is in the device's shared state: a process that is killed leaves it to the next
 * one. The caller says what time it is. Main thread only.
 */
#ifndef POLYVISOR_DEVD_LIMIT_LIMITER_H
#define POLYVISOR_DEVD_LIMIT_LIMITER_H

#include "devd/limit/bucket.h"
#include "libshared/limit/setting.h"

#define LIMITER_BUCKETS (LIMIT_KINDS * LIMIT_DIRECTIONS)

struct limiter {
    struct bucket buckets[LIMIT_KINDS][LIMIT_DIRECTIONS];
    bool any;
};

/* `kept`: LIMITER_BUCKETS numbers that outlive the process. No limits yet. */
void limiter_open(struct limiter *limiter, uint64_t *kept);
void limiter_set(struct limiter *limiter, const struct limits *limits, uint64_t now_ns);
/* How long one operation of so many bytes has to wait that is first in its line since `since_ns`;
 * 0: it may begin. In ns. */
uint64_t limiter_wait(const struct limiter *limiter, enum limit_direction direction, uint64_t bytes,
                      uint64_t since_ns, uint64_t now_ns);
/* Whether what it would have to wait for is common to both directions. */
bool limiter_wait_is_common(const struct limiter *limiter, uint64_t bytes, uint64_t since_ns,
                            uint64_t now_ns);
/* It begins. */
void limiter_take(struct limiter *limiter, enum limit_direction direction, uint64_t bytes,
                  uint64_t now_ns);

#endif
