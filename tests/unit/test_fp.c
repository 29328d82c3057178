/*
 * Proves that the software arithmetic gives the host's results and flags in all rounding modes,
 * that ties round away where no host can, and that the fast host path agrees with the software.
 */
#include "libshared/fp/fp.h"
#include "libshared/fp/fp_host.h"
#include <check.h>
#include <fenv.h>
#include <math.h>

/* A format wide enough to hold exact products of doubles. */
#if defined(__x86_64__)
typedef __float128 quad;
#define TININESS 0u
#else
typedef long double quad;
#define TININESS FP_TINY_BEFORE_ROUNDING
#endif

/* ck_assert writes to a pipe each time: too slow for millions. */
#define EXPECT(got, expected)                                                                      \
    do {                                                                                           \
        uint64_t got_ = (got), expected_ = (expected);                                             \
        if (got_ != expected_) {                                                                   \
            ck_abort_msg("%s is %#lx, expected %#lx", #got, got_, expected_);                      \
        }                                                                                          \
    } while (0)

enum operation { ADD, SUB, MUL, DIV, SQRT, FMA };

struct outcome {
    uint64_t result;
    uint32_t flags;
};

struct random {
    uint64_t state;
};

static uint64_t random_next(struct random *random)
{
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = random->state;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static const int host_modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

static uint32_t host_flags(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    return (raised & FE_INEXACT ? FP_INEXACT : 0u) | (raised & FE_UNDERFLOW ? FP_UNDERFLOW : 0u) |
           (raised & FE_OVERFLOW ? FP_OVERFLOW : 0u) |
           (raised & FE_DIVBYZERO ? FP_DIVIDE_BY_ZERO : 0u) |
           (raised & FE_INVALID ? FP_INVALID : 0u);
}

static void report(const char *what, unsigned operation, unsigned round, uint64_t a, uint64_t b,
                   uint64_t c, struct outcome expected, struct outcome got)
{
    ck_abort_msg("%s: operation %u round %u on %#lx %#lx %#lx: %#lx flags %#x, expected %#lx "
                 "flags %#x",
                 what, operation, round, a, b, c, got.result, got.flags, expected.result,
                 expected.flags);
}

/* --- single --------------------------------------------------------------------------------- */
static const uint32_t f32_corners[] = {
    0x00000000, 0x00000001, 0x00000002, 0x00000003, 0x00400000, 0x007ffffe, 0x007fffff, 0x00800000,
    0x00800001, 0x00ffffff, 0x01000000, 0x0c000000, 0x1f800000, 0x20000001, 0x33800000, 0x34000000,
    0x3effffff, 0x3f000000, 0x3f000001, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3fc00000, 0x40000000,
    0x40490fdb, 0x4affffff, 0x4b000001, 0x4b7fffff, 0x4b800000, 0x4b800001, 0x4effffff, 0x4f000000,
    0x4f7fffff, 0x4f800000, 0x5effffff, 0x5f000000, 0x5f7fffff, 0x5f800000, 0x7e800000, 0x7effffff,
    0x7f000000, 0x7f7ffffe, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff,
    0x80000000, 0x80000001, 0x80000003, 0x807fffff, 0x80800000, 0x80800001, 0xb3800000, 0xbf000000,
    0xbf000001, 0xbf7fffff, 0xbf800000, 0xbf800001, 0xbfc00000, 0xc0200000, 0xcf000000, 0xcf000001,
    0xdf000000, 0xff7fffff, 0xff800000, 0xff800001, 0xffc00000, 0xffc12345,
};
enum { f32_corner_count = sizeof(f32_corners) / sizeof(f32_corners[0]) };
static const uint32_t f32_sign = 0x80000000, f32_infinite = 0x7f800000, f32_quiet = 0x00400000,
                      f32_nan = 0x7fc00000, f32_one = 0x3f800000;
static const quad f32_beyond = (quad)0x1p128;
#define f32_host_sqrt  sqrtf
#define f32_host_fma   fmaf
#define f32_host_round roundf
#define f32_host_rint  rintf

#define FORMAT f32
#define NUMBER float
#define BITS   uint32_t
#include "tests/unit/test_fp_format.h"

/* --- double --------------------------------------------------------------------------------- */
static const uint64_t f64_corners[] = {
    0x0000000000000000, 0x0000000000000001, 0x0000000000000002, 0x0000000000000003,
    0x0008000000000000, 0x000ffffffffffffe, 0x000fffffffffffff, 0x0010000000000000,
    0x0010000000000001, 0x001fffffffffffff, 0x0020000000000000, 0x0340000000000000,
    0x1ff0000000000000, 0x2000000000000001, 0x36a0000000000000, 0x380fffffe0000000,
    0x380ffffff0000000, 0x3810000000000000, 0x3ca0000000000000, 0x3cb0000000000000,
    0x3fdfffffffffffff, 0x3fe0000000000000, 0x3fe0000000000001, 0x3fefffffffffffff,
    0x3ff0000000000000, 0x3ff0000000000001, 0x3ff0000010000000, 0x3ff8000000000000,
    0x4000000000000000, 0x400921fb54442d18, 0x41dfffffffc00000, 0x41dfffffffe00000,
    0x41e0000000000000, 0x41efffffffe00000, 0x41f0000000000000, 0x432fffffffffffff,
    0x4330000000000001, 0x433fffffffffffff, 0x4340000000000000, 0x4340000000000001,
    0x43dfffffffffffff, 0x43e0000000000000, 0x43efffffffffffff, 0x43f0000000000000,
    0x47efffffe0000000, 0x47effffff0000000, 0x47f0000000000000, 0x7fd0000000000000,
    0x7fe0000000000000, 0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff0000000000001,
    0x7ff7ffffffffffff, 0x7ff8000000000000, 0x7fffffffffffffff, 0x8000000000000000,
    0x8000000000000001, 0x800fffffffffffff, 0x8010000000000000, 0x8010000000000001,
    0xbca0000000000000, 0xbfe0000000000000, 0xbfe0000000000001, 0xbfefffffffffffff,
    0xbff0000000000000, 0xbff0000000000001, 0xc004000000000000, 0xc1e0000000000000,
    0xc1e0000000100000, 0xc3e0000000000000, 0xc3e0000000000001, 0xffefffffffffffff,
    0xfff0000000000000, 0xfff0000000000001, 0xfff8000000000000, 0xfff8000012345678,
};
enum { f64_corner_count = sizeof(f64_corners) / sizeof(f64_corners[0]) };
static const uint64_t f64_sign = 0x8000000000000000, f64_infinite = 0x7ff0000000000000,
                      f64_quiet = 0x0008000000000000, f64_nan = 0x7ff8000000000000,
                      f64_one = 0x3ff0000000000000;
static const quad f64_beyond = (quad)0x1p1023 * 2;
#define f64_host_sqrt  sqrt
#define f64_host_fma   fma
#define f64_host_round round
#define f64_host_rint  rint

#define FORMAT f64
#define NUMBER double
#define BITS   uint64_t
#include "tests/unit/suite.h"
#include "tests/unit/test_fp_format.h"

/* --- between the formats -------------------------------------------------------------------- */
static void check_narrow(uint64_t a, unsigned round)
{
    struct outcome outcome[3];
    static const int modes[3] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD};
    for (unsigned i = 0; i < 3; i++) {
        fesetround(round == IR_ROUND_RMM ? modes[i] : host_modes[round]);
        feclearexcept(FE_ALL_EXCEPT);
        volatile double wide = f64_number(a);
        volatile float narrow = (float)wide;
        outcome[i].flags = host_flags();
        fesetround(FE_TONEAREST);
        outcome[i].result = f32_bits(narrow);
    }
    if (round == IR_ROUND_RMM && outcome[1].result != outcome[2].result) {
        quad middle =
            (f32_quad((uint32_t)outcome[1].result) + f32_quad((uint32_t)outcome[2].result)) / 2;
        if (middle == f64_quad(a)) {
            outcome[0].result = outcome[a >> 63 ? 1 : 2].result;
        }
    }
    struct outcome got = {0};
    got.result = fp_f64_to_f32(a, round | TININESS, &got.flags);
    if (got.result != outcome[0].result || got.flags != outcome[0].flags) {
        report("narrow", 0, round, a, 0, 0, outcome[0], got);
    }
    struct outcome expected = {0}, fast = {0};
    expected.result = fp_f64_to_f32(a, IR_ROUND_RNE, &expected.flags);
    fp_host_begin();
    fast.result = fp_host_f64_to_f32(a, &fast.flags);
    fast.flags |= fp_collect_host_flags();
    if (fast.result != expected.result || fast.flags != expected.flags) {
        report("host narrow", 0, IR_ROUND_RNE, a, 0, 0, expected, fast);
    }
}

static void check_widen(uint32_t a)
{
    volatile float narrow = f32_number(a);
    uint64_t expected = f64_bits((double)narrow);
    uint32_t invalid = f32_is_signalling(a) ? FP_INVALID : 0;
    uint32_t flags = 0, fast_flags = 0;
    EXPECT(fp_f32_to_f64(a, &flags), expected);
    EXPECT(flags, invalid);
    fp_host_begin();
    EXPECT(fp_host_f32_to_f64(a, &fast_flags), expected);
    EXPECT(fast_flags | fp_collect_host_flags(), invalid);
}

static void check_modulo(uint64_t a)
{
    double value = f64_number(a);
    uint64_t expected = 0;
    if (isfinite(value)) {
        double rest = fmod(trunc(value), 0x1p32);
        expected = (uint64_t)(int64_t)(int32_t)(uint32_t)(int64_t)rest;
    }
    uint32_t flags = 0, saturating_flags = 0;
    EXPECT(fp_f64_to_s32_modulo(a, &flags), expected);
    fp_f64_to_s32(a, IR_ROUND_RTZ, &saturating_flags);
    EXPECT(flags, saturating_flags);
}

START_TEST(single_corners)
{
    f32_corner_pass();
}
END_TEST

START_TEST(double_corners)
{
    f64_corner_pass();
}
END_TEST

START_TEST(single_corners_fused)
{
    f32_corner_fma_pass();
}
END_TEST

START_TEST(double_corners_fused)
{
    f64_corner_fma_pass();
}
END_TEST

START_TEST(single_random)
{
    f32_random_pass(120000);
}
END_TEST

START_TEST(double_random)
{
    f64_random_pass(120000);
}
END_TEST

START_TEST(integer_corners)
{
    static const uint64_t corners[] = {
        0,
        1,
        2,
        0xffffff,
        0x1000000,
        0x1000001,
        0x1000003,
        0x7fffffff,
        0x80000000,
        0x80000001,
        0xfffffeff,
        0xffffff7f,
        0xffffff80,
        0xffffff81,
        0xffffffff,
        0x100000000,
        0x1fffffffffffff,
        0x20000000000000,
        0x20000000000001,
        0x20000000000003,
        0x7fffffffffffffff,
        0x7ffffffffffffdff,
        0x7ffffffffffffe00,
        0x8000000000000000,
        0x8000000000000001,
        0xfffffffffffffbff,
        0xfffffffffffffc00,
        0xfffffffffffffc01,
        0xffffffffffffffff,
    };
    for (unsigned i = 0; i < sizeof(corners) / sizeof(corners[0]); i++) {
        for (unsigned round = 0; round <= IR_ROUND_RMM; round++) {
            f32_check_from_integer(corners[i], round);
            f64_check_from_integer(corners[i], round);
        }
    }
}
END_TEST

START_TEST(conversions_between_formats)
{
    struct random random = {7};
    for (unsigned i = 0; i < f64_corner_count; i++) {
        for (unsigned round = 0; round <= IR_ROUND_RMM; round++) {
            check_narrow(f64_corners[i], round);
        }
        check_modulo(f64_corners[i]);
    }
    for (unsigned i = 0; i < f32_corner_count; i++) {
        check_widen(f32_corners[i]);
    }
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t narrow = f32_random(&random);
        uint64_t wide = f64_random(&random);
        check_widen(narrow);
        check_narrow(wide, i % 5);
        check_modulo(wide);
        /* Around what single precision can hold, including its ties. */
        uint32_t ignored = 0;
        uint64_t near = fp_f32_to_f64(narrow, &ignored) + ((random_next(&random) & 3) << 28) +
                        (random_next(&random) & 1);
        check_narrow(near, (i + 1) % 5);
        /* Integers up to 2^84, for the modulo. */
        check_modulo((wide & UINT64_C(0x800fffffffffffff)) | (1023 + random_next(&random) % 88)
                                                                 << 52);
    }
}
END_TEST

