/* vmctl run --image and --cloud-init: from an image to the settings of a machine. */
#include "cli/commands/run.h"
#include "cli/image/store.h"
#include "cli/output.h"
#include "libshared/vsock/setting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int out_of_memory(struct error *err)
{
    return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
}

/* The path of a file of ours, allocated. */
static char *scratch_file(const struct run *run, const char *name)
{
    char path[SCRATCH_PATH_MAX + 32];

    snprintf(path, sizeof(path), "%s/%s", run->scratch.path, name);
    return strdup(path);
}

/* Add a disk in the place `at` of the list; it takes `path` over. */
static int insert_disk(struct disk_settings *disks, size_t at, char *path, bool read_only,
                       struct error *err)
{
    struct disk_setting disk = {.path = path, .format = strdup("raw"), .read_only = read_only};

    if (path == NULL || disk.format == NULL || disks->count == MACHINE_DISKS_MAX) {
        free(path);
        free(disk.format);
        return disks->count == MACHINE_DISKS_MAX
                   ? error_set(err, ERROR_CONFIG, 0, "more than %d disks", MACHINE_DISKS_MAX)
                   : out_of_memory(err);
    }
    memmove(&disks->items[at + 1], &disks->items[at], (disks->count - at) * sizeof(disk));
    disks->items[at] = disk;
    disks->count++;
    return 0;
}

/* A kernel of the user's own goes before the image's. */
static int take_boot_files(struct run *run, struct image_file *image, struct error *err)
{
    struct machine_settings *machine = &run->settings->machine;
    int status = 0;

    snprintf(run->append, sizeof(run->append), "%s%s%s", image->command_line,
             machine->append != NULL ? " " : "", machine->append != NULL ? machine->append : "");
    machine->append = run->append;
    if (machine->kernel != NULL || machine->firmware != NULL) {
        return 0;
    }
    machine->kernel = scratch_file(run, "kernel");
    machine->initrd = machine->initrd != NULL ? machine->initrd : scratch_file(run, "initrd");
    if (machine->kernel == NULL || machine->initrd == NULL) {
        return out_of_memory(err);
    }
    status = image_file_extract(image, IMAGE_KERNEL, machine->kernel, err);
    return status == 0 ? image_file_extract(image, IMAGE_INITRD, machine->initrd, err) : status;
}

/* The image itself, or a copy that goes when the machine does. */
static int take_disk(struct run *run, const char *path, struct error *err)
{
    char *disk = run->settings->persistent ? strdup(path) : scratch_file(run, "disk.img");
    int status = disk == NULL                ? out_of_memory(err)
                 : run->settings->persistent ? 0
                                             : scratch_copy(path, disk, err);

    if (status != 0) {
        free(disk);
        return status;
    }
    return insert_disk(&run->settings->machine.disks, 0, disk, false, err);
}

static int check_arch(const struct run *run, const struct image_file *image, const char *path,
                      struct error *err)
{
    const char *arch = image->properties.arch, *wanted = run->settings->machine.arch;

    if (arch[0] != '\0' && strcmp(arch, wanted) != 0) {
        error_set(err, ERROR_CONFIG, 0, "the image '%.150s' is for %s, the machine is %s", path,
                  arch, wanted);
        error_hint(err, "--arch %s", arch);
        return -ERROR_CONFIG;
    }
    return 0;
}

static int use_image(struct run *run, struct error *err)
{
    struct machine_settings *machine = &run->settings->machine;
    char path[PATH_MAX];
    struct image_file image;
    int status = store_resolve(run->settings->image, path, err);

    status = status == 0 ? image_file_open(&image, path, err) : status;
    if (status != 0) {
        return status;
    }
    status = check_arch(run, &image, path, err);
    status = status == 0 ? take_boot_files(run, &image, err) : status;
    image_file_close(&image);
    status = status == 0 ? take_disk(run, path, err) : status;
    if (status == 0 && machine->nets.count == 0 && !machine->nets.none) {
        machine->nets.items[0] = strdup("user");
        machine->nets.count = machine->nets.items[0] != NULL;
    }
    return status;
}

int run_image_prepare(struct run *run, struct error *err)
{
    struct run_settings *settings = run->settings;
    bool has_seed = settings->cloud_init.user_data != NULL;
    int status = 0;

    if (settings->image == NULL && settings->persistent) {
        return error_set(err, ERROR_USAGE, 0, "--persistent needs --image");
    }
    if (settings->image != NULL || has_seed) {
        status = scratch_open(&run->scratch, err);
    }
    if (status == 0 && settings->image != NULL) {
        status = use_image(run, err);
    }
    if (status == 0 && has_seed) {
        char *path = scratch_file(run, "seed.iso");
        status = path == NULL ? out_of_memory(err)
                              : seed_make(&settings->cloud_init, run->name, path, err);
        if (status == 0) {
            status = insert_disk(&settings->machine.disks, settings->machine.disks.count, path,
                                 true, err);
        } else {
            free(path);
        }
    }
    return status;
}

int run_image_add_vsock(struct run *run, struct error *err)
{
    struct machine_settings *machine = &run->settings->machine;
    struct vsock_setting setting = {.cid = VSOCK_CID_DEFAULT};

    if (machine->vsock != NULL) {
        return 0;
    }
    if (snprintf(setting.path, sizeof(setting.path), "%s/vsock", run->vmmd.directory) >=
        (int)sizeof(setting.path)) {
        error_set(err, ERROR_CONFIG, ENAMETOOLONG, "the path of the runtime directory is too long");
        error_hint(err, "choose a shorter one with --runtime-dir");
        return -ERROR_CONFIG;
    }
    machine->vsock = vsock_setting_format(&setting);
    return machine->vsock != NULL ? 0 : out_of_memory(err);
}
