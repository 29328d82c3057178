#include "tests/lockstep/values.h"

static const uint64_t integers[] = {
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    63,
    64,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fffffff,
    0x80000000,
    0x80000001,
    0xffffffff,
    0x100000000,
    0x123456789abcdef0,
    0x8080808080808080,
    0x00ff00ff00ff00ff,
    0x5555555555555555,
    0xaaaaaaaaaaaaaaaa,
    0x7fffffffffffffff,
    0x8000000000000000,
    0x8000000000000001,
    0xffffffff7fffffff,
    0xffffffff80000000,
    0xfffffffffffffffe,
    0xffffffffffffffff,
};

static const uint64_t doubles[] = {
    0x0000000000000000, 0x0000000000000001, 0x0000000000000003, 0x0008000000000000,
    0x000fffffffffffff, 0x0010000000000000, 0x0010000000000001, 0x001fffffffffffff,
    0x1ff0000000000000, 0x36a0000000000000, 0x380ffffff0000000, 0x3810000000000000,
    0x3ca0000000000000, 0x3fdfffffffffffff, 0x3fe0000000000000, 0x3fefffffffffffff,
    0x3ff0000000000000, 0x3ff0000000000001, 0x3ff0000010000000, 0x3ff8000000000000,
    0x4000000000000000, 0x400921fb54442d18, 0x41dfffffffc00000, 0x41dfffffffe00000,
    0x41e0000000000000, 0x41f0000000000000, 0x4330000000000001, 0x4340000000000001,
    0x43dfffffffffffff, 0x43e0000000000000, 0x43f0000000000000, 0x47efffffe0000000,
    0x47effffff0000000, 0x7fe0000000000000, 0x7fefffffffffffff, 0x7ff0000000000000,
    0x7ff0000000000001, 0x7ff7ffffffffffff, 0x7ff8000000000000, 0x7fffffffffffffff,
};

static const uint32_t singles[] = {
    0x00000000, 0x00000001, 0x00000003, 0x00400000, 0x007fffff, 0x00800000, 0x00800001,
    0x00ffffff, 0x1f800000, 0x33800000, 0x34000000, 0x3effffff, 0x3f000000, 0x3f7fffff,
    0x3f800000, 0x3f800001, 0x3fc00000, 0x40000000, 0x40490fdb, 0x4b000001, 0x4b7fffff,
    0x4b800001, 0x4effffff, 0x4f000000, 0x4f800000, 0x5f000000, 0x5f800000, 0x7f000000,
    0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff,
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

uint64_t random_integer(struct random *random)
{
    switch (random_below(random, 4)) {
    case 0:
        return integers[random_below(random, COUNT(integers))];
    case 1: /* a power of two, give or take one */
        return (UINT64_C(1) << random_below(random, 64)) + random_below(random, 3) - 1;
    case 2: /* small, of either sign */
        return (uint64_t)((int64_t)random_next(random) >> (40 + random_below(random, 24)));
    default:
        return random_next(random);
    }
}

/* Corners, anything, near one, near the ends of the range, few significant bits. */
uint64_t random_double(struct random *random)
{
    const uint64_t fraction = UINT64_C(0x000fffffffffffff);
    uint64_t sign = random_next(random) & UINT64_C(0x8000000000000000);
    uint64_t any = random_next(random);
    switch (random_below(random, 6)) {
    case 0:
    case 1:
        return sign | doubles[random_below(random, COUNT(doubles))];
    case 2:
        return any;
    case 3:
        return sign | (any & fraction) | (uint64_t)(1023 - 32 + random_below(random, 64)) << 52;
    case 4:
        return sign | (any & fraction) | (uint64_t)random_below(random, 3) << 52;
    default:
        return sign | (any & fraction & ~(fraction >> random_below(random, 30))) |
               (uint64_t)(1023 - 8 + random_below(random, 40)) << 52;
    }
}

uint32_t random_single(struct random *random)
{
    const uint32_t fraction = 0x007fffff;
    uint32_t sign = (uint32_t)random_next(random) & 0x80000000;
    uint32_t any = (uint32_t)random_next(random);
    switch (random_below(random, 6)) {
    case 0:
    case 1:
        return sign | singles[random_below(random, COUNT(singles))];
    case 2:
        return any;
    case 3:
        return sign | (any & fraction) | (uint32_t)(127 - 16 + random_below(random, 32)) << 23;
    case 4:
        return sign | (any & fraction) | (uint32_t)random_below(random, 3) << 23;
    default:
        return sign | (any & fraction & ~(fraction >> random_below(random, 12))) |
               (uint32_t)(127 - 8 + random_below(random, 20)) << 23;
    }
}

uint64_t random_value(struct random *random)
{
    switch (random_below(random, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        return random_integer(random);
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        return random_double(random);
    case 9: /* not boxed: reads as NaN */
        return random_next(random) << 32 | random_single(random);
    default:
        return UINT64_C(0xffffffff00000000) | random_single(random);
    }
}
