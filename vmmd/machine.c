#include "vmmd/machine.h"

#include "libshared/base/clock.h"
#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include "libshared/ipc/error_message.h"
#include "libshared/ipc/runtime.h"
#include "proto/device.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/budget.h"
#include "vmmd/cleanup.h"
#include "vmmd/machine_internal.h"
#include "vmmd/record.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MACHINE_LOOK_MS 5000

/* ---- changes of state ---- */

void machine_set_state(struct machine *machine, Polyvisor__MachineState state)
{
    if (machine->state == state) {
        return;
    }
    machine->state = state;
    machine_save(machine);
    machine->host->changed(machine, machine->host->context);
}

void machine_begin_end(struct machine *machine, enum machine_goal goal,
                       Polyvisor__MachineState end_state, const char *reason)
{
    if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_STOPPING) {
        machine->goal = goal > machine->goal ? goal : machine->goal;
    } else {
        machine->goal = goal;
        machine->end_state = end_state;
        machine->end_reason = reason;
        machine->ask_ns = machine->phase_ns = machine->panic_ns = 0;
        child_heartbeat_stop(&machine->vcpu);
        if (machine->host->compiler) { /* which may end beside the machine */
            compiler_detach(machine->host->compiler, machine->config->name);
        }
        for (size_t i = 0; i < machine->device_count; i++) {
            machine->devices[i]->restart_ns = 0;
            machine_device_let_go(machine->devices[i]);
            if (machine->devices[i]->child.pid) {
                child_heartbeat_stop(&machine->devices[i]->child);
            }
        }
        machine_cancel_plugs(machine);
        machine_set_state(machine, POLYVISOR__MACHINE_STATE__MACHINE_STOPPING);
    }
    machine_wake(machine);
}

/* Every process has ended. */
static void machine_finish(struct machine *machine)
{
    bool crashed = machine->end_state == POLYVISOR__MACHINE_STATE__MACHINE_CRASHED;

    machine_release(machine);
    machine->ask_ns = machine->phase_ns = 0;
    machine_set_state(machine, machine->end_state);
    machine_event(machine, crashed ? "crashed" : "stopped", "", "%s%s%s", machine->end_reason,
                  machine->last_error.code != ERROR_OK ? ": " : "", machine->last_error.message);
}

/* ---- the step ---- */

static bool machine_all_ready(const struct machine *machine)
{
    bool ready = machine->vcpu_ready;

    for (size_t i = 0; i < machine->device_count; i++) {
        ready = ready && machine->devices[i]->ready;
    }
    return ready;
}

static void machine_step_starting(struct machine *machine)
{
    if (machine->last_error.code != ERROR_OK) {
        bool crashed = machine->last_error.code == ERROR_CRASHED;
        machine_event(machine, "start-failed", machine->last_error.component, "%s",
                      machine->last_error.message);
        machine_begin_end(machine, MACHINE_GOAL_KILL,
                          crashed ? POLYVISOR__MACHINE_STATE__MACHINE_CRASHED : machine->end_state,
                          crashed ? "crashed" : machine->end_reason);
        return;
    }
    if (!machine_all_ready(machine)) {
        return;
    }
    child_heartbeat_start(&machine->vcpu);
    for (size_t i = 0; i < machine->device_count; i++) {
        child_heartbeat_start(&machine->devices[i]->child);
    }
    machine_set_state(machine, POLYVISOR__MACHINE_STATE__MACHINE_READY);
    machine_event(machine, "ready", "", "%u CPUs, %llu MiB", machine->config->cpus,
                  (unsigned long long)(machine->config->memory_bytes >> 20));
    machine_wake(machine);
}

static void machine_vcpu_started(struct child *child, const struct error *err,
                                 const ProtobufCMessage *reply, uint64_t context)
{
    struct machine *machine = child->owner;
    (void)reply, (void)context;

    if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_READY) {
        return;
    }
    if (err) {
        if (err->code != ERROR_CRASHED) { /* its end is handled as such */
            machine->last_error = *err;
            machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                              "");
        }
        return;
    }
    machine->started_ns = clock_realtime_ns();
    /* Not before: its start costs as much processor time as that of the machine. */
    if (machine_wants_compiler(machine)) {
        compiler_attach(machine->host->compiler, machine->config->name, machine->jit_path,
                        machine->config->arch);
    }
    machine_set_state(machine, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
    machine_event(machine, "started", "", "pid %ld", (long)child->pid);
    machine_wake(machine);
}

