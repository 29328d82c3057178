#include "cli/image/machine_image.h"

#include "cli/image/scratch.h"
#include "cli/image/store.h"
#include "cli/output.h"
#include "libshared/disk/image_lock.h"
#include "libshared/qcow2/qcow2.h"
#include "libshared/vsock/setting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is being done, for the steps of machine_image_prepare. */
struct preparation {
    const struct machine_image *setting;
    enum machine_image_disk how;
    const char *folder;
    struct machine_settings *machine;
    char path[PATH_MAX]; /* of the image, without links */
    struct image_file image;
};

static int out_of_memory(struct error *err)
{
    return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
}

static int too_long(const char *folder, struct error *err)
{
    return error_set(err, ERROR_CONFIG, ENAMETOOLONG, "the path '%.200s' is too long", folder);
}

/* `folder`/`name`, allocated. NULL with *err set. */
static char *file_in(const char *folder, const char *name, struct error *err)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path)) {
        too_long(folder, err);
        return NULL;
    }
    char *copy = strdup(path);
    if (copy == NULL) {
        out_of_memory(err);
    }
    return copy;
}

static void release_disk(struct disk_setting *disk)
{
    free(disk->path);
    free(disk->format);
    free(disk->backing);
}

/* Add a disk in the place `at` of the list, which takes its texts over in any case. */
static int insert_disk(struct disk_settings *disks, size_t at, struct disk_setting disk,
                       const char *format, struct error *err)
{
    disk.format = strdup(format);
    if (disk.path == NULL || disk.format == NULL || disks->count == MACHINE_DISKS_MAX) {
        bool full = disks->count == MACHINE_DISKS_MAX;
        release_disk(&disk);
        return full ? error_set(err, ERROR_CONFIG, 0, "more than %d disks", MACHINE_DISKS_MAX)
                    : out_of_memory(err);
    }
    memmove(&disks->items[at + 1], &disks->items[at], (disks->count - at) * sizeof(disk));
    disks->items[at] = disk;
    disks->count++;
    return 0;
}

/* ---- Kernel and initrd ---- */

/* A new file takes the place of an old one, whole or not at all. */
static int extract(struct image_file *image, const char *name, const char *path, struct error *err)
{
    char fresh[PATH_MAX];

    if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh)) {
        return too_long(path, err);
    }
    unlink(fresh);
    int status = image_file_extract(image, name, fresh, err);
    if (status == 0 && rename(fresh, path) < 0) {
        status = error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", path, strerror(errno));
        unlink(fresh);
    }
    return status;
}

/* What the image's kernel is told, and what the user adds. */
static int join_command_line(struct preparation *work, char *append, struct error *err)
{
    const char *added = work->machine->append;

    if (snprintf(append, MACHINE_IMAGE_APPEND_MAX, "%s%s%s", work->image.command_line,
                 added != NULL ? " " : "",
                 added != NULL ? added : "") >= MACHINE_IMAGE_APPEND_MAX) {
        error_set(err, ERROR_CONFIG, 0,
                  "the kernel command line of the image and what is added to it have more than %d "
                  "bytes",
                  MACHINE_IMAGE_APPEND_MAX - 1);
        error_hint(err, "say less with --append");
        return -ERROR_CONFIG;
    }
    work->machine->append = append;
    return 0;
}

/* A kernel of the user's own goes before the image's. */
static int take_boot_files(struct preparation *work, struct error *err)
{
    struct machine_settings *machine = work->machine;

    if (machine->kernel != NULL || machine->firmware != NULL) {
        return 0;
    }
    machine->kernel = file_in(work->folder, MACHINE_IMAGE_KERNEL, err);
    int status = machine->kernel == NULL
                     ? -(int)err->code
                     : extract(&work->image, IMAGE_KERNEL, machine->kernel, err);
    if (status != 0 || machine->initrd != NULL) {
        return status;
    }
    machine->initrd = file_in(work->folder, MACHINE_IMAGE_INITRD, err);
    return machine->initrd == NULL ? -(int)err->code
                                   : extract(&work->image, IMAGE_INITRD, machine->initrd, err);
}

int machine_image_refresh(const char *folder, struct error *err)
{
    static const char *const names[][2] = {{IMAGE_KERNEL, MACHINE_IMAGE_KERNEL},
                                           {IMAGE_INITRD, MACHINE_IMAGE_INITRD}};
    char *disk = file_in(folder, MACHINE_IMAGE_DISK_COPY, err);
    struct image_file image;
    struct error busy = {0};
    int status = disk == NULL ? -(int)err->code : 0;

    if (status == 0 && access(disk, F_OK) == 0 &&
        (status = image_file_open(&image, disk, err)) == 0) {
        bool ours = image_lock(image.fd, disk, true, &busy) == 0;
        for (size_t i = 0; ours && status == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
            char *path = file_in(folder, names[i][1], err);
            status = path == NULL             ? -(int)err->code
                     : access(path, F_OK) < 0 ? 0
                                              : extract(&image, names[i][0], path, err);
            free(path);
        }
        image_file_close(&image);
    }
    free(disk);
    return status;
}

