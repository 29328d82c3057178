/*
 * Devices that come and go while the machine runs.
 *
 * In: what it needs is opened and its process started; once that has set up the shared state, vcpud
 * gets the descriptors and gives the device to the guest, which sees it when it looks (a rescan).
 * Out: vcpud takes it from the guest as soon as the driver has let go; then its process finishes
 * and flushes, and what it had is closed and unlocked. By force the second comes first: the driver,
 * which knows nothing of it, is then answered with errors by another process (virtio_pulled.c),
 * until it lets go.
 *
 * Each is a walk through enum machine_plug_phase, one step at a time. A process that dies meanwhile
 * is started again like any other (machine_recovery.c); the machine's end cuts everything short.
 */
#include "libshared/base/clock.h"
#include "libshared/ipc/handover.h"
#include "proto/device.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/machine_internal.h"
#include "vmmd/message.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUG_START_MS 30000 /* until its process is configured, restarts and all */
/* vcpud answers or dies: by its heartbeat if need be. While somebody holds it (SIGSTOP) nobody
 * knows what the guest has, and whoever asked has a time of their own. */
#define PLUG_VCPU_MS       (24 * 60 * 60 * 1000)
#define UNPLUG_LOOK_MS     50 /* between looks whether the driver has let go */
#define PULLED_LOOK_MS     200
#define UNPLUG_WAIT_MAX_MS 60000
#define UNPLUG_STOP_MS     15000 /* to finish what is in flight, and to flush */

/* As short as validate.c's longest, so it fits: there are fewer than a hundred. */
void machine_spare_path(const struct machine *machine, unsigned number, char *path)
{
    static const char longest[] = "/spare99.transport.sock";

    snprintf(path, DEVICE_PATH_MAX, "%.*s/spare%u.transport.sock",
             DEVICE_PATH_MAX - (int)sizeof(longest), machine->directory, number);
}

/* ---- the answer ---- */

/* Whoever asked hears what became of it. The device may be gone afterwards: not from here. */
static void plug_answer(struct machine *machine, struct machine_plug *plug, const char *id,
                        const struct error *err)
{
    machine_plug_fn *done = plug->done;

    plug->done = NULL;
    if (done) {
        done(machine, id, err, plug->context);
    }
}

/* It stays, or is, the guest's. */
static void plug_rest(struct machine_device *device, const struct error *err)
{
    device->plug.phase = PLUG_RESTS;
    device->plug.asked = device->plug.force = false;
    plug_answer(device->machine, &device->plug, device->id, err);
}

/* It cannot be had: take back what there is of it. */
static void plug_fail(struct machine_device *device, const struct error *err)
{
    device->plug.phase = PLUG_ENDING;
    device->plug.error = *err;
    device->plug.deadline_ns = 0;
    if (device->child.pid) {
        child_kill(&device->child);
    }
    machine_wake(device->machine);
}

/* ---- in ---- */

static void plug_entered(struct child *child, const struct error *err,
                         const ProtobufCMessage *reply, uint64_t slot)
{
    struct machine *machine = child->owner;
    struct machine_device *device = NULL;
    (void)reply;

    for (size_t i = 0; i < machine->device_count; i++) {
        if (machine->devices[i]->pci_slot == slot &&
            machine->devices[i]->plug.phase == PLUG_ENTERING) {
            device = machine->devices[i];
        }
    }
    if (!device) {
        return; /* the machine ends */
    }
    if (err) {
        plug_fail(device, err);
        return;
    }
    machine_event(machine, "device-attached", device->id, "%s in PCI slot %u", device->kind->kind,
                  device->pci_slot);
    plug_rest(device, NULL);
}