static void machine_send_start(struct machine *machine)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuStart start = POLYVISOR__VCPU_START__INIT;

    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_START;
    request.start = &start;
    machine->vcpu_start_sent = true;
    child_request(&machine->vcpu, &request.base, MACHINE_CONFIGURE_MS, machine_vcpu_started, 0);
}

static void machine_note_crash(struct machine *machine)
{
    char text[64];

    if (machine->last_error.code == ERROR_OK) {
        child_describe_end(&machine->vcpu, text, sizeof(text));
        error_set(&machine->last_error, ERROR_CRASHED, 0, "vcpud %s", text);
        error_component(&machine->last_error, "vcpud");
        error_hint(&machine->last_error, "start the machine again; its disks were flushed");
    }
    machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_CRASHED,
                      "crashed");
}

static void machine_step_up(struct machine *machine)
{
    if (machine->guest_ended) {
        machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                          machine->panic_ns     ? PANIC_END_REASON
                          : machine->guest_code ? "guest-failure"
                                                : "power-off");
    } else if (machine_step_panicked(machine)) {
        /* As it was wanted. */
    } else if (!machine->vcpu.running) {
        machine_note_crash(machine);
    } else if (machine->goal == MACHINE_GOAL_ASK) {
        machine_step_asked(machine);
    } else if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_READY &&
               machine->goal == MACHINE_GOAL_RUN && !machine->vcpu_start_sent) {
        machine_send_start(machine);
    }
}

/* Its CPUs have come to rest, so no new requests come to the devices. What is left of its process
 * may take down its memory beside them. */
static void machine_vcpu_stopped(struct child *child, const struct error *err,
                                 const ProtobufCMessage *reply, uint64_t context)
{
    struct machine *machine = child->owner;
    (void)reply, (void)context;

    machine->vcpu_stopped = !err;
    machine_wake(machine);
}

static void machine_stop_vcpu(struct machine *machine, uint64_t now)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuStop stop = POLYVISOR__VCPU_STOP__INIT;

    if (machine->vcpu_stop_sent) {
        if (machine->phase_ns && machine->phase_ns <= now) {
            child_kill(&machine->vcpu);
        }
        return;
    }
    machine->vcpu_stop_sent = true;
    machine->phase_ns = now + MACHINE_VCPU_STOP_MS * NS_PER_MS;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_STOP;
    request.stop = &stop;
    child_request(&machine->vcpu, &request.base, MACHINE_VCPU_STOP_MS, machine_vcpu_stopped, 0);
}

static void machine_stop_device(struct machine_device *device, uint64_t now)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceStop stop = POLYVISOR__DEVICE_STOP__INIT;
    struct machine *machine = device->machine;

    if (device->stopping) {
        if (machine->phase_ns && machine->phase_ns <= now) {
            child_kill(&device->child);
        }
        return;
    }
    device->stopping = true;
    machine->phase_ns = now + MACHINE_DEVICE_STOP_MS * NS_PER_MS;
    descriptor_close(&device->namespace_fd); /* all may take theirs down at once */
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_STOP;
    request.stop = &stop;
    child_request(&device->child, &request.base, MACHINE_DEVICE_STOP_MS, child_dismiss, 0);
}

static void machine_step_stopping(struct machine *machine)
{
    uint64_t now = clock_monotonic_ns();
    bool kill_all = machine->goal == MACHINE_GOAL_KILL;
    bool vcpu_running = machine->vcpu.running;
    bool any_running = vcpu_running;

    if (vcpu_running && kill_all) {
        child_kill(&machine->vcpu);
    } else if (vcpu_running) {
        machine_stop_vcpu(machine, now);
    }
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (!device->child.running && (kill_all || !machine_revive_device(device))) {
            continue;
        }
        any_running = true;
        if (kill_all) {
            child_kill(&device->child);
        } else if (!vcpu_running || machine->vcpu_stopped) { /* the guest is quiet */
            machine_stop_device(device, now);
        }
    }
    if (machine->phase_ns && machine->phase_ns <= now) {
        machine->phase_ns = 0; /* who missed it was killed above */
    }
    if (!any_running) {
        machine_finish(machine);
    }
}

