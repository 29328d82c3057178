/* The control socket's requests for the devices of a machine. */
#include "vmmd/control_internal.h"

void control_device_restart(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->device_restart->name);
    struct error err;

    if (machine) {
        int status = machine_restart_device(machine, message->device_restart->device, &err);
        request_conclude(request, machine, status, &err);
    }
}

void control_link(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->link->name);
    struct error err;

    if (machine) {
        int status = machine_set_link(machine, message->link->card, message->link->up, &err);
        request_conclude(request, machine, status, &err);
    }
}

void control_device_limit(struct request *request, const Polyvisor__Request *message)
{
    const Polyvisor__DeviceLimitRequest *limit = message->device_limit;
    struct machine *machine = control_machine(request, limit->name);
    struct error err;

    if (machine) {
        int status = machine_set_limits(machine, limit->device, limit->limits, &err);
        request_conclude(request, machine, status, &err);
    }
}

static void control_disk_resized(struct child *child, const struct error *error,
                                 const ProtobufCMessage *reply, uint64_t serial)
{
    struct machine *machine = ((struct machine_device *)child->owner)->machine;
    struct request *request = control_asked(machine, error, serial);

    (void)reply;
    if (request) {
        request_answer_machines(request, machine, 1, false);
    }
}

void control_disk_resize(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->disk_resize->name);
    struct error err;

    if (machine) {
        int status = machine_resize_disk(machine, message->disk_resize, control_disk_resized,
                                         request->serial, &err);
        request_wait_process(request, status, &err, message->deadline_ms);
    }
}

static void control_plugged(struct machine *machine, const char *id, const struct error *error,
                            uint64_t serial)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    struct request *request = control_asked(machine, error, serial);

    if (request) {
        response.device = (char *)id;
        request_send(request, &response);
    }
}

void control_device_attach(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->device_attach->name);
    struct error err;

    if (machine) {
        int status = machine_attach_device(machine, message->device_attach, control_plugged,
                                           request->serial, &err);
        request_wait_process(request, status, &err, message->deadline_ms);
    }
}

void control_device_detach(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->device_detach->name);
    struct error err;

    if (machine) {
        int status = machine_detach_device(machine, message->device_detach, control_plugged,
                                           request->serial, &err);
        request_wait_process(request, status, &err, message->deadline_ms);
    }
}