static int plug_hand_over(struct machine_device *device)
{
    struct machine *machine = device->machine;
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuAttach attach = POLYVISOR__VCPU_ATTACH__INIT;
    Polyvisor__VcpuDevice description;
    struct fdlist list = {.count = 0};
    int result = machine_device_list_vcpu(device, &list);

    machine_device_describe_vcpu(device, &description);
    attach.device = &description;
    attach.handover = ++machine->handovers;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_ATTACH;
    request.attach = &attach;
    result = result ? result : handover_send(machine->handover_fds[0], attach.handover, &list);
    return result ? result
                  : child_request(&machine->vcpu, &request.base, PLUG_VCPU_MS, plug_entered,
                                  device->pci_slot);
}

static void plug_step_starting(struct machine_device *device, uint64_t now)
{
    struct error err;

    if (device->failed) {
        error_set(&err, ERROR_CRASHED, 0, "the process of %s keeps dying", device->id);
        error_hint(&err, "'vmctl events' and the log of vmmd say how");
        plug_fail(device, &err);
    } else if (device->ready) {
        int result = plug_hand_over(device);
        device->plug.phase = PLUG_ENTERING;
        if (result) {
            error_set(&err, ERROR_INTERNAL, -result, "vcpud cannot be given %s: %s", device->id,
                      strerror(-result));
            plug_fail(device, &err);
        }
    } else if (now >= device->plug.deadline_ns) {
        error_set(&err, ERROR_TIMEOUT, 0, "the process of %s was not up in time", device->id);
        plug_fail(device, &err);
    }
}

bool machine_plug_configured(struct machine_device *device, const struct error *err)
{
    switch (device->plug.phase) {
    case PLUG_STARTING:
        if (err && err->code != ERROR_CRASHED) { /* a death is followed by another process */
            plug_fail(device, err);
        } else if (!err) {
            device->ready = true;
            device->started_ns = clock_monotonic_ns();
            child_heartbeat_start(&device->child);
            machine_keep_spare(device);
        }
        break;
    case PLUG_PULLED:
        if (err) {
            child_kill(&device->child);
        } else {
            device->ready = true;
            child_heartbeat_start(&device->child);
        }
        break;
    case PLUG_ENDING:
        break;
    default:
        return false;
    }
    machine_wake(device->machine);
    return true;
}

/* ---- out ---- */

static struct machine_device *plug_find(struct machine *machine, const char *id)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        if (!strcmp(machine->devices[i]->id, id)) {
            return machine->devices[i];
        }
    }
    return NULL;
}

static void unplug_refused(struct machine_device *device, const struct error *reason)
{
    struct error err = *reason;

    if (err.code == ERROR_BUSY) {
        error_set(&err, ERROR_BUSY, 0, "the guest's driver has not let go of %s", device->id);
        error_hint(&err,
                   "in the guest: echo 1 > /sys/bus/pci/devices/0000:00:%02x.0/remove; "
                   "then again, or with --force",
                   device->pci_slot);
    }
    plug_rest(device, &err);
}

static void unplug_left(struct child *child, const struct error *err, const ProtobufCMessage *reply,
                        uint64_t slot)
{
    struct machine *machine = child->owner;
    uint64_t now = clock_monotonic_ns();
    (void)reply;

    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        struct machine_plug *plug = &device->plug;
        if (device->pci_slot != slot ||
            (plug->phase != PLUG_LEAVING && plug->phase != PLUG_PULLED)) {
            continue;
        }
        plug->asked = false;
        if (!err || err->code == ERROR_NOT_FOUND) {
            plug->phase = PLUG_ENDING;
            plug->deadline_ns = 0;
            if (device->child.pid) {
                child_heartbeat_stop(&device->child);
            }
        } else if (plug->phase == PLUG_PULLED) {
            plug->retry_ns = now + PULLED_LOOK_MS * NS_PER_MS;
        } else if (err->code == ERROR_BUSY && now < plug->deadline_ns) {
            plug->retry_ns = now + UNPLUG_LOOK_MS * NS_PER_MS;
        } else {
            unplug_refused(device, err);
        }
    }
    machine_wake(machine);
}

