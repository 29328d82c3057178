/* vmctl rm: forget a machine. */
#include "cli/commands/machine_request.h"
#include "cli/image/machine_folder.h"
#include "cli/output.h"

struct rm_settings {
    bool force, with_disk;
};

static const struct option_spec options[] = {
    {.name = "force",
     .letter = 'f',
     .type = &option_flag,
     .summary = "end the machine first if it runs, as 'vmctl kill' does",
     .offset = offsetof(struct rm_settings, force)},
    {.name = "with-disk",
     .type = &option_flag,
     .summary = "remove what 'vmctl create --image' made for it, too: its disk and all that is on "
                "it; also of a machine that vmmd does not know any more",
     .offset = offsetof(struct rm_settings, with_disk)},
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
    int status = client_ask(invocation, &request, client_processes_ms(0), NULL, err);
    return status == -ERROR_STATE ? 0 : status;
}

static int forget(const struct invocation *invocation, struct error *err)
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
    return client_ask(invocation, &request, 0, NULL, err);
}

/* Say where a disk is that stays: nobody else remembers it now. */
static void tell_disk(const struct invocation *invocation)
{
    char path[PATH_MAX];
    struct error ignored;

    if (machine_folder_path(machine_argument(invocation), path, &ignored) == 0 &&
        machine_folder_exists(path)) {
        output_status(invocation->globals, "its disk stays in %s; --with-disk removes it", path);
    }
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct rm_settings *settings = invocation->settings;
    const char *name = machine_argument(invocation);
    int status = forget(invocation, err);
    bool there = false;

    /* Of a machine that vmmd has forgotten, or a vmmd that is gone, the files may be left. */
    if (settings->with_disk &&
        (status == 0 || status == -ERROR_NOT_FOUND || status == -ERROR_CONNECT)) {
        struct error files;
        int removed = machine_folder_remove(name, &there, &files);
        if (removed != 0) {
            *err = files;
            return removed;
        }
        status = there ? 0 : status;
    }
    if (status != 0) {
        return status;
    }
    if (invocation->globals->json) {
        return output_json(json_pack("{s:o}", "name", output_json_text(name)), err);
    }
    output_status(invocation->globals, "%s removed", name);
    if (!settings->with_disk) {
        tell_disk(invocation);
    }
    return 0;
}

const struct command command_rm = {
    .name = "rm",
    .summary = "forget a machine",
    .usage = "[OPTION...] NAME",
    .description =
        "Removes the configuration of a machine that does not run. Disk images and other "
        "files of yours are not touched, nor is the disk of a machine that was made from an image, "
        "unless --with-disk says so.\n",
    .options = options,
    .settings_size = sizeof(struct rm_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl rm build1", "Forget build1"},
                 {"vmctl rm --force build1", "The same, even if it runs"},
                 {"vmctl rm --with-disk web", "Forget web, and remove its disk"}},
    .run = run,
};
