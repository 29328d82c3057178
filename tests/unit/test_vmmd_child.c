/* A child's end and its open requests: each is told, whatever order things happen in. */
#include "vmmd/child.h"

#include "proto/vcpu.pb-c.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64], path[96];
static struct event_base *base;
static struct child child;
static unsigned replies, ends;
static enum error_code reply_code;

static void note_reply(struct child *who, const struct error *err, const ProtobufCMessage *reply,
                       uint64_t context)
{
    ck_assert_ptr_eq(who, &child);
    ck_assert_ptr_null(reply);
    ck_assert_uint_eq(context, 42);
    reply_code = err ? err->code : ERROR_OK;
    replies++;
}

static void note_end(struct child *who)
{
    (void)who;
    ends++;
    event_base_loopbreak(base);
}

static bool somebody_waits;

static bool waited_for(struct child *who)
{
    (void)who;
    return somebody_waits;
}

static unsigned held, released;

static void note_held(struct child *who, bool stopped)
{
    (void)who;
    held += stopped;
    released += !stopped;
}

static const struct child_callbacks callbacks = {
    .exited = note_end, .hung = note_end, .waited_for = waited_for};
static const struct child_callbacks precious_callbacks = {
    .exited = note_end, .hung = note_end, .held = note_held, .precious = true};

/* A process that never answers. */
static void set_up(void)
{
    strcpy(directory, "/tmp/pv-child.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/vcpud.sock", directory);
    base = event_base_new();
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    int pidfd = pidfd_open(pid, 0);
    ck_assert_int_ge(pidfd, 0);
    replies = ends = held = released = 0;
    somebody_waits = false;
    ck_assert_int_eq(child_attach(&child, base, &child_protocol_vcpu, &callbacks, NULL, "vcpud",
                                  pid, pidfd, path, -1),
                     0);
}

static void tear_down(void)
{
    child_release(&child);
    event_base_free(base);
    ck_assert_int_eq(rmdir(directory), 0);
}

static int ask(void)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuStatsRequest stats = POLYVISOR__VCPU_STATS_REQUEST__INIT;

    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_STATS;
    request.stats = &stats;
    return child_request(&child, &request.base, 60000, note_reply, 42);
}

/* It is connected to once it says that its socket is there. */
START_TEST(its_socket_is_not_looked_for_before_it_is_bound)
{
    int pipe_fds[2];
    siginfo_t info;
    signal(SIGTERM, SIG_DFL); /* Check's own handler ends the whole group */
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    child_release(&child);
    ck_assert_int_eq(pipe(pipe_fds), 0);
    ck_assert_int_eq(child_attach(&child, base, &child_protocol_vcpu, &callbacks, NULL, "vcpud",
                                  pid, pidfd_open(pid, 0), path, pipe_fds[0]),
                     0);
    ck_assert_int_eq(ask(), 0);
    event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_ptr_null(child.channel);
    ck_assert_int_eq(write(pipe_fds[1], "", 1), 1);
    close(pipe_fds[1]);
    event_base_loop(base, EVLOOP_ONCE);
    ck_assert_ptr_nonnull(child.channel);
    ck_assert_int_eq(child.bound_fd, -1);
    ck_assert_int_eq(replies, 0);
    /* What answered its request to stop is told so by SIGTERM; how it ends then is its own affair.
     */
    child_dismiss(&child, NULL, NULL, 0);
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    ck_assert_int_eq(info.si_status, SIGTERM);
    ck_assert(child.put_down);
}
END_TEST

START_TEST(its_end_fails_open_requests)
{
    ck_assert_int_eq(ask(), 0);
    child_kill(&child);
    event_base_dispatch(base);
    ck_assert_uint_eq(ends, 1);
    ck_assert_uint_eq(replies, 1);
    ck_assert_int_eq(reply_code, ERROR_CRASHED);
}
END_TEST

