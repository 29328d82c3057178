/*
 * What the agent does itself, in a process of its own with the streams of a command: files, so that
 * a guest needs no program for them, and the end of the machine.
 */
#include "agent/command.h"
#include "agent/power.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int copy(int from, int to)
{
    static char bytes[64 << 10];
    ssize_t count;

    while ((count = read(from, bytes, sizeof(bytes))) != 0) {
        if (count < 0 && errno != EINTR) {
            return -1;
        }
        for (ssize_t done = 0; done < count;) {
            ssize_t part = write(to, bytes + done, (size_t)(count - done));
            if (part < 0 && errno != EINTR) {
                return -1;
            }
            done += part > 0 ? part : 0;
        }
    }
    return 0;
}

/* The file appears whole, or not at all. */
static int put(const char *path, const char *mode)
{
    size_t length = strlen(path);
    char *beside = malloc(length + 16);
    struct stat info;

    if (!beside) {
        return failed(path);
    }
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        /* A device, or a pipe: what is behind it gets the bytes. */
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        return fd < 0 || copy(STDIN_FILENO, fd) < 0 ? failed(path) : 0;
    }
    snprintf(beside, length + 16, "%s.XXXXXX", path);
    int fd = mkstemp(beside);
    if (fd < 0) {
        return failed(path);
    }
    if (copy(STDIN_FILENO, fd) < 0 || fchmod(fd, (mode_t)strtoul(mode, NULL, 8) & 07777) < 0 ||
        fsync(fd) < 0 || close(fd) < 0 || rename(beside, path) < 0) {
        int status = failed(path);
        unlink(beside);
        return status;
    }
    return 0;
}

static int get(const char *path)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) < 0) {
        return failed(path);
    }
    if (S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        return failed(path);
    }
    return copy(fd, STDOUT_FILENO) < 0 ? failed(path) : 0;
}

/* "folder", "file" or nothing. */
static int kind(const char *path)
{
    struct stat info;

    if (stat(path, &info) == 0) {
        puts(S_ISDIR(info.st_mode) ? "folder" : "file");
    }
    return 0;
}

/* ---- PCI devices that come and go ---- */

static int write_one(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0) {
        return failed(path);
    }
    int result = write(fd, "1", 1) == 1 ? 0 : failed(path);
    close(fd);
    return result;
}

/* A kernel without hotplug sees a new device when it looks for it. */
static int rescan(void)
{
    return write_one("/sys/bus/pci/rescan");
}

/* Its driver lets go of the device at `address` ("0000:00:04.0"). One that is not there has been
 * let go of. */
static int eject(const char *address)
{
    char path[128];

    if (strspn(address, "0123456789abcdef:.") != strlen(address) || strlen(address) > 16 ||
        address[0] == '.') {
        errno = EINVAL;
        return failed(address);
    }
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", address);
    if (access(path, F_OK) < 0) {
        return 0;
    }
    sync(); /* what is mounted loses as little as can be */
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", address);
    return write_one(path);
}

int builtin_run(char *const *arguments)
{
    int result = 2;

    if (!strcmp(arguments[0], "put") && arguments[1] && arguments[2]) {
        result = put(arguments[1], arguments[2]);
    } else if (!strcmp(arguments[0], "get") && arguments[1]) {
        result = get(arguments[1]);
    } else if (!strcmp(arguments[0], "kind") && arguments[1]) {
        result = kind(arguments[1]);
    } else if (!strcmp(arguments[0], "rescan")) {
        result = rescan();
    } else if (!strcmp(arguments[0], "eject") && arguments[1]) {
        result = eject(arguments[1]);
    } else if (!strcmp(arguments[0], "poweroff")) {
        result = power_end(POWER_OFF);
    } else if (!strcmp(arguments[0], "reboot")) {
        result = power_end(POWER_REBOOT);
    } else {
        fprintf(stderr, "this agent does not know '%s'\n", arguments[0]);
    }
    return fflush(stdout) == 0 ? result : failed("output");
}
