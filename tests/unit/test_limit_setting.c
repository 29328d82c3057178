/* The words of limits: what they may say, what they become, and that each mistake is named. */
#include "libshared/limit/setting.h"
#include "tests/unit/suite.h"
#include <errno.h>

static struct limits limits;
static struct error err;

static void setup(void)
{
    memset(&limits, 0, sizeof(limits));
}

static int parse(enum limit_device device, const char *text)
{
    error_clear(&err);
    return limits_parse(device, text, ERROR_USAGE, &limits, &err);
}

static void check_says(enum limit_device device, const char *text)
{
    char said[LIMIT_TEXT_MAX];

    limits_format(device, &limits, said, sizeof(said));
    ck_assert_str_eq(said, text);
}

static uint64_t rate(unsigned kind, unsigned direction)
{
    return limits.of[kind][direction].rate;
}

START_TEST(every_word)
{
    ck_assert_int_eq(
        parse(LIMIT_DISK, "bps=1,bps-read=2,bps-write=3,iops=4,iops-read=5,iops-write=6"), 0);
    ck_assert_uint_eq(rate(LIMIT_BYTES, LIMIT_BOTH), 1);
    ck_assert_uint_eq(rate(LIMIT_BYTES, LIMIT_IN), 2);
    ck_assert_uint_eq(rate(LIMIT_BYTES, LIMIT_OUT), 3);
    ck_assert_uint_eq(rate(LIMIT_OPERATIONS, LIMIT_BOTH), 4);
    ck_assert_uint_eq(rate(LIMIT_OPERATIONS, LIMIT_IN), 5);
    ck_assert_uint_eq(rate(LIMIT_OPERATIONS, LIMIT_OUT), 6);
    setup();
    ck_assert_int_eq(parse(LIMIT_NET, "bps-rx=2,bps-tx=3,pps=4,pps-rx=5,pps-tx=6,pps-tx-burst=7"),
                     0);
    ck_assert_uint_eq(rate(LIMIT_BYTES, LIMIT_IN), 2);
    ck_assert_uint_eq(rate(LIMIT_OPERATIONS, LIMIT_OUT), 6);
    ck_assert_uint_eq(limits.of[LIMIT_OPERATIONS][LIMIT_OUT].burst, 7);
    ck_assert(limits_any(&limits));
}
END_TEST

START_TEST(units)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } values[] = {
        {"bps=0", 0},
        {"bps=off", 0},
        {"bps=7", 7},
        {"bps=2K", 2048},
        {"bps=2k", 2048},
        {"bps=2KiB", 2048},
        {"bps=2kB", 2000},
        {"bps=2KB", 2000},
        {"bps=3M", 3 << 20},
        {"bps=3MiB", 3 << 20},
        {"bps=3MB", 3000000},
        {"bps=1G", 1 << 30},
        {"bps=1GB", 1000000000},
        {"bps=1T", UINT64_C(1) << 40},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        ck_assert_int_eq(parse(LIMIT_DISK, values[i].text), 0);
        ck_assert_uint_eq(rate(LIMIT_BYTES, LIMIT_BOTH), values[i].bytes);
    }
    ck_assert_int_eq(parse(LIMIT_DISK, "iops=5K"), 0);
    ck_assert_uint_eq(rate(LIMIT_OPERATIONS, LIMIT_BOTH), 5000);
    ck_assert_int_eq(parse(LIMIT_DISK, "iops=2M"), 0);
    ck_assert_uint_eq(rate(LIMIT_OPERATIONS, LIMIT_BOTH), 2000000);
}
END_TEST

