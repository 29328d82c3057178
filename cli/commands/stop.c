/* vmctl stop: ask the guest to power off, then insist. */
#include "cli/client.h"
#include "cli/commands/machine_request.h"
#include "cli/machine_view.h"
#include "cli/output.h"
#include <string.h>

struct stop_settings {
    uint32_t grace_ms;
};

/* Shadows the global --timeout: here it is the guest that is waited for. */
static const struct option_spec options[] = {
    {.name = "timeout",
     .type = &option_duration,
     .argument = "TIME",
     .default_value = "10s",
     .summary = "how long the guest may take to power off before it is ended by force; 0 = at once",
     .offset = offsetof(struct stop_settings, grace_ms)},
    {.name = NULL},
};

/* How it went: what was asked for is a guest that powers off. */
static int report(const struct invocation *invocation, const Polyvisor__MachineInfo *machine,
                  struct error *err)
{
    const char *name = machine_argument(invocation);

    if (invocation->globals->json) {
        return output_json(machine_json(machine), false, err);
    }
    if (strcmp(machine->end_reason, "power-off") == 0) {
        output_status(invocation->globals, "%s powered off", name);
    } else if (strcmp(machine->end_reason, "stopped") == 0) {
        output_status(invocation->globals, "%s stopped by force", name);
    } else {
        output_status(invocation->globals, "%s ended (%s)", name, machine->end_reason);
    }
    return 0;
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct stop_settings *settings = invocation->settings;
    Polyvisor__StopRequest stop = POLYVISOR__STOP_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    stop.name = machine_argument(invocation);
    stop.timeout_ms = settings->grace_ms;
    request.body_case = POLYVISOR__REQUEST__BODY_STOP;
    request.stop = &stop;
    int status = client_ask(invocation, &request, settings->grace_ms, &response, err);
    if (status != 0) {
        return status;
    }
    const Polyvisor__MachineInfo *machine = client_machine(response, err);
    status = machine ? report(invocation, machine, err) : -(int)err->code;
    client_free(response);
    return status;
}

const struct command command_stop = {
    .name = "stop",
    .summary = "ask a guest to power off, then insist",
    .usage = "[OPTION...] NAME",
    .description =
        "Presses the machine's power key and waits until the guest has powered off. When it "
        "has not after the timeout, the machine is ended by force; at once when the "
        "guest has no driver for the key (yet). 'vmctl events' tells which it was, "
        "'vmctl show' keeps it: ended by power-off, or stopped.\n"
        "The guest needs the driver virtio_input and something that heeds the key: "
        "systemd-logind does by itself; without systemd it is acpid, with evdev.\n",
    .options = options,
    .settings_size = sizeof(struct stop_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl stop build1", "Give build1 ten seconds to power off"},
                 {"vmctl stop --timeout 2m build1", "Give it two minutes"}},
    .run = run,
};