/* The earlier of two times, of which 0 is never. */
static uint64_t machine_earlier(uint64_t one, uint64_t other)
{
    return !one || (other && other < one) ? other : one;
}

/* Look again at `next`, or at one of the machine's own deadlines. */
static void machine_arm_timer(struct machine *machine, uint64_t next)
{
    uint64_t now = clock_monotonic_ns();

    next = machine_earlier(next, machine->ask_ns);
    next = machine_earlier(next, machine->phase_ns);
    next = machine_earlier(next, machine->panic_ns);
    if (!next) {
        evtimer_del(machine->timer_event);
        return;
    }
    const struct timeval timeout = clock_timeval(next > now ? next - now : 0);
    evtimer_add(machine->timer_event, &timeout);
}

/* Look at what is so, do what is next. */
static void machine_step(evutil_socket_t fd, short what, void *argument)
{
    struct machine *machine = argument;
    uint64_t next = 0;
    (void)fd, (void)what;

    switch (machine->state) {
    case POLYVISOR__MACHINE_STATE__MACHINE_STARTING:
        machine_step_starting(machine);
        break;
    case POLYVISOR__MACHINE_STATE__MACHINE_READY:
    case POLYVISOR__MACHINE_STATE__MACHINE_RUNNING:
        machine_step_up(machine);
        if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_STOPPING) {
            next = machine_recover_devices(machine);
            next = machine_earlier(next, machine_step_plugs(machine));
            next = machine_earlier(next, machine_prepare_spares(machine));
        }
        break;
    case POLYVISOR__MACHINE_STATE__MACHINE_STOPPING:
        machine_step_stopping(machine);
        break;
    default:
        break;
    }
    machine_arm_timer(machine, next);
}

void machine_look_at_processes(struct machine *machine)
{
    child_look(&machine->vcpu);
    for (size_t i = 0; i < machine->device_count; i++) {
        child_look(&machine->devices[i]->child);
    }
}

void machine_wake(struct machine *machine)
{
    event_active(machine->step_event, EV_TIMEOUT, 0);
}

static void machine_on_timer(evutil_socket_t fd, short what, void *argument)
{
    machine_step(fd, what, argument);
}

/* ---- what its processes report ---- */

/* The first error of a start is the one that is told; a launch that failed told its own. */
static void machine_note_error(struct machine *machine, const struct error *err)
{
    if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_STARTING &&
        machine->last_error.code == ERROR_OK) {
        machine->last_error = *err;
    }
    machine_wake(machine);
}

void machine_vcpu_configured(struct child *child, const struct error *err,
                             const ProtobufCMessage *reply, uint64_t context)
{
    struct machine *machine = child->owner;
    (void)reply, (void)context;

    if (err) {
        machine_note_error(machine, err);
    } else {
        machine->vcpu_ready = true;
        machine_wake(machine);
    }
}

void machine_device_configured(struct child *child, const struct error *err,
                               const ProtobufCMessage *reply, uint64_t context)
{
    struct machine_device *device = child->owner;
    struct machine *machine = device->machine;
    (void)context;

    machine_device_describe(device, reply);
    device->lived |= !err;
    if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_STARTING) {
        device->ready = !err;
        device->started_ns = clock_monotonic_ns();
        device->namespace_fd = spare_hold_namespace(child->pid);
        if (err) {
            machine_note_error(machine, err);
        }
        machine_wake(machine);
    } else if (machine_is_idle(machine)) {
        /* A launch that failed lets go of what it had started. */
    } else if (machine_plug_configured(device, err)) {
        /* It is not, or no longer, the guest's. */
    } else if (err) {
        /* A restarted device that cannot go on is a dead one; of one that died it is told then. */
        if (child->running) {
            machine_event(machine, "device-refused", child->role, "%s", err->message);
        }
        child_kill(child);
    } else if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_STOPPING) {
        device->ready = true;
        child_heartbeat_start(child);
        machine_event(machine, "device-restarted", child->role,
                      "pid %ld, %llu ms after the end of the last one", (long)child->pid,
                      (unsigned long long)(clock_monotonic_ns() - device->died_ns) / NS_PER_MS);
        machine_keep_spare(device);
        machine_wake(machine); /* a key may have to be pressed */
    }
}

