#include "jitd/times.h"

static unsigned step_of(uint64_t ns)
{
    if (ns < 4) {
        return (unsigned)ns;
    }
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    return 4 * power + ((ns >> (power - 2)) & 3);
}

/* The middle of a step. */
static uint64_t step_value(unsigned step)
{
    unsigned power = step / 4;

    if (power < 2) {
        return step;
    }
    uint64_t width = UINT64_C(1) << (power - 2);
    return (4 + step % 4) * width + width / 2;
}

void times_add(struct times *times, uint64_t ns)
{
    times->count++;
    times->sum_ns += ns;
    times->steps[step_of(ns)]++;
}

uint64_t times_quantile(const struct times *times, unsigned per_mille)
{
    uint64_t wanted = (times->count * per_mille + 999) / 1000, seen = 0;

    for (unsigned step = 0; step < TIMES_STEPS && times->count; step++) {
        seen += times->steps[step];
        if (seen >= wanted && seen) {
            return step_value(step);
        }
    }
    return 0;
}