static void unplug_ask(struct machine_device *device, uint64_t now)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuDetach detach = POLYVISOR__VCPU_DETACH__INIT;
    struct error err;

    if (device->plug.asked || now < device->plug.retry_ns) {
        return;
    }
    detach.device = device->id;
    detach.force = device->plug.force;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_DETACH;
    request.detach = &detach;
    int result = child_request(&device->machine->vcpu, &request.base, PLUG_VCPU_MS, unplug_left,
                               device->pci_slot);
    device->plug.asked = result == 0;
    if (result) {
        error_set(&err, ERROR_INTERNAL, -result, "vcpud cannot be asked: %s", strerror(-result));
        plug_rest(device, &err);
    }
}

/* Its process has ended: nothing of it is left but an answer. */
static void unplug_finish(struct machine *machine, size_t at)
{
    struct machine_device *device = machine->devices[at];
    struct machine_plug plug = device->plug;
    bool failed = plug.error.code != ERROR_OK;
    bool pulled = device->pulled;
    char id[sizeof(device->id)];

    snprintf(id, sizeof(id), "%s", device->id);
    machine_drop_device(machine, at);
    machine_save(machine);
    if (!pulled) { /* else it was told */
        machine_event(machine, failed ? "device-refused" : "device-detached", id, "%s",
                      failed ? plug.error.message : "");
    }
    plug_answer(machine, &plug, id, failed ? &plug.error : NULL);
}

/* It was in use, and its process has ended: what it had on the host is free, and another process
 * has nothing but errors for the driver. */
static void unplug_pull(struct machine_device *device)
{
    struct machine *machine = device->machine;
    struct error err;

    child_release(&device->child);
    spare_discard(&device->spare); /* which has the image, too */
    machine_device_close_backend(device);
    device->pulled = true;
    device->failed = device->link_down = false;
    device->deaths = 0;
    device->restart_ns = 0;
    device->plug.phase = PLUG_PULLED;
    device->plug.force = false;
    device->plug.retry_ns = 0;
    machine_event(machine, "device-detached", device->id, "by force");
    if (machine_relaunch_device(device, &err)) {
        machine_event(machine, "device-died", device->id, "%s", err.message);
        device->restart_ns = clock_monotonic_ns() + PULLED_LOOK_MS * NS_PER_MS;
    }
    plug_answer(machine, &device->plug, device->id, NULL);
}

static void unplug_stop(struct machine_device *device, uint64_t now)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceStop stop = POLYVISOR__DEVICE_STOP__INIT;

    if (!device->plug.deadline_ns) {
        device->plug.deadline_ns = now + UNPLUG_STOP_MS * NS_PER_MS;
    } else if (now >= device->plug.deadline_ns) {
        child_kill(&device->child);
        return;
    }
    if (!device->stopping) {
        device->stopping = true;
        machine_device_let_go(device);
        request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_STOP;
        request.stop = &stop;
        child_request(&device->child, &request.base, UNPLUG_STOP_MS, child_dismiss, 0);
    }
}

/* ---- the walk ---- */

static uint64_t plug_next_ns(const struct machine_plug *plug)
{
    switch (plug->phase) {
    case PLUG_STARTING:
    case PLUG_ENDING:
        return plug->deadline_ns;
    case PLUG_LEAVING:
    case PLUG_PULLED:
        return plug->asked ? 0 : plug->retry_ns;
    default:
        return 0;
    }
}

/* True when the device is no more. */
static bool unplug_step_ending(struct machine *machine, size_t at, uint64_t now)
{
    struct machine_device *device = machine->devices[at];
    bool failed = device->plug.error.code != ERROR_OK;

    if (!device->child.running && (failed || device->pulled || !machine_revive_device(device))) {
        if (device->plug.force) {
            unplug_pull(device);
            return false;
        }
        unplug_finish(machine, at);
        return true;
    }
    if (!failed) {
        unplug_stop(device, now);
    }
    return false;
}