static void machine_on_vcpu_exit(struct child *child)
{
    machine_wake(child->owner);
}

static void machine_on_device_exit(struct child *child)
{
    machine_wake(((struct machine_device *)child->owner)->machine);
}

static void machine_on_hang(struct machine *machine, struct child *child)
{
    machine_event(machine, "hung", child->role, "it %s, killing it",
                  child->stopped ? "was stopped" : "does not answer");
    child_kill(child);
}

static void machine_on_vcpu_hang(struct child *child)
{
    struct machine *machine = child->owner;

    error_set(&machine->last_error, ERROR_CRASHED, ETIMEDOUT, "vcpud did not answer for %d s",
              CHILD_HEARTBEAT_MS * CHILD_HEARTBEAT_MISSED_PRECIOUS / 1000);
    error_component(&machine->last_error, "vcpud");
    machine_on_hang(machine, child);
}

/* A guest that somebody stands still may go on: that is for them to say. */
static void machine_on_vcpu_held(struct child *child, bool stopped)
{
    machine_event(child->owner, stopped ? "held" : "released", child->role, "%s",
                  stopped ? "somebody stopped its process; SIGCONT lets the guest go on"
                          : "the guest goes on");
}

static void machine_on_device_hang(struct child *child)
{
    machine_on_hang(((struct machine_device *)child->owner)->machine, child);
}

static bool machine_device_waited_for(struct child *child)
{
    return machine_device_kick_waits(child->owner);
}

static void machine_on_notice(struct child *child, const ProtobufCMessage *message)
{
    const Polyvisor__VcpuReply *notice = (const Polyvisor__VcpuReply *)message;
    struct machine *machine = child->owner;

    switch (notice->notice) {
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF:
        machine->guest_ended = true;
        break;
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_GUEST_FAILURE:
        if (machine->guest_ended) {
            break; /* it is told until we act */
        }
        machine->guest_ended = true;
        machine->guest_code = notice->guest_code ? notice->guest_code : 1;
        machine_event(machine, "guest-failure", child->role, "code %u", machine->guest_code);
        break;
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET:
        if (!machine_may_tell(&machine->reset_told_ns)) {
            /* a guest that does nothing else */
        } else if (notice->guest_code) {
            machine_event(machine, "reset", child->role,
                          "the guest restarted, because of a failure (reason %u)",
                          notice->guest_code);
        } else {
            machine_event(machine, "reset", child->role, "the guest restarted");
        }
        machine_panicked_reset(machine);
        break;
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT:
        machine_device_late(machine, notice->device);
        break;
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_SLOW:
        machine_device_slow(machine, notice->device);
        break;
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK:
        machine_device_stuck(machine, notice->device);
        break;
    case POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_COMPILER_WANTED:
        if (machine_wants_compiler(machine)) {
            compiler_wanted(machine->host->compiler);
        }
        break;
    default:
        log_warning("%s of '%s' sent an unknown notice", child->role, machine->config->name);
        break;
    }
    machine_wake(machine);
}

const struct child_callbacks machine_vcpu_callbacks = {
    .exited = machine_on_vcpu_exit,
    .hung = machine_on_vcpu_hang,
    .held = machine_on_vcpu_held,
    .precious = true,
    .notice = machine_on_notice,
};

const struct child_callbacks machine_device_callbacks = {
    .exited = machine_on_device_exit,
    .hung = machine_on_device_hang,
    .waited_for = machine_device_waited_for,
    .notice = machine_device_notice,
};

/* ---- requests ---- */

static int machine_wrong_state(const struct machine *machine, const char *what, const char *hint,
                               struct error *err)
{
    error_set(err, ERROR_STATE, 0, "machine '%s' is %s", machine->config->name, what);
    error_hint(err, hint, machine->config->name);
    return -ERROR_STATE;
}

