/*
 * A supervisor in a process of its own with its real event loop and sockets, and a client of it,
 * for tests of vmmd. The test program itself stands in for vcpud and devd (vmmd_stand_ins.h): its
 * main begins with service_stand_in.
 */
#ifndef POLYVISOR_TESTS_VMMD_SERVICE_H
#define POLYVISOR_TESTS_VMMD_SERVICE_H

#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include "proto/control.pb-c.h"
#include "proto/event.pb-c.h"
#include "tests/unit/descriptors.h"
#include "tests/unit/vmmd_stand_ins.h"
#include "vmmd/cleanup.h"
#include "vmmd/supervisor.h"
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONG_MS 60000 /* bounds a hang; nothing waits that long when all is well */

/* ---- the supervisor and a client ---- */

static char base[64], programs[96], control_path[96];
static pid_t supervisor_pid;
static struct channel *client, *events;
static Polyvisor__Response *response;

static inline void start_supervisor(void)
{
    char run[80];

    snprintf(run, sizeof(run), "%s/run", base);
    mkdir(run, 0700);
    supervisor_pid = fork();
    if (supervisor_pid == 0) {
        struct error err;
        struct supervisor_options options = {
            .directory = run, .programs = programs, .leash_fd = -1, .load = true};
        cleanup_runtime_directory(run, false);
        struct supervisor *supervisor = supervisor_open(&options, &err);
        if (!supervisor) {
            fprintf(stderr, "%s\n", err.message);
            exit(1);
        }
        supervisor_run(supervisor);
        supervisor_close(supervisor);
        exit(0);
    }
    snprintf(control_path, sizeof(control_path), "%s/control.sock", run);
}

static inline enum error_code ask_list(void);

/* Connect and wait until the supervisor serves: before, it would not heed a signal either. */
static inline void connect_client(void)
{
    char path[96];

    client = channel_connect(CHANNEL_CONTROL, NN_REQ, control_path);
    snprintf(path, sizeof(path), "%s/run/events.sock", base);
    events = channel_connect(CHANNEL_EVENT, NN_SUB, path);
    ck_assert_ptr_nonnull(client);
    ck_assert_ptr_nonnull(events);
    ck_assert_int_eq(ask_list(), ERROR_OK);
}

static inline void disconnect_client(void)
{
    channel_close(client);
    channel_close(events);
    if (response) {
        polyvisor__response__free_unpacked(response, NULL);
        response = NULL;
    }
}

static inline void set_up(void)
{
    char command[512];

    strcpy(base, "/tmp/pv-super.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    snprintf(programs, sizeof(programs), "%s/bin", base);
    mkdir(programs, 0700);
    /* Copies: clean-up knows processes by the name of their program. */
    snprintf(command, sizeof(command), "cp /proc/%d/exe '%s/vcpud' && ln '%s/vcpud' '%s/devd'",
             (int)getpid(), programs, programs, programs);
    ck_assert_int_eq(system(command), 0);
    start_supervisor();
    connect_client();
}

static inline void end_supervisor(int signal)
{
    int status;

    disconnect_client();
    ck_assert_int_gt(supervisor_pid, 0);
    ck_assert_int_eq(kill(supervisor_pid, signal), 0);
    ck_assert_int_eq(waitpid(supervisor_pid, &status, 0), supervisor_pid);
    if (signal == SIGTERM) {
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    }
}

static inline int count_sockets(const char *directory)
{
    DIR *stream = opendir(directory);
    int count = 0;

    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        count += strstr(entry->d_name, ".sock") != NULL;
    }
    if (stream) {
        closedir(stream);
    }
    return count;
}

static inline void tear_down(void)
{
    char command[128], path[128];

    end_supervisor(SIGTERM);
    snprintf(path, sizeof(path), "%s/run", base);
    ck_assert_int_eq(count_sockets(path), 0);
    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    ck_assert_int_eq(system(command), 0);
}

/* Ask on a channel of its own and wait for the answer, which is then `response`. Its error code. */
static inline enum error_code ask(Polyvisor__Request *request)
{
    ProtobufCMessage *message;
    struct error err;
    static uint64_t id;

    request->id = ++id;
    ck_assert_int_eq(channel_send(client, &request->base, LONG_MS), 0);
    ck_assert_int_eq(channel_receive(client, &polyvisor__response__descriptor, &message, LONG_MS),
                     0);
    if (response) {
        polyvisor__response__free_unpacked(response, NULL);
    }
    response = (Polyvisor__Response *)message;
    ck_assert_int_eq(response->id, id);
    error_from_message(&err, response->error);
    return err.code;
}

