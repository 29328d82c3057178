#include "libshared/ipc/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int runtime_format(char path[RUNTIME_PATH_MAX], struct error *err, const char *base,
                          const char *suffix)
{
    int length = snprintf(path, RUNTIME_PATH_MAX, "%s%s", base, suffix);

    if (length < 0 || length >= RUNTIME_PATH_MAX) {
        error_set(err, ERROR_CONFIG, ENAMETOOLONG,
                  "the runtime directory's path has %d characters, the most is %d", length,
                  RUNTIME_PATH_MAX - 1);
        error_hint(err, "set POLYVISOR_RUNTIME_DIR to a shorter path");
        return -ERROR_CONFIG;
    }
    return 0;
}

int runtime_default_directory(char path[RUNTIME_PATH_MAX], struct error *err)
{
    const char *chosen = getenv("POLYVISOR_RUNTIME_DIR");
    const char *session = getenv("XDG_RUNTIME_DIR");
    char suffix[32];

    if (chosen && chosen[0]) {
        if (chosen[0] != '/') {
            error_set(err, ERROR_CONFIG, 0, "POLYVISOR_RUNTIME_DIR is '%s'", chosen);
            error_hint(err, "give an absolute path");
            return -ERROR_CONFIG;
        }
        return runtime_format(path, err, chosen, "");
    }
    if (geteuid() == 0) {
        return runtime_format(path, err, "/run", "/polyvisor");
    }
    if (session && session[0] == '/') {
        return runtime_format(path, err, session, "/polyvisor");
    }
    snprintf(suffix, sizeof(suffix), "/polyvisor-%u", (unsigned)geteuid());
    return runtime_format(path, err, "/tmp", suffix);
}

/* A directory above ours: nobody else may be able to rename what is below it. Root may choose to
 * work below a user's directory; a user must not be lured below another user's. */
static int runtime_check_parent(const char *path, struct error *err)
{
    struct stat status;

    if (stat(path, &status) < 0) {
        return error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_IO, errno,
                         "cannot look at directory '%s': %s", path, strerror(errno));
    }
    if (!S_ISDIR(status.st_mode)) {
        return error_set(err, ERROR_CONFIG, ENOTDIR, "'%s' is not a directory", path);
    }
    if ((status.st_mode & S_IWOTH) && !(status.st_mode & S_ISVTX)) {
        return error_set(err, ERROR_PERMISSION, 0, "directory '%s' is writable by everyone", path);
    }
    if (geteuid() != 0 && status.st_uid != 0 && status.st_uid != geteuid()) {
        return error_set(err, ERROR_PERMISSION, 0, "directory '%s' belongs to user %u", path,
                         (unsigned)status.st_uid);
    }
    return 0;
}

static int runtime_check_own(const char *path, struct error *err)
{
    struct stat status;

    if (lstat(path, &status) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot look at directory '%s': %s", path,
                         strerror(errno));
    }
    if (S_ISLNK(status.st_mode) || !S_ISDIR(status.st_mode)) {
        error_set(err, ERROR_PERMISSION, ENOTDIR, "runtime directory '%s' is %s", path,
                  S_ISLNK(status.st_mode) ? "a symbolic link" : "not a directory");
    } else if (status.st_uid != geteuid()) {
        error_set(err, ERROR_PERMISSION, 0, "runtime directory '%s' belongs to user %u", path,
                  (unsigned)status.st_uid);
    } else if (status.st_mode & 077) {
        error_set(err, ERROR_PERMISSION, 0, "runtime directory '%s' is open to others (mode %o)",
                  path, status.st_mode & 07777u);
        error_hint(err, "chmod 0700 it, or choose another with POLYVISOR_RUNTIME_DIR");
        return -ERROR_PERMISSION;
    } else {
        return 0;
    }
    error_hint(err, "remove it, or choose another with POLYVISOR_RUNTIME_DIR");
    return -ERROR_PERMISSION;
}

int runtime_make_directory(const char *path, struct error *err)
{
    char partial[RUNTIME_PATH_MAX];
    size_t length = strlen(path);

    if (path[0] != '/') {
        return error_set(err, ERROR_CONFIG, EINVAL, "runtime directory '%s' is not absolute", path);
    }
    if (runtime_format(partial, err, path, "")) {
        return -ERROR_CONFIG;
    }
    while (length > 1 && partial[length - 1] == '/') {
        partial[--length] = '\0';
    }
    /* Every component in turn: make it when missing, judge it when not the last. */
    for (size_t i = 1; i <= length; i++) {
        if (i < length && partial[i] != '/') {
            continue;
        }
        partial[i] = '\0';
        if (mkdir(partial, 0700) < 0 && errno != EEXIST) {
            int cause = errno;
            bool refused = cause == EACCES || cause == EPERM || cause == EROFS;
            error_set(err, refused ? ERROR_PERMISSION : ERROR_IO, cause,
                      "cannot make directory '%s': %s", partial, strerror(cause));
            error_hint(err, "choose another with POLYVISOR_RUNTIME_DIR");
            return refused ? -ERROR_PERMISSION : -ERROR_IO;
        }
        int result =
            i < length ? runtime_check_parent(partial, err) : runtime_check_own(partial, err);
        if (result) {
            return result;
        }
        partial[i] = i < length ? '/' : '\0';
    }
    return 0;
}

bool runtime_name_valid(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_.";
    size_t length = strlen(name);

    return length >= 1 && length <= MACHINE_NAME_MAX && name[0] != '.' && name[0] != '-' &&
           strspn(name, allowed) == length;
}
