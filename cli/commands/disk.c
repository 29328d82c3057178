/* vmctl disk: image files, and the disks of a running machine. */
#include "cli/commands/machine_request.h"
#include "cli/disk_image.h"
#include "cli/output.h"
#include "cli/values.h"

static const struct option_spec disk_options[] = {
    {.name = "size",
     .type = &option_size,
     .argument = "SIZE",
     .summary = "create: how large the disk is; over a backing file, that one's size if not given",
     .offset = offsetof(struct disk_options, size)},
    {.name = "format",
     .type = &option_choice,
     .argument = "FORMAT",
     .choices = "raw|qcow2",
     .summary = "what the file is; without it, qcow2 when its name ends in .qcow2, else raw",
     .offset = offsetof(struct disk_options, format)},
    {.name = "backing",
     .type = &option_text,
     .argument = "FILE",
     .summary = "create: what the disk contains until it is written; seen from the new file's "
                "folder, and never written to",
     .offset = offsetof(struct disk_options, backing)},
    {.name = "backing-format",
     .type = &option_choice,
     .argument = "FORMAT",
     .choices = "raw|qcow2",
     .summary = "create: what the backing file is",
     .offset = offsetof(struct disk_options, backing_format)},
    {.name = "backing-folder",
     .type = &option_file,
     .argument = "FOLDER",
     .summary = "where the files may be that the image names as its backing files, besides its own "
                "folder",
     .offset = offsetof(struct disk_options, backing_folder)},
    {.name = "cluster-size",
     .type = &option_size,
     .argument = "SIZE",
     .summary = "create: how much of a qcow2 disk is allocated at once, 512 to 2M; 64K if not "
                "given",
     .offset = offsetof(struct disk_options, cluster_bytes)},
    {.name = "chain",
     .type = &option_flag,
     .summary = "info: the backing files, too",
     .offset = offsetof(struct disk_options, chain)},
    {.name = "repair",
     .type = &option_choice,
     .argument = "WHAT",
     .choices = "leaks|all",
     .summary = "check: give back clusters that nothing uses; with all, set wrong counts, too",
     .offset = offsetof(struct disk_options, repair)},
    {.name = "shrink",
     .type = &option_flag,
     .summary = "resize: let the disk become smaller; what lies beyond its new end is lost",
     .offset = offsetof(struct disk_options, shrink)},
    {.name = NULL},
};

static int parse_bytes(const char *text, uint64_t *bytes, struct error *err)
{
    if (value_parse_size(text, bytes) == 0 && *bytes != 0) {
        return 0;
    }
    error_set(err, ERROR_USAGE, 0, "'%.40s' is no size", text);
    error_hint(err, "bytes, or a number with K, M, G or T: 20G");
    return -ERROR_USAGE;
}

/* Of a running machine. */
static int resize_running(const struct invocation *invocation, struct error *err)
{
    const struct disk_options *options = invocation->settings;
    Polyvisor__DiskResizeRequest resize = POLYVISOR__DISK_RESIZE_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    int status = parse_bytes(invocation->positionals[3], &resize.bytes, err);

    if (status != 0) {
        return status;
    }
    resize.name = (char *)invocation->positionals[1];
    resize.disk = (char *)invocation->positionals[2];
    resize.shrink = options->shrink;
    request.body_case = POLYVISOR__REQUEST__BODY_DISK_RESIZE;
    request.disk_resize = &resize;
    status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    if (invocation->globals->json) {
        status =
            output_json(json_pack("{s:o, s:o, s:I}", "name", output_json_text(resize.name), "disk",
                                  output_json_text(resize.disk), "bytes", (json_int_t)resize.bytes),
                        err);
    } else {
        char size[32];
        value_format_size(resize.bytes, size, sizeof(size));
        output_status(invocation->globals, "%s of %s is %s large", resize.disk, resize.name, size);
    }
    client_free(response);
    return status;
}

static int resize(const struct invocation *invocation, struct error *err)
{
    uint64_t bytes;

    if (invocation->positional_count == 4) {
        return resize_running(invocation, err);
    }
    int status = parse_bytes(invocation->positionals[2], &bytes, err);
    return status ? status : disk_image_resize(invocation, invocation->positionals[1], bytes, err);
}

static int create(const struct invocation *invocation, struct error *err)
{
    return disk_image_create(invocation, invocation->positionals[1], err);
}

static int info(const struct invocation *invocation, struct error *err)
{
    return disk_image_info(invocation, invocation->positionals[1], err);
}

static int check(const struct invocation *invocation, struct error *err)
{
    return disk_image_check(invocation, invocation->positionals[1], err);
}

static const struct command_action actions[] = {
    {"create", "FILE --size SIZE", 1, 1, create},
    {"info", "FILE", 1, 1, info},
    {"resize", "FILE|NAME [DISK] SIZE", 2, 3, resize},
    {"check", "FILE", 1, 1, check},
    {.name = NULL},
};

const struct command command_disk = {
    .name = "disk",
    .summary = "make, look at, resize and check disk images",
    .description =
        "create makes an empty disk image: raw, a file of that size without anything in it, or "
        "qcow2, which grows as it is written and may be laid over a backing file. info shows what "
        "an image is, how much of the host it takes, and with --chain what it is laid over. check "
        "compares what a qcow2 image uses with what it counts: leaked clusters only waste space "
        "(a machine that was killed leaves a few), errors fail with the code 'bad-disk'. No vmmd "
        "is needed; but for info, an image that is in use is refused.\n"
        "What an image is laid over is named in the image, which may come from somebody else: a "
        "backing file outside of the image's own folder is opened only below --backing-folder "
        "(create takes the one that is named).\n"
        "resize FILE changes an image that nobody uses. resize NAME DISK changes one while its "
        "machine runs: the guest is told at once, its partitions and file systems are its own to "
        "make larger. The disks of a machine are disk0, disk1 and so on, in the order of their "
        "--disk. A block device is resized on the host first: SIZE then is what it has.\n"
        "A disk becomes smaller only with --shrink: first make the guest's file systems smaller.\n",
    .options = disk_options,
    .settings_size = sizeof(struct disk_options),
    .positional = POSITIONAL_ACTION,
    .actions = actions,
    .examples = {{"vmctl disk create root.qcow2 --size 20G", "An empty disk that takes no space"},
                 {"vmctl disk create test.qcow2 --backing root.qcow2 --backing-format qcow2",
                  "A disk that begins as root.qcow2 and leaves it alone"},
                 {"vmctl disk info --chain test.qcow2", "What it is, and what lies under it"},
                 {"vmctl disk check --repair leaks root.qcow2", "Find errors, give back leaks"},
                 {"vmctl disk resize build1 disk0 20G", "Make build1's first disk 20 GiB large"}},
};
