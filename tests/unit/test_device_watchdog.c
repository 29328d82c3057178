/* The watchdog through the register channel. */
#include "libshared/watchdog/setting.h"
#include "tests/unit/device_host.h"
#include "tests/unit/suite.h"

extern const struct device_model device_model_watchdog;

enum { CONTROL = 0x10, CONFIG = 0x14, MODE = 0x18 };
#define FEED 0x14afu

static struct device_host host;
static unsigned told;
static char told_text[DEVICE_NOTICE_MAX];

static void noticed(void *context, enum device_notice notice, const char *text)
{
    (void)context;
    ck_assert_int_eq(notice, DEVICE_NOTICE_WATCHDOG);
    snprintf(told_text, sizeof(told_text), "%s", text);
    told++;
}

static void start(bool restart)
{
    host_start(&host, &device_model_watchdog, restart);
    device_on_notice(host.device, noticed, NULL);
}

static void setup(void)
{
    host_open(&host);
    start(false);
    told = 0;
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
    return (uint32_t)atomic_load(&host.channel->answer_value);
}

static void await(unsigned count)
{
    while (told < count) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
}

START_TEST(registers_are_kept)
{
    post(MODE, 0xffffffff & ~1u, false);
    post(CONFIG, 0x16aa0001, false);
    ck_assert_uint_eq(get(MODE), 0xf0);
    ck_assert_uint_eq(get(CONFIG), 1);
    ck_assert_uint_eq(get(CONTROL), 0);
    ck_assert_uint_eq(get(0xfffffff0), 0);
}
END_TEST

START_TEST(expires_once_and_tells_until_it_is_fed)
{
    post(MODE, 1, false); /* half a second */
    await(2);
    ck_assert_str_eq(told_text, "1");
    post(CONTROL, FEED + 2, false); /* not the key */
    unsigned before = told;
    await(before + 1);
    ck_assert_str_eq(told_text, "1");
    post(CONTROL, FEED, false);
    before = told;
    await(before + 1);
    ck_assert_str_eq(told_text, "2");
}
END_TEST

START_TEST(does_not_expire_while_it_is_off)
{
    struct timeval wait = {1, 0};

    post(CONTROL, FEED, false);
    post(MODE, 1, false);
    post(MODE, 0, false);
    event_base_loopexit(host.base, &wait);
    event_base_dispatch(host.base);
    ck_assert_uint_eq(told, 0);
}
END_TEST

/* The time passes while there is no process, and an expiry is not forgotten with one. */
START_TEST(survives_its_process)
{
    post(MODE, 1, false);
    device_destroy(host.device);
    usleep(700000);
    start(true);
    await(1);
    device_destroy(host.device);
    start(true);
    await(2);
    ck_assert_str_eq(told_text, "1");
    ck_assert_uint_eq(get(MODE), 1);
}
END_TEST

START_TEST(the_setting)
{
    static const char *const wrong[] = {
        "", "reset", "action=", "action=rese", "sunxi,", "sunxi,i6300esb", "i6300esb,action=reset"};
    enum watchdog_action action = WATCHDOG_NONE;
    struct error err;

    ck_assert_int_eq(watchdog_setting_parse("action=reset", ERROR_USAGE, &action, &err), 0);
    ck_assert_int_eq(action, WATCHDOG_RESET);
    ck_assert_int_eq(watchdog_setting_parse("sunxi,action=pause", ERROR_USAGE, &action, &err), 0);
    ck_assert_int_eq(action, WATCHDOG_PAUSE);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_int_eq(watchdog_setting_parse(wrong[i], ERROR_USAGE, &action, &err),
                         -ERROR_USAGE);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watchdog");
    TCase *tests = tcase_create("watchdog");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, registers_are_kept);
    tcase_add_test(tests, expires_once_and_tells_until_it_is_fed);
    tcase_add_test(tests, does_not_expire_while_it_is_off);
    tcase_add_test(tests, survives_its_process);
    tcase_add_test(tests, the_setting);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
