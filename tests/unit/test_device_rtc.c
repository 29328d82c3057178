/* The Goldfish clock through the register channel. */
#include "libshared/base/clock.h"
#include "tests/unit/device_host.h"
#include "tests/unit/suite.h"

extern const struct device_model device_model_rtc;

enum { TIME_LOW = 0, TIME_HIGH = 4, ALARM_LOW = 8, ALARM_HIGH = 12, ENABLED = 16 };
enum { CLEAR_ALARM = 20, ALARM_STATUS = 24, CLEAR_INTERRUPT = 28 };

#define SECOND UINT64_C(1000000000)

static struct device_host host;

static void setup(void)
{
    host_open(&host);
    host_start(&host, &device_model_rtc, false);
}

static void teardown(void)
{
    host_close(&host);
}

static void post(uint32_t offset, uint32_t value, bool is_read)
{
    host_post(&host, offset, value, 4, is_read);
    host_kick(&host, 0);
    host_turn(&host);
}

static uint32_t get(uint32_t offset)
{
    post(offset, 0, true);
    ck_assert_uint_eq(atomic_load(&host.channel->answer_sequence), host.sequence);
    return (uint32_t)atomic_load(&host.channel->answer_value);
}

static uint64_t get_time(void)
{
    uint64_t low = get(TIME_LOW);
    return (uint64_t)get(TIME_HIGH) << 32 | low;
}

static void set(uint32_t low_register, uint64_t value)
{
    post(low_register + 4, (uint32_t)(value >> 32), false);
    post(low_register, (uint32_t)value, false);
}

static bool level(void)
{
    return atomic_load(&host.channel->irq_level);
}

START_TEST(tells_the_time)
{
    uint64_t before = clock_realtime_ns();
    uint64_t time = get_time();
    ck_assert_uint_ge(time, before);
    ck_assert_uint_le(time, clock_realtime_ns());
}
END_TEST

START_TEST(high_half_is_latched)
{
    get(TIME_LOW);
    uint32_t high = get(TIME_HIGH);
    set(TIME_LOW, 0x7000000000000000);
    ck_assert_uint_eq(get(TIME_HIGH), high);
    get(TIME_LOW);
    ck_assert_uint_eq(get(TIME_HIGH), 0x70000000);
}
END_TEST

START_TEST(can_be_set)
{
    set(TIME_LOW, 1000 * SECOND);
    uint64_t time = get_time();
    ck_assert_uint_ge(time, 1000 * SECOND);
    ck_assert_uint_lt(time, 5000 * SECOND);
}
END_TEST

START_TEST(alarm_in_the_past_fires_at_once)
{
    set(ALARM_LOW, 1);
    ck_assert_uint_eq(get(ALARM_STATUS), 0);
    ck_assert(!level()); /* not enabled */
    post(ENABLED, 1, false);
    ck_assert(level());
    ck_assert(host_called(&host, 0));
    post(CLEAR_INTERRUPT, 1, false);
    ck_assert(!level());
}
END_TEST

START_TEST(alarm_in_the_future_fires_later)
{
    post(ENABLED, 1, false);
    set(TIME_LOW, 77 * SECOND); /* alarms are in the guest's time */
    set(ALARM_LOW, get_time() + SECOND / 20);
    while (!level()) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_ge(get_time(), 77 * SECOND + SECOND / 20);
    ck_assert_uint_eq(get(ALARM_STATUS), 0);
}
END_TEST

START_TEST(alarm_can_be_cleared)
{
    post(ENABLED, 1, false);
    set(ALARM_LOW, get_time() + 1000 * SECOND);
    ck_assert_uint_eq(get(ALARM_STATUS), 1);
    post(CLEAR_ALARM, 1, false);
    ck_assert_uint_eq(get(ALARM_STATUS), 0);
    ck_assert(!level());
    /* Setting the clock past an armed alarm fires it. */
    set(ALARM_LOW, get_time() + 1000 * SECOND);
    set(TIME_LOW, get_time() + 2000 * SECOND);
    ck_assert(level());
}
END_TEST

START_TEST(absurd_values)
{
    post(ENABLED, 1, false);
    set(ALARM_LOW, UINT64_MAX);
    ck_assert_uint_eq(get(ALARM_STATUS), 1);
    set(TIME_LOW, UINT64_MAX - 1000);
    host_turn(&host);
    set(ALARM_LOW, UINT64_MAX);
    host_turn(&host);
    post(0xfffffff0, 1, false);
    ck_assert_uint_eq(get(0xfffffff0), 0);
}
END_TEST

START_TEST(survives_its_process)
{
    post(ENABLED, 1, false);
    set(TIME_LOW, 5000 * SECOND);
    set(ALARM_LOW, 5000 * SECOND + SECOND / 10);
    device_destroy(host.device);
    host_start(&host, &device_model_rtc, true);
    ck_assert_uint_ge(get_time(), 5000 * SECOND);
    ck_assert_uint_lt(get_time(), 9000 * SECOND);
    while (!level()) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rtc");
    TCase *tests = tcase_create("rtc");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, tells_the_time);
    tcase_add_test(tests, high_half_is_latched);
    tcase_add_test(tests, can_be_set);
    tcase_add_test(tests, alarm_in_the_past_fires_at_once);
    tcase_add_test(tests, alarm_in_the_future_fires_later);
    tcase_add_test(tests, alarm_can_be_cleared);
    tcase_add_test(tests, absurd_values);
    tcase_add_test(tests, survives_its_process);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
