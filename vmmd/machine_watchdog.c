/* What becomes of a machine whose guest does not feed its watchdog, and the means for it. */
#include "libshared/watchdog/setting.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/machine_internal.h"
#include <stdlib.h>

#define WATCHDOG_MS 10000 /* for vcpud to do it */

static const char *const done[] = {
    [WATCHDOG_RESET] = "the guest is reset",
    [WATCHDOG_POWEROFF] = "the machine is stopped",
    [WATCHDOG_PAUSE] = "the guest is held: 'vmctl start' lets it go on",
    [WATCHDOG_REPORT] = "the guest goes on",
};

/* Have the guest begin anew. */
static void machine_reset(struct machine *machine)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuReset reset = POLYVISOR__VCPU_RESET__INIT;

    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_RESET;
    request.reset = &reset;
    child_request(&machine->vcpu, &request.base, WATCHDOG_MS, NULL, 0);
}

static void machine_held(struct child *child, const struct error *err,
                         const ProtobufCMessage *reply, uint64_t context)
{
    struct machine *machine = child->owner;

    (void)reply;
    (void)context;
    if (!err && machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING &&
        machine->goal == MACHINE_GOAL_HOLD) {
        machine->vcpu_start_sent = false;
        machine_set_state(machine, POLYVISOR__MACHINE_STATE__MACHINE_READY);
        machine_wake(machine);
    }
}

/* Hold the guest where it is; a start lets it go on. */
static void machine_hold(struct machine *machine)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuPause pause = POLYVISOR__VCPU_PAUSE__INIT;

    if (machine->goal != MACHINE_GOAL_RUN) {
        return; /* it is to end */
    }
    machine->goal = MACHINE_GOAL_HOLD;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_PAUSE;
    request.pause = &pause;
    child_request(&machine->vcpu, &request.base, WATCHDOG_MS, machine_held, 0);
}

void machine_watchdog_expired(struct machine_device *device, const char *text)
{
    struct machine *machine = device->machine;
    unsigned count = (unsigned)strtoul(text, NULL, 10);
    enum watchdog_action action;

    /* It is told until the guest feeds the watchdog or is reset. */
    if (machine->state != POLYVISOR__MACHINE_STATE__MACHINE_RUNNING || count == device->expiries ||
        watchdog_setting_parse(machine->config->watchdog, ERROR_CONFIG, &action, NULL) < 0) {
        return;
    }
    device->expiries = count;
    if (action == WATCHDOG_NONE) {
        return;
    }
    machine_event(machine, "watchdog", device->child.role, "it was not fed in time: %s",
                  done[action]);
    if (action == WATCHDOG_RESET) {
        machine_reset(machine);
    } else if (action == WATCHDOG_POWEROFF) {
        machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                          "watchdog");
    } else if (action == WATCHDOG_PAUSE) {
        machine_hold(machine);
    }
}
