/* vmctl start: start a created or ended machine. */
#include "cli/commands/machine_request.h"

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__StartRequest start = POLYVISOR__START_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    start.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_START;
    request.start = &start;
    return machine_request(invocation, &request, 0, "started", err);
}

const struct command command_start = {
    .name = "start",
    .summary = "start a machine",
    .usage = "[OPTION...] NAME",
    .description = "Starts the processes of a machine that was created or has ended, and the guest "
                   "in it. Its console can be attached with 'vmctl console'.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl start build1", "Start the machine build1"}},
    .run = run,
};