/* ---- The disk ---- */

static int check_size(const struct preparation *work, struct error *err)
{
    uint64_t wanted = work->setting->bytes, bytes = work->image.bytes;

    if (wanted == 0) {
        return 0;
    }
    if (work->setting->persistent) {
        error_set(err, ERROR_USAGE, 0, "--image-size is for machines with a disk of their own");
        error_hint(err, "'vmctl disk resize' makes an image itself larger");
        return -ERROR_USAGE;
    }
    if (wanted < bytes || wanted % QCOW2_SECTOR != 0 || wanted > INT64_MAX) {
        error_set(err, ERROR_CONFIG, 0,
                  "--image-size: the image has %llu bytes; a disk made from it has as many or more",
                  (unsigned long long)bytes);
        error_hint(err, "a multiple of %u bytes, as in 8G", QCOW2_SECTOR);
        return -ERROR_CONFIG;
    }
    return 0;
}

/* An empty qcow2 image laid over the image, whose name is absolute; nothing is copied, and the
 * image is only read. */
static int overlay(const struct preparation *work, struct disk_setting *disk, struct error *err)
{
    const struct qcow2_creation creation = {
        .size = work->setting->bytes != 0 ? work->setting->bytes : work->image.bytes,
        .backing = work->path,
        .backing_format = "raw",
    };
    char *slash = strrchr(work->path, '/');

    disk->path = file_in(work->folder, MACHINE_IMAGE_OVERLAID, err);
    disk->backing = strndup(work->path, slash == work->path ? 1 : (size_t)(slash - work->path));
    if (disk->path == NULL || disk->backing == NULL) {
        return disk->path == NULL ? -(int)err->code : out_of_memory(err);
    }
    int fd = open(disk->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", disk->path,
                         strerror(errno));
    }
    int status = qcow2_create(fd, disk->path, &creation, err);
    close(fd);
    return status;
}

static int copy(const struct preparation *work, struct disk_setting *disk, struct error *err)
{
    struct error busy = {0};

    disk->path = file_in(work->folder, MACHINE_IMAGE_DISK_COPY, err);
    if (disk->path == NULL) {
        return -(int)err->code;
    }
    /* Not while somebody writes to it. */
    if (image_lock(work->image.fd, work->path, true, &busy) == -ERROR_BUSY) {
        *err = busy;
        return -ERROR_BUSY;
    }
    unlink(disk->path);
    int status = scratch_copy(work->path, disk->path, err);
    if (status == 0 && work->setting->bytes != 0 &&
        truncate(disk->path, (off_t)work->setting->bytes) < 0) {
        status = error_set(err, ERROR_IO, errno, "cannot make '%.200s' so large: %s", disk->path,
                           strerror(errno));
    }
    return status;
}

/* A link to the image, so that its kernel can be found again. A file of that name is the image
 * itself, which somebody keeps there. */
static int link_to(const struct preparation *work, struct error *err)
{
    char *link = file_in(work->folder, MACHINE_IMAGE_DISK_COPY, err);
    struct stat info;
    int status = link == NULL ? -(int)err->code : 0;

    if (status == 0 && (lstat(link, &info) < 0 || S_ISLNK(info.st_mode))) {
        unlink(link);
        if (symlink(work->path, link) < 0) {
            status = error_set(err, ERROR_IO, errno, "cannot make a link in '%.200s': %s",
                               work->folder, strerror(errno));
        }
    }
    free(link);
    return status;
}

/* The image itself. */
static int use_itself(const struct preparation *work, struct disk_setting *disk, struct error *err)
{
    disk->path = strdup(work->path);
    if (disk->path == NULL) {
        return out_of_memory(err);
    }
    return work->how == MACHINE_IMAGE_COPY ? link_to(work, err) : 0;
}

static int take_disk(struct preparation *work, struct error *err)
{
    struct disk_setting disk = {0};
    int status = check_size(work, err);

    if (status != 0) {
        return status;
    }
    bool laid_over = !work->setting->persistent && work->how == MACHINE_IMAGE_OVERLAY;
    status = work->setting->persistent ? use_itself(work, &disk, err)
             : laid_over               ? overlay(work, &disk, err)
                                       : copy(work, &disk, err);
    if (status != 0) {
        release_disk(&disk);
        return status;
    }
    return insert_disk(&work->machine->disks, 0, disk, laid_over ? "qcow2" : "raw", err);
}

