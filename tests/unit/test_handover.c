/* Descriptors for a process that already runs: what goes through comes out, and nothing else stays.
 */
#include "libshared/ipc/handover.h"
#include "libshared/ipc/rights.h"
#include "tests/unit/descriptors.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int ends[2];
static struct fdlist received;
static uint64_t number;

static void setup(void)
{
    ck_assert_int_eq(handover_pair(ends), 0);
}

START_TEST(what_goes_in_comes_out)
{
    struct fdlist list = {.count = 0};
    int bell = eventfd(7, EFD_CLOEXEC | EFD_NONBLOCK), plain = dup(STDERR_FILENO);
    eventfd_t value;

    ck_assert_int_eq(handover_receive(ends[1], &number, &received), -EAGAIN);
    ck_assert_int_eq(fdlist_add(&list, bell, "dev.disk1.kick.0"), 0);
    ck_assert_int_eq(fdlist_add(&list, plain, "dev.disk1.state"), 0);
    ck_assert_int_eq(handover_send(ends[0], UINT64_C(0x123456789abcdef0), &list), 0);
    ck_assert_int_eq(handover_receive(ends[1], &number, &received), 0);
    ck_assert_uint_eq(number, UINT64_C(0x123456789abcdef0));
    ck_assert_uint_eq(received.count, 2);
    ck_assert_int_ge(fcntl(bell, F_GETFD), 0); /* still the sender's */
    int taken = fdlist_take(&received, "dev.disk1.kick.0");
    ck_assert_int_ge(taken, 0);
    ck_assert_int_ne(taken, bell);
    ck_assert_int_eq(fcntl(taken, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(eventfd_read(taken, &value), 0);
    ck_assert_uint_eq(value, 7);
    ck_assert_int_ge(fdlist_take(&received, "dev.disk1.state"), 0);
    ck_assert_uint_eq(received.count, 0);
}
END_TEST

START_TEST(messages_keep_their_order)
{
    struct fdlist list = {.count = 0};

    ck_assert_int_eq(fdlist_add(&list, STDERR_FILENO, "one"), 0);
    for (uint64_t i = 1; i <= 20; i++) {
        ck_assert_int_eq(handover_send(ends[0], i, &list), 0);
    }
    for (uint64_t i = 1; i <= 20; i++) {
        ck_assert_int_eq(handover_receive(ends[1], &number, &received), 0);
        ck_assert_uint_eq(number, i);
        fdlist_close(&received);
    }
    ck_assert_int_eq(handover_receive(ends[1], &number, &received), -EAGAIN);
}
END_TEST

START_TEST(as_many_as_there_may_be)
{
    struct fdlist list = {.count = 0};

    ck_assert_int_eq(handover_send(ends[0], 1, &list), -E2BIG);
    for (int i = 0; i < HANDOVER_MAX; i++) { /* names as long as they can be */
        ck_assert_int_eq(fdlist_add(&list, STDERR_FILENO, "%047d", i), 0);
    }
    ck_assert_int_eq(handover_send(ends[0], 1, &list), 0);
    ck_assert_int_eq(handover_receive(ends[1], &number, &received), 0);
    ck_assert_uint_eq(received.count, HANDOVER_MAX);
    ck_assert_int_ge(fdlist_take(&received, "%047d", HANDOVER_MAX - 1), 0);
    fdlist_close(&received);
    ck_assert_int_eq(fdlist_add(&list, STDERR_FILENO, "more"), 0);
    ck_assert_int_eq(handover_send(ends[0], 1, &list), -E2BIG);
}
END_TEST

/* Nobody takes them: no end of them is sent, and they go with the socket. */
START_TEST(who_does_not_take_them_is_not_waited_for)
{
    struct fdlist list = {.count = 0};
    int result = 0, before = count_descriptors();

    ck_assert_int_eq(fdlist_add(&list, STDERR_FILENO, "one"), 0);
    for (int i = 0; i < 100000 && result == 0; i++) {
        result = handover_send(ends[0], 1, &list);
    }
    ck_assert(result == -EAGAIN || result == -ETOOMANYREFS);
    ck_assert_int_eq(count_descriptors(), before);
    close(ends[0]);
    while (handover_receive(ends[1], &number, &received) == 0) {
        fdlist_close(&received);
    }
    ck_assert_int_eq(handover_receive(ends[1], &number, &received), -EPIPE);
    ck_assert_int_eq(count_descriptors(), before - 1);
    ck_assert_int_eq(handover_send(ends[1], 1, &list), -EPIPE);
}
END_TEST

/* ---- what is malformed ---- */

#define NUMBER "\1\0\0\0\0\0\0\0"

static const struct {
    size_t fds, length;
    const char *bytes;
} malformed[] = {
    {1, 0, ""},                 /* nothing but a descriptor */
    {1, 4, NUMBER},             /* half a number */
    {1, 8, NUMBER},             /* no name */
    {0, 11, NUMBER "ab\0"},     /* a name of nothing */
    {1, 10, NUMBER "ab"},       /* without its end */
    {1, 9, NUMBER "\0"},        /* empty */
    {2, 11, NUMBER "ab\0"},     /* one name for two */
    {1, 14, NUMBER "ab\0cd\0"}, /* two for one */
    {2, 12, NUMBER "ab\0\0"},   /* the second empty */
    {1, 8 + 49, NUMBER "0123456789012345678901234567890123456789012345678\0"}, /* too long */
    {HANDOVER_MAX + 1, 11, NUMBER "ab\0"}, /* more than there is room for */
    {253, 11, NUMBER "ab\0"},              /* all that the kernel takes */
};

START_TEST(nothing_stays_of_what_is_malformed)
{
    int fds[RIGHTS_MAX], before = count_descriptors();
    const struct iovec body = {(char *)malformed[_i].bytes, malformed[_i].length};

    for (size_t i = 0; i < RIGHTS_MAX; i++) {
        fds[i] = STDERR_FILENO;
    }
    ck_assert_int_eq(rights_send(ends[0], &body, 1, fds, malformed[_i].fds), 0);
    ck_assert_int_eq(handover_receive(ends[1], &number, &received), -EBADMSG);
    ck_assert_uint_eq(received.count, 0);
    ck_assert_int_eq(count_descriptors(), before);
    /* The next one is as good as ever. */
    struct fdlist list = {.count = 0};
    ck_assert_int_eq(fdlist_add(&list, STDERR_FILENO, "one"), 0);
    ck_assert_int_eq(handover_send(ends[0], 9, &list), 0);
    ck_assert_int_eq(handover_receive(ends[1], &number, &received), 0);
    ck_assert_uint_eq(number, 9);
    fdlist_close(&received);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("handover");
    tcase_add_checked_fixture(cases, setup, NULL);
    tcase_add_test(cases, what_goes_in_comes_out);
    tcase_add_test(cases, messages_keep_their_order);
    tcase_add_test(cases, as_many_as_there_may_be);
    tcase_add_test(cases, who_does_not_take_them_is_not_waited_for);
    tcase_add_loop_test(cases, nothing_stays_of_what_is_malformed, 0,
                        sizeof(malformed) / sizeof(malformed[0]));
    Suite *suite = suite_create("handover");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
