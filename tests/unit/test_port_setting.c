/* What --console-port says. */
#include "libshared/port/setting.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(what_is_said_is_understood)
{
    static const struct {
        const char *text, *name, *path, *again;
        bool console;
    } cases[] = {
        {"a", "a", "", "a", false},
        {"org.qemu.guest_agent.0", "org.qemu.guest_agent.0", "", "org.qemu.guest_agent.0", false},
        {"t-1,console", "t-1", "", "t-1,console", true},
        {"b,path=/x,,y", "b", "/x,y", "b,path=/x,,y", false},
        {"b,console,path=z", "b", "z", "b,path=z,console", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct port_setting setting;
        ck_assert_int_eq(port_setting_parse(cases[i].text, ERROR_USAGE, &setting, NULL), 0);
        ck_assert_str_eq(setting.name, cases[i].name);
        ck_assert_str_eq(setting.path, cases[i].path);
        ck_assert_int_eq(setting.console, cases[i].console);
        char *again = port_setting_format(&setting);
        ck_assert_str_eq(again, cases[i].again);
        free(again);
    }
}
END_TEST

START_TEST(what_makes_no_sense_is_refused)
{
    static char long_name[40], long_path[140], long_text[4096];
    const char *const texts[] = {"",
                                 ",",
                                 "a/b",
                                 "../x",
                                 ".x",
                                 "a b",
                                 "a\n",
                                 "a,",
                                 "a,path=",
                                 "a,path=/x,path=/y",
                                 "a,what",
                                 "a,console=on",
                                 "polyvisor.console",
                                 long_name,
                                 long_path,
                                 long_text};

    memset(long_name, 'n', PORT_NAME_MAX + 1);
    strcpy(long_path, "a,path=/");
    memset(long_path + strlen(long_path), 'p', PORT_PATH_MAX);
    strcpy(long_text, "a");
    while (strlen(long_text) < 4000) {
        strcat(long_text, ",console");
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct port_setting setting;
        struct error err;
        error_clear(&err);
        ck_assert_int_eq(port_setting_parse(texts[i], ERROR_USAGE, &setting, &err), -ERROR_USAGE);
        ck_assert_int_eq(err.code, ERROR_USAGE);
        ck_assert(err.hint[0] != '\0');
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("port setting");
    TCase *tests = tcase_create("port setting");

    tcase_add_test(tests, what_is_said_is_understood);
    tcase_add_test(tests, what_makes_no_sense_is_refused);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
