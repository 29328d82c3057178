/* vmctl show: everything about one machine. */
#include "cli/commands/machine_request.h"
#include "cli/machine_view.h"

static int run(const struct invocation *invocation, struct error *err)
{
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    int status =
        client_ask_machine(invocation, machine_argument(invocation), &response, &machine, err);

    if (status != 0) {
        return status;
    }
    status = invocation->globals->json ? output_json(machine_json(machine), err)
                                       : machine_print(machine, err);
    client_free(response);
    return status;
}

const struct command command_show = {
    .name = "show",
    .summary = "show everything about a machine",
    .usage = "[OPTION...] NAME",
    .description =
        "Prints a machine's configuration, its state and why it ended, its processes and "
        "the socket of its console.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl show build1", "Everything about build1"},
                 {"vmctl show --json build1", "The same for programs"}},
    .run = run,
};