uint64_t machine_step_plugs(struct machine *machine)
{
    uint64_t now = clock_monotonic_ns(), next = 0;

    for (size_t i = machine->device_count; i-- > 0;) { /* the last first: one may go */
        struct machine_device *device = machine->devices[i];
        struct machine_plug *plug = &device->plug;
        if (plug->phase == PLUG_STARTING) {
            plug_step_starting(device, now);
        } else if (plug->phase == PLUG_LEAVING || plug->phase == PLUG_PULLED) {
            unplug_ask(device, now);
        }
        if (plug->phase == PLUG_ENDING && unplug_step_ending(machine, i, now)) {
            continue;
        }
        uint64_t due = plug_next_ns(plug);
        if (due && (!next || due < next)) {
            next = due;
        }
    }
    return next;
}

void machine_cancel_plugs(struct machine *machine)
{
    struct error err;

    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (device->plug.phase != PLUG_RESTS) {
            error_set(&err, ERROR_CANCELLED, 0, "machine '%s' ended meanwhile",
                      machine->config->name);
            device->stopping = false; /* the machine's end has times of its own */
            plug_rest(device, &err);
        }
    }
}

/* ---- requests ---- */

static int plug_check_state(const struct machine *machine, struct error *err)
{
    if (machine->state == POLYVISOR__MACHINE_STATE__MACHINE_READY ||
        machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING) {
        return 0;
    }
    error_set(err, ERROR_STATE, 0, "machine '%s' is not running", machine->config->name);
    error_hint(err, "what it has from the start is said when it is created: vmctl create --help");
    return -ERROR_STATE;
}

/* The socket of its transport to be; false: all are in use. */
static bool plug_find_transport(const struct machine *machine, char *path)
{
    for (unsigned number = 0; number < machine->config->hotplug_slots; number++) {
        bool used = false;
        machine_spare_path(machine, number, path);
        for (size_t i = 0; i < machine->device_count; i++) {
            used |= !strcmp(machine->devices[i]->transport_path, path);
        }
        if (!used) {
            return true;
        }
    }
    return false;
}

/* The first free place of its kind. */
static int plug_find_place(struct machine *machine, const Polyvisor__DeviceAttachRequest *wanted,
                           size_t *number, struct error *err)
{
    char id[sizeof(machine->devices[0]->id)];
    size_t most = 1;

    for (*number = 0; *number < most; ++*number) {
        unsigned slot = machine_device_place(wanted, *number, id, &most);
        bool taken = false;
        for (size_t i = 0; i < machine->device_count; i++) { /* shares have slots of disks */
            taken |= machine->devices[i]->pci_slot == slot || !strcmp(machine->devices[i]->id, id);
        }
        if (!taken) {
            return 0;
        }
    }
    error_set(err, ERROR_BUSY, 0, "none of the %zu places for such a device is free", most);
    error_hint(err, "take one out first: vmctl device detach %s DEVICE", machine->config->name);
    return -ERROR_BUSY;
}

/* What the cards have, by number, for what must differ. */
static void plug_list_cards(const struct machine *machine, const char *cards[CONFIG_NETS_MAX])
{
    for (size_t i = 0; i < machine->device_count; i++) {
        const struct machine_device *device = machine->devices[i];
        unsigned number = 0;
        if (device->net && sscanf(device->id, "net%u", &number) == 1 && number < CONFIG_NETS_MAX) {
            cards[number] = device->net;
        }
    }
}

static int plug_start(struct machine *machine, struct machine_device *device, struct error *err)
{
    int result = machine_device_open(device, machine->host->base, machine->host->programs, err);

    if (!result) {
        device->started_ns = clock_monotonic_ns();
        result = machine_relaunch_device(device, err);
    }
    return result;
}