/* ---- All of it ---- */

static int check_arch(const struct preparation *work, struct error *err)
{
    const char *arch = work->image.properties.arch, *wanted = work->machine->arch;

    if (arch[0] != '\0' && strcmp(arch, wanted) != 0) {
        error_set(err, ERROR_CONFIG, 0, "the image '%.150s' is for %s, the machine is %s",
                  work->path, arch, wanted);
        error_hint(err, "--arch %s", arch);
        return -ERROR_CONFIG;
    }
    return 0;
}

/* Links are followed here, so that the folder of the image is where it is. */
static int find(struct preparation *work, struct error *err)
{
    char named[PATH_MAX];
    int status = store_resolve(work->setting->image, named, err);

    if (status == 0 && realpath(named, work->path) == NULL) {
        status = error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_IO, errno,
                           "cannot find '%.200s': %s", named, strerror(errno));
    }
    return status == 0 ? image_file_open(&work->image, work->path, err) : status;
}

static int use_image(struct preparation *work, char *append, struct image_properties *properties,
                     struct error *err)
{
    struct net_settings *nets = &work->machine->nets;
    int status = find(work, err);

    if (status != 0) {
        return status;
    }
    *properties = work->image.properties;
    status = check_arch(work, err);
    status = status == 0 ? join_command_line(work, append, err) : status;
    status = status == 0 ? take_boot_files(work, err) : status;
    status = status == 0 ? take_disk(work, err) : status;
    image_file_close(&work->image);
    if (status == 0 && nets->count == 0 && !nets->none) {
        nets->items[0] = strdup("user");
        nets->count = nets->items[0] != NULL;
        status = nets->items[0] != NULL ? 0 : out_of_memory(err);
    }
    return status;
}

static int add_seed(struct preparation *work, const char *name, struct error *err)
{
    struct disk_settings *disks = &work->machine->disks;
    struct disk_setting seed = {.path = file_in(work->folder, MACHINE_IMAGE_SEED, err),
                                .read_only = true};

    if (seed.path == NULL) {
        return -(int)err->code;
    }
    unlink(seed.path);
    int status = seed_make(&work->setting->cloud_init, name, seed.path, err);
    if (status != 0) {
        release_disk(&seed);
        return status;
    }
    return insert_disk(disks, disks->count, seed, "raw", err);
}

int machine_image_prepare(const struct machine_image *image, enum machine_image_disk how,
                          const char *folder, const char *name, struct machine_settings *machine,
                          char append[MACHINE_IMAGE_APPEND_MAX],
                          struct image_properties *properties, struct error *err)
{
    struct preparation work = {.setting = image, .how = how, .folder = folder, .machine = machine};
    int status = 0;

    memset(properties, 0, sizeof(*properties));
    if (image->image == NULL && (image->persistent || image->bytes != 0)) {
        return error_set(err, ERROR_USAGE, 0, "%s needs --image",
                         image->persistent ? "--persistent" : "--image-size");
    }
    if (image->image != NULL) {
        status = use_image(&work, append, properties, err);
    }
    if (status == 0 && image->cloud_init.user_data != NULL) {
        status = add_seed(&work, name, err);
    }
    return status;
}

void machine_image_warn_seed(const struct machine_image *image,
                             const struct image_properties *properties,
                             const struct globals *globals)
{
    static const char package[] = "cloud-init";
    const char *at = properties->packages;

    if (image->cloud_init.user_data == NULL || strcmp(properties->distribution, "debian") != 0) {
        return;
    }
    while ((at = strstr(at, package)) != NULL) {
        const char *end = at + sizeof(package) - 1;
        if ((at == properties->packages || at[-1] == ' ') && (*end == ' ' || *end == '\0')) {
            return;
        }
        at = end;
    }
    output_warning(globals,
                   "the image was built without cloud-init, so nobody reads '%s', unless a "
                   "script of yours installed it: 'vmctl image build --packages "
                   "cloud-init' has it",
                   image->cloud_init.user_data);
}

int machine_image_add_vsock(const char *folder, struct machine_settings *machine, struct error *err)
{
    struct vsock_setting setting = {.cid = VSOCK_CID_DEFAULT};

    if (machine->vsock != NULL) {
        return 0;
    }
    if (snprintf(setting.path, sizeof(setting.path), "%s/vsock", folder) >=
        (int)sizeof(setting.path)) {
        error_set(err, ERROR_CONFIG, ENAMETOOLONG,
                  "the path '%.150s/vsock' is too long for a socket", folder);
        error_hint(err, "say where it is to be: --vsock path=FILE");
        return -ERROR_CONFIG;
    }
    machine->vsock = vsock_setting_format(&setting);
    return machine->vsock != NULL ? 0 : out_of_memory(err);
}
