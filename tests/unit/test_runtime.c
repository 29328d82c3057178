/* Where the sockets are: the default directory, its safety, names. */
#include "libshared/ipc/runtime.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];
static struct error err;

static void make_base(void)
{
    strcpy(base, "/tmp/pv-runtime.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
}

static void remove_base(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    ck_assert_int_eq(system(command), 0);
}

static const char *below(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", base, name);
    return path;
}

START_TEST(the_variable_decides_first)
{
    char path[RUNTIME_PATH_MAX], longer[200];

    setenv("POLYVISOR_RUNTIME_DIR", "/tmp/elsewhere", 1);
    ck_assert_int_eq(runtime_default_directory(path, &err), 0);
    ck_assert_str_eq(path, "/tmp/elsewhere");
    setenv("POLYVISOR_RUNTIME_DIR", "relative", 1);
    ck_assert_int_eq(runtime_default_directory(path, &err), -ERROR_CONFIG);
    memset(longer, 'x', sizeof(longer));
    longer[0] = '/';
    longer[sizeof(longer) - 1] = '\0';
    setenv("POLYVISOR_RUNTIME_DIR", longer, 1);
    ck_assert_int_eq(runtime_default_directory(path, &err), -ERROR_CONFIG);
    ck_assert_int_gt(strlen(err.hint), 0);
    unsetenv("POLYVISOR_RUNTIME_DIR");
    ck_assert_int_eq(runtime_default_directory(path, &err), 0);
}
END_TEST

START_TEST(missing_directories_are_made_closed_to_others)
{
    struct stat status;

    ck_assert_int_eq(runtime_make_directory(below("a/b//c/"), &err), 0);
    ck_assert_int_eq(stat(below("a/b/c"), &status), 0);
    ck_assert_int_eq(status.st_mode & 07777, 0700);
    ck_assert_int_eq(runtime_make_directory(below("a/b/c"), &err), 0);
}
END_TEST

START_TEST(unsafe_directories_are_refused)
{
    ck_assert_int_eq(runtime_make_directory("relative", &err), -ERROR_CONFIG);

    mkdir(below("open"), 0700);
    chmod(below("open"), 0750);
    ck_assert_int_eq(runtime_make_directory(below("open"), &err), -ERROR_PERMISSION);

    ck_assert_int_eq(symlink("/tmp", below("link")), 0);
    ck_assert_int_eq(runtime_make_directory(below("link"), &err), -ERROR_PERMISSION);

    mkdir(below("shared"), 0700);
    chmod(below("shared"), 0777);
    ck_assert_int_eq(runtime_make_directory(below("shared/mine"), &err), -ERROR_PERMISSION);

    fclose(fopen(below("file"), "w"));
    ck_assert_int_eq(runtime_make_directory(below("file"), &err), -ERROR_PERMISSION);
    ck_assert_int_lt(runtime_make_directory(below("file/x"), &err), 0);
}
END_TEST

START_TEST(another_owner_is_refused)
{
    if (geteuid() != 0) {
        return; /* only root can give a directory away */
    }
    mkdir(below("theirs"), 0700);
    ck_assert_int_eq(chown(below("theirs"), 12345, 12345), 0);
    ck_assert_int_eq(runtime_make_directory(below("theirs"), &err), -ERROR_PERMISSION);
}
END_TEST

START_TEST(names)
{
    static const char *const good[] = {"a", "vm-1", "a.b_c", "0", "_x"};
    static const char *const bad[] = {"",
                                      ".",
                                      "..",
                                      ".a",
                                      "-a",
                                      "a/b",
                                      "a b",
                                      "a\n",
                                      "\xc3\xa4",
                                      "*",
                                      "01234567890123456789012345678901234567890"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ck_assert_msg(runtime_name_valid(good[i]), "%s", good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!runtime_name_valid(bad[i]), "%s", bad[i]);
    }
    ck_assert(runtime_name_valid("0123456789012345678901234567890123456789"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("runtime");
    TCase *tests = tcase_create("runtime");

    tcase_add_checked_fixture(tests, make_base, remove_base);
    tcase_add_test(tests, the_variable_decides_first);
    tcase_add_test(tests, missing_directories_are_made_closed_to_others);
    tcase_add_test(tests, unsafe_directories_are_refused);
    tcase_add_test(tests, another_owner_is_refused);
    tcase_add_test(tests, names);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
