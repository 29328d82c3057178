/* vmctl start: start a created or ended machine. */
#include "cli/client.h"
#include "cli/commands/machine_request.h"
#include "cli/image/machine_folder.h"
#include "cli/image/machine_image.h"
#include "cli/output.h"

/* The system of a machine that was made from an image may have got a new kernel. */
static void refresh_kernel(const struct invocation *invocation)
{
    char folder[PATH_MAX];
    struct error problem;

    if (machine_folder_path(machine_argument(invocation), folder, &problem) == 0 &&
        machine_folder_exists(folder) && machine_image_refresh(folder, &problem) != 0) {
        output_warning(invocation->globals, "its kernel is that of its last start: %s",
                       problem.message);
    }
}

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__StartRequest start = POLYVISOR__START_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    refresh_kernel(invocation);
    start.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_START;
    request.start = &start;
    return machine_request(invocation, &request, client_processes_ms(0), "started", err);
}

const struct command command_start = {
    .name = "start",
    .summary = "start a machine",
    .usage = "[OPTION...] NAME",
    .description = "Starts the processes of a machine that was created or has ended, and the guest "
                   "in it. Its console can be attached with 'vmctl console'. A machine that was "
                   "made from an image starts the newest kernel that its system has.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl start build1", "Start the machine build1"}},
    .run = run,
};
