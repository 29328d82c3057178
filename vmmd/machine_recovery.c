/* A device process died: start it again on the same descriptors, ever more slowly, and give up
 * when it keeps dying. The machine goes on in any case. */
#include "libshared/base/clock.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/machine_internal.h"
#include <signal.h>
#include <string.h>

#define RECOVERY_DEATHS_MAX 5                 /* of itself, in a row; then the device stays dead */
#define RECOVERY_STABLE_NS  (60 * NS_PER_S)   /* a life that long ends the row */
#define RECOVERY_DELAY_NS   (100 * NS_PER_MS) /* before the second restart; doubles */
#define RECOVERY_EARLY_MAX  3 /* killed while they started, in a row; then not at once any more */
#define RECOVERY_TELL_MS    5000
#define RECOVERY_REVIVALS   5 /* while a machine ends, which must not take for ever */
/* Between two spares, for the guest has the processors; and before one that failed is tried again.
 */
#define RECOVERY_SPARE_PAUSE_NS (500 * NS_PER_MS)
#define RECOVERY_SPARE_AGAIN_NS (60 * NS_PER_S)

static void recovery_tell_gone(struct machine_device *device)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuDeviceGone gone = POLYVISOR__VCPU_DEVICE_GONE__INIT;

    device->stuck = false;
    gone.device = device->id;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_DEVICE_GONE;
    request.device_gone = &gone;
    /* Should it be lost, vcpud tells again that it waits. */
    child_request(&device->machine->vcpu, &request.base, RECOVERY_TELL_MS, NULL, 0);
}

void machine_device_stuck(struct machine *machine, const char *id)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (strcmp(device->id, id) || device->stuck) {
            continue;
        }
        device->stuck = true;
        if (device->child.pid) {
            machine_event(machine, "device-stuck", device->child.role,
                          "it holds up the guest's reset, killing it");
            child_kill(&device->child);
        } else { /* between two processes, or given up */
            recovery_tell_gone(device);
        }
    }
}

void machine_device_late(struct machine *machine, const char *id)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (!strcmp(device->id, id) && machine_may_tell(&device->late_told_ns)) {
            machine_event(machine, "device-timeout", machine->vcpu.role, "%s missed its deadline",
                          device->id);
        }
    }
    machine_device_slow(machine, id);
}

void machine_device_slow(struct machine *machine, const char *id)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        if (!strcmp(machine->devices[i]->id, id) && machine->devices[i]->child.pid) {
            child_doubt(&machine->devices[i]->child);
        }
    }
}

/* Somebody else killed it, or stopped it for so long that it had to be: no reason to think that
 * the next one will die, too. */
static bool recovery_was_murder(const struct child *child)
{
    return child->exit_signal == SIGKILL && (!child->put_down || child->stopped);
}

/* Its process has ended: take note, decide when to try again. */
static void recovery_note_death(struct machine_device *device, uint64_t now)
{
    bool counts = !recovery_was_murder(&device->child);
    bool worked = device->ready;
    char text[64];

    child_describe_end(&device->child, text, sizeof(text));
    machine_event(device->machine, "device-died", device->child.role, "its process %s", text);
    reaper_take(device->machine->host->reaper, child_inherit(&device->child));
    child_release(&device->child);
    device->died_ns = now;
    device->ready = false;
    if (device->stuck) {
        recovery_tell_gone(device);
    }
    if (now - device->started_ns >= RECOVERY_STABLE_NS) {
        device->deaths = 0;
    }
    device->deaths += counts;
    device->early_deaths = worked ? 0 : device->early_deaths + 1;
    /* Who kills each of them at once shall not keep us busy. */
    uint64_t delay = device->early_deaths > RECOVERY_EARLY_MAX ? RECOVERY_DELAY_NS : 0;
    if (counts) {
        delay = device->deaths > 1 ? RECOVERY_DELAY_NS << (device->deaths - 2) : 0;
    }
    device->restart_ns = now + delay;
}