/* To collect it may take long while its threads end: that is left to who has time for it. */
START_TEST(its_end_is_told_before_it_is_collected)
{
    siginfo_t info;
    pid_t pid = child.pid;

    ck_assert_int_eq(child_inherit(&child), -1); /* it runs */
    child_kill(&child);
    event_base_dispatch(base);
    ck_assert_uint_eq(ends, 1);
    ck_assert_int_eq(child.exit_signal, SIGKILL);
    int pidfd = child_inherit(&child);
    ck_assert_int_ge(pidfd, 0);
    ck_assert_int_eq(child_inherit(&child), -1); /* only once */
    child_release(&child);
    ck_assert_int_eq(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG), 0);
    ck_assert_int_eq(info.si_pid, pid);
    close(pidfd);
}
END_TEST

/* The kernel takes longer to end a thread that somebody has looked at in /proc. */
START_TEST(one_that_answers_is_not_looked_at)
{
    child_heartbeat_start(&child);
    ck_assert(!child.pulse_taken);
    child_doubt(&child);
    ck_assert(!child.doubt_pulsed);
    event_base_dispatch(base); /* it does not answer */
    ck_assert_uint_eq(ends, 1);
    ck_assert(child.doubt_pulsed);
}
END_TEST

/* Between its end and its release nothing would ever answer. */
START_TEST(a_dead_child_takes_no_requests)
{
    child_kill(&child);
    event_base_dispatch(base);
    ck_assert_uint_eq(ends, 1);
    ck_assert_int_lt(ask(), 0);
    child_release(&child);
    ck_assert_uint_eq(replies, 0);
}
END_TEST

START_TEST(release_fails_open_requests)
{
    ck_assert_int_eq(ask(), 0);
    ck_assert_int_eq(ask(), 0);
    child_release(&child);
    ck_assert_uint_eq(replies, 2);
    ck_assert_int_eq(reply_code, ERROR_CRASHED);
    ck_assert_uint_eq(ends, 0);
}
END_TEST

/* One that was stopped from outside hangs for no fault of its own. */
START_TEST(a_stopped_child_is_told_from_a_hung_one)
{
    siginfo_t info;

    if (_i) {
        ck_assert_int_eq(kill(child.pid, SIGSTOP), 0);
        ck_assert_int_eq(waitid(P_PID, (id_t)child.pid, &info, WSTOPPED), 0);
    }
    child_heartbeat_start(&child);
    child_doubt(&child);
    event_base_dispatch(base);
    ck_assert_int_eq(child.stopped, _i);
}
END_TEST

static void await_change(int what)
{
    siginfo_t info;
    ck_assert_int_eq(waitid(P_PID, (id_t)child.pid, &info, what | WNOWAIT), 0);
}

/* Nobody need wait for a heartbeat to see that. */
START_TEST(a_stopped_child_is_found_at_once)
{
    child_heartbeat_start(&child);
    child_look(&child); /* it was another */
    ck_assert_uint_eq(ends, 0);
    ck_assert_int_eq(kill(child.pid, SIGSTOP), 0);
    await_change(WSTOPPED);
    child_look(&child);
    child_look(&child);
    ck_assert_uint_eq(ends, 1);
    ck_assert(child.stopped);
}
END_TEST

static void end_wait(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what, (void)argument;
    event_base_loopbreak(base);
}

static void run_beats(int count)
{
    struct timeval time = {.tv_usec = count * child.beat_ms * 1000};
    event_base_once(base, -1, EV_TIMEOUT, end_wait, NULL, &time);
    event_base_dispatch(base);
}

/* One whose end would be its machine's is not ended because somebody stopped it; once it may go on
 * and does not answer, it is. */
