/*
 * The supervisor as a whole: its real event loop and sockets, in a process of its own, with this
 * same program standing in for vcpud and devd.
 */
#include "libshared/base/clock.h"
#include "tests/unit/suite.h"
#include "tests/unit/vmmd_service.h"
#include "vmmd/record.h"

static enum error_code ask_stop(const char *name, uint32_t timeout_ms)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__StopRequest stop = POLYVISOR__STOP_REQUEST__INIT;

    stop.name = (char *)name;
    stop.timeout_ms = timeout_ms;
    request.stop = &stop;
    request.body_case = POLYVISOR__REQUEST__BODY_STOP;
    return ask(&request);
}

static enum error_code ask_stats(const char *name)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__StatsRequest stats = POLYVISOR__STATS_REQUEST__INIT;

    stats.name = (char *)name;
    request.stats = &stats;
    request.body_case = POLYVISOR__REQUEST__BODY_STATS;
    return ask(&request);
}

/* Gone, or dead and not yet collected by init. */
static bool has_ended(pid_t pid)
{
    char path[64], state = 'Z';

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file) {
        ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
    }
    return state == 'Z';
}

/* ---- the tests ---- */

START_TEST(a_machine_lives_and_ends_by_itself)
{
    ck_assert_int_eq(ask_create("one", "power-off"), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CREATED);
    ck_assert_int_eq(ask_start("one", true), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_READY);
    ck_assert_int_eq(machine()->n_processes, 7);
    ck_assert(strstr(machine()->console_path, "/vms/one/serial0.console.sock") != NULL);
    ck_assert_int_eq(access(machine()->console_path, F_OK), 0);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED);
    ck_assert_str_eq(machine()->end_reason, "power-off");
    ck_assert_int_eq(machine()->n_processes, 0);
    ck_assert_ptr_null(machine()->last_error);
    /* And again. */
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(ask_remove("one"), ERROR_OK);
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_int_eq(response->n_machines, 0);
}
END_TEST

START_TEST(requests_that_do_not_fit_are_refused)
{
    ck_assert_int_eq(ask_start("none", false), ERROR_NOT_FOUND);
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_create("one", ""), ERROR_EXISTS);
    ck_assert_int_eq(ask_create("", ""), ERROR_CONFIG);
    ck_assert_int_eq(ask_create_of("two", "", 1 << 20), ERROR_MEMORY);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_STATE);
    ck_assert_int_eq(ask_kill("one"), ERROR_STATE);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_STATE);
    ck_assert_int_eq(ask_remove("one"), ERROR_STATE);
    ck_assert_int_gt(strlen(response->error->hint), 0);
    ck_assert_str_eq(response->error->component, "vmmd");
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "killed");
    ck_assert_int_eq(ask_remove("one"), ERROR_OK);
    Polyvisor__Request empty = POLYVISOR__REQUEST__INIT;
    ck_assert_int_eq(ask(&empty), ERROR_PROTOCOL);
}
END_TEST

START_TEST(a_guest_that_cannot_be_asked_is_stopped_at_once)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_stop("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "stopped");
    await_event("stopping");
    await_event("stopped");
}
END_TEST