int machine_start(struct machine *machine, bool hold, uint64_t promised, struct error *err)
{
    Polyvisor__MachineState before = machine->state;

    if (before == POLYVISOR__MACHINE_STATE__MACHINE_STARTING ||
        before == POLYVISOR__MACHINE_STATE__MACHINE_READY) {
        if (machine->goal <= MACHINE_GOAL_RUN && !hold) {
            machine->goal = MACHINE_GOAL_RUN;
        }
        machine_wake(machine);
        return 0;
    }
    if (!machine_is_idle(machine)) {
        bool running = before == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING;
        return machine_wrong_state(
            machine, running ? "already running" : "stopping",
            running ? "see it with: vmctl show %s" : "wait for its end: vmctl show %s", err);
    }
    int result = budget_check(machine->config->memory_bytes, promised, err);
    result = result ? result : machine_launch(machine, err);
    if (result) {
        return result;
    }
    error_clear(&machine->last_error);
    machine->end_state = before;
    machine->guest_code = 0;
    machine_forget_panics(machine);
    machine->goal = hold ? MACHINE_GOAL_HOLD : MACHINE_GOAL_RUN;
    machine_set_state(machine, POLYVISOR__MACHINE_STATE__MACHINE_STARTING);
    return 0;
}

int machine_stop(struct machine *machine, uint32_t timeout_ms, struct error *err)
{
    if (machine_is_idle(machine)) {
        return machine_wrong_state(machine, "not running", "start it with: vmctl start %s", err);
    }
    if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_STARTING) {
        machine_begin_end(machine, MACHINE_GOAL_KILL, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                          "stopped");
    } else if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING && timeout_ms) {
        machine_ask_guest(machine, timeout_ms);
    } else if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_STOPPING) {
        machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                          "stopped");
    }
    return 0;
}

int machine_kill(struct machine *machine, struct error *err)
{
    if (machine_is_idle(machine)) {
        return machine_wrong_state(machine, "not running", "start it with: vmctl start %s", err);
    }
    machine_begin_end(machine, MACHINE_GOAL_KILL, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                      "killed");
    return 0;
}

/* Ask vcpud something that only a started machine can answer. */
static int machine_ask_vcpu(struct machine *machine, Polyvisor__VcpuRequest *request,
                            child_reply_fn *reply, uint64_t context, struct error *err)
{
    if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_READY &&
        machine->state != POLYVISOR__MACHINE_STATE__MACHINE_RUNNING) {
        return machine_wrong_state(machine, "not running", "start it with: vmctl start %s", err);
    }
    int result = child_request(&machine->vcpu, &request->base, MACHINE_LOOK_MS, reply, context);
    if (result == -ESRCH) { /* it died a moment ago, and the machine's step is still to come */
        return error_set(err, ERROR_CRASHED, 0, "vcpud of '%s' has ended", machine->config->name);
    }
    return result ? error_set(err, ERROR_INTERNAL, -result, "cannot ask vcpud of '%s': %s",
                              machine->config->name, strerror(-result))
                  : 0;
}

int machine_ask_stats(struct machine *machine, child_reply_fn *reply, uint64_t context,
                      struct error *err)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuStatsRequest stats = POLYVISOR__VCPU_STATS_REQUEST__INIT;

    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_STATS;
    request.stats = &stats;
    return machine_ask_vcpu(machine, &request, reply, context, err);
}

int machine_ask_code(struct machine *machine, const Polyvisor__CodeRequest *code,
                     child_reply_fn *reply, uint64_t context, struct error *err)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__CodeRequest copy = *code;

    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CODE;
    request.code = &copy;
    return machine_ask_vcpu(machine, &request, reply, context, err);
}

bool machine_is_idle(const struct machine *machine)
{
    return machine->state == POLYVISOR__MACHINE_STATE__MACHINE_CREATED ||
           machine->state == POLYVISOR__MACHINE_STATE__MACHINE_STOPPED ||
           machine->state == POLYVISOR__MACHINE_STATE__MACHINE_CRASHED;
}

uint64_t machine_promised_bytes(const struct machine *machine)
{
    return machine->ram_fd < 0 ? 0
                               : budget_untouched(machine->ram_fd, machine->config->memory_bytes);
}

/* ---- its making and removal ---- */

