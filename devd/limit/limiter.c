#include "devd/limit/limiter.h"

#include <string.h>

void limiter_open(struct limiter *limiter, uint64_t *kept)
{
    memset(limiter, 0, sizeof(*limiter));
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            limiter->buckets[kind][direction].full_at = kept++;
        }
    }
}

void limiter_set(struct limiter *limiter, const struct limits *limits, uint64_t now_ns)
{
    limiter->any = limits_any(limits);
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            const struct limit *limit = &limits->of[kind][direction];
            bucket_set(&limiter->buckets[kind][direction], limit->rate, limit_burst(limit), now_ns);
        }
    }
}

static uint64_t wait_of(const struct limiter *limiter, enum limit_direction direction,
                        uint64_t bytes, uint64_t since_ns, uint64_t now_ns)
{
    uint64_t for_bytes =
        bucket_wait(&limiter->buckets[LIMIT_BYTES][direction], bytes, since_ns, now_ns);
    uint64_t for_turn =
        bucket_wait(&limiter->buckets[LIMIT_OPERATIONS][direction], 1, since_ns, now_ns);

    return for_bytes > for_turn ? for_bytes : for_turn;
}

uint64_t limiter_wait(const struct limiter *limiter, enum limit_direction direction, uint64_t bytes,
                      uint64_t since_ns, uint64_t now_ns)
{
    if (!limiter->any) {
        return 0;
    }
    uint64_t own = wait_of(limiter, direction, bytes, since_ns, now_ns);
    uint64_t common = wait_of(limiter, LIMIT_BOTH, bytes, since_ns, now_ns);

    return own > common ? own : common;
}

bool limiter_wait_is_common(const struct limiter *limiter, uint64_t bytes, uint64_t since_ns,
                            uint64_t now_ns)
{
    return wait_of(limiter, LIMIT_BOTH, bytes, since_ns, now_ns) > 0;
}

void limiter_take(struct limiter *limiter, enum limit_direction direction, uint64_t bytes,
                  uint64_t now_ns)
{
    const enum limit_direction both[] = {direction, LIMIT_BOTH};

    for (unsigned i = 0; limiter->any && i < sizeof(both) / sizeof(both[0]); i++) {
        bucket_take(&limiter->buckets[LIMIT_BYTES][both[i]], bytes, now_ns);
        bucket_take(&limiter->buckets[LIMIT_OPERATIONS][both[i]], 1, now_ns);
    }
}
