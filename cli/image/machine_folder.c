#include "cli/image/machine_folder.h"

#include "cli/image/machine_image.h"
#include "cli/image/scratch.h"
#include "cli/image/store.h"
#include "libshared/disk/image_lock.h"
#include "libshared/ipc/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME "lock"
#define HALF_NAME "half-made" /* is there while a machine is being made */

static int file_in(const char *folder, const char *name, char path[PATH_MAX], struct error *err)
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX
               ? 0
               : error_set(err, ERROR_CONFIG, ENAMETOOLONG, "the path '%.200s' is too long",
                           folder);
}

int machine_folder_path(const char *name, char path[PATH_MAX], struct error *err)
{
    char base[PATH_MAX];

    if (!runtime_name_valid(name)) {
        return error_set(err, ERROR_USAGE, 0, "'%.80s' is not a name for a machine", name);
    }
    int status = store_data_directory("POLYVISOR_MACHINE_DIR", "machines", base, err);
    return status == 0 ? file_in(base, name, path, err) : status;
}

static bool has(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct error ignored;
    struct stat info;

    return file_in(folder, name, path, &ignored) == 0 && lstat(path, &info) == 0;
}

bool machine_folder_exists(const char *path)
{
    return !has(path, HALF_NAME) &&
           (has(path, MACHINE_IMAGE_DISK_COPY) || has(path, MACHINE_IMAGE_SEED));
}

static int lock(struct machine_folder *folder, const char *name, struct error *err)
{
    char path[PATH_MAX];
    int status = file_in(folder->path, LOCK_NAME, path, err);

    if (status != 0) {
        return status;
    }
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (folder->lock < 0) {
        return error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_IO, errno,
                         "cannot make a file in '%.200s': %s", folder->path, strerror(errno));
    }
    if (flock(folder->lock, LOCK_EX | LOCK_NB) < 0) {
        close(folder->lock);
        folder->lock = -1;
        return error_set(err, ERROR_BUSY, EAGAIN, "another command is at the files of machine '%s'",
                         name);
    }
    return 0;
}

static int mark_half_made(const struct machine_folder *folder, struct error *err)
{
    char path[PATH_MAX];
    int status = file_in(folder->path, HALF_NAME, path, err);
    int fd = status == 0 ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (status == 0 && fd < 0) {
        status = error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", path, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

int machine_folder_open(struct machine_folder *folder, const char *name, struct error *err)
{
    char path[PATH_MAX];

    *folder = (struct machine_folder){.lock = -1};
    int status = machine_folder_path(name, path, err);
    status = status == 0 ? store_make_folders(path, 0700, err) : status;
    if (status != 0) {
        return status;
    }
    memcpy(folder->path, path, sizeof(path));
    status = lock(folder, name, err);
    if (status != 0) {
        folder->path[0] = '\0'; /* it is not ours */
        return status;
    }
    folder->complete = machine_folder_exists(folder->path);
    return folder->complete ? 0 : mark_half_made(folder, err);
}

int machine_folder_close(struct machine_folder *folder, bool done, struct error *err)
{
    char path[PATH_MAX];
    int status = 0;

    if (folder->path[0] == '\0') {
        return 0;
    }
    if (!done && !folder->complete) {
        scratch_remove_tree(folder->path);
    } else if (!folder->complete) {
        status = file_in(folder->path, HALF_NAME, path, err);
        if (status == 0 && unlink(path) < 0) {
            status = error_set(err, ERROR_IO, errno, "cannot remove '%.200s': %s", path,
                               strerror(errno));
        }
    }
    close(folder->lock);
    folder->path[0] = '\0';
    return status;
}

/* Whether some machine still has the disk: another vmmd's of the same name, say. */
static int check_unused(const char *folder, struct error *err)
{
    char path[PATH_MAX];
    int status = file_in(folder, MACHINE_IMAGE_DISK_COPY, path, err);
    int fd = status == 0 ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;

    if (fd >= 0) {
        status = image_lock(fd, path, false, err);
        close(fd);
    }
    return status == -ERROR_BUSY ? status : 0;
}

int machine_folder_remove(const char *name, bool *there, struct error *err)
{
    struct machine_folder folder = {.lock = -1};
    char path[PATH_MAX];
    int status = machine_folder_path(name, path, err);

    *there = status == 0 && access(path, F_OK) == 0;
    if (!*there) {
        return status;
    }
    memcpy(folder.path, path, sizeof(path));
    status = lock(&folder, name, err);
    if (status != 0) {
        return status;
    }
    status = check_unused(path, err);
    if (status == 0) {
        scratch_remove_tree(path);
        if (access(path, F_OK) == 0) {
            status = error_set(err, ERROR_IO, 0, "cannot remove all of '%.200s'", path);
        }
    }
    close(folder.lock);
    return status;
}
