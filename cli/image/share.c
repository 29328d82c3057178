#include "cli/image/share.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int share_own_program(char path[PATH_MAX], struct error *err)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);

    if (length < 0) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot read /proc/self/exe: %s",
                         strerror(errno));
    }
    path[length] = '\0';
    return 0;
}

int share_path(const char *name, char path[PATH_MAX], struct error *err)
{
    char own[PATH_MAX];
    int status = share_own_program(own, err);

    if (status != 0) {
        return status;
    }
    *strrchr(own, '/') = '\0';
    int length = snprintf(path, PATH_MAX, "%s/../share/polyvisor/%s", own, name);
    if (length < PATH_MAX && access(path, F_OK) == 0) {
        return 0;
    }
    error_set(err, ERROR_UNSUPPORTED, ENOENT, "share/polyvisor/%s is missing", name);
    error_hint(err, "'make' puts it into share/polyvisor beside the folder of vmctl, and so does "
                    "'make install'");
    return -ERROR_UNSUPPORTED;
}
