/* The cables of a machine's network cards. */
#include "proto/device.pb-c.h"
#include "vmmd/machine_internal.h"
#include <string.h>

#define SET_LINK_MS 2000

/* A process that is not there, or dies over it, is told by its configuration. */
static void link_send(struct machine_device *device)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceSetLink link = POLYVISOR__DEVICE_SET_LINK__INIT;

    link.up = !device->link_down;
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_SET_LINK;
    request.set_link = &link;
    child_request(&device->child, &request.base, SET_LINK_MS, NULL, 0);
}

int machine_set_link(struct machine *machine, const char *id, bool up, struct error *err)
{
    if (machine_is_idle(machine)) {
        error_set(err, ERROR_STATE, 0, "machine '%s' does not run", machine->config->name);
        error_hint(err, "cables are plugged in whenever it starts");
        return -ERROR_STATE;
    }
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        if (device->net && !strcmp(device->id, id)) {
            device->link_down = !up;
            link_send(device);
            machine_event(machine, up ? "link-up" : "link-down", device->id, "on request");
            return 0;
        }
    }
    error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no network card '%.40s'",
              machine->config->name, id);
    error_hint(err, machine->config->n_net ? "the first is net0" : "give it one with --net");
    return -ERROR_NOT_FOUND;
}
