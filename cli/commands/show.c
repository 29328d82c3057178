/* vmctl show: everything about one machine. */
#include "cli/commands/machine_request.h"
#include "cli/machine_view.h"

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__ShowRequest show = POLYVISOR__SHOW_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    show.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_SHOW;
    request.show = &show;
    int status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    const Polyvisor__MachineInfo *machine = client_machine(response, err);
    if (machine == NULL) {
        status = -ERROR_PROTOCOL;
    } else if (invocation->globals->json) {
        status = output_json(machine_json(machine), false, err);
    } else {
        status = machine_print(machine, err);
    }
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
