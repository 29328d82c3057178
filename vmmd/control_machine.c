/* The control socket's requests for whole machines. */
#include "vmmd/control_internal.h"
#include "vmmd/message.h"
#include "vmmd/supervisor.h"
#include "vmmd/validate.h"
#include <string.h>

void control_create(struct request *request, const Polyvisor__Request *message)
{
    struct supervisor *supervisor = request->control->supervisor;
    Polyvisor__MachineConfig *config = NULL;
    struct machine *machine = NULL;
    struct error err;

    if (!message->create->config) {
        error_set(&err, ERROR_PROTOCOL, 0, "a request to create a machine without configuration");
    } else if (supervisor_find(supervisor, message->create->config->name)) {
        machine = supervisor_create(supervisor, message->create->config, &err); /* says EXISTS */
    } else {
        config = (Polyvisor__MachineConfig *)message_copy(&message->create->config->base);
        if (!config) {
            error_set(&err, ERROR_INTERNAL, ENOMEM, "out of memory");
        } else if (!config_validate(config, supervisor_directory(supervisor), &err)) {
            machine = supervisor_create(supervisor, config, &err);
        }
    }
    if (machine) {
        request_answer_machines(request, machine, 1, false);
        return;
    }
    if (config) {
        polyvisor__machine_config__free_unpacked(config, NULL);
    }
    request_fail(request, &err);
}

void control_start(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->start->name);
    bool hold = message->start->hold;
    struct error err;

    if (!machine) {
        return;
    }
    int status = supervisor_start(request->control->supervisor, machine, hold, &err);
    if (request_accepted(request, status, &err) &&
        request_wait(request, hold ? REQUEST_READY : REQUEST_STARTED, machine,
                     message->deadline_ms) &&
        request_is_done(request, machine)) {
        request_answer_machines(request, machine, 1, false);
    }
}

void control_stop(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->stop->name);
    struct error err;

    if (machine) {
        int status = machine_stop(machine, message->stop->timeout_ms, &err);
        if (request_accepted(request, status, &err)) {
            request_wait(request, REQUEST_ENDED, machine, message->deadline_ms);
        }
    }
}

void control_kill(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->kill->name);
    struct error err;

    if (machine) {
        int status = machine_kill(machine, &err);
        if (request_accepted(request, status, &err)) {
            request_wait(request, REQUEST_ENDED, machine, message->deadline_ms);
        }
    }
}

void control_remove(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->remove->name);
    struct error err;

    if (machine) {
        int status = supervisor_remove(request->control->supervisor, machine, &err);
        if (request_accepted(request, status, &err)) {
            request_succeed(request);
        }
    }
}

void control_list(struct request *request, const Polyvisor__Request *message)
{
    struct supervisor *supervisor = request->control->supervisor;
    struct machine *machine = supervisor_first(supervisor);

    /* They are in the order of their names. */
    while (machine && message->list->after[0] &&
           strcmp(machine->config->name, message->list->after) <= 0) {
        machine = TAILQ_NEXT(machine, link);
    }
    request_answer_machines(request, machine, supervisor_count(supervisor), false);
}

void control_show(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->show->name);

    if (machine) {
        request_answer_machines(request, machine, 1, true);
    }
}

void control_wait(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->wait->name);

    if (!machine) {
        return;
    }
    if (machine_is_idle(machine) || !message->wait->timeout_ms) {
        request_answer_machines(request, machine, 1, false);
        return;
    }
    request->timeout_is_answer = true;
    request_wait(request, REQUEST_ENDED, machine, message->wait->timeout_ms);
}
