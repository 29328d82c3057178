#include "vmmd/vsock.h"

#include "libshared/vsock/setting.h"
#include "vmmd/unix_socket.h"
#include <stdio.h>
#include <string.h>
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

int vsock_listen(const char *text, struct error *err)
{
    struct vsock_setting setting;
    int result = vsock_setting_parse(text, ERROR_CONFIG, &setting, err);

    return result ? result : unix_socket_listen("vsock", setting.path, VSOCK_WAITING, err);
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