static const char *create_on_panic __attribute__((unused)) = "";

static inline enum error_code ask_create_of(const char *name, const char *behaviour,
                                            uint64_t memory)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    char kernel[96];

    snprintf(kernel, sizeof(kernel), "%s/bin/vcpud", base); /* some file */
    config.name = (char *)name;
    config.kernel = kernel;
    config.append = (char *)behaviour;
    config.on_panic = (char *)create_on_panic;
    config.cpus = 1;
    config.memory_bytes = memory;
    create.config = &config;
    request.create = &create;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    return ask(&request);
}

static inline enum error_code ask_create(const char *name, const char *behaviour)
{
    return ask_create_of(name, behaviour, 64 << 20);
}

static inline enum error_code ask_start(const char *name, bool hold)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__StartRequest start = POLYVISOR__START_REQUEST__INIT;

    start.name = (char *)name;
    start.hold = hold;
    request.start = &start;
    request.body_case = POLYVISOR__REQUEST__BODY_START;
    return ask(&request);
}

static inline enum error_code ask_wait(const char *name, uint32_t timeout_ms)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__WaitRequest message = POLYVISOR__WAIT_REQUEST__INIT;

    message.name = (char *)name;
    message.timeout_ms = timeout_ms;
    request.wait = &message;
    request.body_case = POLYVISOR__REQUEST__BODY_WAIT;
    return ask(&request);
}

static inline enum error_code ask_remove(const char *name)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__RemoveRequest message = POLYVISOR__REMOVE_REQUEST__INIT;

    message.name = (char *)name;
    request.remove = &message;
    request.body_case = POLYVISOR__REQUEST__BODY_REMOVE;
    return ask(&request);
}

static inline enum error_code ask_list_after(const char *name)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__ListRequest message = POLYVISOR__LIST_REQUEST__INIT;

    message.after = (char *)name;
    request.list = &message;
    request.body_case = POLYVISOR__REQUEST__BODY_LIST;
    return ask(&request);
}

static inline enum error_code ask_list(void)
{
    return ask_list_after("");
}

static inline const Polyvisor__MachineInfo *machine(void)
{
    ck_assert_int_eq(response->n_machines, 1);
    return response->machines[0];
}

/* Another one, whose devices misbehave as FAKE_DEVD says. */
static inline void restart_supervisor_with(const char *devices)
{
    end_supervisor(SIGTERM);
    setenv("FAKE_DEVD", devices, 1);
    start_supervisor();
    connect_client();
}

static inline enum error_code ask_kill(const char *name)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__KillRequest message = POLYVISOR__KILL_REQUEST__INIT;

    message.name = (char *)name;
    request.kill = &message;
    request.body_case = POLYVISOR__REQUEST__BODY_KILL;
    return ask(&request);
}

/* The pid of one of the machine's processes, as the last answer has it. */
static inline pid_t pid_of(const char *role)
{
    const Polyvisor__MachineInfo *info = machine();

    for (size_t i = 0; i < info->n_processes; i++) {
        if (!strcmp(info->processes[i]->role, role)) {
            return (pid_t)info->processes[i]->pid;
        }
    }
    ck_abort_msg("no process '%s'", role);
    return 0;
}

/* Wait for an event of that kind; the number of that kind seen so far. */
/* Until one of that kind comes; before it may come none of the kind `never` (or NULL). */
static inline void await_event_before(const char *kind, const char *never)
{
    ProtobufCMessage *message;
    bool found = false;

    while (!found) {
        ck_assert_int_eq(channel_receive(events, &polyvisor__event__descriptor, &message, LONG_MS),
                         0);
        const char *came = ((Polyvisor__Event *)message)->kind;
        found = !strcmp(came, kind);
        ck_assert_msg(!never || strcmp(came, never), "%s before %s", came, kind);
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

static inline void await_event(const char *kind)
{
    await_event_before(kind, NULL);
}

/* True when the program was started as one of its stand-ins; *status is what main returns then. */
static inline bool service_stand_in(int argc, char **argv, int *status)
{
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];

    if (strcmp(name, "vcpud") && strcmp(name, "devd")) {
        return false;
    }
    *status = fake_main(argc, argv, name);
    return true;
}

#endif
