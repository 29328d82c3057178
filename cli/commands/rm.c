/* vmctl rm: forget a machine. */
#include "cli/commands/machine_request.h"

struct rm_settings {
    bool force;
};

static const struct option_spec options[] = {
    {.name = "force",
     .letter = 'f',
     .type = &option_flag,
     .summary = "end the machine first if it runs, as 'vmctl kill' does",
     .offset = offsetof(struct rm_settings, force)},
    {.name = NULL},
};

/* End it if it runs; a machine that does not run is what we want. */
static int kill_first(const struct invocation *invocation, struct error *err)
{
    Polyvisor__KillRequest kill = POLYVISOR__KILL_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    kill.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_KILL;
    request.kill = &kill;
    int status = client_ask(invocation, &request, 0, NULL, err);
    return status == -ERROR_STATE ? 0 : status;
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct rm_settings *settings = invocation->settings;
    Polyvisor__RemoveRequest remove_request = POLYVISOR__REMOVE_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    int status = settings->force ? kill_first(invocation, err) : 0;

    if (status != 0) {
        return status;
    }
    remove_request.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_REMOVE;
    request.remove = &remove_request;
    return machine_request(invocation, &request, 0, "removed", err);
}

const struct command command_rm = {
    .name = "rm",
    .summary = "forget a machine",
    .usage = "[OPTION...] NAME",
    .description =
        "Removes the configuration of a machine that does not run. Disk images and other "
        "files of yours are not touched.\n",
    .options = options,
    .settings_size = sizeof(struct rm_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl rm build1", "Forget build1"},
                 {"vmctl rm --force build1", "The same, even if it runs"}},
    .run = run,
};
