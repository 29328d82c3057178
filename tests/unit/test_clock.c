/* How long timers and poll() are to wait. */
#include "libshared/base/clock.h"
#include "tests/unit/suite.h"
#include <check.h>

START_TEST(nothing_is_at_once)
{
    const struct timeval time = clock_timeval(0);

    ck_assert_int_eq(time.tv_sec, 0);
    ck_assert_int_eq(time.tv_usec, 0);
}
END_TEST

/* A microsecond more than the last of a second is the next second: a timer of a million
 * microseconds is none that the event loop knows. */
START_TEST(it_is_a_valid_time_and_never_too_early)
{
    static const uint64_t waits[] = {1,
                                     999,
                                     1000,
                                     1001,
                                     NS_PER_S - 1000,
                                     NS_PER_S - 999,
                                     NS_PER_S - 1,
                                     NS_PER_S,
                                     NS_PER_S + 1,
                                     5ull * NS_PER_S - 1,
                                     3600ull * NS_PER_S - 500};

    for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
        const struct timeval time = clock_timeval(waits[i]);
        const uint64_t micros = (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
        ck_assert_int_ge(time.tv_usec, 0);
        ck_assert_int_lt(time.tv_usec, 1000000);
        ck_assert_uint_ge(micros * 1000, waits[i]);
        ck_assert_uint_le(micros * 1000, waits[i] + 1000);
    }
}
END_TEST

START_TEST(a_point_in_time_stays_what_it_is)
{
    const struct timespec time = clock_timespec(3 * NS_PER_S + 5);

    ck_assert_int_eq(time.tv_sec, 3);
    ck_assert_int_eq(time.tv_nsec, 5);
}
END_TEST

/* Too short a wait would turn in a loop until the last millisecond is over. */
START_TEST(a_poll_never_ends_too_early)
{
    uint64_t now = clock_monotonic_ns();

    ck_assert_int_eq(clock_poll_ms(0), 0);
    ck_assert_int_eq(clock_poll_ms(now), 0);
    ck_assert_int_eq(clock_poll_ms(UINT64_MAX), INT_MAX);
    for (uint64_t left = 1; left < 3600 * NS_PER_S; left *= 7) {
        uint64_t end = clock_monotonic_ns() + left;
        int wait = clock_poll_ms(end);
        now = clock_monotonic_ns();
        ck_assert(now + (uint64_t)wait * NS_PER_MS >= end);
        ck_assert_uint_le((uint64_t)wait, left / NS_PER_MS + 1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("timers");

    tcase_add_test(tests, nothing_is_at_once);
    tcase_add_test(tests, it_is_a_valid_time_and_never_too_early);
    tcase_add_test(tests, a_point_in_time_stays_what_it_is);
    tcase_add_test(tests, a_poll_never_ends_too_early);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