static void recovery_restart(struct machine_device *device, uint64_t now)
{
    struct error err;

    device->restart_ns = 0;
    if (device->deaths > RECOVERY_DEATHS_MAX) {
        device->failed = true;
        spare_discard(&device->spare);
        machine_device_show_failed(device, true);
        machine_event(device->machine, "device-failed", device->id,
                      "gave up after %u deaths in a row", device->deaths);
        return;
    }
    device->started_ns = now;
    device->restarts++;
    machine_device_show_failed(device, false);
    if (machine_relaunch_device(device, &err)) {
        machine_event(device->machine, "device-died", device->id, "%s", err.message);
        device->deaths++;
        device->restart_ns = now + (RECOVERY_DELAY_NS << device->deaths);
    }
}

uint64_t machine_recover_devices(struct machine *machine)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t next = 0;

    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (device->plug.phase == PLUG_ENDING) {
            continue; /* machine_step_plugs */
        }
        if (device->child.pid && !device->child.running) {
            recovery_note_death(device, now);
        }
        if (device->restart_ns && device->restart_ns <= now) {
            recovery_restart(device, now);
        }
        if (device->restart_ns && (!next || device->restart_ns < next)) {
            next = device->restart_ns;
        }
    }
    return next;
}

/* When this device is to get a spare; 0: not now. */
static uint64_t recovery_spare_due(const struct machine_device *device)
{
    const struct machine *machine = device->machine;

    if (!device->ready || !device->child.running || device->spare.pid || device->failed ||
        device->plug.phase != PLUG_RESTS) {
        return 0;
    }
    uint64_t due = device->started_ns + machine->host->spare_ns;
    due = due > device->spare_ns ? due : device->spare_ns;
    return due > machine->spare_ns ? due : machine->spare_ns;
}

uint64_t machine_prepare_spares(struct machine *machine)
{
    uint64_t now = clock_monotonic_ns(), next = 0;

    if (!machine->host->spare_ns || machine->state != POLYVISOR__MACHINE_STATE__MACHINE_RUNNING) {
        return 0;
    }
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        uint64_t due = recovery_spare_due(device);
        if (due && due <= now) {
            device->spare_ns = now + RECOVERY_SPARE_AGAIN_NS;
            machine->spare_ns = now + RECOVERY_SPARE_PAUSE_NS;
            machine_keep_spare(device);
            due = recovery_spare_due(device);
        }
        if (due && (!next || due < next)) {
            next = due;
        }
    }
    return next;
}

bool machine_revive_device(struct machine_device *device)
{
    const struct child *child = &device->child;
    uint64_t now = clock_monotonic_ns();
    struct error err;

    /* One that was put down for its deadline has had its time; one that ended by itself is done. */
    bool died = child->pid && child->exit_signal && (!child->put_down || child->stopped);
    if ((!died && !device->restart_ns) || device->failed || device->revivals >= RECOVERY_REVIVALS) {
        return false;
    }
    if (died) {
        recovery_note_death(device, now);
    }
    device->revivals++;
    device->restarts++;
    device->restart_ns = 0;
    device->started_ns = now;
    if (machine_relaunch_device(device, &err)) {
        machine_event(device->machine, "device-died", device->id, "%s", err.message);
        return false;
    }
    return true;
}

int machine_restart_device(struct machine *machine, const char *id, struct error *err)
{
    if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_READY &&
        machine->state != POLYVISOR__MACHINE_STATE__MACHINE_RUNNING) {
        return error_set(err, ERROR_STATE, 0, "machine '%s' is not running", machine->config->name);
    }
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (strcmp(device->id, id)) {
            continue;
        }
        device->failed = false;
        device->deaths = 0;
        if (device->child.pid) {
            child_kill(&device->child); /* its end is followed by a restart at once */
        } else {
            device->restart_ns = clock_monotonic_ns();
            machine_wake(machine);
        }
        return 0;
    }
    error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no device '%.40s'", machine->config->name,
              id);
    error_hint(err, "'vmctl device list %s' shows its devices", machine->config->name);
    return -ERROR_NOT_FOUND;
}
