/*
 * A token bucket: so many tokens a second flow in, at most a burst of them is kept, who does
 * something takes as many as it costs. In any stretch of time at most burst + rate * time is taken,
 * but for a taker that needs more than the bucket holds: it waits for what is missing, too.
 *
 * All that changes is one number, the time at which the bucket is full again; it can lie in memory
 * that outlives the process, so that a successor gets no new burst. The time is the caller's: any
 * clock that does not go back, in nanoseconds.
 */
#ifndef POLYVISOR_DEVD_LIMIT_BUCKET_H
#define POLYVISOR_DEVD_LIMIT_BUCKET_H

#include <stdint.h>

struct bucket {
    uint64_t rate;     /* tokens a second; 0: no limit */
    uint64_t burst;    /* tokens, at least 1 */
    uint64_t *full_at; /* in 1/16 ns; any value is made sense of */
};

/* Set or change it. What is missing in it stays missing, as far as there is room for it. */
void bucket_set(struct bucket *bucket, uint64_t rate, uint64_t burst, uint64_t now_ns);
/* How long to wait, in ns, until `tokens` can be taken by somebody who stands before it since
 * `since_ns`. 0: now. */
uint64_t bucket_wait(const struct bucket *bucket, uint64_t tokens, uint64_t since_ns,
                     uint64_t now_ns);
/* Take them, once there is nothing to wait for. */
void bucket_take(struct bucket *bucket, uint64_t tokens, uint64_t now_ns);

#endif
