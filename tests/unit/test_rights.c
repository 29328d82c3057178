/* Descriptors along with a message, and more of them than were asked for. */
#include "libshared/ipc/rights.h"
#include "tests/unit/descriptors.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int ends[2];

static void setup(void)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void teardown(void)
{
    close(ends[0]);
    close(ends[1]);
}

static void send_some(const char *text, size_t count)
{
    const struct iovec body = {(char *)text, strlen(text)};
    int fds[RIGHTS_MAX];

    for (size_t i = 0; i < count; i++) {
        fds[i] = ends[0];
    }
    ck_assert_int_eq(rights_send(ends[0], &body, 1, fds, count), 0);
}

/* With room for `room` descriptors, all of which must be none when the message is refused. */
static ssize_t receive(int flags, size_t size, size_t room, size_t *count)
{
    static char text[16];
    const struct iovec body = {text, size};
    int fds[RIGHTS_MAX];

    memset(fds, -1, sizeof(fds));
    *count = room;
    ssize_t bytes = rights_receive(ends[1], flags, &body, 1, fds, count);
    for (size_t i = 0; i < *count; i++) {
        ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        close(fds[i]);
    }
    for (size_t i = *count; i < room; i++) {
        ck_assert_int_eq(fds[i], -1);
    }
    return bytes;
}

START_TEST(what_is_sent_comes)
{
    static const size_t counts[] = {0, 1, 2, 3, RIGHTS_MAX};
    int before = count_descriptors();
    size_t count;

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        send_some("text", counts[i]);
        ck_assert_int_eq(receive(MSG_PEEK, 16, RIGHTS_MAX, &count), 4);
        ck_assert_uint_eq(count, counts[i]);
        ck_assert_int_eq(receive(0, 16, RIGHTS_MAX, &count), 4);
        ck_assert_uint_eq(count, counts[i]);
        ck_assert_int_eq(receive(0, 16, 1, &count), -EAGAIN);
        ck_assert_uint_eq(count, 0);
    }
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

/* The kernel gives two where there is room for one: the room is padded. */
START_TEST(what_is_too_much_is_refused_whole)
{
    int before = count_descriptors();
    size_t count;

    for (size_t sent = 2; sent < 6; sent++) {
        send_some("text", sent);
        ck_assert_int_eq(receive(0, 16, 1, &count), -EBADMSG);
        ck_assert_uint_eq(count, 0);
    }
    send_some("longer", 1);
    ck_assert_int_eq(receive(0, 4, 1, &count), -EBADMSG);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(what_is_not_wanted_is_dropped)
{
    int before = count_descriptors();
    size_t count;

    send_some("text", 3);
    ck_assert_int_eq(receive(0, 16, 0, &count), 4);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(the_end_and_the_limits)
{
    const struct iovec body = {"text", 4};
    int fds[RIGHTS_MAX + 1] = {0};
    size_t count;

    ck_assert_int_eq(rights_send(ends[0], &body, 1, fds, RIGHTS_MAX + 1), -E2BIG);
    int sent = 0;
    while (sent == 0) {
        sent = rights_send(ends[0], &body, 1, NULL, 0);
    }
    ck_assert_int_eq(sent, -EAGAIN);
    while (receive(0, 16, 1, &count) == 4) {
    }
    shutdown(ends[0], SHUT_RDWR);
    ck_assert_int_eq(receive(0, 16, 1, &count), 0);
    ck_assert_int_eq(rights_send(ends[0], &body, 1, NULL, 0), -EPIPE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rights");
    TCase *tests = tcase_create("messages");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_is_sent_comes);
    tcase_add_test(tests, what_is_too_much_is_refused_whole);
    tcase_add_test(tests, what_is_not_wanted_is_dropped);
    tcase_add_test(tests, the_end_and_the_limits);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