/* Just below 2^-126, rounding up to it: tiny before rounding, and after it only when single
 * precision with an unbounded exponent would still hold the value below. */
START_TEST(tininess_is_the_caller_s_choice)
{
    const uint32_t largest_below_two = 0x3fffffff, half_of_smallest_normal = 0x00400000;
    uint32_t after = 0, before = 0;
    EXPECT(fp_f32_mul(largest_below_two, half_of_smallest_normal, IR_ROUND_RNE, &after),
           0x00800000);
    EXPECT(fp_f32_mul(largest_below_two, half_of_smallest_normal,
                      IR_ROUND_RNE | FP_TINY_BEFORE_ROUNDING, &before),
           0x00800000);
    EXPECT(before, FP_INEXACT | FP_UNDERFLOW);
    EXPECT(after, FP_INEXACT | FP_UNDERFLOW);

    /* One more bit of significand below: with an unbounded exponent it still rounds to 2^-126. */
    after = 0;
    before = 0;
    uint64_t close = UINT64_C(0x380fffffffffffff);
    EXPECT(fp_f64_to_f32(close, IR_ROUND_RNE, &after), 0x00800000);
    EXPECT(fp_f64_to_f32(close, IR_ROUND_RNE | FP_TINY_BEFORE_ROUNDING, &before), 0x00800000);
    EXPECT(after, FP_INEXACT);
    EXPECT(before, FP_INEXACT | FP_UNDERFLOW);
}
END_TEST

