/*
 * A machine as the supervisor sees it: configuration, state, the memory and descriptors it owns,
 * and its processes.
 *
 * The life of a running machine is one function, machine_step (machine.c): whatever happens - a
 * request, an answer, a process's end, a deadline - is noted down and wakes the machine; the step
 * looks at what is so and does what is next. So nothing is freed under a callback's feet.
 * Everything runs on the event loop's thread and never waits.
 */
#ifndef POLYVISOR_VMMD_MACHINE_H
#define POLYVISOR_VMMD_MACHINE_H

#include "libshared/base/error.h"
#include "libshared/limit/setting.h"
#include "proto/control.pb-c.h"
#include "proto/state.pb-c.h"
#include "vmmd/child.h"
#include "vmmd/compiler.h"
#include "vmmd/confinement.h"
#include "vmmd/events.h"
#include "vmmd/machine_device.h"
#include "vmmd/perf_file.h"
#include "vmmd/reaper.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define MACHINE_CONFIGURE_MS 30000 /* a process's answer to its configuration: bounds a hang */
#define MACHINE_VCPU_STOP_MS 5000
/* Its disk may have much to flush; its console waits 5 s for who reads nothing, and longer for who
 * reads slowly. One that hangs is found by its heartbeat. */
#define MACHINE_DEVICE_STOP_MS 60000
#define MACHINE_DIRECTORY_MAX  192
#define PANIC_TEXT_MAX         128
#define MACHINE_PROCESSES_MAX  (2 + DEVICES_MAX)

/* What machines need of the supervisor they live in. */
struct machine_host {
    struct event_base *base;
    struct reaper *reaper; /* of devices' processes; NULL: they are collected at once */
    struct publisher *publisher;
    struct compiler *compiler; /* NULL: there is none */
    const char *directory;     /* runtime directory */
    const char *programs;      /* folder of vcpud and devd */
    uint64_t spare_ns; /* how long a device runs until it has a spare; 0: see supervisor.h */
    /* A machine's state changed, once for every change. Must not remove it. */
    void (*changed)(struct machine *machine, void *context);
    void *context;
};

enum machine_goal {
    MACHINE_GOAL_HOLD, /* get ready, then wait for a second start */
    MACHINE_GOAL_RUN,
    MACHINE_GOAL_ASK, /* the guest is asked to power off; then as MACHINE_GOAL_END */
    MACHINE_GOAL_END, /* stop each process in order */
    MACHINE_GOAL_KILL,
};

struct machine {
    TAILQ_ENTRY(machine) link;
    const struct machine_host *host;
    Polyvisor__MachineConfig *config; /* own copy, validated */
    char directory[MACHINE_DIRECTORY_MAX];

    Polyvisor__MachineState state;
    Polyvisor__MachineState end_state; /* where it goes once all processes have ended */
    enum machine_goal goal;
    const char *end_reason; /* "" until the first end */
    uint32_t guest_code;
    uint64_t started_ns; /* CLOCK_REALTIME, 0 = never */
    struct error last_error;

    int ram_fd, codemap_fd, kernel_fd, initrd_fd, firmware_fd; /* -1 = none */
    struct perf_file perf_file;                                /* while vcpud is being started */
    char vcpu_path[DEVICE_PATH_MAX];
    char jit_path[DEVICE_PATH_MAX]; /* that vcpud binds for jitd */
    struct child vcpu;
    bool vcpu_ready; /* configured */
    bool vcpu_start_sent;
    bool vcpu_stop_sent;
    bool vcpu_stopped;                           /* it said that its CPUs have come to rest */
    bool guest_ended;                            /* power-off or failure was reported */
    struct machine_device planned[DEVICES_MAX];  /* those of its configuration */
    struct machine_device *devices[DEVICES_MAX]; /* all there are; plugged in later: allocated */
    size_t device_count;
    int handover_fds[2];   /* ours and vcpud's end (libshared/ipc/handover.h); -1 = none */
    int transports_fds[2]; /* while its processes are being started (libshared/ipc/fdlist.h) */
    uint64_t handovers;    /* the number of the last one */

    unsigned panic_count; /* of the guest's kernel, since the start, as its consoles say */
    char panic_text[PANIC_TEXT_MAX];            /* of the last one; "" = none */
    const struct console_panics *panic_console; /* which was the first to tell; NULL = not known */

    struct event *step_event, *timer_event;
    /* Deadlines (clock_monotonic_ns), 0 = none. */
    uint64_t reset_told_ns; /* when the last event told of it */
    uint64_t ask_ns, phase_ns, panic_ns;
    uint64_t spare_ns; /* before that no spare is started; not a deadline of its own */
};

