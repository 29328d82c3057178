/* vmctl create: keep a machine's configuration in vmmd, without starting it. */
#include "cli/commands/machine_request.h"
#include "cli/image/machine_folder.h"
#include "cli/image/machine_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct create_settings {
    struct machine_settings machine; /* first: its options say where they are in it */
    struct machine_image image;
};

static const struct option_spec options[] = {
    MACHINE_IMAGE_OPTIONS(struct create_settings, image),
    {.name = "persistent",
     .type = &option_flag,
     .summary = "the machine's disk is the image itself; without it the machine gets a copy, which "
                "is independent of the image",
     .offset = offsetof(struct create_settings, image.persistent)},
    MACHINE_OPTIONS,
    {.name = NULL},
};

struct creation {
    const struct invocation *invocation;
    struct create_settings *settings;
    const char *name;
    struct machine_folder folder;
    char append[MACHINE_IMAGE_APPEND_MAX];
};

/* A disk that is there from before is somebody's: only who names it may have it. */
static int check_folder(const struct creation *creation, struct error *err)
{
    const struct machine_image *image = &creation->settings->image;
    char own[PATH_MAX + 16], *named;
    bool same;

    if (!creation->folder.complete) {
        return 0;
    }
    snprintf(own, sizeof(own), "%s/" MACHINE_IMAGE_DISK_COPY, creation->folder.path);
    named = image->persistent && image->image != NULL ? realpath(image->image, NULL) : NULL;
    char *real = realpath(own, NULL);
    same = named != NULL && real != NULL && strcmp(named, real) == 0;
    free(named);
    free(real);
    if (same) {
        return 0;
    }
    error_set(err, ERROR_EXISTS, 0, "there is a disk of a machine '%s' from before: %.180s",
              creation->name, own);
    error_hint(err, "'vmctl rm --with-disk %s' removes it; '--image FILE --persistent' uses it",
               creation->name);
    return -ERROR_EXISTS;
}

/* What --image and --cloud-init mean, with files that stay with the machine. */
static int prepare_image(struct creation *creation, struct error *err)
{
    struct create_settings *settings = creation->settings;
    struct image_properties properties;
    bool needs_files =
        settings->image.image != NULL || settings->image.cloud_init.user_data != NULL;
    int status = needs_files ? machine_folder_open(&creation->folder, creation->name, err) : 0;

    if (status == 0) {
        status = check_folder(creation, err);
    }
    if (status == 0) {
        status = machine_image_prepare(&settings->image, MACHINE_IMAGE_COPY, creation->folder.path,
                                       creation->name, &settings->machine, creation->append,
                                       &properties, err);
    }
    if (status == 0) {
        machine_image_warn_seed(&settings->image, &properties, creation->invocation->globals);
    }
    return status == 0 && settings->image.image != NULL
               ? machine_image_add_vsock(creation->folder.path, &settings->machine, err)
               : status;
}

static int ask(const struct invocation *invocation, const struct creation *creation,
               struct error *err)
{
    struct machine_config_message message;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    machine_config_build(&creation->settings->machine, creation->name, &message);
    create.config = &message.config;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    request.create = &create;
    return machine_request(invocation, &request, 0, "created", err);
}

static int run(const struct invocation *invocation, struct error *err)
{
    struct creation creation = {.invocation = invocation,
                                .settings = invocation->settings,
                                .name = invocation->positionals[0]};
    struct error ignored;
    int status = prepare_image(&creation, err);

    status =
        status == 0 ? machine_settings_check(&creation.settings->machine, "create", err) : status;
    status = status == 0 ? ask(invocation, &creation, err) : status;
    int closed = machine_folder_close(&creation.folder, status == 0, status == 0 ? err : &ignored);
    return status != 0 ? status : closed;
}

const struct command command_create = {
    .name = "create",
    .summary = "define a machine",
    .usage = "[OPTION...] NAME",
    .description =
        "Gives vmmd the configuration of a new machine. It is checked, but no process is "
        "started before 'vmctl start'.\n"
        "With --image the machine gets a copy of the image for its disk (a reference, where the "
        "host's file system can), so that it stays what it is when the image is built anew or "
        "removed; and the image's kernel, a vsock for 'vmctl exec', and a network card (--net "
        "none: none). The files are in a folder of the machine's name in $POLYVISOR_MACHINE_DIR, "
        "else $XDG_DATA_HOME/polyvisor/machines, else /var/lib/polyvisor/machines for root and "
        "~/.local/share/polyvisor/machines for others. They stay when vmmd ends: 'vmctl create "
        "--image FOLDER/NAME/disk.img --persistent NAME' makes the machine again, 'vmctl rm "
        "--with-disk NAME' removes them. When the machine's system has a new kernel, the next "
        "'vmctl start' takes it.\n",
    .options = options,
    .settings_size = sizeof(struct create_settings),
    .positional = POSITIONAL_NEW_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl create --image debian-trixie-riscv64 --image-size 20G --cpus 2 web",
                  "A Debian machine with a disk of 20 GiB"},
                 {"vmctl create --kernel vmlinux --initrd initrd.gz --append console=ttyS0 build1",
                  "Define a machine called build1"},
                 {"vmctl create --kernel vmlinux --disk path=root.img --memory 2G --cpus 4 web",
                  "Four processors, 2 GiB and a disk"}},
    .run = run,
};