START_TEST(a_precious_child_may_be_held)
{
    child.callbacks = &precious_callbacks;
    child.beat_ms = 20;
    child_heartbeat_start(&child);
    ck_assert_int_eq(kill(child.pid, SIGSTOP), 0);
    await_change(WSTOPPED);
    child_look(&child);
    ck_assert_uint_eq(held, 1);
    run_beats(5 * CHILD_HEARTBEAT_MISSED_PRECIOUS);
    ck_assert_uint_eq(ends, 0);
    ck_assert(!child.hang_reported);
    ck_assert_int_eq(kill(child.pid, SIGCONT), 0);
    await_change(WCONTINUED);
    child_look(&child);
    ck_assert_uint_eq(released, 1);
    event_base_dispatch(base);
    ck_assert_uint_eq(ends, 1);
    ck_assert(!child.stopped);
}
END_TEST

/* What counts is that it could have answered. */
START_TEST(a_child_without_a_processor_is_not_hung)
{
    const uint64_t second = 1000000000;
    const struct pulse before = {
        .known = true, .state = 'S', .ran_ns = 5 * second, .waited_ns = 7 * second};
    struct pulse now = before;

    ck_assert(!pulse_starved(&before, &now, second)); /* it slept */
    now.waited_ns += second / 2;
    ck_assert(pulse_starved(&before, &now, second)); /* it waited, and then ran */
    now = before;
    now.wants = true;
    ck_assert(pulse_starved(&before, &now, second)); /* it waits all the time */
    now.ran_ns += second;
    ck_assert(!pulse_starved(&before, &now, second)); /* it turns in circles */
    now.known = false;
    ck_assert(!pulse_starved(&before, &now, second));
    /* And what a real one shows. */
    now = pulse_take(getpid());
    ck_assert(now.known && now.wants && now.state == 'R' && now.ran_ns > 0);
    ck_assert(!pulse_stopped(&now));
    now = pulse_take(child.pid);
    ck_assert(now.known && !pulse_stopped(&now));
    child_kill(&child);
    event_base_dispatch(base);
    now = pulse_take(child.pid); /* ended */
    ck_assert(!pulse_starved(&before, &now, second));
}
END_TEST

/* Somebody waits for it, and it does not answer: that is found long before the heartbeat would. */
START_TEST(a_doubted_child_is_found_hung)
{
    child_doubt(&child); /* not pinged yet: it is still being set up */
    ck_assert(!evtimer_pending(child.doubt_event, NULL));
    child_heartbeat_start(&child);
    child_doubt(&child);
    child_doubt(&child);
    event_base_dispatch(base);
    ck_assert_uint_eq(ends, 1);
    ck_assert(child.hang_reported);
    ck_assert(child.running);
    ck_assert_uint_lt(child.missed, CHILD_HEARTBEAT_MISSED);
}
END_TEST

/* A beat that finds work which nobody takes need not wait for the next beats. */
START_TEST(a_child_that_leaves_work_lying_is_doubted)
{
    somebody_waits = true;
    child_heartbeat_start(&child);
    event_base_dispatch(base);
    ck_assert_uint_eq(ends, 1);
    ck_assert(child.hang_reported);
    ck_assert_uint_eq(child.missed, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd: child");
    TCase *cases = tcase_create("child");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_test(cases, its_socket_is_not_looked_for_before_it_is_bound);
    tcase_add_test(cases, its_end_fails_open_requests);
    tcase_add_test(cases, its_end_is_told_before_it_is_collected);
    tcase_add_test(cases, one_that_answers_is_not_looked_at);
    tcase_add_test(cases, a_dead_child_takes_no_requests);
    tcase_add_test(cases, release_fails_open_requests);
    tcase_add_loop_test(cases, a_stopped_child_is_told_from_a_hung_one, 0, 2);
    tcase_add_test(cases, a_stopped_child_is_found_at_once);
    tcase_add_test(cases, a_precious_child_may_be_held);
    tcase_add_test(cases, a_child_without_a_processor_is_not_hung);
    tcase_add_test(cases, a_child_that_leaves_work_lying_is_doubted);
    tcase_add_test(cases, a_doubted_child_is_found_hung);
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
