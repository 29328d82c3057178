#include "devd/limit/bucket.h"
#include "libshared/base/clock.h"

#define TICKS_A_NS     16u
#define TICKS_A_SECOND (NS_PER_S * TICKS_A_NS)
#define TICKS_MOST     (UINT64_C(1) << 62)

static uint64_t lesser(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static uint64_t greater(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

/* How long it takes until so many tokens have come in, rounded up. */
static uint64_t ticks_of(const struct bucket *bucket, uint64_t tokens)
{
    unsigned __int128 ticks =
        ((unsigned __int128)tokens * TICKS_A_SECOND + bucket->rate - 1) / bucket->rate;
    return ticks < TICKS_MOST ? (uint64_t)ticks : TICKS_MOST;
}

/* When it is full, as far as that can be true: never later than if it were empty now. */
static uint64_t full_at(const struct bucket *bucket, uint64_t now)
{
    return lesser(*bucket->full_at, now + ticks_of(bucket, bucket->burst));
}

void bucket_set(struct bucket *bucket, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
    uint64_t now = now_ns * TICKS_A_NS;
    uint64_t missing = 0;

    if (bucket->rate && rate) {
        uint64_t full = full_at(bucket, now);
        uint64_t left = full > now ? full - now : 0;
        missing = (uint64_t)((unsigned __int128)left * bucket->rate / TICKS_A_SECOND);
    } else if (rate) { /* what an earlier process left */
        bucket->rate = rate;
        bucket->burst = burst;
        *bucket->full_at = full_at(bucket, now);
        return;
    }
    bucket->rate = rate;
    bucket->burst = burst;
    if (rate) {
        *bucket->full_at = now + ticks_of(bucket, lesser(missing, burst));
    } else {
        *bucket->full_at = 0;
    }
}

uint64_t bucket_wait(const struct bucket *bucket, uint64_t tokens, uint64_t since_ns,
                     uint64_t now_ns)
{
    if (!bucket->rate) {
        return 0;
    }
    uint64_t now = now_ns * TICKS_A_NS;
    uint64_t from = greater(full_at(bucket, now), lesser(since_ns, now_ns) * TICKS_A_NS);
    uint64_t enough = from + ticks_of(bucket, tokens);
    uint64_t limit = now + ticks_of(bucket, bucket->burst);

    return enough > limit ? (enough - limit + TICKS_A_NS - 1) / TICKS_A_NS : 0;
}

void bucket_take(struct bucket *bucket, uint64_t tokens, uint64_t now_ns)
{
    if (!bucket->rate) {
        return;
    }
    /* What is more than a burst was waited for, and has come in meanwhile. */
    uint64_t now = now_ns * TICKS_A_NS;
    uint64_t cost = ticks_of(bucket, lesser(tokens, bucket->burst));

    *bucket->full_at =
        lesser(greater(full_at(bucket, now), now) + cost, now + ticks_of(bucket, bucket->burst));
}
