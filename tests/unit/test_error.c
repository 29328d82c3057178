/* Structured errors: codes, texts, and their form in messages. */
#include "libshared/base/error.h"
#include "libshared/base/log.h"
#include "libshared/ipc/error_message.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

START_TEST(codes_are_distinct_and_round_trip)
{
    for (unsigned row = 0; row < ERROR_CODE_COUNT; row++) {
        enum error_code code = error_code_at(row);
        const char *text = error_code_text(code);
        ck_assert_int_eq(error_code_parse(text), code);
        ck_assert_int_gt(strlen(error_code_meaning(code)), 0);
        for (unsigned other = 0; other < row; other++) {
            ck_assert_int_ne(error_exit_status(error_code_at(other)), error_exit_status(code));
        }
    }
    ck_assert_int_eq(error_exit_status(ERROR_OK), 0);
    ck_assert_int_eq(error_code_parse("no such code"), ERROR_INTERNAL);
    ck_assert_int_eq(error_code_parse(NULL), ERROR_INTERNAL);
    ck_assert_str_eq(error_code_text((enum error_code)999), "internal");
    ck_assert_str_eq(error_code_text((enum error_code) - 1), "internal");
}
END_TEST

/* A negative code was once taken for -EAGAIN: `vmctl run` never saw that vmmd had died. */
START_TEST(codes_are_no_errnos)
{
    ck_assert_int_eq(ERROR_OK, 0);
    for (unsigned row = 1; row < ERROR_CODE_COUNT; row++) {
        ck_assert_int_ge(error_code_at(row), 4096);
    }
}
END_TEST

START_TEST(set_returns_the_negative_code_and_starts_afresh)
{
    struct error err = {.hint = "old", .component = "old"};

    ck_assert_int_eq(error_set(&err, ERROR_DISK, ENOENT, "disk '%s'", "x"), -ERROR_DISK);
    ck_assert_int_eq(err.code, ERROR_DISK);
    ck_assert_int_eq(err.cause, ENOENT);
    ck_assert_str_eq(err.message, "disk 'x'");
    ck_assert_str_eq(err.hint, "");
    ck_assert_str_eq(err.component, "");
    ck_assert_int_eq(error_set(NULL, ERROR_BUSY, 0, "unseen"), -ERROR_BUSY);
    error_hint(NULL, "unseen");
    error_component(NULL, "unseen");
    error_clear(NULL);
}
END_TEST

START_TEST(a_message_may_quote_the_error_it_replaces)
{
    struct error err;

    error_set(&err, ERROR_IO, 0, "inner");
    error_set(&err, ERROR_DISK, 0, "outer: %s", err.message);
    ck_assert_str_eq(err.message, "outer: inner");
}
END_TEST

START_TEST(texts_are_cut_and_made_one_line)
{
    struct error err;
    char text[1000];

    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    error_set(&err, ERROR_IO, 0, "%s", text);
    ck_assert_int_eq(strlen(err.message), sizeof(err.message) - 1);
    error_set(&err, ERROR_IO, 0, "file '%s'", "a\nb\x1b[31m\x7f");
    ck_assert_str_eq(err.message, "file 'a?b?[31m?'");
    error_hint(&err, "%s\n", text);
    ck_assert_int_eq(strlen(err.hint), sizeof(err.hint) - 1);
}
END_TEST

START_TEST(the_first_component_stays)
{
    struct error err;

    error_set(&err, ERROR_IO, 0, "x");
    error_component(&err, "devd/disk0");
    error_component(&err, "vmmd");
    ck_assert_str_eq(err.component, "devd/disk0");
}
END_TEST

START_TEST(messages_carry_errors_whole)
{
    struct error err, back = {0};
    Polyvisor__Error message;

    error_set(&err, ERROR_KERNEL, EISDIR, "kernel");
    error_hint(&err, "hint");
    error_component(&err, "vmmd");
    error_to_message(&err, &message);
    error_from_message(&back, &message);
    ck_assert_int_eq(memcmp(&err, &back, sizeof(err)), 0);
    error_from_message(&back, NULL);
    ck_assert_int_eq(back.code, ERROR_OK);
}
END_TEST

START_TEST(a_received_error_is_never_success)
{
    Polyvisor__Error message = POLYVISOR__ERROR__INIT;
    struct error err;

    message.code = "ok";
    error_from_message(&err, &message);
    ck_assert_int_eq(err.code, ERROR_INTERNAL);
    message.code = "invented";
    error_from_message(&err, &message);
    ck_assert_int_eq(err.code, ERROR_INTERNAL);
}
END_TEST

/* Children may send anything, and all of it may end on somebody's terminal. */
START_TEST(nothing_quoted_commands_a_terminal)
{
    Polyvisor__Error message = POLYVISOR__ERROR__INIT;
    struct error err;
    char line[128] = "";
    int ends[2], before = dup(STDERR_FILENO);

    message.code = "io";
    message.message = "a\x1b]0;b\x07\xc2\x9b"
                      "2J\xc3\xa9\xc2";
    message.hint = "\r\x7f";
    message.component = "devd\x1b[2J";
    error_from_message(&err, &message);
    ck_assert_str_eq(err.message, "a?]0;b???2J\xc3\xa9\xc2");
    ck_assert_str_eq(err.hint, "??");
    ck_assert_str_eq(err.component, "devd?[2J");

    ck_assert_int_eq(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_open("test");
    log_warning("a\nb\tc\x1b[2J\x7f");
    dup2(before, STDERR_FILENO);
    ck_assert_int_gt(read(ends[0], line, sizeof(line) - 1), 0);
    ck_assert_str_eq(line, "test: warning: a b c?[2J?\n");
    close(before);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("error");
    TCase *tests = tcase_create("error");

    tcase_add_test(tests, codes_are_distinct_and_round_trip);

    tcase_add_test(tests, codes_are_no_errnos);
    tcase_add_test(tests, set_returns_the_negative_code_and_starts_afresh);
    tcase_add_test(tests, a_message_may_quote_the_error_it_replaces);
    tcase_add_test(tests, texts_are_cut_and_made_one_line);
    tcase_add_test(tests, the_first_component_stays);
    tcase_add_test(tests, messages_carry_errors_whole);
    tcase_add_test(tests, a_received_error_is_never_success);
    tcase_add_test(tests, nothing_quoted_commands_a_terminal);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