START_TEST(mistakes_are_named_and_change_nothing)
{
    static const char *const wrong[] = {
        "bps",
        "bps=",
        "bps=-1",
        "bps=1x",
        "bps= 1",
        "bps=1KB2",
        "bps=2T",
        "bps=99999999999999999999",
        "iops=5KiB",
        "iops=1T",
        "pps=5",
        "bps-rx=5",
        "speed=5",
        "bps-=1",
        "bps-burst=5",
        "bps-bursts=5",
        "bps=1M,bps-burst=1K",
        "bps=1,bps-burst=1M",
        "bps=5,what=6",
        "iops=1,off",
        "bps=5,,iops=5",
    };
    ck_assert_int_eq(parse(LIMIT_DISK, "iops=77"), 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(parse(LIMIT_DISK, wrong[i]) == -ERROR_USAGE, "%s", wrong[i]);
        ck_assert_int_eq(err.code, ERROR_USAGE);
        ck_assert(err.message[0] && err.hint[0]);
        check_says(LIMIT_DISK, "iops=77");
    }
    ck_assert_int_eq(parse(LIMIT_NET, "iops=5"), -ERROR_USAGE);
    ck_assert_int_eq(limits_parse_word(LIMIT_NET, "mac=x", ERROR_USAGE, &limits, &err), -ENOENT);
}
END_TEST

START_TEST(words_change_what_they_name)
{
    ck_assert_int_eq(parse(LIMIT_DISK, "bps=20M,bps-burst=40M,iops=500"), 0);
    check_says(LIMIT_DISK, "bps=20M,bps-burst=40M,iops=500");
    ck_assert_int_eq(parse(LIMIT_DISK, "iops=off"), 0);
    check_says(LIMIT_DISK, "bps=20M,bps-burst=40M");
    ck_assert_int_eq(parse(LIMIT_DISK, ""), 0);
    ck_assert_int_eq(parse(LIMIT_DISK, "bps=10M"), 0); /* a new rate, the usual burst */
    check_says(LIMIT_DISK, "bps=10M");
    ck_assert_uint_eq(limit_burst(&limits.of[LIMIT_BYTES][LIMIT_BOTH]), (10 << 20) / 10);
    ck_assert_int_eq(parse(LIMIT_DISK, "bps-burst=1M"), 0);
    check_says(LIMIT_DISK, "bps=10M,bps-burst=1M");
    ck_assert_int_eq(parse(LIMIT_DISK, "off"), 0);
    check_says(LIMIT_DISK, "");
    ck_assert(!limits_any(&limits));
    ck_assert_int_eq(parse(LIMIT_DISK, "iops=3"), 0);
    ck_assert_uint_eq(limit_burst(&limits.of[LIMIT_OPERATIONS][LIMIT_BOTH]), 1);
}
END_TEST

START_TEST(what_is_written_is_read_again)
{
    unsigned seed = 3;

    for (unsigned round = 0; round < 2000; round++) {
        char text[LIMIT_TEXT_MAX];
        struct limits before;
        memset(&before, 0, sizeof(before));
        for (unsigned i = 0; i < LIMIT_KINDS * LIMIT_DIRECTIONS; i++) {
            uint64_t value = (uint64_t)rand_r(&seed) << (rand_r(&seed) % 10);
            before.of[i % LIMIT_KINDS][i / LIMIT_KINDS].rate = rand_r(&seed) % 2 ? value : 0;
            before.of[i % LIMIT_KINDS][i / LIMIT_KINDS].burst =
                before.of[i % LIMIT_KINDS][i / LIMIT_KINDS].rate && rand_r(&seed) % 2 ? value + 1
                                                                                      : 0;
        }
        limits_format(round % 2, &before, text, sizeof(text));
        ck_assert_uint_lt(strlen(text), sizeof(text) - 1);
        setup();
        ck_assert_msg(parse(round % 2, text) == 0, "%s: %s", text, err.message);
        ck_assert_mem_eq(&limits, &before, sizeof(limits));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limit_setting");
    TCase *tests = tcase_create("setting");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, every_word);
    tcase_add_test(tests, units);
    tcase_add_test(tests, mistakes_are_named_and_change_nothing);
    tcase_add_test(tests, words_change_what_they_name);
    tcase_add_test(tests, what_is_written_is_read_again);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
