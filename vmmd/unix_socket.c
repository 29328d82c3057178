#include "vmmd/unix_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int failed(const char *what, const char *path, int cause, struct error *err)
{
    enum error_code code = cause == EACCES || cause == EPERM || cause == EROFS ? ERROR_PERMISSION
                           : cause == ENOENT || cause == ENOTDIR               ? ERROR_CONFIG
                                                                               : ERROR_IO;

    error_set(err, code, cause, "cannot make the %s '%s': %s", what, path, strerror(cause));
    if (code != ERROR_IO) {
        error_hint(err, "choose a path in a folder that is there and may be written to");
    }
    return -(int)code;
}

/* Nobody's socket goes; anything else stays. */
static int clear_path(const char *what, const struct sockaddr_un *address, struct error *err)
{
    struct stat info;

    if (lstat(address->sun_path, &info) < 0) {
        return errno == ENOENT ? 0 : failed(what, address->sun_path, errno, err);
    }
    if (!S_ISSOCK(info.st_mode)) {
        error_set(err, ERROR_CONFIG, EEXIST, "'%s' is there and no socket", address->sun_path);
        error_hint(err, "choose another path for the %s", what);
        return -ERROR_CONFIG;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool heard = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                             errno == EAGAIN);
    if (fd >= 0) {
        close(fd);
    }
    if (heard) {
        error_set(err, ERROR_BUSY, EADDRINUSE, "the %s '%s' belongs to another machine", what,
                  address->sun_path);
        error_hint(err, "each machine needs a path of its own");
        return -ERROR_BUSY;
    }
    return unlink(address->sun_path) < 0 ? failed(what, address->sun_path, errno, err) : 0;
}

int unix_socket_listen(const char *what, const char *path, int backlog, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, path, strlen(path));
    int result = clear_path(what, &address, err);
    if (result) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, backlog) < 0) {
        result = failed(what, path, errno, err);
        if (fd >= 0) {
            close(fd);
        }
        return result;
    }
    return fd;
}