START_TEST(a_guest_that_is_asked_powers_off)
{
    restart_supervisor_with("power0:driver");
    ck_assert_int_eq(ask_create("one", "key"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_stop("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "power-off");
    /* With no time to do so it is not asked. */
    ck_assert_int_eq(ask_create("two", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("two", false), ERROR_OK);
    ck_assert_int_eq(ask_stop("two", 0), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "stopped");
}
END_TEST

START_TEST(a_guest_that_does_not_listen_is_stopped_in_time)
{
    restart_supervisor_with("power0:driver");
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_stop("one", 100), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "stopped");
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED);
}
END_TEST

START_TEST(the_key_is_pressed_again_when_its_process_dies)
{
    restart_supervisor_with("power0:driver key-kills");
    ck_assert_int_eq(ask_create("one", "key"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_stop("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "power-off");
    await_event("device-died");
    await_event("device-restarted");
}
END_TEST

START_TEST(a_broken_key_stops_at_once)
{
    restart_supervisor_with("power0:die-always");
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("device-failed");
    ck_assert_int_eq(ask_stop("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "stopped");
}
END_TEST

START_TEST(a_process_that_does_not_stop_is_killed)
{
    ck_assert_int_eq(ask_create("one", "stay"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED);
}
END_TEST

static enum error_code ask_show(const char *name)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__ShowRequest show = POLYVISOR__SHOW_REQUEST__INIT;

    show.name = (char *)name;
    request.show = &show;
    request.body_case = POLYVISOR__REQUEST__BODY_SHOW;
    return ask(&request);
}

/* It is told again at each ping. */
START_TEST(a_panic_is_told_once)
{
    restart_supervisor_with("serial0:panic=1 begun out of\\033 coffee;panic=1 ended out of coffee;"
                            "panic=rubbish;panic=2 begun no cups;");
    ck_assert_int_eq(ask_create("one", "on"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("guest-panic");
    do {
        ck_assert_int_eq(ask_show("one"), ERROR_OK);
    } while (machine()->guest_panics < 2);
    ck_assert_int_eq(ask_wait("one", 2500), ERROR_OK); /* a ping later */
    ck_assert_int_eq(ask_show("one"), ERROR_OK);
    ck_assert_uint_eq(machine()->guest_panics, 2);
    ck_assert_str_eq(machine()->guest_panic, "no cups");
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
}
END_TEST

START_TEST(each_port_counts_its_panics)
{
    restart_supervisor_with("console0:panic=1 begun out of coffee;panic=2/1 begun out of coffee;"
                            "panic=2/2 begun no cups;panic=6/1 begun no such port;panic=/1 begun x;"
                            "panic=99999999999/1 begun x;panic=1/3 begun the third;");
    ck_assert_int_eq(ask_create("one", "on"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    do {
        ck_assert_int_eq(ask_show("one"), ERROR_OK);
    } while (strcmp(machine()->guest_panic, "the third") != 0);
    ck_assert_uint_eq(machine()->guest_panics, 5); /* one; another; three of a port unheard of */
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
}
END_TEST

START_TEST(a_panic_ends_the_machine)
{
    restart_supervisor_with("console0:panic=1 begun out of coffee;panic=1 ended out of coffee;");
    create_on_panic = "stop";
    ck_assert_int_eq(ask_create("one", "on"), ERROR_OK);
    create_on_panic = "";
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "guest-panic");
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED);
    ck_assert_str_eq(machine()->guest_panic, "out of coffee");
    /* A later vmmd knows it, too. */
    restart_supervisor_with("");
    ck_assert_int_eq(ask_show("one"), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "guest-panic");
    ck_assert_uint_eq(machine()->guest_panics, 1);
    ck_assert_str_eq(machine()->guest_panic, "out of coffee");
}
END_TEST

START_TEST(guest_failure_keeps_its_code)
{
    ck_assert_int_eq(ask_create("one", "failure"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "guest-failure");
    ck_assert_int_eq(machine()->guest_code, 7);
}
END_TEST

START_TEST(failed_starts_are_told_and_leave_nothing)
{
    char directory[128];

    snprintf(directory, sizeof(directory), "%s/run/vms/one", base);
    ck_assert_int_eq(ask_create("one", "refuse"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_KERNEL);
    ck_assert_str_eq(response->error->message, "not a kernel");
    ck_assert_str_eq(response->error->component, "vcpud");
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CREATED);
    ck_assert_str_eq(machine()->last_error->code, "bad-kernel");
    ck_assert_int_eq(count_sockets(directory), 0);
    ck_assert_int_eq(ask_remove("one"), ERROR_OK);

    ck_assert_int_eq(ask_create("two", "early-death"), ERROR_OK);
    ck_assert_int_eq(ask_start("two", false), ERROR_CRASHED);
    ck_assert(strstr(response->error->message, "status 3") != NULL);
    ck_assert_int_eq(ask_wait("two", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CRASHED);
}
END_TEST

START_TEST(a_dead_vcpud_is_a_crash)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_create("two", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("two", false), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(kill(pid_of("vcpud"), SIGKILL), 0);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CRASHED);
    ck_assert_str_eq(machine()->end_reason, "crashed");
    ck_assert_str_eq(machine()->last_error->code, "crashed");
    ck_assert_str_eq(machine()->last_error->component, "vcpud");
    /* Another does not notice, and the crashed one starts again. */
    ck_assert_int_eq(ask_wait("two", 1), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
}
END_TEST

START_TEST(a_hung_vcpud_is_a_crash)
{
    ck_assert_int_eq(ask_create("one", "hang"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CRASHED);
    ck_assert(strstr(machine()->last_error->message, "did not answer") != NULL);
}
END_TEST

/* Who stops a machine from outside may want it to go on: nothing is killed for that. */
START_TEST(a_held_vcpud_is_no_crash)
{
    ck_assert_int_eq(ask_create("one", "held"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("held");
    ck_assert_int_eq(ask_wait("one", 1), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    ck_assert_int_eq(kill(pid_of("vcpud"), SIGCONT), 0);
    await_event("released");
    ck_assert_int_eq(ask_wait("one", 1), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    ck_assert_int_eq(ask_stop("one", LONG_MS), ERROR_OK);
}
END_TEST

/* One that was taken over may talk as much as it likes: not everybody's log and events are full. */
START_TEST(a_vcpud_that_never_stops_talking_is_not_repeated)
{
    unsigned told = 0, unknown = 0;
    bool over = false;

    ck_assert_int_eq(ask_create("one", "chatter"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    while (!over) {
        ProtobufCMessage *message;
        ck_assert_int_eq(channel_receive(events, &polyvisor__event__descriptor, &message, LONG_MS),
                         0);
        const Polyvisor__Event *event = (const Polyvisor__Event *)message;
        over = strcmp(event->kind, "stopped") == 0;
        told += strcmp(event->kind, "reset") == 0 || strcmp(event->kind, "device-timeout") == 0;
        unknown += strstr(event->detail, "nothing") != NULL;
        protobuf_c_message_free_unpacked(message, NULL);
    }
    ck_assert_uint_ge(told, 2);
    ck_assert_uint_lt(told, FAKE_CHATTER / 2);
    ck_assert_uint_eq(unknown, 0);
}
END_TEST

START_TEST(a_process_that_sends_rubbish_is_killed)
{
    ck_assert_int_eq(ask_create("one", "rubbish"), ERROR_OK);
    ask_start("one", false); /* it may be killed before its answer arrives */
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CRASHED);
    ck_assert(strstr(machine()->last_error->message, "signal 9") != NULL);
}
END_TEST

static uint32_t restarts_of(const char *id)
{
    for (size_t i = 0; i < machine()->n_devices; i++) {
        if (!strcmp(machine()->devices[i]->id, id)) {
            return machine()->devices[i]->restarts;
        }
    }
    ck_abort_msg("there is no device %s", id);
}

START_TEST(a_dead_device_is_restarted)
{
    restart_supervisor_with("rng0:die-once");
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("device-died");
    await_event("device-restarted");
    ck_assert_int_eq(ask_wait("one", 1), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    ck_assert_int_ne(pid_of("devd/rng0"), 0);
    ck_assert_uint_eq(restarts_of("rng0"), 1);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
}
END_TEST

/* One that dies before it answers has refused nothing: its death is told, as that of any. */
START_TEST(a_death_is_no_refusal)
{
    restart_supervisor_with("rng0:second-dies");
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("device-died");
    await_event_before("device-died", "device-refused");
    await_event_before("device-restarted", "device-refused");
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
}
END_TEST

START_TEST(a_device_that_keeps_dying_is_given_up)
{
    restart_supervisor_with("rng0:die-always");
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("device-failed");
    ck_assert_int_eq(ask_wait("one", 1), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    ck_assert_int_eq(machine()->n_processes, 6);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
}
END_TEST

/* The first child of the supervisor that is none of the machine's processes, or 0: one that has
 * ended and is not collected yet, or one that lives. */
static pid_t find_other(bool ended)
{
    char path[64], state;
    int pid, other = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", supervisor_pid, supervisor_pid);
    FILE *children = fopen(path, "r");
    ck_assert_ptr_nonnull(children);
    while (!other && fscanf(children, "%d", &pid) == 1) {
        bool known = false;
        for (size_t i = 0; i < machine()->n_processes; i++) {
            known |= machine()->processes[i]->pid == (uint32_t)pid;
        }
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        FILE *stat = fopen(path, "r");
        if (stat && fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && (state == 'Z') == ended) {
            other = known ? 0 : pid;
        }
        if (stat) {
            fclose(stat);
        }
    }
    fclose(children);
    return other;
}

static void kill_and_await(const char *role)
{
    kill(pid_of(role), SIGKILL);
    await_event("device-restarted");
    ck_assert_int_eq(ask_wait("one", 1), ERROR_OK); /* it has done what follows the event, too */
}

/* Those that ended are collected, too, some time later. */
static void await_collected(void)
{
    for (unsigned i = 0; i < 1200 && find_other(true); i++) {
        usleep(50000);
    }
    ck_assert_int_eq(find_other(true), 0);
}

START_TEST(a_killed_device_is_restarted_and_descriptors_stay_level)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    kill_and_await("devd/console0");
    await_collected();
    int before = count_descriptors_of(supervisor_pid); /* from now on with a spare */
    kill_and_await("devd/console0");
    await_collected();
    ck_assert_int_eq(count_descriptors_of(supervisor_pid), before);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
}
END_TEST

static pid_t find_spare(void)
{
    return find_other(false);
}

/* Whether a later vmmd would know of the process. */
static bool is_recorded(pid_t pid)
{
    char directory[128];
    bool found = false;

    snprintf(directory, sizeof(directory), "%s/run/vms/one", base);
    Polyvisor__MachineRecord *record = record_read(directory);
    ck_assert_ptr_nonnull(record);
    for (size_t i = 0; i < record->n_processes; i++) {
        found |= record->processes[i]->pid == pid;
    }
    polyvisor__machine_record__free_unpacked(record, NULL);
    return found;
}

/* Who died once has a process ready that takes its place, and then another. */
START_TEST(a_spare_takes_the_place_of_a_device_that_died_before)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(find_spare(), 0);
    kill_and_await("devd/rng0");
    pid_t spare = find_spare();
    ck_assert_int_ne(spare, 0);
    ck_assert(is_recorded(spare)); /* while nobody waits for it */
    kill_and_await("devd/rng0");
    ck_assert_int_eq(pid_of("devd/rng0"), spare);
    /* One that died itself is none. */
    spare = find_spare();
    ck_assert_int_ne(spare, 0);
    ck_assert_int_eq(kill(spare, SIGKILL), 0);
    kill_and_await("devd/rng0");
    ck_assert_int_ne(pid_of("devd/rng0"), spare);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
    ck_assert_int_eq(find_spare(), 0);
}
END_TEST

/* Killing one that works says nothing about the next: it never is given up for that. */
START_TEST(a_device_that_is_killed_often_is_not_given_up)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    for (unsigned i = 0; i < 12; i++) {
        kill(pid_of("devd/console0"), SIGKILL);
        await_event("device-restarted");
        ck_assert_int_eq(ask_wait("one", 1), ERROR_OK);
    }
    ck_assert_int_eq(machine()->n_processes, 7);
    ck_assert_int_eq(ask_stop("one", 0), ERROR_OK);
}
END_TEST

/* vcpud says that a device holds up a reset: its process is ended, and vcpud is told. */
START_TEST(a_stuck_device_is_replaced)
{
    ck_assert_int_eq(ask_create("one", "stuck"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("device-stuck");
    await_event("device-died");
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "power-off"); /* the stand-in was told */
}
END_TEST

START_TEST(a_stuck_device_that_was_given_up_is_gone)
{
    restart_supervisor_with("rng0:die-always");
    ck_assert_int_eq(ask_create("one", "when-asked"), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    await_event("device-failed");
    ck_assert_int_eq(ask_stats("one"), ERROR_OK); /* then the stand-in says stuck */
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "power-off");
}
END_TEST

START_TEST(a_long_request_does_not_hold_up_others)
{
    struct channel *other = channel_connect(CHANNEL_CONTROL, NN_REQ, control_path);
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__WaitRequest wait_request = POLYVISOR__WAIT_REQUEST__INIT;
    ProtobufCMessage *message;

    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    request.id = 77;
    wait_request.name = "one";
    wait_request.timeout_ms = LONG_MS;
    request.wait = &wait_request;
    request.body_case = POLYVISOR__REQUEST__BODY_WAIT;
    ck_assert_int_eq(channel_send(other, &request.base, LONG_MS), 0);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(ask_list(), ERROR_OK);
    }
    ck_assert_int_eq(channel_receive(other, &polyvisor__response__descriptor, &message, 0),
                     -EAGAIN);
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
    ck_assert_int_eq(channel_receive(other, &polyvisor__response__descriptor, &message, LONG_MS),
                     0);
    ck_assert_int_eq(((Polyvisor__Response *)message)->id, 77);
    protobuf_c_message_free_unpacked(message, NULL);
    channel_close(other);
}
END_TEST

START_TEST(deadlines_of_requests_are_kept)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__StopRequest stop = POLYVISOR__STOP_REQUEST__INIT;

    restart_supervisor_with("power0:driver");
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    stop.name = "one";
    stop.timeout_ms = LONG_MS;
    request.stop = &stop;
    request.deadline_ms = 50;
    request.body_case = POLYVISOR__REQUEST__BODY_STOP;
    ck_assert_int_eq(ask(&request), ERROR_TIMEOUT);
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
}
END_TEST

START_TEST(counters_come_from_vcpud)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_stats("one"), ERROR_STATE);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_stats("one"), ERROR_OK);
    ck_assert_int_gt(response->n_stats, 5);
    ck_assert_str_eq(response->stats[0]->name, "retired");
    ck_assert_int_eq(response->stats[0]->value, 12345);
}
END_TEST

START_TEST(machines_survive_the_supervisor)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_create("two", "power-off"), ERROR_OK);
    ck_assert_int_eq(ask_create("three", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("two", false), ERROR_OK);
    ck_assert_int_eq(ask_wait("two", LONG_MS), ERROR_OK);
    ck_assert_int_eq(ask_start("three", false), ERROR_OK);
    pid_t orphan = pid_of("vcpud");
    end_supervisor(SIGKILL);
    ck_assert(!has_ended(orphan));
    start_supervisor();
    connect_client();
    ck_assert(has_ended(orphan));
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_int_eq(response->n_machines, 3);
    ck_assert_str_eq(response->machines[0]->config->name, "one");
    ck_assert_int_eq(response->machines[0]->state, POLYVISOR__MACHINE_STATE__MACHINE_CREATED);
    ck_assert_str_eq(response->machines[1]->config->name, "three");
    ck_assert_int_eq(response->machines[1]->state, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED);
    ck_assert_str_eq(response->machines[1]->last_error->code, "crashed");
    ck_assert_str_eq(response->machines[2]->config->name, "two");
    ck_assert_str_eq(response->machines[2]->end_reason, "power-off");
    ck_assert_str_eq(response->machines[2]->config->append, "power-off");
    ck_assert_int_eq(ask_start("two", false), ERROR_OK);
}
END_TEST

/* What a later vmmd could not find again is not made. */
START_TEST(a_machine_without_a_record_is_refused)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/run/vms", base);
    mkdir(path, 0700);
    strcat(path, "/one");
    ck_assert_int_eq(mkdir(path, 0700), 0);
    strcat(path, "/state.new"); /* where the record is written first */
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(ask_create("one", ""), ERROR_IO);
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_int_eq(response->n_machines, 0);
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
}
END_TEST

/* The record of machine `name`, with values that no configuration may have. */
static void spoil_record(const char *name, uint32_t cpus, const char *disk)
{
    Polyvisor__DiskConfig disk_config = POLYVISOR__DISK_CONFIG__INIT, *disks[] = {&disk_config};
    Polyvisor__MachineRecord record = POLYVISOR__MACHINE_RECORD__INIT;
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    char path[128];

    snprintf(path, sizeof(path), "%s/run/vms/%s", base, name);
    ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
    config.name = (char *)name;
    config.arch = "riscv64";
    config.engine = "auto";
    config.kernel = "/no/such/kernel"; /* may come back */
    config.cpus = cpus;
    config.memory_bytes = 64 << 20;
    disk_config.path = (char *)disk;
    config.n_disks = disk ? 1 : 0;
    config.disks = disks;
    record.config = &config;
    record.state = POLYVISOR__MACHINE_STATE__MACHINE_STOPPED;
    ck_assert_int_eq(record_write(path, &record), 0);
}

START_TEST(records_with_impossible_configurations_are_skipped)
{
    static char long_path[6000];

    ck_assert_int_eq(ask_create("good", ""), ERROR_OK);
    end_supervisor(SIGTERM);
    memset(long_path, '/', sizeof(long_path) - 1);
    spoil_record("absent", 1, NULL);
    spoil_record("cpus", 1000, NULL);
    spoil_record("disk", 1, "relative");
    spoil_record("path", 1, long_path);
    start_supervisor();
    connect_client();
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_int_eq(response->n_machines, 2);
    ck_assert_str_eq(response->machines[0]->config->name, "absent");
    ck_assert_str_eq(response->machines[1]->config->name, "good");
    ck_assert_int_eq(ask_start("absent", false), ERROR_KERNEL);
}
END_TEST

START_TEST(many_cycles_leave_nothing)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
    int before = count_descriptors_of(supervisor_pid);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(ask_start("one", false), ERROR_OK);
        ck_assert_int_eq(i % 2 ? ask_kill("one") : ask_stop("one", 0), ERROR_OK);
    }
    ck_assert_int_eq(count_descriptors_of(supervisor_pid), before);
}
END_TEST

START_TEST(shutdown_is_answered_after_the_last_machine)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__ShutdownRequest shutdown_request = POLYVISOR__SHUTDOWN_REQUEST__INIT;
    int status;

    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    pid_t vcpu = pid_of("vcpud");
    request.shutdown = &shutdown_request;
    request.body_case = POLYVISOR__REQUEST__BODY_SHUTDOWN;
    ck_assert_int_eq(ask(&request), ERROR_OK);
    ck_assert_int_eq(kill(vcpu, 0), -1);
    ck_assert_int_eq(waitpid(supervisor_pid, &status, 0), supervisor_pid);
    ck_assert_int_eq(status, 0);
    disconnect_client();
    start_supervisor(); /* for the tear-down */
    connect_client();
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_int_eq(response->n_machines, 1);
}
END_TEST

START_TEST(running_machines_are_stopped_by_a_signal)
{
    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    pid_t vcpu = pid_of("vcpud");
    end_supervisor(SIGTERM);
    ck_assert_int_eq(kill(vcpu, 0), -1);
    start_supervisor();
    connect_client();
    ck_assert_int_eq(ask_wait("one", 1), ERROR_OK);
    ck_assert_str_eq(machine()->end_reason, "stopped");
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_machine_lives_and_ends_by_itself,
        requests_that_do_not_fit_are_refused,
        a_guest_that_cannot_be_asked_is_stopped_at_once,
        a_guest_that_is_asked_powers_off,
        a_guest_that_does_not_listen_is_stopped_in_time,
        the_key_is_pressed_again_when_its_process_dies,
        a_broken_key_stops_at_once,
        a_process_that_does_not_stop_is_killed,
        guest_failure_keeps_its_code,
        a_panic_is_told_once,
        each_port_counts_its_panics,
        a_panic_ends_the_machine,
        failed_starts_are_told_and_leave_nothing,
        a_dead_vcpud_is_a_crash,
        a_hung_vcpud_is_a_crash,
        a_held_vcpud_is_no_crash,
        a_process_that_sends_rubbish_is_killed,
        a_vcpud_that_never_stops_talking_is_not_repeated,
        a_dead_device_is_restarted,
        a_death_is_no_refusal,
        a_device_that_keeps_dying_is_given_up,
        a_killed_device_is_restarted_and_descriptors_stay_level,
        a_device_that_is_killed_often_is_not_given_up,
        a_spare_takes_the_place_of_a_device_that_died_before,
        a_stuck_device_is_replaced,
        a_stuck_device_that_was_given_up_is_gone,
        a_long_request_does_not_hold_up_others,
        deadlines_of_requests_are_kept,
        counters_come_from_vcpud,
        machines_survive_the_supervisor,
        a_machine_without_a_record_is_refused,
        records_with_impossible_configurations_are_skipped,
        many_cycles_leave_nothing,
        shutdown_is_answered_after_the_last_machine,
        running_machines_are_stopped_by_a_signal,
    };
    int status;

    if (service_stand_in(argc, argv, &status)) {
        return status;
    }
    Suite *suite = suite_create("vmmd: supervisor");
    TCase *cases = tcase_create("supervisor");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_set_timeout(cases, 240);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(cases, tests[i]);
    }
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
