/* Descriptors by name, from a parent's list to a child's. */
#include "libshared/ipc/fdlist.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct fdlist list;

static int inherit(const char *value)
{
    setenv(FDLIST_ENVIRONMENT, value, 1);
    return fdlist_inherit(&list);
}

START_TEST(a_list_goes_through_the_environment)
{
    struct fdlist parent = {0};
    int a = dup(STDERR_FILENO), b = dup(STDERR_FILENO);

    ck_assert_int_eq(fdlist_add(&parent, a, "ram"), 0);
    ck_assert_int_eq(fdlist_add(&parent, b, "dev.%s.kick.%d", "disk0", 3), 0);
    char *text = fdlist_environment(&parent);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(strncmp(text, "POLYVISOR_FDS=", 14), 0);
    ck_assert_int_eq(inherit(text + 14), 0);
    free(text);
    ck_assert_ptr_null(getenv(FDLIST_ENVIRONMENT));
    ck_assert_int_eq(fcntl(a, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fdlist_take(&list, "dev.%s.kick.%d", "disk0", 3), b);
    ck_assert_int_eq(fdlist_take(&list, "dev.disk0.kick.3"), -ENOENT);
    ck_assert_int_eq(fdlist_take(&list, "ram"), a);
    ck_assert_int_eq(list.count, 0);
    close(a);
    close(b);
}
END_TEST

START_TEST(nothing_is_inherited_without_the_variable)
{
    unsetenv(FDLIST_ENVIRONMENT);
    ck_assert_int_eq(fdlist_inherit(&list), 0);
    ck_assert_int_eq(list.count, 0);
    ck_assert_int_eq(inherit(""), 0);
    ck_assert_int_eq(list.count, 0);
}
END_TEST

START_TEST(a_full_list_takes_no_more)
{
    struct fdlist parent = {0};

    for (int i = 0; i < FDLIST_MAX; i++) {
        ck_assert_int_eq(fdlist_add(&parent, STDERR_FILENO, "fd.%d", i), 0);
    }
    ck_assert_int_eq(fdlist_add(&parent, STDERR_FILENO, "more"), -ENOSPC);
    char *text = fdlist_environment(&parent);
    ck_assert_int_eq(inherit(text + strlen(FDLIST_ENVIRONMENT "=")), 0);
    ck_assert_int_eq(list.count, FDLIST_MAX);
    free(text);
}
END_TEST

START_TEST(long_and_empty_names_are_refused)
{
    struct fdlist parent = {0};

    ck_assert_int_eq(fdlist_add(&parent, 2, "%048d", 0), -ENAMETOOLONG);
    ck_assert_int_eq(fdlist_add(&parent, 2, "%s", ""), -ENAMETOOLONG);
    ck_assert_int_eq(fdlist_add(&parent, 2, "%047d", 0), 0);
    ck_assert_int_eq(fdlist_take(&parent, "%048d", 0), -ENOENT);
}
END_TEST

static const char *const malformed[] = {
    "ram",
    "ram=",
    "=2",
    "ram=2x",
    "ram=-2",
    "ram=99999999999999999999",
    "ram=2147483648",
    "a=2 a=2",
    "a=987",
    "a=2 =",
    "a==2",
    "0123456789012345678901234567890123456789012345678=2",
};

START_TEST(malformed_values_are_refused)
{
    ck_assert_int_eq(inherit(malformed[_i]), -EINVAL);
    ck_assert_ptr_null(getenv(FDLIST_ENVIRONMENT));
}
END_TEST

START_TEST(a_pipe_is_told_once)
{
    int ends[2];
    char bytes[2];

    list.count = 0;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(fdlist_add(&list, ends[1], "bound"), 0);
    fdlist_tell(&list, "bound");
    fdlist_tell(&list, "bound"); /* there is none any more */
    ck_assert_uint_eq(list.count, 0);
    ck_assert_int_eq(read(ends[0], bytes, 2), 1);
    ck_assert_int_eq(read(ends[0], bytes, 2), 0);
    close(ends[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fdlist");
    TCase *tests = tcase_create("fdlist");

    tcase_add_test(tests, a_list_goes_through_the_environment);
    tcase_add_test(tests, nothing_is_inherited_without_the_variable);
    tcase_add_test(tests, a_pipe_is_told_once);
    tcase_add_test(tests, a_full_list_takes_no_more);
    tcase_add_test(tests, long_and_empty_names_are_refused);
    tcase_add_loop_test(tests, malformed_values_are_refused, 0,
                        sizeof(malformed) / sizeof(malformed[0]));
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
