/* Processes that stand ready (vmmd/spare): their pipe, and what they are to let go of. */
#include "tests/unit/suite.h"
#include "vmmd/spare.h"
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 60000

/* Until it ends it does nothing, whatever comes by the pipe. */
static char *const idle[] = {"sleep", "1000", NULL};

static void wait_for_end_of(int fd)
{
    struct pollfd end = {.fd = fd};
    char byte;

    ck_assert_int_eq(poll(&end, 1, PATIENCE_MS), 1);
    ck_assert_int_eq(read(fd, &byte, 1), 0);
}

/* The last descriptor of something that takes time to go is the spare's, and goes with its
 * beginning: whoever started it does not wait for that. */
START_TEST(a_legacy_is_the_spares_to_let_go_of)
{
    const struct fdlist none = {.count = 0};
    struct spare spare = {0};
    int legacy[2];

    ck_assert_int_eq(pipe2(legacy, O_CLOEXEC), 0);
    ck_assert_int_eq(spare_start(&spare, "/bin/sleep", idle, &none, legacy[1]), 0);
    ck_assert_int_eq(fcntl(legacy[1], F_GETFD), -1); /* ours is closed */
    wait_for_end_of(legacy[0]);
    ck_assert_int_eq(kill(spare.pid, 0), 0); /* and the spare is there */
    ck_assert_int_ne(spare.start_time, 0);
    ck_assert(!spare.recorded);
    spare_discard(&spare);
    ck_assert_int_eq(spare.pid, 0);
}
END_TEST

START_TEST(a_spare_that_cannot_be_started_keeps_no_legacy)
{
    struct fdlist full = {.count = 0};
    struct spare spare = {0};
    int legacy[2];

    while (fdlist_add(&full, STDERR_FILENO, "%zu", full.count) == 0) {
    }
    ck_assert_int_eq(pipe2(legacy, O_CLOEXEC), 0);
    ck_assert_int_lt(spare_start(&spare, "/bin/sleep", idle, &full, legacy[1]), 0);
    ck_assert_int_eq(spare.pid, 0);
    wait_for_end_of(legacy[0]);
}
END_TEST

/* One that was stopped or has ended would keep the guest waiting. */
START_TEST(only_a_spare_that_is_fit_is_taken)
{
    const struct {
        int signal, change;
    } ends[] = {{SIGSTOP, WSTOPPED}, {SIGKILL, WEXITED}};
    const struct fdlist none = {.count = 0};
    struct spare spare = {0};
    int pidfd, pipe_fd;
    siginfo_t info;
    pid_t pid;

    ck_assert_int_eq(spare_start(&spare, "/bin/sleep", idle, &none, -1), 0);
    ck_assert_int_eq(kill(spare.pid, ends[_i].signal), 0);
    ck_assert_int_eq(waitid(P_PID, (id_t)spare.pid, &info, ends[_i].change | WNOWAIT), 0);
    ck_assert(!spare_take(&spare, &pid, &pidfd, &pipe_fd));
    ck_assert_int_eq(spare.pid, 0);
    ck_assert(!spare_take(&spare, &pid, &pidfd, &pipe_fd)); /* there is none */
    ck_assert_int_eq(spare_start(&spare, "/bin/sleep", idle, &none, -1), 0);
    pid_t next = spare.pid;
    ck_assert(spare_take(&spare, &pid, &pidfd, &pipe_fd));
    ck_assert_int_eq(pid, next);
    spare_release(pipe_fd);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    close(pidfd);
}
END_TEST

START_TEST(a_namespace_is_held_by_a_descriptor)
{
    struct stat held, own;
    int fd = spare_hold_namespace(getpid());

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fstat(fd, &held), 0);
    ck_assert_int_eq(stat("/proc/self/ns/mnt", &own), 0);
    ck_assert(held.st_ino == own.st_ino && held.st_dev == own.st_dev);
    close(fd);
    ck_assert_int_eq(spare_hold_namespace(0x7fffffff), -1); /* nobody's */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd: spare");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 120);
    tcase_add_test(all, a_legacy_is_the_spares_to_let_go_of);
    tcase_add_test(all, a_spare_that_cannot_be_started_keeps_no_legacy);
    tcase_add_test(all, a_namespace_is_held_by_a_descriptor);
    tcase_add_loop_test(all, only_a_spare_that_is_fit_is_taken, 0, 2);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}
