/* What --balloon says. */
#include "libshared/balloon/setting.h"
#include "tests/unit/suite.h"
#include <check.h>

static int parse(const char *text, struct balloon_setting *setting)
{
    struct error err;
    return balloon_setting_parse(text, ERROR_USAGE, setting, &err);
}

START_TEST(reads_what_it_writes)
{
    static const char *const texts[][2] = {
        {"", "on,deflate-on-oom=on,reporting=on"},
        {"on", "on,deflate-on-oom=on,reporting=on"},
        {"off", "off"},
        {"memory=64M", "on,deflate-on-oom=on,reporting=on,memory=67108864"},
        {"on,reporting=off,deflate-on-oom=off", "on,deflate-on-oom=off,reporting=off"},
        {"memory=18446744073709551615,reporting=off,deflate-on-oom=off",
         "on,deflate-on-oom=off,reporting=off,memory=18446744073709551615"},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct balloon_setting setting, again;
        char text[BALLOON_SETTING_MAX];
        ck_assert_int_eq(parse(texts[i][0], &setting), 0);
        balloon_setting_format(&setting, text);
        ck_assert_str_eq(text, texts[i][1]);
        ck_assert_int_eq(parse(text, &again), 0);
        ck_assert_uint_eq(again.memory, setting.memory);
        ck_assert(again.present == setting.present && again.reporting == setting.reporting &&
                  again.deflate_on_oom == setting.deflate_on_oom);
    }
}
END_TEST

START_TEST(refuses_all_else)
{
    static const char *const texts[] = {
        "of",
        "off,memory=1G",
        "on,off",
        "memory=",
        "memory=0",
        "memory=-1",
        "memory=1X",
        "memory=1MM",
        "memory= 1",
        "reporting=",
        "reporting",
        "reporting=yes",
        "on,",
        ",",
        "memory=16777216T",
        "deflate-on-oom=1",
        "memory=99999999999999999999",
        "memory=1,memory=1,memory=1,memory=1,memory=1,memory=1,memory=1,memory=1,memory=1,memory=1,m",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct balloon_setting setting;
        ck_assert_msg(parse(texts[i], &setting) == -ERROR_USAGE, "'%s' was taken", texts[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("balloon setting");
    TCase *tests = tcase_create("setting");

    tcase_add_test(tests, reads_what_it_writes);
    tcase_add_test(tests, refuses_all_else);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
