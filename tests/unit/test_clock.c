/* How long a timer of the event loop is to wait. */
#include "libshared/base/clock.h"
#include "tests/unit/suite.h"
#include <check.h>

#define SECOND 1000000000u

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
                                     SECOND - 1000,
                                     SECOND - 999,
                                     SECOND - 1,
                                     SECOND,
                                     SECOND + 1,
                                     5ull * SECOND - 1,
                                     3600ull * SECOND - 500};

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

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("timers");

    tcase_add_test(tests, nothing_is_at_once);
    tcase_add_test(tests, it_is_a_valid_time_and_never_too_early);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
