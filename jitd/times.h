/* A histogram of durations with four steps a power of two, so that quantiles are right to about
 * 10 %. Not locked. */
#ifndef POLYVISOR_JITD_TIMES_H
#define POLYVISOR_JITD_TIMES_H

#include <stdint.h>

#define TIMES_STEPS (4 * 64)

struct times {
    uint64_t count, sum_ns;
    uint64_t steps[TIMES_STEPS];
};

void times_add(struct times *times, uint64_t ns);
/* The duration that `per_mille` of all do not exceed; 0 when there is none. */
uint64_t times_quantile(const struct times *times, unsigned per_mille);

#endif
