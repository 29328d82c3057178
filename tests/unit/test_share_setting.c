/* --share DIR:TAG[,WORD...] */
#include "libshared/share/setting.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text, *path, *tag;
    enum share_cache cache;
    bool read_only;
    uint32_t uid, gid;
    const char *same; /* how it is written again */
} good[] = {
    {"/a:b", "/a", "b", SHARE_CACHE_AUTO, false, 0, 0, "/a:b,cache=auto,uid=0,gid=0"},
    {".:/work", ".", "/work", SHARE_CACHE_AUTO, false, 0, 0, ".:/work,cache=auto,uid=0,gid=0"},
    {"/a:b:c", "/a:b", "c", SHARE_CACHE_AUTO, false, 0, 0, "/a:b:c,cache=auto,uid=0,gid=0"},
    {"/a,,b:c,,d,readonly", "/a,b", "c,d", SHARE_CACHE_AUTO, true, 0, 0,
     "/a,,b:c,,d,readonly,cache=auto,uid=0,gid=0"},
    {"/a:b,cache=always,uid=1000,gid=4294967294", "/a", "b", SHARE_CACHE_ALWAYS, false, 1000,
     4294967294u, "/a:b,cache=always,uid=1000,gid=4294967294"},
    {"/a:b,cache=never", "/a", "b", SHARE_CACHE_NEVER, false, 0, 0, "/a:b,cache=never,uid=0,gid=0"},
};

START_TEST(test_good)
{
    struct share_setting setting;
    struct error err;

    ck_assert_int_eq(share_setting_parse(good[_i].text, ERROR_USAGE, &setting, &err), 0);
    ck_assert_str_eq(setting.path, good[_i].path);
    ck_assert_str_eq(setting.tag, good[_i].tag);
    ck_assert_int_eq(setting.cache, good[_i].cache);
    ck_assert_int_eq(setting.read_only, good[_i].read_only);
    ck_assert_uint_eq(setting.uid, good[_i].uid);
    ck_assert_uint_eq(setting.gid, good[_i].gid);
    char *text = share_setting_format(&setting);
    ck_assert_str_eq(text, good[_i].same);
    free(text);
}
END_TEST

static const char *const bad[] = {
    "",
    "/a",
    ":tag",
    "/a:",
    "/a:b,",
    "/a:b,readwrite",
    "/a:b,cache=",
    "/a:b,cache=some",
    "/a:b,uid=",
    "/a:b,uid=-1",
    "/a:b,gid=4294967295",
    "/a:b,uid=1x",
    "/a:a tag",
    "/a:0123456789012345678901234567890123456",
};

START_TEST(test_bad)
{
    struct share_setting setting;
    struct error err;

    error_clear(&err);
    ck_assert_int_eq(share_setting_parse(bad[_i], ERROR_USAGE, &setting, &err), -ERROR_USAGE);
    ck_assert_str_ne(err.hint, "");
}
END_TEST

START_TEST(test_long_paths)
{
    static char text[SHARE_PATH_MAX + 8];
    struct share_setting setting;
    struct error err;

    memset(text, 'a', sizeof(text) - 1);
    strcpy(text + SHARE_PATH_MAX, ":t");
    ck_assert_int_eq(share_setting_parse(text, ERROR_USAGE, &setting, &err), 0);
    memset(text, 'a', sizeof(text) - 1);
    strcpy(text + SHARE_PATH_MAX + 1, ":t");
    ck_assert_int_eq(share_setting_parse(text, ERROR_USAGE, &setting, &err), -ERROR_USAGE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("share_setting");
    TCase *test = tcase_create("setting");

    tcase_add_loop_test(test, test_good, 0, sizeof(good) / sizeof(good[0]));
    tcase_add_loop_test(test, test_bad, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(test, test_long_paths);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
