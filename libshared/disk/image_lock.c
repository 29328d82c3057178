#include "libshared/disk/image_lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One byte for each use from here on, in this order, and one for each that is not suffered. */
#define LOCK_USED     100
#define LOCK_UNSHARED 200

enum lock_use { USE_READ = 1, USE_WRITE = 2, USE_WRITE_UNCHANGED = 4, USE_RESIZE = 8 };
#define USES 4

static int lock_byte(int fd, off_t at)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* 1 when somebody else holds it, in *pid who if the kernel knows; 0; or negative errno. */
static int byte_is_locked(int fd, off_t at, pid_t *pid)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) {
        return -errno;
    }
    *pid = lock.l_pid;
    return lock.l_type != F_UNLCK;
}

static int take_bytes(int fd, off_t base, unsigned uses)
{
    int result = 0;

    for (int i = 0; i < USES && !result; i++) {
        result = uses & (1u << i) ? lock_byte(fd, base + i) : 0;
    }
    return result;
}

static int look_for_bytes(int fd, off_t base, unsigned uses, pid_t *pid)
{
    int result = 0;

    for (int i = 0; i < USES && !result; i++) {
        result = uses & (1u << i) ? byte_is_locked(fd, base + i, pid) : 0;
    }
    return result;
}

/* ---- Who it is ---- */

static bool read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

    if (fd >= 0) {
        close(fd);
    }
    text[length > 0 ? length : 0] = '\0';
    for (ssize_t i = 0; i < length; i++) {
        text[i] = text[i] == '\0' ? ' ' : text[i];
        text[i] = isprint((unsigned char)text[i]) ? text[i] : '\0';
    }
    return length > 0;
}

static bool process_has_open(const char *pid, const struct stat *image)
{
    char path[64];
    struct dirent *entry;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *directory = opendir(path);
    if (!directory) {
        return false; /* it has ended, or is somebody else's */
    }
    while (!found && (entry = readdir(directory))) {
        struct stat status;
        found = entry->d_name[0] != '.' &&
                fstatat(dirfd(directory), entry->d_name, &status, 0) == 0 &&
                status.st_dev == image->st_dev && status.st_ino == image->st_ino;
    }
    closedir(directory);
    return found;
}

/* A device process says in its arguments whose it is: the folder of its control socket is named
 * after the machine. False when it is no device. */
static bool describe_device(const char *pid, char *text, size_t size)
{
    char path[64], arguments[512], machine[80], disk[32];
    const char *control, *id;

    snprintf(path, sizeof(path), "/proc/%.16s/cmdline", pid);
    if (!read_text(path, arguments, sizeof(arguments)) ||
        !(control = strstr(arguments, " --control ")) || !(id = strstr(arguments, " --id ")) ||
        sscanf(id, " --id %31s", disk) != 1) {
        return false;
    }
    control += strlen(" --control ");
    size_t length = strcspn(control, " ");
    while (length && control[length - 1] != '/') {
        length--;
    }
    size_t end = length ? length - 1 : 0, begin = end;
    while (begin && control[begin - 1] != '/') {
        begin--;
    }
    snprintf(machine, sizeof(machine), "%.*s", (int)(end - begin), control + begin);
    snprintf(text, size, "%s of machine '%s' (pid %.16s)", disk, machine, pid);
    return true;
}

/* Somebody who has the file open, most likely the one who locked it; "" when that cannot be seen.
 */
static void describe_holder(int fd, pid_t pid, char *text, size_t size)
{
    struct stat image;
    struct dirent *entry;
    DIR *directory = fstat(fd, &image) == 0 ? opendir("/proc") : NULL;
    bool device = false;

    text[0] = '\0';
    while (directory && !device && (entry = readdir(directory))) {
        char path[64], name[32];
        if (!isdigit((unsigned char)entry->d_name[0]) || atol(entry->d_name) == (long)getpid() ||
            (pid > 0 && atol(entry->d_name) != (long)pid) ||
            !process_has_open(entry->d_name, &image)) {
            continue;
        }
        device = describe_device(entry->d_name, text, size);
        snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
        if (!device && read_text(path, name, sizeof(name))) {
            snprintf(text, size, "%s (pid %.16s)", name, entry->d_name);
        }
    }
    if (directory) {
        closedir(directory);
    }
}

static int report_busy(int fd, const char *path, bool read_only, pid_t pid, struct error *err)
{
    char holder[160];

    describe_holder(fd, pid, holder, sizeof(holder));
    error_set(err, ERROR_BUSY, EAGAIN, "disk '%s' is in use by %s", path,
              holder[0] ? holder : "another disk or process");
    error_hint(err, read_only ? "stop its user first"
                              : "stop its user first, or share it read-only on both sides");
    return -ERROR_BUSY;
}

int image_lock(int fd, const char *path, bool read_only, struct error *err)
{
    unsigned uses = read_only ? USE_READ : USE_READ | USE_WRITE | USE_RESIZE;
    unsigned unshared = USE_WRITE | USE_RESIZE;
    pid_t pid = 0;

    /* First take, then look: of two at the same time at least one sees the other. */
    int result = take_bytes(fd, LOCK_USED, uses);
    result = result ? result : take_bytes(fd, LOCK_UNSHARED, unshared);
    result = result ? result : look_for_bytes(fd, LOCK_USED, unshared, &pid);
    result = result ? result : look_for_bytes(fd, LOCK_UNSHARED, uses, &pid);
    if (result == 1 || result == -EAGAIN || result == -EACCES) {
        return report_busy(fd, path, read_only, pid, err);
    }
    return result < 0 ? error_set(err, ERROR_IO, -result, "cannot lock disk '%s': %s", path,
                                  strerror(-result))
                      : 0;
}

void image_unlock(int fd)
{
    const off_t bases[] = {LOCK_USED, LOCK_UNSHARED};

    for (size_t i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
        struct flock lock = {
            .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = bases[i], .l_len = USES};
        fcntl(fd, F_OFD_SETLK, &lock);
    }
}
