/* Between the files that make up a machine: machine.c its life, machine_start.c its resources and
 * processes, machine_recovery.c its devices' restarts, machine_power.c how the guest is asked to
 * power off, machine_hotplug.c how devices come and go, machine_record.c what is told about it,
 * machine_network.c and machine_disk.c what is special about cards and disks, machine_limits.c the
 * limits of both, machine_watchdog.c and machine_panic.c what becomes of a guest that is in
 * trouble. */
#ifndef POLYVISOR_VMMD_MACHINE_INTERNAL_H
#define POLYVISOR_VMMD_MACHINE_INTERNAL_H

#include "vmmd/machine.h"

/* Make memory, devices and processes, which then run and are being configured. 0, or a negative
 * code with nothing left. */
int machine_launch(struct machine *machine, struct error *err);
/* Close everything that machine_launch made; kills what still runs. */
void machine_release(struct machine *machine);
/* Start a device's process again, after its death. 0 or a negative code. */
int machine_relaunch_device(struct machine_device *device, struct error *err);
/* A device that is well: have a spare ready in case that it dies. */
void machine_keep_spare(struct machine_device *device);

/* Forget the device at that place of the list: its process is killed if it runs, and what it owns
 * is closed. */
void machine_drop_device(struct machine *machine, size_t at);
/* The transport socket of that number that vcpud binds for devices to come. `path` has
 * DEVICE_PATH_MAX bytes. */
void machine_spare_path(const struct machine *machine, unsigned number, char *path);

/* Go on with what is being plugged in and out. When to look again (clock_monotonic_ns), or 0. */
uint64_t machine_step_plugs(struct machine *machine);
/* The machine ends: all of it is over, and answered. */
void machine_cancel_plugs(struct machine *machine);
/* A device's process answered its configuration. True when that was part of plugging. */
bool machine_plug_configured(struct machine_device *device, const struct error *err);

/* Whether its engine makes use of jitd, and there may be one. */
bool machine_wants_compiler(const struct machine *machine);

/* Write down what a later vmmd needs. 0, or negative errno; failure is logged too, because for a
 * machine that is known it only matters if vmmd is killed. */
int machine_save(struct machine *machine);

/* Restart devices whose processes died, those whose time has come. The time of the next restart
 * that is due (clock_monotonic_ns), or 0. */
uint64_t machine_recover_devices(struct machine *machine);
/* Have a spare for each device that has run long enough, one after the other. When the next is due
 * (clock_monotonic_ns), or 0. */
uint64_t machine_prepare_spares(struct machine *machine);
/* While the machine ends in order: start the process of a device that died, so that what the guest
 * had posted is done and what it printed is delivered. True when it runs again. */
bool machine_revive_device(struct machine_device *device);
/* vcpud cannot reset the guest because device `id` (any text) does not let go of its memory: end
 * its process, and tell vcpud once it has ended. */
void machine_device_stuck(struct machine *machine, const char *id);

/* A CPU waits for device `id` (any text): see whether its process hangs. */
void machine_device_slow(struct machine *machine, const char *id);

/* Likewise, one that missed a deadline: events tell of that. */
void machine_device_late(struct machine *machine, const char *id);

/* Note it, in the record too, and tell who waits for it. */
void machine_set_state(struct machine *machine, Polyvisor__MachineState state);
/* Begin the end: `end_state` and `reason` are what it ends in. Once it has begun, only its goal can
 * get harsher. */
void machine_begin_end(struct machine *machine, enum machine_goal goal,
                       Polyvisor__MachineState end_state, const char *reason);

/* Ask a running guest to power off, at most for timeout_ms: from now on machine_step_asked, part of
 * the step, presses its power key - again when the key's process died - and ends the machine when
 * there is nobody to ask or the time is over. */
void machine_ask_guest(struct machine *machine, uint32_t timeout_ms);
void machine_step_asked(struct machine *machine);

/* "" or the text of an error for people: message and hint. */
void machine_event(struct machine *machine, const char *kind, const char *component,
                   const char *detail, ...) __attribute__((format(printf, 4, 5)));

/* The limits of a disk or a card; "" for none. */
void machine_device_limits(const struct machine_device *device, char text[LIMIT_TEXT_MAX]);

/* Whether what a process says may be passed on to people: not ten times a second. `*told_ns` (0:
 * never yet) is when that was last done. */
bool machine_may_tell(uint64_t *told_ns);
/* What a device's process says of itself when it is configured, and unasked. */
void machine_device_describe(struct machine_device *device, const ProtobufCMessage *reply);
void machine_device_notice(struct child *child, const ProtobufCMessage *message);

/* The machine's watchdog expired for the `count`th time (any text): act as its setting says. */
void machine_watchdog_expired(struct machine_device *device, const char *count);
/* Why a machine ended whose guest's kernel panicked. */
#define PANIC_END_REASON "guest-panic"
/* A console's process says what it read of a panic of the guest's kernel (any text; the same again
 * and again): tell of it, and act as the machine's configuration says. */
void machine_guest_panicked(struct machine_device *device, const char *report);
/* The guest was reset: had it panicked, that is the end of it. */
void machine_panicked_reset(struct machine *machine);
/* Part of the step: begin the machine's end when its guest panicked and that is wanted. */
bool machine_step_panicked(struct machine *machine);
/* A start: it has not panicked yet. */
void machine_forget_panics(struct machine *machine);

/* Callbacks of its children. */
extern const struct child_callbacks machine_vcpu_callbacks;
extern const struct child_callbacks machine_device_callbacks;
/* The answers to configurations. */
void machine_vcpu_configured(struct child *child, const struct error *err,
                             const ProtobufCMessage *reply, uint64_t context);
void machine_device_configured(struct child *child, const struct error *err,
                               const ProtobufCMessage *reply, uint64_t context);

#endif