static int machine_make_directory(const struct machine *machine, struct error *err)
{
    char parent[MACHINE_DIRECTORY_MAX];

    snprintf(parent, sizeof(parent), "%s/vms", machine->host->directory);
    if ((mkdir(parent, 0700) < 0 && errno != EEXIST) ||
        (mkdir(machine->directory, 0700) < 0 && errno != EEXIST)) {
        return error_set(err, ERROR_IO, errno, "cannot make directory '%s': %s", machine->directory,
                         strerror(errno));
    }
    return 0;
}

static struct machine *machine_new(const struct machine_host *host,
                                   Polyvisor__MachineConfig *config, struct error *err)
{
    struct machine *machine = calloc(1, sizeof(*machine));

    if (!machine) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    machine->host = host;
    machine->config = config;
    machine->end_reason = "";
    machine->state = POLYVISOR__MACHINE_STATE__MACHINE_CREATED;
    machine->ram_fd = machine->codemap_fd = -1;
    machine->kernel_fd = machine->initrd_fd = machine->firmware_fd = -1;
    machine->perf_file.fd = -1;
    machine->handover_fds[0] = machine->handover_fds[1] = -1;
    machine->transports_fds[0] = machine->transports_fds[1] = -1;
    snprintf(machine->directory, sizeof(machine->directory), "%s/vms/%s", host->directory,
             config->name);
    snprintf(machine->vcpu_path, sizeof(machine->vcpu_path), "%.*s/vcpud.sock",
             (int)sizeof(machine->vcpu_path) - 16, machine->directory);
    snprintf(machine->jit_path, sizeof(machine->jit_path), "%.*s/jit.sock",
             (int)sizeof(machine->jit_path) - 16, machine->directory);
    machine->step_event = event_new(host->base, -1, 0, machine_step, machine);
    machine->timer_event = evtimer_new(host->base, machine_on_timer, machine);
    if (!machine->step_event || !machine->timer_event) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    } else if (!machine_make_directory(machine, err)) {
        return machine;
    }
    machine->config = NULL; /* still the caller's */
    machine_destroy(machine, false);
    return NULL;
}

struct machine *machine_create(const struct machine_host *host, Polyvisor__MachineConfig *config,
                               struct error *err)
{
    struct machine *machine = machine_new(host, config, err);

    if (!machine) {
        return NULL;
    }
    int result = machine_save(machine);
    if (result) {
        error_set(err, ERROR_IO, -result, "cannot write the record of '%s': %s", config->name,
                  strerror(-result));
        machine->config = NULL; /* still the caller's */
        machine_destroy(machine, true);
        return NULL;
    }
    machine_event(machine, "created", "", "%s", config->arch);
    return machine;
}

struct machine *machine_load(const struct machine_host *host, Polyvisor__MachineRecord *record,
                             struct error *err)
{
    static const char *const reasons[] = {"power-off", "stopped",  "killed",        "guest-failure",
                                          "crashed",   "watchdog", PANIC_END_REASON};
    struct machine *machine = machine_new(host, record->config, err);

    if (!machine) {
        return NULL;
    }
    record->config = NULL;
    machine->guest_code = record->guest_code;
    machine->panic_count = record->guest_panics;
    snprintf(machine->panic_text, sizeof(machine->panic_text), "%s", record->guest_panic);
    error_from_message(&machine->last_error, record->last_error);
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (!strcmp(record->end_reason, reasons[i])) {
            machine->end_reason = reasons[i];
        }
    }
    machine->state = record->state;
    if (!machine_is_idle(machine)) {
        /* It ran when vmmd was killed, and its processes have been killed since. */
        machine->state = POLYVISOR__MACHINE_STATE__MACHINE_STOPPED;
        machine->end_reason = "killed";
        error_set(&machine->last_error, ERROR_CRASHED, 0, "vmmd ended while the machine ran");
        error_component(&machine->last_error, "vmmd");
    }
    machine_save(machine);
    return machine;
}

void machine_destroy(struct machine *machine, bool remove)
{
    machine_release(machine);
    if (machine->step_event) {
        event_free(machine->step_event);
    }
    if (machine->timer_event) {
        event_free(machine->timer_event);
    }
    cleanup_machine_directory(machine->directory, remove);
    if (machine->config) {
        polyvisor__machine_config__free_unpacked(machine->config, NULL);
    }
    free(machine);
}
