/* Asking the guest to power off: its power key is a device (virtio-input), vmmd presses it. */
#include "libshared/base/clock.h"
#include "proto/device.pb-c.h"
#include "vmmd/machine_internal.h"
#include <errno.h>

/* How long the key's process is given to say whether the guest listens. Late is not never: one that
 * hangs is found by its heartbeat and replaced, and the guest has its own time. */
#define POWER_KEY_MS 60000

static struct machine_device *power_device(struct machine *machine)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        if (machine->devices[i]->kind->is_power_key) {
            return machine->devices[i];
        }
    }
    return NULL;
}

static void power_give_up(struct machine *machine, const char *why)
{
    machine_event(machine, "stopping", "", "the guest cannot be asked (%s): stopping without it",
                  why);
    machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                      "stopped");
}

static void power_key_pressed(struct child *child, const struct error *err,
                              const ProtobufCMessage *reply, uint64_t context)
{
    struct machine *machine = ((struct machine_device *)child->owner)->machine;
    (void)reply, (void)context;

    if (machine->goal != MACHINE_GOAL_ASK ||
        machine->state == POLYVISOR__MACHINE_STATE__MACHINE_STOPPING) {
        return;
    }
    if (!err) {
        machine_event(machine, "stopping", child->role, "pressed the guest's power key");
    } else if (err->code != ERROR_CRASHED && err->code != ERROR_TIMEOUT) {
        power_give_up(machine, err->message);
    } /* else its process is replaced, and the next one's key is pressed */
}

static void power_press(struct machine *machine, struct machine_device *device)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DevicePowerKey key = POLYVISOR__DEVICE_POWER_KEY__INIT;

    device->key_pressed = true;
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_POWER_KEY;
    request.power_key = &key;
    int result = child_request(&device->child, &request.base, POWER_KEY_MS, power_key_pressed, 0);
    if (result && result != -ESRCH) { /* ended: its successor is asked */
        power_give_up(machine, "out of memory");
    }
}

void machine_ask_guest(struct machine *machine, uint32_t timeout_ms)
{
    struct machine_device *device = power_device(machine);

    machine->goal = MACHINE_GOAL_ASK;
    machine->ask_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
    if (device) {
        device->key_pressed = false; /* asked again: press again */
    }
    machine_wake(machine);
}

void machine_step_asked(struct machine *machine)
{
    struct machine_device *device = power_device(machine);

    if (machine->ask_ns <= clock_monotonic_ns()) {
        machine_event(machine, "stopping", "",
                      "the guest did not power off in time: stopping without it");
        machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                          "stopped");
    } else if (!device || device->failed) {
        power_give_up(machine, "its power key is broken");
    } else if (device->ready && !device->key_pressed) {
        power_press(machine, device);
    }
}
