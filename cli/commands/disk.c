/* vmctl disk: the disks of a running machine. */
#include "cli/commands/machine_request.h"
#include "cli/output.h"
#include "cli/values.h"

#include <string.h>

struct disk_options {
    bool shrink;
};

static const struct option_spec disk_options[] = {
    {.name = "shrink",
     .type = &option_flag,
     .summary = "let the disk become smaller; what lies beyond its new end is lost",
     .offset = offsetof(struct disk_options, shrink)},
    {.name = NULL},
};

static int run(const struct invocation *invocation, struct error *err)
{
    const struct disk_options *options = invocation->settings;
    Polyvisor__DiskResizeRequest resize = POLYVISOR__DISK_RESIZE_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    if (strcmp(invocation->positionals[0], "resize") != 0) {
        error_set(err, ERROR_USAGE, 0, "'disk %.40s' is unknown", invocation->positionals[0]);
        error_hint(err, "vmctl disk resize NAME DISK SIZE");
        return -ERROR_USAGE;
    }
    if (value_parse_size(invocation->positionals[3], &resize.bytes) != 0 || resize.bytes == 0) {
        error_set(err, ERROR_USAGE, 0, "'%.40s' is no size", invocation->positionals[3]);
        error_hint(err, "bytes, or a number with K, M, G or T: 20G");
        return -ERROR_USAGE;
    }
    resize.name = (char *)invocation->positionals[1];
    resize.disk = (char *)invocation->positionals[2];
    resize.shrink = options->shrink;
    request.body_case = POLYVISOR__REQUEST__BODY_DISK_RESIZE;
    request.disk_resize = &resize;
    int status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    if (invocation->globals->json) {
        status =
            output_json(json_pack("{s:o, s:o, s:I}", "name", output_json_text(resize.name), "disk",
                                  output_json_text(resize.disk), "bytes", (json_int_t)resize.bytes),
                        false, err);
    } else {
        char size[32];
        value_format_size(resize.bytes, size, sizeof(size));
        output_status(invocation->globals, "%s of %s is %s large", resize.disk, resize.name, size);
    }
    client_free(response);
    return status;
}

const struct command command_disk = {
    .name = "disk",
    .summary = "resize a disk while its machine runs",
    .usage = "[OPTION...] resize NAME DISK SIZE",
    .description =
        "The image becomes as large as SIZE says and the guest is told at once; its partitions and "
        "file systems are its own to make larger. The disks of a machine are disk0, disk1 and so "
        "on, in the order of their --disk. A block device is resized on the host first: SIZE then "
        "is what it has.\n"
        "A disk becomes smaller only with --shrink: first make the guest's file systems smaller.\n",
    .options = disk_options,
    .settings_size = sizeof(struct disk_options),
    .positional = POSITIONAL_ACTION,
    .actions = "resize",
    .positionals_min = 4,
    .positionals_max = 4,
    .examples = {{"vmctl disk resize build1 disk0 20G", "Make build1's first disk 20 GiB large"}},
    .run = run,
};
