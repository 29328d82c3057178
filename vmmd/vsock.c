#include "vmmd/vsock.h"

#include "libshared/vsock/setting.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define VSOCK_WAITING 64 /* connections that the device has not accepted yet */

int vsock_check(const char *text, struct error *err)
{
    struct vsock_setting setting;
    int result = vsock_setting_parse(text, ERROR_CONFIG, &setting, err);

    if (result == 0 && setting.path[0] != '/') {
        result = error_set(err, ERROR_CONFIG, 0, "the path of the vsock '%s' is not absolute",
                           setting.path);
    }
    return result;
}

static int failed(const char *path, int cause, struct error *err)
{
    enum error_code code = cause == EACCES || cause == EPERM || cause == EROFS ? ERROR_PERMISSION
                           : cause == ENOENT || cause == ENOTDIR               ? ERROR_CONFIG
                                                                               : ERROR_IO;

    error_set(err, code, cause, "cannot make the vsock '%s': %s", path, strerror(cause));
    if (code != ERROR_IO) {
        error_hint(err, "choose a path in a folder that is there and may be written to");
    }
    return -(int)code;
}

/* Nobody's socket goes; anything else stays. */
static int clear_path(const struct sockaddr_un *address, struct error *err)
{
    struct stat info;

    if (lstat(address->sun_path, &info) < 0) {
        return errno == ENOENT ? 0 : failed(address->sun_path, errno, err);
    }
    if (!S_ISSOCK(info.st_mode)) {
        error_set(err, ERROR_CONFIG, EEXIST, "'%s' is there and no socket", address->sun_path);
        error_hint(err, "choose another path for the vsock");
        return -ERROR_CONFIG;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool heard = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                             errno == EAGAIN);
    if (fd >= 0) {
        close(fd);
    }
    if (heard) {
        error_set(err, ERROR_BUSY, EADDRINUSE, "the vsock '%s' belongs to another machine",
                  address->sun_path);
        error_hint(err, "each machine needs a path of its own");
        return -ERROR_BUSY;
    }
    return unlink(address->sun_path) < 0 ? failed(address->sun_path, errno, err) : 0;
}

int vsock_listen(const char *text, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct vsock_setting setting;
    int result = vsock_setting_parse(text, ERROR_CONFIG, &setting, err);

    if (result) {
        return result;
    }
    memcpy(address.sun_path, setting.path, strlen(setting.path));
    result = clear_path(&address, err);
    if (result) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, VSOCK_WAITING) < 0) {
        result = failed(setting.path, errno, err);
        if (fd >= 0) {
            close(fd);
        }
        return result;
    }
    return fd;
}

bool vsock_folder(const char *text, char *folder, size_t size)
{
    struct vsock_setting setting;

    if (vsock_setting_parse(text, ERROR_CONFIG, &setting, NULL) < 0) {
        return false;
    }
    const char *end = strrchr(setting.path, '/');
    int length = end > setting.path ? (int)(end - setting.path) : 1;
    snprintf(folder, size, "%.*s", length, setting.path);
    return true;
}

void vsock_close(const char *text, int fd)
{
    struct vsock_setting setting;

    if (fd >= 0) {
        close(fd);
        if (vsock_setting_parse(text, ERROR_CONFIG, &setting, NULL) == 0) {
            unlink(setting.path);
        }
    }
}
