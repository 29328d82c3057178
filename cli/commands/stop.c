/* vmctl stop: ask the guest to power off, then insist. */
#include "cli/commands/machine_request.h"

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

static int run(const struct invocation *invocation, struct error *err)
{
    const struct stop_settings *settings = invocation->settings;
    Polyvisor__StopRequest stop = POLYVISOR__STOP_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    stop.name = machine_argument(invocation);
    stop.timeout_ms = settings->grace_ms;
    request.body_case = POLYVISOR__REQUEST__BODY_STOP;
    request.stop = &stop;
    return machine_request(invocation, &request, settings->grace_ms, "stopped", err);
}

const struct command command_stop = {
    .name = "stop",
    .summary = "ask a guest to power off, then insist",
    .usage = "[OPTION...] NAME",
    .description = "Presses the machine's power button and waits until the guest has powered off. "
                   "When it has not after the timeout, the machine is ended by force.\n",
    .options = options,
    .settings_size = sizeof(struct stop_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl stop build1", "Give build1 ten seconds to power off"},
                 {"vmctl stop --timeout 2m build1", "Give it two minutes"}},
    .run = run,
};