START_TEST(boxes_and_signs)
{
    EXPECT(fp_unbox_f32(UINT64_C(0xffffffff3f800000)), 0x3f800000);
    EXPECT(fp_unbox_f32(UINT64_C(0xfffffffe3f800000)), FP_F32_NAN);
    EXPECT(fp_unbox_f32(UINT64_C(0x3f800000)), FP_F32_NAN);
    EXPECT(fp_box_f32(0x80000000), UINT64_C(0xffffffff80000000));
    EXPECT(fp_f32_sgnj(0x3f800000, 0x80000000), 0xbf800000);
    EXPECT(fp_f32_sgnjn(0xbf800000, 0x80000000), 0x3f800000);
    EXPECT(fp_f32_sgnjx(0xbf800000, 0x80000000), 0x3f800000);
    EXPECT(fp_f64_sgnj(f64_one, f64_sign), f64_one | f64_sign);
    EXPECT(fp_f64_sgnjn(f64_one, f64_sign), f64_one);
    EXPECT(fp_f64_sgnjx(f64_one | f64_sign, f64_sign), f64_one);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fp");
    TCase *tests = tcase_create("fp");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, single_corners);
    tcase_add_test(tests, double_corners);
    tcase_add_test(tests, single_corners_fused);
    tcase_add_test(tests, double_corners_fused);
    tcase_add_test(tests, single_random);
    tcase_add_test(tests, double_random);
    tcase_add_test(tests, integer_corners);
    tcase_add_test(tests, conversions_between_formats);
    tcase_add_test(tests, tininess_is_the_caller_s_choice);
    tcase_add_test(tests, boxes_and_signs);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
