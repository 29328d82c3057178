/* Reproducible random numbers: splitmix64. */
#ifndef POLYVISOR_TESTS_LOCKSTEP_RANDOM_H
#define POLYVISOR_TESTS_LOCKSTEP_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = random->state;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* 0 to limit - 1. */
static inline unsigned random_below(struct random *random, unsigned limit)
{
    return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

static inline bool random_one_in(struct random *random, unsigned n)
{
    return random_below(random, n) == 0;
}

#endif