/* A machine of this configuration, whose ownership it takes on success. Makes its directory and
 * record; none without both. NULL with *err set. */
struct machine *machine_create(const struct machine_host *host, Polyvisor__MachineConfig *config,
                               struct error *err);
/* A machine from the record that an earlier vmmd left; takes record->config on success. */
struct machine *machine_load(const struct machine_host *host, Polyvisor__MachineRecord *record,
                             struct error *err);
/* Forget it. What still runs is killed; with `remove` its directory goes too. */
void machine_destroy(struct machine *machine, bool remove);

/* Start it, or let a held one go on. `promised` is the memory that the other machines may still
 * take. 0 when under way: machine_host.changed tells the rest; or a negative code. */
int machine_start(struct machine *machine, bool hold, uint64_t promised, struct error *err);
/* Have the guest power off, if the machine has a way to ask; after timeout_ms, stop it. */
int machine_stop(struct machine *machine, uint32_t timeout_ms, struct error *err);
int machine_kill(struct machine *machine, struct error *err);
/* Replace the process of device `id` (any text), also of one that was given up. The guest's
 * requests go on in the next one. 0, or a negative code. */
int machine_restart_device(struct machine *machine, const char *id, struct error *err);
/* The guest's counters; `reply` as for child_request. */
int machine_ask_stats(struct machine *machine, child_reply_fn *reply, uint64_t context,
                      struct error *err);
/* What the engine makes of guest code; likewise. */
int machine_ask_code(struct machine *machine, const Polyvisor__CodeRequest *code,
                     child_reply_fn *reply, uint64_t context, struct error *err);

/* Plug or pull the cable of card `id` ("net0"). It stays so until the machine ends. 0 or a negative
 * code. */
int machine_set_link(struct machine *machine, const char *id, bool up, struct error *err);

/* Limit the traffic of disk or card `id` ("disk0"), as libshared/limit/setting.h says, from now on;
 * also of a machine that does not run. 0 or a negative code. */
int machine_set_limits(struct machine *machine, const char *id, const char *words,
                       struct error *err);

/* Make a disk larger, or smaller, and tell the guest; `reply` as for child_request. */
int machine_resize_disk(struct machine *machine, const Polyvisor__DiskResizeRequest *resize,
                        child_reply_fn *reply, uint64_t context, struct error *err);

/* Change the balloon, or ask about it; `reply` as for child_request, with a balloon report. */
int machine_balloon(struct machine *machine, const Polyvisor__BalloonRequest *wanted,
                    child_reply_fn *reply, uint64_t context, struct error *err);

/* Plug in what `wanted` says, or unplug device `id` (any text), while it runs. The guest's driver
 * must have let go of the device within timeout_ms, else the answer is ERROR_BUSY; with `force` it
 * is pulled out. `done` is called later, once. 0 when under way, or a negative code. */
int machine_attach_device(struct machine *machine, const Polyvisor__DeviceAttachRequest *wanted,
                          machine_plug_fn *done, uint64_t context, struct error *err);
int machine_detach_device(struct machine *machine, const Polyvisor__DeviceDetachRequest *wanted,
                          machine_plug_fn *done, uint64_t context, struct error *err);

/* No processes: created, stopped or crashed. */
bool machine_is_idle(const struct machine *machine);
/* Memory that it was promised and has not touched. */
uint64_t machine_promised_bytes(const struct machine *machine);
/* A child of vmmd has changed (SIGCHLD): see whether one of the machine's was stopped. */
void machine_look_at_processes(struct machine *machine);
/* Have machine_step run soon. */
void machine_wake(struct machine *machine);

/* A machine's description for a response; points into the machine. */
struct machine_view {
    Polyvisor__MachineInfo info;
    Polyvisor__Error error;
    Polyvisor__ProcessInfo processes[MACHINE_PROCESSES_MAX];
    Polyvisor__ProcessInfo *process_list[MACHINE_PROCESSES_MAX];
    Polyvisor__DeviceInfo devices[DEVICES_MAX], *device_list[DEVICES_MAX];
    char confinement[MACHINE_PROCESSES_MAX][CONFINEMENT_TEXT_MAX];
    Polyvisor__PortInfo ports[PORTS_MAX], *port_list[PORTS_MAX];
    char *links_down[CONFIG_NETS_MAX];
    char limits[DEVICES_MAX][LIMIT_TEXT_MAX];
};
void machine_view_init(struct machine_view *view, struct machine *machine);
/* Add how each process is confined, which takes a look at each. */
void machine_view_confinement(struct machine_view *view);

#endif
