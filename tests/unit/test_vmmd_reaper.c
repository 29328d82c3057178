/* A process that has ended is collected: not at once, but always. */
#include "tests/unit/suite.h"
#include "vmmd/reaper.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

static struct event_base *base;
static struct reaper *reaper;

static void set_up(void)
{
    base = event_base_new();
    reaper = reaper_open(base);
    ck_assert_ptr_nonnull(reaper);
}

static void tear_down(void)
{
    reaper_close(reaper);
    event_base_free(base);
}

/* The pidfd of a child that has ended and nobody has collected. */
static int ended(pid_t *pid)
{
    siginfo_t info;

    *pid = fork();
    if (*pid == 0) {
        _exit(0);
    }
    int pidfd = pidfd_open(*pid, 0);
    ck_assert_int_ge(pidfd, 0);
    ck_assert_int_eq(waitid(P_PID, (id_t)*pid, &info, WEXITED | WNOWAIT), 0);
    return pidfd;
}

static bool collected(pid_t pid)
{
    siginfo_t info;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

START_TEST(processes_are_collected_later)
{
    pid_t pids[3];

    for (int i = 0; i < 3; i++) {
        reaper_take(reaper, ended(&pids[i]));
    }
    for (int i = 0; i < 3; i++) {
        ck_assert(!collected(pids[i]));
    }
    event_base_dispatch(base); /* ends when nothing is left to be done */
    for (int i = 0; i < 3; i++) {
        ck_assert(collected(pids[i]));
    }
    reaper_take(reaper, ended(&pids[0])); /* and again */
    event_base_dispatch(base);
    ck_assert(collected(pids[0]));
}
END_TEST

START_TEST(the_end_collects_all)
{
    pid_t pid;

    reaper_take(reaper, ended(&pid));
    reaper_close(reaper);
    ck_assert(collected(pid));
    reaper = NULL;
    reaper_take(reaper, ended(&pid)); /* where there is no reaper, at once */
    ck_assert(collected(pid));
    reaper_take(reaper, -1);
}
END_TEST

/* More than it keeps: none is lost. */
START_TEST(so_many_that_some_cannot_wait)
{
    pid_t pids[300];

    for (int i = 0; i < 300; i++) {
        reaper_take(reaper, ended(&pids[i]));
    }
    ck_assert(!collected(pids[0]));
    ck_assert(collected(pids[299]));
    reaper_close(reaper);
    reaper = NULL;
    for (int i = 0; i < 300; i++) {
        ck_assert(collected(pids[i]));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd: reaper");
    TCase *cases = tcase_create("reaper");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, processes_are_collected_later);
    tcase_add_test(cases, the_end_collects_all);
    tcase_add_test(cases, so_many_that_some_cannot_wait);
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
