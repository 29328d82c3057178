#include "cli/image/machine_folder.h"

#include "cli/image/scratch.h"
#include "cli/image/store.h"
#include "libshared/ipc/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME     "lock"
#define COMPLETE_NAME "complete"

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

bool machine_folder_exists(const char *path)
{
    char complete[PATH_MAX];
    struct error ignored;

    return file_in(path, COMPLETE_NAME, complete, &ignored) == 0 && access(complete, F_OK) == 0;
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
    return 0;
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
    } else if (done) {
        status = file_in(folder->path, COMPLETE_NAME, path, err);
        int fd = status == 0 ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
        if (status == 0 && fd < 0) {
            status =
                error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", path, strerror(errno));
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    close(folder->lock);
    folder->path[0] = '\0';
    return status;
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
    if (status == 0) {
        scratch_remove_tree(path);
        close(folder.lock);
        if (access(path, F_OK) == 0) {
            status = error_set(err, ERROR_IO, 0, "cannot remove all of '%.200s'", path);
        }
    }
    return status;
}
