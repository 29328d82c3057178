/* The disks of a running machine: their size. */
#include "proto/device.pb-c.h"
#include "vmmd/machine_internal.h"
#include <string.h>

#define RESIZE_MS 20000 /* requests that are in the way may have to end first */

static struct machine_device *disk_find(struct machine *machine, const char *id, struct error *err)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        if (machine->devices[i]->disk && !strcmp(machine->devices[i]->id, id)) {
            return machine->devices[i];
        }
    }
    error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no disk '%.40s'", machine->config->name,
              id);
    error_hint(err, machine->config->n_disks ? "the first is disk0" : "give it one with --disk");
    return NULL;
}

int machine_resize_disk(struct machine *machine, const Polyvisor__DiskResizeRequest *resize,
                        child_reply_fn *reply, uint64_t context, struct error *err)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceResize body = POLYVISOR__DEVICE_RESIZE__INIT;

    if (machine_is_idle(machine)) {
        error_set(err, ERROR_STATE, 0, "machine '%s' does not run", machine->config->name);
        error_hint(err, "of one that does not, resize the file: vmctl disk resize FILE SIZE");
        return -ERROR_STATE;
    }
    struct machine_device *device = disk_find(machine, resize->disk, err);
    if (!device) {
        return -ERROR_NOT_FOUND;
    }
    body.bytes = resize->bytes;
    body.shrink = resize->shrink;
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_RESIZE;
    request.resize = &body;
    if (!device->ready || child_request(&device->child, &request.base, RESIZE_MS, reply, context)) {
        error_set(err, ERROR_STATE, 0, "%s of '%s' has no process now", device->id,
                  machine->config->name);
        error_hint(err, "'vmctl device list %s' shows when it is back", machine->config->name);
        return -ERROR_STATE;
    }
    return 0;
}
