/* vmctl create: keep a machine's configuration in vmmd, without starting it. */
#include "cli/commands/machine_request.h"
#include "cli/machine_options.h"

static const struct option_spec options[] = {
    MACHINE_OPTIONS,
    {.name = NULL},
};

static int run(const struct invocation *invocation, struct error *err)
{
    const struct machine_settings *settings = invocation->settings;
    struct machine_config_message message;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    int status = machine_settings_check(settings, "create", err);

    if (status != 0) {
        return status;
    }
    machine_config_build(settings, invocation->positionals[0], &message);
    create.config = &message.config;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    request.create = &create;
    return machine_request(invocation, &request, 0, "created", err);
}

const struct command command_create = {
    .name = "create",
    .summary = "define a machine",
    .usage = "[OPTION...] NAME",
    .description =
        "Gives vmmd the configuration of a new machine. It is checked, but no process is "
        "started before 'vmctl start'.\n",
    .options = options,
    .settings_size = sizeof(struct machine_settings),
    .positional = POSITIONAL_NEW_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl create --kernel vmlinux --initrd initrd.gz --append console=ttyS0 build1",
                  "Define a machine called build1"},
                 {"vmctl create --kernel vmlinux --disk path=root.img --memory 2G --cpus 4 web",
                  "Four processors, 2 GiB and a disk"}},
    .run = run,
};