/* Of what was checked, whose ownership it takes. */
static int plug_add(struct machine *machine, Polyvisor__DeviceAttachRequest *wanted, size_t number,
                    machine_plug_fn *done, uint64_t context, struct error *err)
{
    struct machine_device *device = NULL;
    char path[DEVICE_PATH_MAX];

    if (!plug_find_transport(machine, path)) {
        error_set(err, ERROR_BUSY, 0, "'%s' has room for %u devices at a time",
                  machine->config->name, machine->config->hotplug_slots);
        error_hint(err, "take one out first, or start it with a larger --hotplug-slots");
    } else {
        device = calloc(1, sizeof(*device));
        if (!device) {
            error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        }
    }
    if (!device) {
        polyvisor__device_attach_request__free_unpacked(wanted, NULL);
        return -(int)err->code;
    }
    machine_device_plan_plugged(device, wanted, number, machine->config->cpus, machine->directory,
                                path);
    device->machine = machine;
    machine->devices[machine->device_count++] = device;
    int result = plug_start(machine, device, err);
    if (result) {
        machine_drop_device(machine, machine->device_count - 1);
        machine_save(machine);
        return result;
    }
    device->plug = (struct machine_plug){
        .phase = PLUG_STARTING,
        .deadline_ns = clock_monotonic_ns() + PLUG_START_MS * NS_PER_MS,
        .done = done,
        .context = context,
    };
    machine_wake(machine);
    return 0;
}

int machine_attach_device(struct machine *machine, const Polyvisor__DeviceAttachRequest *wanted,
                          machine_plug_fn *done, uint64_t context, struct error *err)
{
    const char *cards[CONFIG_NETS_MAX] = {NULL};
    size_t number = 0;
    int result = plug_check_state(machine, err);

    result = result ? result : config_check_attachment(wanted, err);
    result = result ? result : plug_find_place(machine, wanted, &number, err);
    if (result) {
        return result;
    }
    Polyvisor__DeviceAttachRequest *copy =
        (Polyvisor__DeviceAttachRequest *)message_copy(&wanted->base);
    if (!copy) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    plug_list_cards(machine, cards);
    result = config_validate_attachment(machine->config, copy, number, cards,
                                        machine->host->directory, err);
    if (result) {
        polyvisor__device_attach_request__free_unpacked(copy, NULL);
        return result;
    }
    return plug_add(machine, copy, number, done, context, err);
}

int machine_detach_device(struct machine *machine, const Polyvisor__DeviceDetachRequest *wanted,
                          machine_plug_fn *done, uint64_t context, struct error *err)
{
    struct machine_device *device = plug_find(machine, wanted->device);
    uint32_t wait_ms =
        wanted->timeout_ms < UNPLUG_WAIT_MAX_MS ? wanted->timeout_ms : UNPLUG_WAIT_MAX_MS;
    int result = plug_check_state(machine, err);

    if (result) {
        return result;
    }
    if (!device) {
        error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no device '%.40s'",
                  machine->config->name, wanted->device);
        error_hint(err, "'vmctl device list %s' shows its devices", machine->config->name);
        return -ERROR_NOT_FOUND;
    }
    if (!device->disk && !device->net && !device->vsock) {
        error_set(err, ERROR_UNSUPPORTED, 0, "%s is part of the board", device->id);
        error_hint(err, "disks, network cards and the vsock can be taken out");
        return -ERROR_UNSUPPORTED;
    }
    if (device->pulled) {
        error_set(err, ERROR_BUSY, 0, "%s was pulled out, and its driver has not let go",
                  device->id);
        error_hint(err, "in the guest: echo 1 > /sys/bus/pci/devices/0000:00:%02x.0/remove",
                   device->pci_slot);
        return -ERROR_BUSY;
    }
    if (device->plug.phase != PLUG_RESTS) {
        error_set(err, ERROR_BUSY, 0, "%s is being plugged in or out already", device->id);
        error_hint(err, "'vmctl device list %s' shows what becomes of it", machine->config->name);
        return -ERROR_BUSY;
    }
    device->revivals = 0;
    device->plug = (struct machine_plug){
        .phase = PLUG_LEAVING,
        .force = wanted->force,
        .deadline_ns = clock_monotonic_ns() + wait_ms * NS_PER_MS,
        .done = done,
        .context = context,
    };
    machine_wake(machine);
    return 0;
}
