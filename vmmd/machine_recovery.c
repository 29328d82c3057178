/* A device process died: start it again on the same descriptors, ever more slowly, and give up
 * when it keeps dying. The machine goes on in any case. */
#include "libshared/base/clock.h"
#include "vmmd/machine_internal.h"

#define RECOVERY_DEATHS_MAX 5              /* in a row; after that the device stays dead */
#define RECOVERY_STABLE_NS  60000000000ull /* a life that long ends the row */
#define RECOVERY_DELAY_NS   100000000ull   /* before the second restart; doubles */

/* Its process has ended: take note, decide when to try again. */
static void recovery_note_death(struct machine_device *device, uint64_t now)
{
    char text[64];

    child_describe_end(&device->child, text, sizeof(text));
    machine_event(device->machine, "device-died", device->child.role, "its process %s", text);
    child_release(&device->child);
    device->ready = false;
    if (now - device->started_ns >= RECOVERY_STABLE_NS) {
        device->deaths = 0;
    }
    device->deaths++;
    uint64_t delay = device->deaths > 1 ? RECOVERY_DELAY_NS << (device->deaths - 2) : 0;
    device->restart_ns = now + delay;
}

static void recovery_restart(struct machine_device *device, uint64_t now)
{
    struct error err;

    device->restart_ns = 0;
    if (device->deaths > RECOVERY_DEATHS_MAX) {
        device->failed = true;
        machine_event(device->machine, "device-failed", device->id,
                      "gave up after %u deaths in a row", device->deaths);
        return;
    }
    device->started_ns = now;
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
        struct machine_device *device = &machine->devices[i];
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
