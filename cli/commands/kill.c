/* vmctl kill: end a machine at once. */
#include "cli/client.h"
#include "cli/commands/machine_request.h"

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__KillRequest kill = POLYVISOR__KILL_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    kill.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_KILL;
    request.kill = &kill;
    return machine_request(invocation, &request, client_processes_ms(0), "killed", err);
}

const struct command command_kill = {
    .name = "kill",
    .summary = "end a machine at once",
    .usage = "[OPTION...] NAME",
    .description = "Ends a machine without asking the guest, as pulling the plug does. What the "
                   "guest has not written to its disks is lost; 'vmctl stop' asks first.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl kill build1", "End build1 now"}},
    .run = run,
};
